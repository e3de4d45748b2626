"""The transport on NATS: two connections, because only a connection without echo keeps our own messages from us, and links
from server to server.

``data`` (no echo) carries what leaders append themselves and then mirror, and the subscriptions of partitions. ``main``
carries everything else: queue groups (whose members NATS must choose, ourselves included), requests, acks.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import nats.errors

from liftbridge.errors import ConfigError, NoResponders, PayloadTooLarge, RequestTimeout, TransportClosed
from liftbridge.interfaces.transport import DeliverySink, Subscription, Transport
from liftbridge.patience import subscribe_patiently
from liftbridge.tasks import cancellable
from liftbridge_transport_nats.bulk import BulkConnection
from liftbridge_transport_nats.connection import Connection
from liftbridge_transport_nats.credentials import connect_options
from liftbridge_transport_nats.links import DirectLinks
from liftbridge_transport_nats.subjects import check_literal, check_pattern, publish_command

logger = logging.getLogger(__name__)

_PREFIX = "transport.nats."
_SUBSCRIBE_TIMEOUT_S = 5.0
_CLOSE_TIMEOUT_S = 5.0


class NatsTransport(Transport):
    """See :class:`liftbridge.interfaces.transport.Transport`. ``settings`` are those of ``transport.nats``."""

    def __init__(self, settings: Mapping[str, Any], *, namespace: str, server_id: str) -> None:
        self._settings = {name.removeprefix(_PREFIX): value for name, value in settings.items()}
        self._servers = tuple(self._settings["servers"])
        _check_servers(self._servers)
        self._options = connect_options(self._settings)
        self._embedded = _make_embedded(self._settings)
        self._name = f"LIFT.{namespace}.{server_id}"
        self._callbacks: list[Callable[[bool], None]] = []
        self._connected = False
        self._main: Connection | None = None
        self._data: Connection | None = None
        self._announcements = f"{namespace}.links"
        self._links = DirectLinks(server_id, self._announce, max_buffered_bytes=self._settings["buffer.max.size"])

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        try:
            if self._embedded is not None:
                self._servers = (await self._embedded.start(),)
            self._main = await self._connect("main", echo=True)
            self._data = await self._connect("data", echo=False)
            self._connected = self._flows()
            if self._settings["links"]:
                await self._start_links(self._main.bulk)
        except BaseException:
            await self.stop()
            raise

    async def _start_links(self, bulk: BulkConnection) -> None:
        if bulk.encrypted:
            logger.info("No direct links between servers: they would not be encrypted, as the connection to NATS is")
            return
        await subscribe_patiently(self, self._announcements, self._links.hear)
        try:
            await self._links.start(bulk.local_host)
        except OSError as error:
            logger.warning("No direct links between servers: can't listen on %s: %s", bulk.local_host, error)

    def _announce(self, announcement: bytes) -> None:
        """Not while NATS is away: there would be one for every few seconds of it, and a new one is due when it is back."""
        if self._connected:
            self.publish(self._announcements, [announcement])

    async def _connect(self, role: str, *, echo: bool) -> Connection:
        connection = Connection(
            f"{self._name}.{role}",
            echo=echo,
            max_buffered_bytes=self._settings["buffer.max.size"],
            changed=self._connection_changed,
        )
        await connection.connect(self._servers, self._settings["reconnect.wait"], self._options)
        return connection

    async def stop(self) -> None:
        main, data, self._main, self._data = self._main, self._data, None, None
        self._connected = False
        await self._links.stop()
        for connection in (data, main):
            if connection is not None:
                await _close(connection)
        if self._embedded is not None:
            await self._embedded.stop()

    @property
    def connected(self) -> bool:
        return self._connected

    def on_connection_change(self, callback: Callable[[bool], None]) -> None:
        self._callbacks.append(callback)

    def _flows(self) -> bool:
        return all(connection is not None and connection.connected for connection in (self._main, self._data))

    def _connection_changed(self) -> None:
        connected = self._flows()
        if connected != self._connected:
            self._connected = connected
            if connected:
                self._links.ask()
            for callback in self._callbacks:
                callback(connected)

    def _connection(self, *, echo: bool) -> Connection:
        connection = self._main if echo else self._data
        if connection is None:
            raise TransportClosed("the connection to NATS isn't open: not started yet, or stopped")
        return connection

    # --- messages -----------------------------------------------------------------------------------------------------

    @property
    def max_payload_bytes(self) -> int:
        main, data = self._connection(echo=True), self._connection(echo=False)
        return min(main.client.max_payload, data.client.max_payload)

    def publish(
        self,
        subject: str,
        payloads: Sequence[bytes],
        *,
        reply: str = "",
        echo: bool = True,
        deferrable: bool = False,
    ) -> None:
        command = publish_command(subject, reply)
        connection = self._connection(echo=echo)
        if not payloads:
            return
        longest = len(payloads[0]) if len(payloads) == 1 else max(map(len, payloads))
        _check_size(longest, connection.client.max_payload)
        if not connection.bulk.publish(command, payloads, deferrable=deferrable):
            state = "is slow" if connection.connected else "is away"
            raise TransportClosed(
                f"NATS {state}, and {connection.bulk.buffered_bytes} bytes wait for it already "
                "(transport.nats.buffer.max.size)"
            )

    async def subscribe(self, subject: str, sink: DeliverySink, *, queue: str = "", echo: bool = True) -> Subscription:
        check_pattern(subject, queue)
        bulk = self._connection(echo=echo or bool(queue)).bulk
        return _NatsSubscription(bulk, await bulk.subscribe(subject, queue, sink, timeout_s=_SUBSCRIBE_TIMEOUT_S))

    def publish_direct(self, subject: str, payloads: Sequence[bytes], *, reply: str = "") -> None:
        way = self._links.find(subject)
        if way is None:
            self.publish(subject, payloads, reply=reply, echo=False)
        elif payloads:
            _check_size(max(map(len, payloads)), self.max_payload_bytes)
            way.publish(payloads, reply)

    async def subscribe_direct(self, subject: str, sink: DeliverySink) -> Subscription:
        subscription = await self.subscribe(subject, sink)
        return _DirectSubscription(subscription, self._links, self._links.add(subject, sink))

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        check_literal(subject)
        connection = self._connection(echo=True)
        _check_size(len(payload), connection.client.max_payload)
        # nats-py would keep what it remembers of a request that its buffer can't take, and tells us late that it is away.
        if not (connection.connected and connection.client.is_connected):
            raise TransportClosed(f"request on {subject}: NATS is away")
        try:
            message = await cancellable(connection.client.request(subject, payload, timeout=timeout_s))
        except nats.errors.NoRespondersError as error:
            raise NoResponders(f"nobody listens on {subject}") from error
        except nats.errors.TimeoutError as error:
            raise RequestTimeout(f"no reply on {subject} in {timeout_s:.3g} s") from error
        except nats.errors.Error as error:
            raise TransportClosed(f"request on {subject}: {error}") from error
        return bytes(message.data)

    async def flush(self, *, timeout_s: float) -> None:
        main, data = self._connection(echo=True), self._connection(echo=False)
        await asyncio.gather(main.bulk.round_trip(timeout_s), data.bulk.round_trip(timeout_s))


class _NatsSubscription:
    def __init__(self, bulk: BulkConnection, sid: int) -> None:
        self._bulk = bulk
        self._sid = sid

    async def unsubscribe(self) -> None:
        await self._bulk.unsubscribe(self._sid)


class _DirectSubscription:
    """Both ways."""

    def __init__(self, over_nats: Subscription, links: DirectLinks, number: int) -> None:
        self._over_nats = over_nats
        self._links = links
        self._number: int | None = number

    async def unsubscribe(self) -> None:
        number, self._number = self._number, None
        if number is not None:
            self._links.remove(number)
        await self._over_nats.unsubscribe()


async def _close(connection: Connection) -> None:
    """Takes no longer than the time-out, even if nats-py goes on when it is cancelled."""
    closing = asyncio.ensure_future(connection.close())
    closed, _ = await asyncio.wait((closing,), timeout=_CLOSE_TIMEOUT_S)
    problem = closing.exception() if closed else "NATS takes nothing"
    closing.cancel()
    if problem is not None:
        logger.error('Connection "%s" ended uncleanly: %s', connection.name, problem)


def _check_size(size: int, max_payload_bytes: int) -> None:
    if size > max_payload_bytes:
        raise PayloadTooLarge(f"{size} bytes are more than the {max_payload_bytes} that NATS carries (its max_payload)")


def _check_servers(servers: Sequence[str]) -> None:
    if not servers:
        raise ConfigError("transport.nats.servers is empty: name at least one URL, like nats://127.0.0.1:4222")
    for url in servers:
        scheme, separator, _ = url.partition("://")
        if separator and scheme not in ("nats", "tls"):
            raise ConfigError(f'transport.nats.servers: "{url}" begins with neither nats:// nor tls://')
        if not _has_host(url if separator else f"nats://{url}"):
            raise ConfigError(f'transport.nats.servers: "{url}" is no URL like nats://host:4222')


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or too large a one
        return False


def _make_embedded(settings: Mapping[str, Any]) -> Any:
    """None unless one is asked for: most brokers have no use for the module."""
    config_file = settings["embedded.config"]
    if not settings["embedded"] and not config_file:
        return None
    from liftbridge_transport_nats.embedded import EmbeddedServer

    return EmbeddedServer(settings["embedded.listen"], str(config_file or ""))
