"""The seam of the stable store: small values that must survive anything, like a Raft term and vote."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence


class StableStore(ABC):
    """An ordered map of bytes to bytes. Blocks on the disk; safe to call from any thread.

    Opening raises :class:`~liftbridge.errors.StorageError` when the store is damaged or another process holds it.
    """

    @abstractmethod
    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""

    @abstractmethod
    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with ``start <= key < stop`` in key order, as of the call."""

    @abstractmethod
    def write(
        self,
        puts: Mapping[bytes, bytes],
        *,
        deletes: Sequence[bytes] = (),
        delete_range: tuple[bytes, bytes] | None = None,
    ) -> None:
        """Applies everything atomically, deletes first, and returns only when it is durable."""

    @abstractmethod
    def close(self) -> None:
        """Idempotent."""
