"""The seam of the stable store: small values that must survive anything, like a Raft term and vote."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence


class StableStore(ABC):
    """An ordered map of bytes to bytes. Blocks on the disk; safe to call from any thread.

    It may open at the first use. Any method but ``close`` raises :class:`~liftbridge.errors.StorageError` when the store is
    damaged, another process holds it, or the disk refuses.
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
        """Applies everything atomically, deletes first, and returns only when it is durable. ``delete_range`` is
        ``start <= key < stop``. After a StorageError (:class:`~liftbridge.errors.DiskFull` for want of room) nothing was
        applied."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of the store, so that another process may open it. Idempotent; nothing is called afterwards."""
