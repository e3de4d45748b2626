"""The stable store: one LMDB environment with every sync on."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import lmdb

from liftbridge.errors import DiskFull, StorageError
from liftbridge.held_directory import HeldDirectory, sync_directory
from liftbridge.interfaces.stable import StableStore


class LmdbStableStore(StableStore):
    """See :class:`liftbridge.interfaces.stable.StableStore`. Opens at the first use."""

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._environment: lmdb.Environment | None = None
        #: LMDB would let several processes in; a vote must not be written by two.
        self._held = HeldDirectory(directory, lock_name="holder.lock")

    def get(self, key: bytes) -> bytes | None:
        environment = self._open()
        with self._storage_errors("read"), environment.begin() as transaction:
            value = transaction.get(key)
            return None if value is None else bytes(value)

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        environment = self._open()
        with self._storage_errors("read"), environment.begin() as transaction, transaction.cursor() as cursor:
            pairs = []
            more = cursor.set_range(start)
            while more and bytes(cursor.key()) < stop:
                pairs.append((bytes(cursor.key()), bytes(cursor.value())))
                more = cursor.next()
        return iter(pairs)

    def write(
        self,
        puts: Mapping[bytes, bytes],
        *,
        deletes: Sequence[bytes] = (),
        delete_range: tuple[bytes, bytes] | None = None,
    ) -> None:
        environment = self._open()
        with self._storage_errors("written"), environment.begin(write=True) as transaction:
            for key in deletes:
                transaction.delete(key)
            if delete_range is not None:
                _delete_range(transaction, *delete_range)
            for key, value in puts.items():
                transaction.put(key, value)

    def close(self) -> None:
        with self._lock:
            if self._environment is not None:
                self._environment.close()
                self._environment = None
            self._held.let_go()

    def _open(self) -> lmdb.Environment:
        with self._lock:
            if self._environment is None:
                with self._storage_errors("opened"):
                    self._held.hold()
                    self._environment = self._open_environment()
                    sync_directory(self._directory)  # LMDB makes its files' content durable, but not their names
            return self._environment

    def _open_environment(self) -> lmdb.Environment:
        environment = lmdb.open(str(self._directory), map_size=self._max_bytes, readahead=False)
        used_bytes = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        missing_bytes = used_bytes - (self._directory / "data.mdb").stat().st_size
        if missing_bytes > 0:  # touching them would end the process by a signal
            environment.close()
            raise StorageError(f"{self._directory} is damaged: {missing_bytes} of its {used_bytes} bytes are missing")
        return environment

    @contextmanager
    def _storage_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except lmdb.MapFullError as error:
            raise DiskFull(
                f"{self._directory} is full: raise storage.lmdb.stable.max.size ({self._max_bytes} bytes)"
            ) from error
        except (lmdb.Error, OSError) as error:
            said = str(error).removeprefix(f"{self._directory}: ")
            raise StorageError(f"the stable store {self._directory} can't be {what}: {said}") from error


def _delete_range(transaction: lmdb.Transaction, start: bytes, stop: bytes) -> None:
    with transaction.cursor() as cursor:
        more = cursor.set_range(start)
        while more and bytes(cursor.key()) < stop:
            more = cursor.delete()
