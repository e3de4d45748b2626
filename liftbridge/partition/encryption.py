"""Encryption at rest, between a partition and its log, whatever storage keeps that.

A batch is encrypted whole: keys, headers, subjects and values. Its header stays as it is, so that storage finds batches,
checks them, cuts torn tails, and keeps retention without a key. The encrypted body::

    1 byte version | 8 bytes ID of the master key | 40 bytes data key, wrapped with the master key (RFC 3394)
    | 12 bytes nonce | 8 bytes end offset | 4 bytes record count | AES-256-GCM of the clear body, with its tag

Bound to it, so that it counts nowhere else: the stream's ID, the partition, and the header's fields as they were when it
was written. ``end offset`` may be above the header's: then a truncation cut the batch, and the rest is not shown.

A data key is made when a log opens, and again after as many bytes as a segment has; its nonces count up. So no nonce is used
twice with a key, neither after a crash nor after a truncation.
"""

import secrets
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from liftbridge.errors import KeyMissing, LogDamaged, ProtocolError, StorageError
from liftbridge.interfaces.keys import KEY_ID_BYTES, KeyRing, key_id
from liftbridge.interfaces.log import CompactionReport, Compactor, EpochStart, LogId, PartitionLog, RetentionLimits
from liftbridge.interfaces.records import RecordBatch
from liftbridge.protocol.record_batch import (
    ATTRIBUTE_ENCRYPTED,
    ATTRIBUTES_POSITION,
    HEADER_BYTES,
    cut_batch,
    encode_batch,
    iter_batches,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_VERSION = 1
_DATA_KEY_BYTES = 32
_WRAPPED_BYTES = 40
_NONCE_BYTES = 12
_PREFIX = struct.Struct(f">B{KEY_ID_BYTES}s{_WRAPPED_BYTES}s{_NONCE_BYTES}sQI")
#: Stream ID, partition, base offset, leader epoch, timestamp; the prefix has the rest.
_BOUND = struct.Struct(">QIQQQ")
_REMEMBERED_KEYS = 64


class BatchCipher:
    """For the batches of one log. Decrypting is safe from any thread, encrypting is for one at a time."""

    def __init__(self, keys: KeyRing, log_id: LogId, key_bytes: int) -> None:
        self._keys = keys
        self._log_id = log_id
        self._key_bytes = key_bytes
        self._opened: dict[bytes, AESGCM] = {}
        self._bytes_left = 0
        self._batches = 0
        self._wrapped = b""
        self._cipher: AESGCM | None = None

    def encrypt(self, batch: RecordBatch) -> RecordBatch:
        """The same batch, its body encrypted."""
        body = batch.data[HEADER_BYTES:]
        cipher = self._writing_cipher(len(body))
        self._batches += 1
        nonce = self._batches.to_bytes(_NONCE_BYTES, "big")
        prefix = _PREFIX.pack(
            _VERSION, key_id(self._keys.current), self._wrapped, nonce, batch.end_offset, batch.record_count
        )
        sealed = cipher.encrypt(nonce, body, self._bound(batch) + prefix)
        return _with_body(batch, prefix + sealed, batch.data[ATTRIBUTES_POSITION] | ATTRIBUTE_ENCRYPTED)

    def decrypt(self, batch: RecordBatch) -> RecordBatch:
        """The batch as it was before ``encrypt``, or as a truncation left it; one that isn't encrypted as it is. Raises
        KeyMissing, and LogDamaged for what was written elsewhere or changed since."""
        attributes = batch.data[ATTRIBUTES_POSITION]
        if not attributes & ATTRIBUTE_ENCRYPTED:
            return batch
        from cryptography.exceptions import InvalidTag

        prefix, sealed = (
            batch.data[HEADER_BYTES : HEADER_BYTES + _PREFIX.size],
            batch.data[HEADER_BYTES + _PREFIX.size :],
        )
        if len(prefix) < _PREFIX.size or prefix[0] != _VERSION:
            raise LogDamaged(f"{self._name(batch)} is encrypted in a way that this version doesn't know")
        _, master_id, wrapped, nonce, end_offset, record_count = _PREFIX.unpack(prefix)
        cipher = self._opened.get(wrapped) or self._open(master_id, wrapped, batch)
        try:
            body = cipher.decrypt(nonce, sealed, self._bound(batch) + prefix)
        except InvalidTag:
            raise LogDamaged(
                f"{self._name(batch)} was changed since it was encrypted, or belongs to another partition"
            ) from None
        whole = replace(batch, end_offset=end_offset, record_count=record_count)
        clear = _with_body(whole, body, attributes & ~ATTRIBUTE_ENCRYPTED)
        return clear if batch.end_offset >= end_offset else cut_batch(clear, batch.end_offset)

    def _writing_cipher(self, size: int) -> "AESGCM":
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.keywrap import aes_key_wrap

        if self._cipher is None or self._bytes_left <= 0:
            key = secrets.token_bytes(_DATA_KEY_BYTES)
            self._wrapped = aes_key_wrap(self._keys.current, key)
            self._cipher = AESGCM(key)
            self._remember(self._wrapped, self._cipher)
            self._bytes_left, self._batches = self._key_bytes, 0
        self._bytes_left -= size
        return self._cipher

    def _open(self, master_id: bytes, wrapped: bytes, batch: RecordBatch) -> "AESGCM":
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

        master = self._keys.find(master_id)
        if master is None:
            raise KeyMissing(
                f"{self._name(batch)} is encrypted with the key {master_id.hex()}, which this server doesn't have: add it "
                f"to encryption.keys ({self._keys!r} is what there is) and restart the server"
            )
        try:
            cipher = AESGCM(aes_key_unwrap(master, wrapped))
        except InvalidUnwrap:
            raise LogDamaged(f"{self._name(batch)}: its data key was changed since it was wrapped") from None
        self._remember(wrapped, cipher)
        return cipher

    def _remember(self, wrapped: bytes, cipher: "AESGCM") -> None:
        opened = dict(list(self._opened.items())[-_REMEMBERED_KEYS:])
        self._opened = {**opened, wrapped: cipher}

    def _bound(self, batch: RecordBatch) -> bytes:
        return _BOUND.pack(*self._log_id, batch.base_offset, batch.leader_epoch, batch.timestamp_ns)

    def _name(self, batch: RecordBatch) -> str:
        return f"the batch at offset {batch.base_offset} of stream {self._log_id.stream_id}, partition {self._log_id.partition}"


def _with_body(batch: RecordBatch, body: bytes, attributes: int) -> RecordBatch:
    return encode_batch(
        body,
        base_offset=batch.base_offset,
        end_offset=batch.end_offset,
        record_count=batch.record_count,
        leader_epoch=batch.leader_epoch,
        timestamp_ns=batch.timestamp_ns,
        attributes=attributes,
    )


def encrypted(log: PartitionLog, keys: KeyRing | None, log_id: LogId, *, key_bytes: int) -> "EncryptedLog":
    """``log`` with encryption. Closes it and raises KeyMissing when it can't be read with these keys; a data key is for about
    ``key_bytes``."""
    try:
        if keys is None:
            raise KeyMissing(
                "its stream is encrypted, and this server has no key: say with encryption.keys where the keys are, and "
                "restart the server"
            )
        return EncryptedLog(log, keys, log_id, key_bytes=key_bytes)
    except StorageError:
        log.close()
        raise


class EncryptedLog(PartitionLog):
    """A log whose storage sees encrypted batches only. Everything but the bodies is the storage's own, and so are its rules
    for threads and errors."""

    def __init__(self, log: PartitionLog, keys: KeyRing, log_id: LogId, *, key_bytes: int) -> None:
        """Raises KeyMissing when what is in the log can't be read with these keys."""
        self._log = log
        self._keys = keys
        self._log_id = log_id
        self._key_bytes = key_bytes
        self._cipher = BatchCipher(keys, log_id, key_bytes)
        self._check_keys()

    def _check_keys(self) -> None:
        """The first and the last batch stand for the others: keys come and go one at a time."""
        start, end = self._log.start_offset, self._log.end_offset
        for offset in {start, end - 1} if end > start else ():
            for batch in iter_batches(self._log.read(offset, stop=end, max_bytes=1)):
                self._cipher.decrypt(batch)

    @property
    def start_offset(self) -> int:
        return self._log.start_offset

    @property
    def end_offset(self) -> int:
        return self._log.end_offset

    @property
    def size_bytes(self) -> int:
        return self._log.size_bytes

    @property
    def last_timestamp_ns(self) -> int:
        return self._log.last_timestamp_ns

    @property
    def epochs(self) -> Sequence[EpochStart]:
        return self._log.epochs

    @property
    def can_compact(self) -> bool:
        return self._log.can_compact

    def append(self, batches: Sequence[RecordBatch], *, after_gap: bool = False) -> None:
        self._log.append([self._cipher.encrypt(batch) for batch in batches], after_gap=after_gap)

    def check_room(self, size_bytes: int) -> None:
        self._log.check_room(size_bytes)

    def read(self, offset: int, *, stop: int, max_bytes: int) -> bytes:
        """Clear batches, with checksums of their own. Raises KeyMissing, besides."""
        data = self._log.read(offset, stop=stop, max_bytes=max_bytes)
        try:
            return b"".join(self._cipher.decrypt(batch).data for batch in iter_batches(data))
        except ProtocolError as error:
            raise LogDamaged(f"stream {self._log_id.stream_id}, partition {self._log_id.partition}: {error}") from error

    def offset_for_time(self, timestamp_ns: int) -> int | None:
        return self._log.offset_for_time(timestamp_ns)

    def sync(self) -> int:
        return self._log.sync()

    def checkpoint(self) -> None:
        self._log.checkpoint()

    def truncate(self, end_offset: int) -> None:
        self._log.truncate(end_offset)

    def roll_if_due(self, now_ns: int) -> bool:
        return self._log.roll_if_due(now_ns)

    def apply_retention(self, limits: RetentionLimits, now_ns: int) -> int:
        return self._log.apply_retention(limits, now_ns)

    def compact(
        self, compactor: Compactor, *, min_dirty_percent: int, force: bool = False, between: Callable[[], None]
    ) -> CompactionReport | None:
        """In a thread of its own, so with a data key of its own."""
        decrypting = _DecryptingCompactor(compactor, BatchCipher(self._keys, self._log_id, self._key_bytes))
        return self._log.compact(decrypting, min_dirty_percent=min_dirty_percent, force=force, between=between)

    def close(self) -> None:
        self._log.close()

    def delete(self) -> None:
        self._log.delete()


class _DecryptingCompactor:
    """Shows a compactor what it understands."""

    def __init__(self, compactor: Compactor, cipher: BatchCipher) -> None:
        self._compactor = compactor
        self._cipher = cipher

    @property
    def upto(self) -> int:
        return self._compactor.upto

    @property
    def learnt_end(self) -> int:
        return self._compactor.learnt_end

    def learn(self, batch: RecordBatch) -> bool:
        return self._compactor.learn(self._cipher.decrypt(batch))

    def rewrite(self, batch: RecordBatch) -> RecordBatch:
        clear = self._cipher.decrypt(batch)
        rewritten = self._compactor.rewrite(clear)
        return batch if rewritten is clear else self._cipher.encrypt(rewritten)

    def forget(self) -> None:
        self._compactor.forget()
