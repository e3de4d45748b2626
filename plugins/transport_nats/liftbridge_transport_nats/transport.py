"""The transport on NATS: two connections, because only a connection without echo keeps our own messages from us.

``data`` (no echo) carries what leaders append themselves and then mirror, and the subscriptions of partitions. ``main``
carries everything else: queue groups (whose members NATS must choose, ourselves included), requests, acks.
"""

import logging
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import nats.errors
from nats.aio.client import Client

from liftbridge.errors import (
    ConfigError,
    NoResponders,
    PayloadTooLarge,
    RequestTimeout,
    TransportClosed,
    TransportError,
)
from liftbridge.interfaces.transport import DeliverySink, Subscription, Transport
from liftbridge_transport_nats.bulk import BulkConnection
from liftbridge_transport_nats.embedded import EmbeddedServer

logger = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 2
_FIRST_ATTEMPTS = 5
_NOT_FLOWING = (nats.errors.ConnectionClosedError, nats.errors.ConnectionReconnectingError, nats.errors.TimeoutError)


class NatsTransport(Transport):
    """See :class:`liftbridge.interfaces.transport.Transport`."""

    def __init__(self, settings: Mapping[str, Any], *, namespace: str, server_id: str) -> None:
        self._settings = {name.removeprefix("transport.nats."): value for name, value in settings.items()}
        self._name = f"LIFT.{namespace}.{server_id}"
        self._servers = list(self._settings["servers"])
        self._embedded = self._make_embedded()
        self._connected = False
        self._stopping = False
        self._callbacks: list[Callable[[bool], None]] = []
        self._clients: dict[bool, Client] = {}
        self._bulk: dict[bool, BulkConnection] = {}

    def _make_embedded(self) -> EmbeddedServer | None:
        config_file = self._settings["embedded.config"]
        if not self._settings["embedded"] and not config_file:
            return None
        return EmbeddedServer(self._settings["embedded.listen"], config_file)

    async def start(self) -> None:
        if self._embedded is not None:
            self._servers = [await self._embedded.start()]
        for echo in (True, False):
            self._clients[echo] = await self._connect(echo)
        self._connected = True

    async def _connect(self, echo: bool) -> Client:
        client = Client()
        self._bulk[echo] = BulkConnection(client, self._settings["buffer.max.size"])
        name = f"{self._name}.{'main' if echo else 'data'}"

        async def changed() -> None:
            self._connection_changed(name)

        try:
            await client.connect(
                servers=self._servers,
                name=name,
                no_echo=not echo,
                connect_timeout=_CONNECT_TIMEOUT_S,
                max_reconnect_attempts=_FIRST_ATTEMPTS,
                reconnect_time_wait=self._settings["reconnect.wait"],
                error_cb=self._log_error,
                disconnected_cb=changed,
                reconnected_cb=changed,
                pending_size=0,
                **self._credentials(),
            )
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise TransportError(
                f"failed to connect to NATS at {', '.join(self._servers)}: {error or type(error).__name__}"
            ) from error
        client.options["max_reconnect_attempts"] = -1  # the first time somebody waits for an answer, later nobody does
        return client

    def _credentials(self) -> dict[str, Any]:
        """What was configured, in nats-py's words."""
        names = {
            "user": "user",
            "password": "password",
            "token": "token",
            "credentials": "user_credentials",
            "nkey": "nkeys_seed",
        }
        given = {theirs: self._settings[ours] for ours, theirs in names.items() if self._settings[ours]}
        context = self._tls_context()
        return given | ({"tls": context} if context else {})

    def _tls_context(self) -> ssl.SSLContext | None:
        ca, cert, key = (self._settings[f"tls.{part}"] for part in ("ca", "cert", "key"))
        if not (ca or cert or key):
            return None
        if bool(cert) != bool(key):
            raise ConfigError("transport.nats.tls.cert and transport.nats.tls.key go together")
        try:
            context = ssl.create_default_context(cafile=ca or None)
            if cert:
                context.load_cert_chain(cert, key)
        except OSError as error:
            raise ConfigError(f"transport.nats.tls: {error}") from error
        return context

    async def _log_error(self, error: Exception) -> None:
        logger.warning("connection to NATS: %s", error or type(error).__name__)

    def _connection_changed(self, name: str) -> None:
        if self._stopping:
            return
        connected = bool(self._clients) and all(client.is_connected for client in self._clients.values())
        if connected:
            logger.info('Connection "%s" reconnected to NATS', name)
        else:
            logger.error('Connection "%s" has been disconnected from NATS', name)
        if connected != self._connected:
            self._connected = connected
            for callback in self._callbacks:
                callback(connected)

    @property
    def max_payload_bytes(self) -> int:
        return self._clients[False].max_payload

    @property
    def connected(self) -> bool:
        return self._connected

    def publish(self, subject: str, payloads: Sequence[bytes], *, reply: str = "", echo: bool = True) -> None:
        _check_subject(subject)
        if reply:
            _check_subject(reply)
        longest = max(map(len, payloads), default=0)
        if longest > self.max_payload_bytes:
            raise PayloadTooLarge(f"{longest} bytes are more than the {self.max_payload_bytes} that NATS carries")
        if payloads and not self._bulk[echo].publish(subject, reply, payloads):
            state = "is slow" if self._connected else "is away"
            raise TransportClosed(
                f"NATS {state} and {self._bulk[echo].buffered_bytes} bytes wait already "
                "(transport.nats.buffer.max.size)"
            )

    async def subscribe(self, subject: str, sink: DeliverySink, *, queue: str = "", echo: bool = True) -> Subscription:
        bulk = self._bulk[echo or bool(queue)]
        try:
            return _NatsSubscription(bulk, await bulk.subscribe(subject, queue, sink))
        except _NOT_FLOWING as error:
            raise TransportClosed(f"can't subscribe to {subject}: {error}") from error

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        try:
            message = await self._clients[True].request(subject, payload, timeout=timeout_s)
        except nats.errors.NoRespondersError as error:
            raise NoResponders(f"nobody listens on {subject}") from error
        except nats.errors.TimeoutError as error:
            raise RequestTimeout(f"no reply on {subject} in {timeout_s} s") from error
        except nats.errors.Error as error:
            raise TransportClosed(f"request on {subject}: {error}") from error
        return bytes(message.data)

    async def flush(self, *, timeout_s: float) -> None:
        for echo, client in self._clients.items():
            self._bulk[echo].flush_now()
            try:
                await client.flush(timeout=timeout_s)  # type: ignore[arg-type]
            except (nats.errors.Error, ValueError) as error:
                raise TransportClosed(f"can't flush: {error}") from error

    def on_connection_change(self, callback: Callable[[bool], None]) -> None:
        self._callbacks.append(callback)

    async def stop(self) -> None:
        self._stopping = True
        for echo, client in self._clients.items():
            if client.is_connected:
                self._bulk[echo].flush_now()
            await client.close()
        self._clients.clear()
        self._connected = False
        if self._embedded is not None:
            await self._embedded.stop()


class _NatsSubscription:
    def __init__(self, bulk: BulkConnection, sid: int) -> None:
        self._bulk = bulk
        self._sid = sid

    async def unsubscribe(self) -> None:
        await self._bulk.unsubscribe(self._sid)


def _check_subject(subject: str) -> None:
    """NATS would read white space as the end of the subject, and wildcards reach nobody."""
    if not subject or any(character.isspace() or not character.isprintable() for character in subject):
        raise ValueError(f"can't publish to subject {subject!r}: it is empty or has white space")
    tokens = subject.split(".")
    if "" in tokens or "*" in tokens or ">" in tokens:
        raise ValueError(f"can't publish to subject {subject!r}: it has an empty part or a wildcard")
