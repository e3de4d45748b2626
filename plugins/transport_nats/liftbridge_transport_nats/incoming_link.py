"""The receiving end of a direct link: a connection from another server."""

import asyncio
import hmac
import logging
from collections.abc import Mapping
from typing import Protocol, cast

from liftbridge.errors import ProtocolError
from liftbridge.interfaces.transport import Delivery, DeliverySink
from liftbridge_transport_nats.frames import HELLO_BYTES, WELCOME, FrameReader
from liftbridge_transport_nats.silence import notice_silence
from liftbridge_transport_nats.sinks import hand_over

logger = logging.getLogger(__name__)

_HELLO_TIMEOUT_S = 2.0
#: Anybody can connect to the port, and each connection takes a file descriptor that logs need, too.
_MAX_INCOMING = 500


class Receiver(Protocol):
    """What a link is for."""

    @property
    def hello(self) -> bytes:
        """What the other server must say first."""

    @property
    def sinks(self) -> Mapping[int, DeliverySink]:
        """Who gets messages, by the number of their subscription."""

    @property
    def incoming(self) -> "set[IncomingLink]":
        """The links that are open: each adds and removes itself."""

    @property
    def listening(self) -> bool:
        """False once it is stopping."""

    def note_stranger(self) -> None:
        """Somebody connected who isn't a server of the cluster."""


class IncomingLink(asyncio.Protocol):
    """Only who knows the receiver's hello is listened to."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._hello = b""
        self._reader: FrameReader | None = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not self._receiver.listening or len(self._receiver.incoming) >= _MAX_INCOMING:
            self.close()
            return
        self._receiver.incoming.add(self)
        self._timer = asyncio.get_running_loop().call_later(_HELLO_TIMEOUT_S, self.close)
        notice_silence(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        if self._reader is None:
            self._greet(data)
            return
        try:
            found = self._reader.feed(data)
        except ProtocolError as error:
            logger.error("%s; hanging up", error)
            self.close()
            return
        for number, deliveries in _by_subscription(found):
            sink = self._receiver.sinks.get(number)
            if sink is not None:
                hand_over(sink, deliveries)

    def _greet(self, data: bytes) -> None:
        self._hello += data
        if len(self._hello) < HELLO_BYTES:
            return
        if not hmac.compare_digest(self._hello, self._receiver.hello):
            self._receiver.note_stranger()
            self.close()
            return
        assert self._transport is not None
        assert self._timer is not None
        self._timer.cancel()
        self._reader = FrameReader()
        self._transport.write(WELCOME)

    def connection_lost(self, error: Exception | None) -> None:
        del error
        if self._timer is not None:
            self._timer.cancel()
        self._receiver.incoming.discard(self)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _by_subscription(found: list[tuple[int, Delivery]]) -> list[tuple[int, list[Delivery]]]:
    """In order of arrival, consecutive ones of one subscription together."""
    if len(found) == 1:
        return [(found[0][0], [found[0][1]])]
    together: list[tuple[int, list[Delivery]]] = []
    for number, delivery in found:
        if together and together[-1][0] == number:
            together[-1][1].append(delivery)
        else:
            together.append((number, [delivery]))
    return together
