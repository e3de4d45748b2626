"""The NATS client protocol, by the socket read: bytes in, lists of deliveries out. No IO.

Only messages of *bulk* subscriptions are taken out of the stream. Everything else goes on unchanged, whole lines and
whole messages, to whoever speaks the rest of the protocol.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from liftbridge.errors import ProtocolError
from liftbridge.interfaces.transport import Delivery

#: A line longer than this can't be one. INFO, which lists every server of a cluster, is the longest.
MAX_LINE_BYTES = 64 * 1024
#: The largest message that any nats-server can be configured to carry.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024

_OTHER_VERBS = frozenset((b"PING", b"PONG", b"INFO", b"+OK"))
_NO_RESPONDERS = b"NATS/1.0 503"
_FIRST_RUN_MESSAGES = 8
_RUN_GROWTH = 4


#: Subject, reply subject and payloads of a subscription's latest delivery.
_Latest = tuple[bytes, bytes, list[bytes]]


class Received(NamedTuple):
    """What stood in one socket read. ``others`` is protocol text for nats-py; ``errors`` are the server's ``-ERR``."""

    deliveries: dict[bytes, list[Delivery]]
    others: bytes
    errors: list[str]


class Splitter:
    """Splits what a server sends. ``bulk_sids`` may change between two calls of ``feed``."""

    def __init__(self) -> None:
        self.bulk_sids: set[bytes] = set()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._needed_bytes = 0

    def reset(self) -> None:
        """Forgets the message that hasn't arrived whole: a new connection begins."""
        self._hold(b"", 0)

    def feed(self, data: bytes) -> Received:
        """Takes the next bytes. Raises ProtocolError for what no NATS server sends; only ``reset`` helps then."""
        received = Received({}, b"", [])
        if self._held:
            self._held.append(data)
            self._held_bytes += len(data)
            if self._held_bytes < self._needed_bytes:
                return received
            data = b"".join(self._held)
        try:
            return self._split(data)
        except (ValueError, IndexError):
            raise ProtocolError(f"NATS sent a line that isn't one: {data[:80]!r}") from None

    def _hold(self, data: bytes, needed_bytes: int) -> None:
        """Keeps the beginning of what isn't complete; looking again is useless below ``needed_bytes``."""
        self._held = [data] if data else []
        self._held_bytes = len(data)
        self._needed_bytes = needed_bytes

    def _split(self, data: bytes) -> Received:
        deliveries: dict[bytes, list[Delivery]] = {}
        others: list[bytes] = []
        errors: list[str] = []
        latest: dict[bytes, _Latest] = {}
        bulk_sids = self.bulk_sids
        position, end, needed_bytes = 0, len(data), 0
        while position < end:
            line_end = data.find(b"\r\n", position)
            if line_end < 0:
                _check_unfinished_line(data, position)
                break
            fields = data[position:line_end].split()
            verb = fields[0]
            payload_start = line_end + 2
            if verb == b"MSG":
                header_bytes, reply_words = 0, len(fields) - 4
            elif verb == b"HMSG":
                header_bytes, reply_words = int(fields[-2]), len(fields) - 5
            else:
                _take_other(data[position:payload_start], verb, others, errors)
                position = payload_start
                continue

            size = int(fields[-1])
            if not (0 <= reply_words <= 1 and 0 <= header_bytes <= size <= MAX_MESSAGE_BYTES):
                raise ValueError("a message of impossible size, or too few words")
            next_position = payload_start + size + 2
            if next_position > end:
                needed_bytes = next_position - position
                break
            sid = fields[2]
            if sid not in bulk_sids:
                others.append(data[position:next_position])
            elif header_bytes == size and data.startswith(_NO_RESPONDERS, payload_start):
                pass  # nobody listened to what we sent with a reply subject: that is no message
            else:
                line = data[position:payload_start]
                if data.startswith(line, next_position):
                    payloads, next_position = _take_run(data, position, line, header_bytes, size)
                else:
                    payloads = [data[payload_start + header_bytes : next_position - 2]]
                _add(deliveries, latest, sid, fields[1], fields[3] if reply_words else b"", payloads)
            position = next_position
        self._hold(data[position:], needed_bytes)
        return Received(deliveries, b"".join(others), errors)


def _add(
    deliveries: dict[bytes, list[Delivery]],
    latest: dict[bytes, _Latest],
    sid: bytes,
    subject: bytes,
    reply: bytes,
    payloads: list[bytes],
) -> None:
    """Adds to the subscription's latest delivery if that has the same subjects, else begins another."""
    last = latest.get(sid)
    if last is not None and last[0] == subject and last[1] == reply:
        last[2].extend(payloads)
        return
    latest[sid] = (subject, reply, payloads)
    delivery = Delivery(str(subject, "utf-8", "replace"), str(reply, "utf-8", "replace"), payloads)
    deliveries.setdefault(sid, []).append(delivery)


def _take_other(line: bytes, verb: bytes, others: list[bytes], errors: list[str]) -> None:
    if verb == b"-ERR":
        errors.append(line[4:].strip().strip(b"'").decode(errors="replace"))
    elif verb in _OTHER_VERBS:
        others.append(line)
    else:
        raise ProtocolError(f"NATS sent a line that isn't one: {line[:80]!r}")


def _check_unfinished_line(data: bytes, position: int) -> None:
    if len(data) - position > MAX_LINE_BYTES:
        raise ProtocolError(f"NATS sent {len(data) - position} bytes without the end of a line")


def _take_run(data: bytes, position: int, line: bytes, header_bytes: int, size: int) -> tuple[list[bytes], int]:
    """The payloads of the messages from ``position`` on that begin with the very same ``line``, and where they end.

    A loop that publishes sends such messages by the hundred. They have one length, so they are unpacked at C speed, in
    blocks that grow as long as the run goes on.
    """
    stride = len(line) + size + 2
    layout = _run_layout(len(line), header_bytes, size - header_bytes)
    view = memoryview(data)
    payloads: list[bytes] = []
    block = _FIRST_RUN_MESSAGES
    while available := min(block, (len(data) - position) // stride):
        lines, found = zip(*layout.iter_unpack(view[position : position + available * stride]), strict=True)
        same = lines.count(line)
        if same < available:
            same = next(i for i, other in enumerate(lines) if other != line)
        payloads.extend(found[:same])
        position += same * stride
        if same < available:
            break
        block *= _RUN_GROWTH
    return payloads, position


@lru_cache(maxsize=256)
def _run_layout(line_bytes: int, header_bytes: int, payload_bytes: int) -> struct.Struct:
    return struct.Struct(f"{line_bytes}s{header_bytes}x{payload_bytes}s2x")


def publish_commands(command: bytes, payloads: Sequence[bytes]) -> bytes:
    """The PUB commands that send ``payloads``, as one block; ``command`` is everything before the length."""
    if len(payloads) == 1:
        return b"%b%d\r\n%b\r\n" % (command, len(payloads[0]), payloads[0])
    lengths = set(map(len, payloads))
    if len(lengths) == 1:
        line = b"%b%d\r\n" % (command, lengths.pop())
        return line + (b"\r\n" + line).join(payloads) + b"\r\n"
    return b"".join(b"%b%d\r\n%b\r\n" % (command, len(payload), payload) for payload in payloads)
