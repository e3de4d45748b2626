"""What stands on a direct link between two servers. No IO.

A link carries messages one way. The server that connects says who it is::

    magic 8s | token 16s

and gets the byte 1 if the token is the one that the other announced over NATS. Then it sends frames, big endian::

    length of what follows the head I | subscription I | length of the subject H | length of the reply subject H
    subject | reply subject | payload

The subscription is the receiver's number for it, which it announced over NATS as well.
"""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

from liftbridge.errors import ProtocolError
from liftbridge.interfaces.transport import Delivery

MAGIC = b"LIFTLNK1"
TOKEN_BYTES = 16
HELLO_BYTES = len(MAGIC) + TOKEN_BYTES
WELCOME = b"\x01"
#: The largest message that any nats-server can be configured to carry, and room for subjects.
MAX_FRAME_BYTES = 64 * 1024 * 1024 + 128 * 1024

_HEAD = struct.Struct(">IIHH")
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Announcement:
    """Where a server takes direct links, and what for; ``token`` is new with each start of it, ``subscriptions`` are patterns
    by number. ``asks``: others should announce themselves, too."""

    server_id: str
    host: str
    port: int
    token: bytes
    subscriptions: dict[int, str]
    asks: bool = False


def encode_announcement(announcement: Announcement) -> bytes:
    """As JSON: it is rare, and people read it."""
    return json.dumps(
        {
            "version": _VERSION,
            "server": announcement.server_id,
            "host": announcement.host,
            "port": announcement.port,
            "token": announcement.token.hex(),
            "subscriptions": {str(number): pattern for number, pattern in announcement.subscriptions.items()},
            "asks": announcement.asks,
        }
    ).encode()


def decode_announcement(data: bytes) -> Announcement:
    """Raises ProtocolError."""
    try:
        fields = json.loads(data)
        if fields["version"] != _VERSION:
            raise ProtocolError(f"an announcement of version {fields['version']}, and this server knows {_VERSION}")
        announcement = Announcement(
            server_id=str(fields["server"]),
            host=str(ip_address(fields["host"])),
            port=int(fields["port"]),
            token=bytes.fromhex(fields["token"]),
            subscriptions={int(number): str(pattern) for number, pattern in fields["subscriptions"].items()},
            asks=bool(fields["asks"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ProtocolError(f"not an announcement of a server: {error}") from None
    if len(announcement.token) != TOKEN_BYTES or not 0 < announcement.port < 1 << 16:
        raise ProtocolError("not an announcement of a server: its token or port can't be one")
    if not all(0 <= number < 1 << 32 for number in announcement.subscriptions):
        raise ProtocolError("not an announcement of a server: no frame can carry the numbers of its subscriptions")
    return announcement


def encode_frames(subscription: int, subject: str, reply: str, payloads: Sequence[bytes]) -> bytes:
    """Frames, back to back."""
    names, subject_bytes, reply_bytes = _names(subject, reply)
    parts: list[bytes] = []
    for payload in payloads:
        parts += (_HEAD.pack(len(names) + len(payload), subscription, subject_bytes, reply_bytes), names, payload)
    return b"".join(parts)


@lru_cache(maxsize=1024)
def _names(subject: str, reply: str) -> tuple[bytes, int, int]:
    subject_text, reply_text = subject.encode(), reply.encode()
    return subject_text + reply_text, len(subject_text), len(reply_text)


class FrameReader:
    """Takes what a socket read returned and gives whole messages."""

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._needed_bytes = 0

    def feed(self, data: bytes) -> list[tuple[int, Delivery]]:
        """The messages that are complete now, by subscription, in order; consecutive ones of the same subjects in one
        delivery. Raises ProtocolError for what isn't a frame: nothing behind it can be read."""
        if self._held:
            self._held.append(data)
            self._held_bytes += len(data)
            if self._held_bytes < self._needed_bytes:
                return []
            data = b"".join(self._held)
        return self._split(data)

    def _split(self, data: bytes) -> list[tuple[int, Delivery]]:
        found: list[tuple[int, Delivery]] = []
        latest: tuple[int, bytes, int] | None = None
        position, end, needed_bytes = 0, len(data), _HEAD.size
        while end - position >= _HEAD.size:
            length, subscription, subject_bytes, reply_bytes = _HEAD.unpack_from(data, position)
            names_bytes = subject_bytes + reply_bytes
            if not names_bytes <= length <= MAX_FRAME_BYTES:
                raise ProtocolError(f"a frame of {length} bytes on a direct link, {names_bytes} of them names")
            start = position + _HEAD.size
            if start + length > end:
                needed_bytes = _HEAD.size + length
                break
            names = data[start : start + names_bytes]
            payload = data[start + names_bytes : start + length]
            if (subscription, names, subject_bytes) == latest:
                found[-1][1].payloads.append(payload)
            else:
                latest = (subscription, names, subject_bytes)
                found.append((subscription, Delivery(*_texts(names, subject_bytes), [payload])))
            position = start + length
        self._held = [data[position:]] if position < end else []
        self._held_bytes, self._needed_bytes = end - position, needed_bytes
        return found


@lru_cache(maxsize=1024)
def _texts(names: bytes, subject_bytes: int) -> tuple[str, str]:
    return str(names[:subject_bytes], "utf-8", "replace"), str(names[subject_bytes:], "utf-8", "replace")
