"""A stable store in memory."""

import threading
from collections.abc import Iterator, Mapping, Sequence

from liftbridge.interfaces.stable import StableStore


class MemoryStableStore(StableStore):
    """See :class:`liftbridge.interfaces.stable.StableStore`. ``contents`` stands for the disk: hand the same one to the
    next store to open it again."""

    def __init__(self, contents: dict[bytes, bytes] | None = None) -> None:
        self.contents = {} if contents is None else contents
        self._lock = threading.Lock()

    def get(self, key: bytes) -> bytes | None:
        with self._lock:
            return self.contents.get(key)

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        with self._lock:
            return iter(sorted((key, value) for key, value in self.contents.items() if start <= key < stop))

    def write(
        self,
        puts: Mapping[bytes, bytes],
        *,
        deletes: Sequence[bytes] = (),
        delete_range: tuple[bytes, bytes] | None = None,
    ) -> None:
        with self._lock:
            doomed = set(deletes)
            if delete_range is not None:
                start, stop = delete_range
                doomed |= {key for key in self.contents if start <= key < stop}
            for key in doomed:
                self.contents.pop(key, None)
            self.contents.update(puts)

    def close(self) -> None:
        """Nothing is held."""
