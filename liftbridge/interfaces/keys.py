"""The keys that encrypt what is stored."""

import hashlib
from dataclasses import dataclass

#: Bytes that tell a key from others without telling the key.
KEY_ID_BYTES = 8
KEY_BYTES = (16, 32)


def key_id(key: bytes) -> bytes:
    """A fingerprint. Keys are random, so it gives nothing away."""
    return hashlib.sha256(b"liftbridge key id\0" + key).digest()[:KEY_ID_BYTES]


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Master keys of 16 or 32 bytes. The first one is for what is written from now on; the others still read what was
    written with them."""

    keys: tuple[bytes, ...]

    @property
    def current(self) -> bytes:
        return self.keys[0]

    def find(self, wanted_id: bytes) -> bytes | None:
        """The key with this ID, None if it isn't here."""
        return next((key for key in self.keys if key_id(key) == wanted_id), None)

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(key_id(key).hex() for key in self.keys)})"
