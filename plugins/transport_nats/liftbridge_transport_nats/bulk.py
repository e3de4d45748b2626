"""Below nats-py: messages by the list.

nats-py calls a coroutine for every message, which costs more than storing it. This module, and it alone, knows private
names of nats-py: it puts a parser of its own in the place of nats-py's, which hands whole socket reads to bulk
subscriptions and leaves everything else (connection, authentication, TLS, reconnects, requests) to nats-py.
``check_supported`` says at start if those names are gone. Decision page 3 has the measurements.
"""

import asyncio
import struct
from collections.abc import Sequence
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from liftbridge.errors import TransportError
from liftbridge.interfaces.transport import Delivery, DeliverySink
from liftbridge.protocol.strides import count_repeats

_CLIENT_NAMES = [
    "_ps",
    "_pending",
    "_pending_data_size",
    "_transport",
    "_sid",
    "_subs",
    "_send_subscribe",
    "_send_unsubscribe",
    "_remove_sub",
    "_process_msg",
]
#: The longest control line that a server may send.
_MAX_LINE_BYTES = 4096
_MSG, _HMSG = b"MSG ", b"HMSG "


def check_supported(client: Client) -> None:
    """Raises if this nats-py lacks a name that we use."""
    missing = [name for name in _CLIENT_NAMES if not hasattr(client, name)]
    if missing:
        raise TransportError(
            f"nats-py {getattr(nats, '__version__', '')} is not supported: it has no {', '.join(missing)}; "
            "install nats-py 2.10 to 2.16"
        )


class BulkParser:
    """Takes the place of nats-py's parser: the same ``parse`` and ``reset``."""

    def __init__(self, client: Client) -> None:
        self._client: Any = client
        self._others = Parser(client)
        self._sinks: dict[bytes, DeliverySink] = {}
        self._rest = b""

    def add(self, sid: int, sink: DeliverySink) -> None:
        self._sinks[b"%d" % sid] = sink

    def remove(self, sid: int) -> None:
        self._sinks.pop(b"%d" % sid, None)

    def reset(self) -> None:
        """A new connection begins."""
        self._rest = b""
        self._others.reset()

    async def parse(self, data: bytes = b"") -> None:
        """Takes what one read returned."""
        if self._rest:
            data = self._rest + data
        position = 0
        received: dict[bytes, list[Delivery]] = {}
        while position < len(data):
            if data.startswith(_MSG, position) or data.startswith(_HMSG, position):
                next_position = await self._parse_messages(data, position, received)
            else:
                next_position = await self._parse_other(data, position)
            if next_position == position:
                break
            position = next_position
        self._rest = data[position:]
        for sid, deliveries in received.items():
            sink = self._sinks.get(sid)
            if sink is not None:
                sink(deliveries)

    async def _parse_messages(self, data: bytes, position: int, received: dict[bytes, list[Delivery]]) -> int:
        """The message at ``position`` and those like it that follow; the position behind them, the same if the message
        isn't complete yet."""
        line_end = _line_end(data, position)
        if line_end < 0:
            return position
        line = data[position:line_end]
        fields = line.split()
        headed = fields[0] == b"HMSG"
        try:
            size = int(fields[-1])
            header_bytes = int(fields[-2]) if headed else 0
            subject, sid = fields[1], fields[2]
            reply = fields[3] if len(fields) == 5 + headed else b""
        except (ValueError, IndexError):
            raise ProtocolError(f"nats: malformed message line {line[:80]!r}") from None
        start = line_end - position + 2
        stride = start + size + 2
        complete = (len(data) - position) // stride
        if not complete:
            return position
        if sid not in self._sinks:
            payload_start = position + start
            headers = data[payload_start : payload_start + header_bytes] if headed else None
            payload = data[payload_start + header_bytes : payload_start + size]
            await self._client._process_msg(int(sid), subject, reply, payload, headers)
            return position + stride
        fixed = (*range(start), stride - 2, stride - 1)
        count = count_repeats(data, position, stride, fixed, complete) if complete > 1 else 1
        end = position + count * stride
        layout = struct.Struct(f"{start + header_bytes}x{size - header_bytes}s2x")
        payloads = [payload for (payload,) in layout.iter_unpack(memoryview(data)[position:end])]
        _add(received.setdefault(sid, []), subject.decode(), reply.decode(), payloads)
        return end

    async def _parse_other(self, data: bytes, position: int) -> int:
        """One line that is no message: nats-py's own parser takes it."""
        line_end = _line_end(data, position)
        if line_end < 0:
            return position
        await self._others.parse(data[position : line_end + 2])
        return line_end + 2


def _line_end(data: bytes, position: int) -> int:
    """Where the line at ``position`` ends, -1 if it doesn't yet."""
    line_end = data.find(b"\r\n", position)
    if line_end < 0 and len(data) - position > _MAX_LINE_BYTES and not data.startswith(b"INFO", position):
        raise ProtocolError("nats: a line without end")
    return line_end


def _add(deliveries: list[Delivery], subject: str, reply: str, payloads: list[bytes]) -> None:
    if deliveries and deliveries[-1].subject == subject and deliveries[-1].reply == reply:
        deliveries[-1].payloads.extend(payloads)
    else:
        deliveries.append(Delivery(subject, reply, payloads))


class BulkConnection:
    """Bulk subscriptions and bulk publishes on one nats-py client."""

    def __init__(self, client: Client, max_buffered_bytes: int) -> None:
        check_supported(client)
        self._parser = BulkParser(client)
        self._client: Any = client
        self._client._ps = self._parser
        self._max_buffered_bytes = max_buffered_bytes
        self._flush_scheduled = False

    async def subscribe(self, subject: str, queue: str, sink: DeliverySink) -> int:
        """Subscribes and returns the subscription's number; nats-py renews it after a reconnect."""
        client = self._client
        client._sid += 1
        sid: int = client._sid
        client._subs[sid] = Subscription(client, sid, subject, queue=queue)
        self._parser.add(sid, sink)
        await client._send_subscribe(client._subs[sid])
        await client.flush()
        return sid

    async def unsubscribe(self, sid: int) -> None:
        """The sink isn't called again."""
        self._parser.remove(sid)
        self._client._remove_sub(sid)
        if self._client.is_connected:
            await self._client._send_unsubscribe(sid)

    def publish(self, subject: str, reply: str, payloads: Sequence[bytes]) -> bool:
        """Takes the messages, to be sent at the end of this turn of the event loop; False if the buffer is full."""
        command = f"PUB {subject} {reply} " if reply else f"PUB {subject} "
        data = _publish_commands(command.encode(), payloads)
        client = self._client
        if self.buffered_bytes + len(data) > self._max_buffered_bytes:
            return False
        client._pending.append(data)
        client._pending_data_size += len(data)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self.flush_now)
        return True

    @property
    def buffered_bytes(self) -> int:
        """Bytes that wait for the network."""
        buffered: int = self._client._pending_data_size
        writer = getattr(self._client._transport, "_io_writer", None)
        if writer is not None:
            buffered += writer.transport.get_write_buffer_size()
        return buffered

    def flush_now(self) -> None:
        """Writes what nats-py and we have pending, in order. While disconnected it stays and nats-py sends it later."""
        self._flush_scheduled = False
        client = self._client
        if client.is_connected and client._pending:
            pending, client._pending = client._pending, []
            client._pending_data_size = 0
            client._transport.write(b"".join(pending))


def _publish_commands(command: bytes, payloads: Sequence[bytes]) -> bytes:
    """The PUB commands of a list of payloads, as one block."""
    lengths = set(map(len, payloads))
    if len(lengths) == 1:
        line = b"%b%d\r\n" % (command, lengths.pop())
        return line + (b"\r\n" + line).join(payloads) + b"\r\n"
    return b"".join(b"%b%d\r\n%b\r\n" % (command, len(payload), payload) for payload in payloads)
