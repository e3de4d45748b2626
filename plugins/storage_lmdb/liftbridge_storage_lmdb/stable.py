"""The stable store: one LMDB environment with every sync on."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import lmdb

from liftbridge.errors import DiskFull, StorageError
from liftbridge.interfaces.stable import StableStore


class LmdbStableStore(StableStore):
    """See :class:`liftbridge.interfaces.stable.StableStore`. Opens at the first use."""

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._environment: lmdb.Environment | None = None

    def get(self, key: bytes) -> bytes | None:
        with self._open().begin() as transaction:
            value = transaction.get(key)
            return None if value is None else bytes(value)

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        with self._open().begin() as transaction, transaction.cursor() as cursor:
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
        try:
            with self._open().begin(write=True) as transaction:
                for key in deletes:
                    transaction.delete(key)
                if delete_range is not None:
                    _delete_range(transaction, *delete_range)
                for key, value in puts.items():
                    transaction.put(key, value)
        except lmdb.MapFullError as error:
            raise DiskFull(
                f"{self._directory} is full: raise storage.lmdb.stable.max.size ({self._max_bytes} bytes)"
            ) from error
        except lmdb.Error as error:
            raise StorageError(f"{self._directory}: write: {error}") from error

    def close(self) -> None:
        if self._environment is not None:
            self._environment.close()
            self._environment = None

    def _open(self) -> lmdb.Environment:
        if self._environment is None:
            try:
                self._environment = lmdb.open(str(self._directory), map_size=self._max_bytes, readahead=False)
            except lmdb.Error as error:
                raise StorageError(f"{self._directory}: can't be opened: {error}") from error
        return self._environment


def _delete_range(transaction: lmdb.Transaction, start: bytes, stop: bytes) -> None:
    with transaction.cursor() as cursor:
        more = cursor.set_range(start)
        while more and bytes(cursor.key()) < stop:
            more = cursor.delete()
