"""Batches that are encrypted on their way to storage: what is readable, what is refused, and what is never repeated."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liftbridge.errors import KeyMissing, LogDamaged
from liftbridge.interfaces.keys import KeyRing
from liftbridge.interfaces.log import LogId, LogSettings
from liftbridge.partition.encryption import BatchCipher, encrypted
from liftbridge.protocol.record_batch import (
    HEADER_BYTES,
    cut_batch,
    decode_batch,
    encode_batch,
    iter_batches,
    iter_records,
)
from liftbridge.testing.batches import make_batch
from liftbridge.testing.memory_log import MemoryLogStorage

KEYS = KeyRing((b"k" * 32,))
LOG = LogId(7, 1)
NONCE_AT = HEADER_BYTES + 1 + 8 + 40
EVERYTHING = 1 << 40


def cipher(keys: KeyRing = KEYS, log_id: LogId = LOG, key_bytes: int = 1 << 20) -> BatchCipher:
    return BatchCipher(keys, log_id, key_bytes)


@given(st.integers(0, 1 << 40), st.integers(1, 20), st.integers(0, 1 << 40), st.binary(min_size=1, max_size=100))
def test_what_was_encrypted_comes_back_and_is_a_valid_batch_meanwhile(
    base: int, count: int, epoch: int, value: bytes
) -> None:
    batch = make_batch(base, count, value=value, leader_epoch=epoch, timestamp_ns=5)
    hidden = cipher().encrypt(batch)
    assert decode_batch(hidden.data) == hidden
    assert replace(hidden, data=b"") == replace(batch, data=b"")
    assert value not in hidden.data or len(value) < 8
    assert cipher().decrypt(hidden) == batch


def test_a_clear_batch_passes_as_it_is() -> None:
    batch = make_batch(0, 3)
    assert cipher().decrypt(batch) is batch


@given(st.integers(0, 9))
def test_a_batch_is_cut_without_the_key(end_offset: int) -> None:
    batch = make_batch(0, 10)
    shown = cipher().decrypt(cut_batch(cipher().encrypt(batch), end_offset))
    assert [record.offset for record in iter_records(shown.data[HEADER_BYTES:])] == list(range(end_offset))
    assert shown == cut_batch(batch, end_offset)


@pytest.mark.parametrize("position", [HEADER_BYTES + 12, NONCE_AT, NONCE_AT + 14, NONCE_AT + 23, NONCE_AT + 30, -1])
def test_a_changed_byte_is_noticed_wherever_it_is(position: int) -> None:
    data = bytearray(cipher().encrypt(make_batch(0, 3)).data)
    data[position] ^= 1
    with pytest.raises(LogDamaged):
        cipher().decrypt(_with_checksum(bytes(data)))


def _with_checksum(data: bytes):  # type: ignore[no-untyped-def]
    """Whoever changes a file can make its checksum fit."""
    body = data[HEADER_BYTES:]
    fields = make_batch(0, 3)
    return encode_batch(
        body,
        base_offset=0,
        end_offset=3,
        record_count=3,
        leader_epoch=0,
        timestamp_ns=fields.timestamp_ns,
        attributes=data[5],
    )


@pytest.mark.parametrize("elsewhere", [LogId(8, 1), LogId(7, 0)])
def test_a_batch_of_another_log_is_refused(elsewhere: LogId) -> None:
    with pytest.raises(LogDamaged, match="belongs to another partition"):
        cipher(log_id=elsewhere).decrypt(cipher().encrypt(make_batch(0)))


def test_a_batch_at_another_place_is_refused() -> None:
    hidden = cipher().encrypt(make_batch(0, 2, timestamp_ns=5))
    moved = encode_batch(
        hidden.data[HEADER_BYTES:],
        base_offset=4,
        end_offset=6,
        record_count=2,
        leader_epoch=0,
        timestamp_ns=5,
        attributes=8,
    )
    with pytest.raises(LogDamaged):
        cipher().decrypt(moved)


def test_no_nonce_is_used_twice_with_a_data_key() -> None:
    used = set()
    for start in range(3):  # three starts of a server, each of which writes the same offsets again
        one = cipher(key_bytes=300)
        for number in range(50):
            data = one.encrypt(make_batch(number % (start + 1))).data
            used.add(data[HEADER_BYTES + 9 : NONCE_AT + 12])
    assert len(used) == 150


def test_after_a_rotation_the_old_key_reads_and_the_new_one_writes() -> None:
    old, new = b"o" * 16, b"n" * 32
    hidden = cipher(KeyRing((old,))).encrypt(make_batch(0))
    rotated = cipher(KeyRing((new, old)))
    assert rotated.decrypt(hidden) == make_batch(0)
    later = rotated.encrypt(make_batch(1))
    assert cipher(KeyRing((new,))).decrypt(later) == make_batch(1)
    with pytest.raises(KeyMissing, match="which this server doesn't have"):
        cipher(KeyRing((new,))).decrypt(hidden)


def test_a_log_opens_only_with_its_keys_and_is_whole_when_they_are_back() -> None:
    storage = MemoryLogStorage()
    log = encrypted(storage.open(LOG, LogSettings()), KEYS, LOG, key_bytes=1000)
    log.append([make_batch(0, 2), make_batch(2)])
    log.close()
    for keys in (None, KeyRing((b"w" * 32,))):
        with pytest.raises(KeyMissing):
            encrypted(storage.open(LOG, LogSettings()), keys, LOG, key_bytes=1000)
    again = encrypted(storage.open(LOG, LogSettings()), KEYS, LOG, key_bytes=1000)
    data = again.read(0, stop=EVERYTHING, max_bytes=1 << 20)
    assert list(iter_batches(data)) == [make_batch(0, 2), make_batch(2)]
