"""Below nats-py: messages by the list.

nats-py runs a coroutine for every message, which costs more than storing it. This module, and it alone, knows private
names of nats-py. It puts a parser before nats-py's that takes out the messages of bulk subscriptions, and writes bulk
publishes itself; connecting, authentication, TLS, reconnects, pings and requests stay with nats-py.
:func:`check_supported` says at start if a name is gone. Decision page 3 has the measurements.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any
from urllib.parse import ParseResult

import nats.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from nats.protocol.parser import Parser

from liftbridge.errors import ProtocolError, TransportClosed, TransportError
from liftbridge.interfaces.transport import DeliverySink
from liftbridge_transport_nats.sinks import hand_over
from liftbridge_transport_nats.wire import Splitter, publish_commands

logger = logging.getLogger(__name__)

#: What one read takes at most. nats-py's 32 KiB make eight times as many batches under load.
READ_BYTES = 256 * 1024

#: How long a publish that can wait does, and how many waiting bytes end the wait.
DEFER_S = 0.002
DEFER_BYTES = 16 * 1024

_NEWEST_TESTED = "2.16"
_CLIENT_NAMES = (
    "_ps",
    "_transport",
    "_pending",
    "_pending_data_size",
    "_sid",
    "_subs",
    "_remove_sub",
    "_send_subscribe",
    "_send_unsubscribe",
    "_send_ping",
)
_TRANSPORT_NAMES = ("_io_writer",)


def check_supported(client: Client) -> None:
    """Raises TransportError if this nats-py lacks a name that we use."""
    missing = [name for name in _CLIENT_NAMES if not hasattr(client, name)]
    transport = TcpTransport()  # type: ignore[no-untyped-call]
    missing += [f"TcpTransport.{name}" for name in _TRANSPORT_NAMES if not hasattr(transport, name)]
    if missing:
        raise TransportError(
            f"nats-py {version('nats-py')} is not supported: it has no {', '.join(missing)}; "
            f"install nats-py {_NEWEST_TESTED}"
        )


class _BulkReader(asyncio.StreamReader):
    """What asyncio puts received bytes into. Once ``take`` may have them, it gets them at once, and nats-py's loop, which
    would wake for every read, only what ``take`` returns."""

    def __init__(self, take: Callable[[bytes], bytes]) -> None:
        super().__init__(limit=READ_BYTES)
        self._take = take
        self._held_bytes = 0
        self.direct = False

    def feed_data(self, data: Any) -> None:
        if self.direct:
            try:
                data = self._take(data)
            except nats.errors.ProtocolError:
                self.feed_eof()  # nats-py then connects anew
                return
        if data:
            self._held_bytes += len(data)
            super().feed_data(data)

    async def read(self, n: int = -1) -> bytes:
        if not self._held_bytes:
            self.direct = True
        data = await super().read(n)
        self._held_bytes -= len(data)
        return data

    async def readline(self) -> bytes:
        line = await super().readline()
        self._held_bytes -= len(line)
        return line


class _BulkReads(TcpTransport):
    """nats-py's TCP transport with larger reads, past its loop unless there is TLS."""

    def __init__(self, take: Callable[[bytes], bytes]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._take = take

    def __bool__(self) -> bool:
        """Whether there is one: nats-py makes its own transport unless it finds one that is true."""
        return True

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        del buffer_size
        loop = asyncio.get_running_loop()
        reader = _BulkReader(self._take)
        connecting = loop.create_connection(
            lambda: asyncio.StreamReaderProtocol(reader), str(uri.hostname), int(uri.port or 0)
        )
        async with asyncio.timeout(connect_timeout):
            transport, protocol = await connecting
        self._bare_io_reader = self._io_reader = reader
        self._bare_io_writer = self._io_writer = asyncio.StreamWriter(transport, protocol, reader, loop)

    @property
    def direct(self) -> bool:
        """Whether ``take`` has everything that nats-py reads."""
        return isinstance(self._io_reader, _BulkReader) and self._io_reader.direct

    async def read(self, buffer_size: int) -> bytes:
        data: bytes = await super().read(READ_BYTES)
        return data

    async def wait_closed(self) -> None:
        """Each caller by itself: since Python 3.12 one that is cancelled would cancel all others."""
        if self._io_writer is not None:
            await asyncio.shield(self._io_writer.wait_closed())

    @property
    def local_host(self) -> str:
        """The address from which the server is reached."""
        return "" if self._io_writer is None else str(self._io_writer.get_extra_info("sockname")[0])

    @property
    def encrypted(self) -> bool:
        return self._io_writer is not None and self._io_writer.get_extra_info("ssl_object") is not None

    @property
    def closing(self) -> bool:
        """Whether nothing can be written any more, of which nats-py hears a moment later."""
        return self._io_writer is None or bool(self._io_writer.is_closing())

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the socket hasn't taken yet."""
        if self._io_writer is None:
            return 0
        return int(self._io_writer.transport.get_write_buffer_size())


class _BulkParser:
    """Takes the place of nats-py's parser, with the same ``parse`` and ``reset``, and feeds it what isn't ours."""

    def __init__(self, client: Client) -> None:
        self._splitter = Splitter()
        self._others = Parser(client)
        self._sinks: dict[bytes, DeliverySink] = {}
        self.transport = _BulkReads(self.take)

    def add(self, sid: int, sink: DeliverySink) -> None:
        key = b"%d" % sid
        self._sinks[key] = sink
        self._splitter.bulk_sids.add(key)

    def remove(self, sid: int) -> None:
        key = b"%d" % sid
        self._sinks.pop(key, None)
        self._splitter.bulk_sids.discard(key)

    def reset(self) -> None:
        """A new connection begins."""
        self._splitter.reset()
        self._others.reset()

    async def parse(self, data: bytes = b"") -> None:
        """Takes what nats-py read. It answers its own ProtocolError, and only that, with a reconnect."""
        others = data if self.transport.direct else self.take(data)
        if others:
            await self._parse_others(others)

    def take(self, data: bytes) -> bytes:
        """Hands over the bulk messages in what one read returned; the rest is for nats-py."""
        try:
            received = self._splitter.feed(data)
        except ProtocolError as error:
            logger.error("%s; connecting anew", error)
            raise nats.errors.ProtocolError from error
        for sid, deliveries in received.deliveries.items():
            sink = self._sinks.get(sid)
            if sink is not None:
                hand_over(sink, deliveries)
        for text in received.errors:
            _refused(text)
        return received.others

    async def _parse_others(self, data: bytes) -> None:
        try:
            await self._others.parse(data)
        except Exception as error:
            logger.exception("NATS sent what nats-py can't read; connecting anew")
            raise nats.errors.ProtocolError from error


def _refused(text: str) -> None:
    """The server's ``-ERR``. After all but a permission it hangs up, and nats-py alone would never come back."""
    logger.error("NATS refused: %s", text)
    if not text.lower().startswith("permissions violation"):
        raise nats.errors.ProtocolError


class BulkConnection:
    """Bulk subscriptions and bulk publishes on one nats-py client, which must not be connected yet.

    Keeps the order of everything that is sent on the connection, by us or by nats-py: both wait in nats-py's buffer.
    """

    def __init__(self, client: Client, max_buffered_bytes: int) -> None:
        check_supported(client)
        self._client: Any = client
        self._parser = _BulkParser(client)
        self._transport: Any = self._parser.transport
        vars(client).update(_transport=self._transport, _ps=self._parser)
        self._max_buffered_bytes = max_buffered_bytes
        self._flush_timer: asyncio.TimerHandle | None = None
        self._pings: set[asyncio.Future[bool]] = set()

    # --- subscribing --------------------------------------------------------------------------------------------------

    async def subscribe(self, subject: str, queue: str, sink: DeliverySink, *, timeout_s: float) -> int:
        """Subscribes and returns the subscription's number, once the server knows it. nats-py renews it after a
        reconnect. Raises TransportClosed, and leaves nothing behind, when the server can't be asked."""
        self._require_connection()
        client = self._client
        client._sid += 1
        sid: int = client._sid
        client._subs[sid] = Subscription(client, sid, subject, queue=queue)
        self._parser.add(sid, sink)
        try:
            await client._send_subscribe(client._subs[sid])
            await self.round_trip(timeout_s)
        except BaseException:
            await self.unsubscribe(sid)
            raise
        return sid

    async def unsubscribe(self, sid: int) -> None:
        """The sink isn't called again. Idempotent."""
        self._parser.remove(sid)
        if sid in self._client._subs:
            self._client._remove_sub(sid)
            if self._client.is_connected:
                await self._client._send_unsubscribe(sid)

    @property
    def local_host(self) -> str:
        """The address from which the server is reached, while it is."""
        return str(self._transport.local_host)

    @property
    def encrypted(self) -> bool:
        """Whether by TLS."""
        return bool(self._transport.encrypted)

    # --- sending ------------------------------------------------------------------------------------------------------

    def publish(self, command: bytes, payloads: Sequence[bytes], *, deferrable: bool = False) -> bool:
        """Takes the messages, to be sent in this turn of the event loop (or a moment later, if ``deferrable``), or after
        the reconnect; False if the buffer is full. ``command`` is the PUB command up to the length."""
        data = publish_commands(command, payloads)
        client = self._client
        if self.buffered_bytes + len(data) > self._max_buffered_bytes:
            return False
        client._pending.append(data)
        client._pending_data_size += len(data)
        if not deferrable or client._pending_data_size >= DEFER_BYTES:
            self.flush_now()
        elif self._flush_timer is None:
            # Each write wakes the server's process, so what can wait goes together with what comes in the next moment.
            self._flush_timer = asyncio.get_running_loop().call_later(DEFER_S, self._flush_deferred)
        return True

    def _flush_deferred(self) -> None:
        """A timer that was overtaken by a flush runs out all the same: another one would cost more than it saves."""
        self._flush_timer = None
        self.flush_now()

    @property
    def buffered_bytes(self) -> int:
        """Bytes that wait for the network."""
        return int(self._client._pending_data_size + self._transport.unsent_bytes)

    def flush_now(self) -> None:
        """Writes what nats-py and we have pending; uvloop makes one write of all that is written in a turn of the event
        loop. While disconnected it stays, and nats-py sends it afterwards."""
        client = self._client
        if client._pending and client.is_connected and not self._transport.closing:
            pending, client._pending = client._pending, []
            client._pending_data_size = 0
            self._transport.write(b"".join(pending))

    async def round_trip(self, timeout_s: float) -> None:
        """Returns when the server has read everything sent before. Raises TransportClosed when the connection is away
        or goes away meanwhile, or after ``timeout_s``."""
        self._require_connection()
        self.flush_now()
        pong: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pings.add(pong)
        try:
            await self._client._send_ping(pong)
            async with asyncio.timeout(timeout_s):  # not wait_for: before Python 3.12 it can lose a cancellation
                await asyncio.shield(pong)
        except TimeoutError:
            raise TransportClosed(f"NATS didn't answer in {timeout_s} s") from None
        finally:
            self._pings.discard(pong)

    def _require_connection(self) -> None:
        if not self._client.is_connected:
            raise TransportClosed("there is no connection to NATS now")

    def disconnected(self) -> None:
        """To be called when the connection was lost: whoever waits for an answer won't get one."""
        pings, self._pings = self._pings, set()
        for pong in pings:
            if not pong.done():
                pong.set_exception(TransportClosed("the connection to NATS was lost"))

    def drop_buffered(self) -> int:
        """Forgets what was never sent, and returns how many bytes that were."""
        dropped = sum(map(len, self._client._pending))
        self._client._pending.clear()
        self._client._pending_data_size = 0
        return dropped
