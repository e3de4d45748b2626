"""The seam of the transport: subjects, publish, subscribe, request and reply. NATS, by default.

Delivery is at most once. Everything is handed over in lists, one call a socket read, never one a message.
All methods run on the event loop. Before ``start`` and after ``stop`` those that need a connection raise
:class:`~liftbridge.errors.TransportClosed`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol


class Delivery(NamedTuple):
    """Consecutive messages that arrived on one subject with one reply subject ("" when there is none)."""

    subject: str
    reply: str
    payloads: list[bytes]


#: Called once per socket read with everything that arrived for the subscription, in order. Must not raise or block.
DeliverySink = Callable[[list[Delivery]], None]


class Subscription(Protocol):
    """A live subscription; survives reconnects."""

    async def unsubscribe(self) -> None:
        """Stops it. The sink isn't called again after this returns. Idempotent."""


class Transport(ABC):
    """Carries messages between servers, publishers and subscribers.

    *Echo*: a message published with ``echo=False`` is not delivered to this server's own subscriptions made with
    ``echo=False``, and to every other subscription everywhere it is. That is how a leader that appended a message
    itself lets everybody else have it without storing it twice.
    """

    @abstractmethod
    async def start(self) -> None:
        """Connects. Raises :class:`~liftbridge.errors.TransportError` naming the servers it tried."""

    @property
    @abstractmethod
    def max_payload_bytes(self) -> int:
        """The largest payload that can be published now."""

    @property
    @abstractmethod
    def connected(self) -> bool:
        """Whether messages flow now. While not, publishes are buffered up to a bound and then refused."""

    @abstractmethod
    def publish(
        self,
        subject: str,
        payloads: Sequence[bytes],
        *,
        reply: str = "",
        echo: bool = True,
        deferrable: bool = False,
    ) -> None:
        """Hands messages over, in order; messages with the same ``echo`` keep the order of their calls. ``deferrable``
        ones may be held back for a few milliseconds, to be sent together with others.

        Returns before they are sent. Raises :class:`~liftbridge.errors.TransportClosed` when the buffer is full,
        :class:`~liftbridge.errors.PayloadTooLarge`, or :class:`ValueError` for a subject or reply subject that can't be
        published to. After an error nothing of the call was taken.
        """

    @abstractmethod
    async def subscribe(self, subject: str, sink: DeliverySink, *, queue: str = "", echo: bool = True) -> Subscription:
        """Subscribes; wildcards ``*`` and ``>`` are allowed. With ``queue``, each message goes to one member of that
        group only. Returns when the server knows of it: a message published afterwards arrives. Raises
        :class:`~liftbridge.errors.TransportClosed` when the server can't be asked, and :class:`ValueError` for a subject or
        group that can't be subscribed to; then there is no subscription."""

    def publish_direct(self, subject: str, payloads: Sequence[bytes], *, reply: str = "") -> None:
        """Like ``publish``, for subjects on which nobody listens but one other server, by ``subscribe_direct``: a transport
        that knows a shorter way to that server may take it. Messages that take different ways can overtake each other.
        Raises like ``publish``, but on the shorter way for the buffer of that way."""
        self.publish(subject, payloads, reply=reply, echo=False)

    async def subscribe_direct(self, subject: str, sink: DeliverySink) -> Subscription:
        """Like ``subscribe``; what others publish by ``publish_direct`` may come a shorter way."""
        return await self.subscribe(subject, sink)

    @abstractmethod
    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        """Sends a request and returns the first reply. Raises :class:`~liftbridge.errors.NoResponders` at once when nobody
        listens, :class:`~liftbridge.errors.RequestTimeout`, :class:`~liftbridge.errors.TransportClosed`,
        :class:`~liftbridge.errors.PayloadTooLarge`, or :class:`ValueError` for a subject that can't be published to."""

    @abstractmethod
    async def flush(self, *, timeout_s: float) -> None:
        """Returns when everything published before has reached the server of the transport. Raises
        :class:`~liftbridge.errors.TransportClosed` when it hasn't in that time, or can't."""

    @abstractmethod
    def on_connection_change(self, callback: Callable[[bool], None]) -> None:
        """Calls back with False when messages stop flowing and with True when they flow again."""

    @abstractmethod
    async def stop(self) -> None:
        """Sends what is buffered and disconnects. Idempotent."""
