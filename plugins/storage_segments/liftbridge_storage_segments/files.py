"""The only place that touches the file system, so that tests can make any single operation fail."""

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from liftbridge.errors import DiskFull, StorageError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turns the operating system's errors into ours; ``what`` says what was being done, to which file."""
    try:
        yield
    except OSError as error:
        raise storage_error(what, error) from error


def storage_error(what: str, error: OSError) -> StorageError:
    """Our error for the operating system's."""
    kind = DiskFull if error.errno in _NO_ROOM else StorageError
    return kind(f"{what}: {error.strerror or error}")


class OpenFile:
    """A file descriptor that closes when nobody holds it any more, so a reader in another thread never meets a
    descriptor that was closed (or reused) under its hands."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


class Files:
    """File operations, with a bounded set of open files. Safe to use from any thread."""

    def __init__(self, open_files: int = 256) -> None:
        self._limit = open_files
        self._open: OrderedDict[Path, OpenFile] = OrderedDict()
        #: Held where a path gets another file, so that no thread remembers the old one under it.
        self._lock = threading.Lock()

    def open(self, path: Path) -> OpenFile:
        """The open file of an existing path. Hold the result while using its descriptor."""
        file = self._open.get(path)
        if file is None:
            with self._lock:
                file = self._open[path] = OpenFile(os.open(path, os.O_RDWR | os.O_CLOEXEC))
                while len(self._open) > self._limit:
                    self._open.popitem(last=False)
        else:
            try:  # noqa: SIM105  (suppress costs more than the rest of this)
                self._open.move_to_end(path)
            except KeyError:
                pass  # another thread dropped it just now; this reference keeps it usable
        return file

    def forget(self, path: Path) -> None:
        """The path is going away or changes its meaning."""
        self._open.pop(path, None)

    def create(self, path: Path) -> None:
        """An empty file that survives a loss of power. One that is there already, from an attempt that failed, must be
        empty."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if os.fstat(descriptor).st_size:
                raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        finally:
            os.close(descriptor)
        self.forget(path)
        self.sync_directory(path.parent)

    def write(self, path: Path, data: bytes, position: int) -> None:
        """Writes all of ``data``; a short write goes on where it stopped."""
        file = self.open(path)
        written = os.pwrite(file.descriptor, data, position)
        while written < len(data):
            more = os.pwrite(file.descriptor, memoryview(data)[written:], position + written)
            if more == 0:
                raise OSError(errno.ENOSPC, "short write")
            written += more

    def read(self, path: Path, size: int, position: int) -> bytes:
        """Up to ``size`` bytes; fewer only at the end of the file."""
        file = self.open(path)
        return os.pread(file.descriptor, size, position)

    def size(self, path: Path) -> int:
        return os.stat(path).st_size

    def sync(self, path: Path) -> None:
        """Data and length survive a loss of power once this returns."""
        file = self.open(path)
        os.fdatasync(file.descriptor)

    def truncate(self, path: Path, size: int) -> None:
        file = self.open(path)
        os.ftruncate(file.descriptor, size)

    def replace(self, path: Path, data: bytes) -> None:
        """Writes a small file whole: after a crash there is the old content or the new, never a mixture."""
        temporary = path.with_name(path.name + ".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, "short write")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.rename(temporary, path)

    def rename(self, source: Path, target: Path) -> None:
        """Durably."""
        with self._lock:
            os.rename(source, target)
            self.forget(source)
            self.forget(target)
        self.sync_directory(target.parent)

    def remove(self, path: Path) -> None:
        """A file that may be gone already."""
        with self._lock:
            with suppress(FileNotFoundError):
                os.unlink(path)
            self.forget(path)

    def remove_directory(self, path: Path) -> None:
        """An empty one."""
        os.rmdir(path)

    def create_directory(self, path: Path) -> None:
        """A new one that survives a loss of power."""
        os.mkdir(path)
        self.sync_directory(path.parent)

    def sync_directory(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        self._open.clear()
