"""A directory for one server at a time."""

import fcntl
import os
from pathlib import Path

from liftbridge.errors import StorageError


class HeldDirectory:
    """Held from ``hold`` until ``let_go`` or the end of the process, however it ends. For one thread at a time."""

    def __init__(self, path: Path, *, lock_name: str = "lock") -> None:
        self.path = path
        self._lock_name = lock_name
        self._descriptor: int | None = None

    def hold(self) -> bool:
        """Creates the directory if need be; its name in its parent survives a loss of power. Whether it wasn't held before.
        Raises StorageError when another process holds it, and OSError."""
        if self._descriptor is not None:
            return False
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path / self._lock_name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            sync_directory(self.path)
            sync_directory(self.path.parent)
        except BlockingIOError as error:
            os.close(descriptor)
            raise StorageError(
                f"{self.path} is in use by another server; give each server a data directory of its own"
            ) from error
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def let_go(self) -> None:
        """Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def sync_directory(path: Path) -> None:
    """The names in it survive a loss of power once this returns. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
