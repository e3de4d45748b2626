"""A transport in memory: many servers on one network, whose links a test can cut, delay and heal.

It has the semantics of the real one, loss included: what is under way on a link when it is cut is lost. It needs an event
loop, but neither threads, sockets nor the clock, unless a test asks for a delay.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import NamedTuple

from liftbridge.errors import NoResponders, PayloadTooLarge, RequestTimeout, TransportClosed
from liftbridge.interfaces.transport import Delivery, DeliverySink, Subscription, Transport

DEFAULT_MAX_PAYLOAD_BYTES = 1024 * 1024
DEFAULT_MAX_BUFFERED_BYTES = 8 * 1024 * 1024


class Message(NamedTuple):
    """One message under way."""

    subject: str
    reply: str
    payload: bytes


class MemorySubscription:
    """One subscription. What arrives in a turn of the event loop reaches the sink in one list."""

    def __init__(self, owner: "MemoryTransport", subject: str, queue: str, echo: bool, sink: DeliverySink) -> None:
        self.owner = owner
        self.subject = subject
        self.queue = queue
        self.echo = echo
        self.live = True
        self._sink = sink
        self._arrived: list[Delivery] = []

    def arrive(self, message: Message) -> None:
        if not self._arrived:
            asyncio.get_running_loop().call_soon(self._hand_over)
        last = self._arrived[-1] if self._arrived else None
        if last is not None and (last.subject, last.reply) == (message.subject, message.reply):
            last.payloads.append(message.payload)
        else:
            self._arrived.append(Delivery(message.subject, message.reply, [message.payload]))

    def _hand_over(self) -> None:
        arrived, self._arrived = self._arrived, []
        if self.live and arrived:
            self._sink(arrived)

    async def unsubscribe(self) -> None:
        self.live = False
        self._arrived.clear()
        self.owner.network.remove(self)


class _Link:
    """The way from one server to another: first in, first out."""

    def __init__(self) -> None:
        self.up = True
        self.delay_s = 0.0
        self._under_way: deque[tuple[float, MemorySubscription, Message]] = deque()

    def send(self, subscription: MemorySubscription, message: Message) -> None:
        if not self.up:
            return
        if not self.delay_s and not self._under_way:
            subscription.arrive(message)
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + self.delay_s
        if self._under_way:
            due = max(due, self._under_way[-1][0])
        else:
            loop.call_at(due, self._arrive_due)
        self._under_way.append((due, subscription, message))

    def cut(self) -> None:
        self.up = False
        self._under_way.clear()

    def _arrive_due(self) -> None:
        loop = asyncio.get_running_loop()
        while self._under_way and self._under_way[0][0] <= loop.time():
            _, subscription, message = self._under_way.popleft()
            subscription.arrive(message)
        if self._under_way:
            loop.call_at(self._under_way[0][0], self._arrive_due)


class MemoryNetwork:
    """What the transports of a test share."""

    def __init__(self, *, max_payload_bytes: int = DEFAULT_MAX_PAYLOAD_BYTES) -> None:
        self.max_payload_bytes = max_payload_bytes
        self._subscriptions: list[MemorySubscription] = []
        self._links: defaultdict[tuple[str, str], _Link] = defaultdict(_Link)
        self._turns: defaultdict[tuple[str, str], Iterator[int]] = defaultdict(count)

    # --- for tests ----------------------------------------------------------------------------------------------------

    def cut(self, source: str, target: str, *, both_ways: bool = True) -> None:
        """From now on, nothing that server ``source`` sends reaches ``target``."""
        self._links[source, target].cut()
        if both_ways:
            self._links[target, source].cut()

    def heal(self, source: str, target: str) -> None:
        """Undoes ``cut``, in both directions."""
        self._links[source, target].up = self._links[target, source].up = True

    def delay(self, source: str, target: str, delay_s: float) -> None:
        """What ``source`` sends from now on takes ``delay_s`` to ``target``; it stays in order."""
        self._links[source, target].delay_s = delay_s

    # --- for transports -----------------------------------------------------------------------------------------------

    def add(self, subscription: MemorySubscription) -> None:
        self._subscriptions.append(subscription)

    def remove(self, subscription: MemorySubscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def route(self, sender: "MemoryTransport", message: Message, *, echo: bool) -> int:
        """Sends ``message`` on its way and returns how many subscriptions it is on the way to."""
        groups: defaultdict[tuple[str, str], list[MemorySubscription]] = defaultdict(list)
        targets: list[MemorySubscription] = []
        for subscription in self._subscriptions:
            if self._hears(subscription, sender, message.subject, echo):
                if subscription.queue:
                    groups[subscription.subject, subscription.queue].append(subscription)
                else:
                    targets.append(subscription)
        targets += [members[next(self._turns[group]) % len(members)] for group, members in groups.items()]
        for subscription in targets:
            self._links[sender.server_id, subscription.owner.server_id].send(subscription, message)
        return len(targets)

    def _hears(self, subscription: MemorySubscription, sender: "MemoryTransport", subject: str, echo: bool) -> bool:
        own_echo = subscription.owner is sender and not echo and not subscription.echo and not subscription.queue
        return (
            not own_echo
            and subscription.owner.connected
            and self._links[sender.server_id, subscription.owner.server_id].up
            and _matches(subscription.subject, subject)
        )


class MemoryTransport(Transport):
    """One server's side of a :class:`MemoryNetwork`."""

    def __init__(
        self, network: MemoryNetwork, server_id: str, *, max_buffered_bytes: int = DEFAULT_MAX_BUFFERED_BYTES
    ) -> None:
        self.network = network
        self.server_id = server_id
        self._max_buffered_bytes = max_buffered_bytes
        self._started = False
        self._connected = False
        self._buffered: deque[tuple[Message, bool]] = deque()
        self._buffered_bytes = 0
        self._callbacks: list[Callable[[bool], None]] = []
        self._subscriptions: list[MemorySubscription] = []
        self._inboxes = count(1)

    # --- for tests ----------------------------------------------------------------------------------------------------

    def disconnect(self) -> None:
        """The connection to the network is lost, until ``reconnect``."""
        self._change_connection(False)

    def reconnect(self) -> None:
        """The connection is back: what was buffered goes out, and subscriptions hear again."""
        self._change_connection(True)
        while self._buffered:
            message, echo = self._buffered.popleft()
            self.network.route(self, message, echo=echo)
        self._buffered_bytes = 0

    # --- the seam -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        self._started = self._connected = True

    async def stop(self) -> None:
        self._started = self._connected = False
        for subscription in list(self._subscriptions):
            await subscription.unsubscribe()
        self._subscriptions.clear()

    @property
    def max_payload_bytes(self) -> int:
        return self.network.max_payload_bytes

    @property
    def connected(self) -> bool:
        return self._connected

    def on_connection_change(self, callback: Callable[[bool], None]) -> None:
        self._callbacks.append(callback)

    def publish(
        self,
        subject: str,
        payloads: Sequence[bytes],
        *,
        reply: str = "",
        echo: bool = True,
        deferrable: bool = False,
    ) -> None:
        self._check_publish(subject, reply, payloads)
        messages = [Message(subject, reply, bytes(payload)) for payload in payloads]
        if self._connected:
            for message in messages:
                self.network.route(self, message, echo=echo)
            return
        size = sum(len(payload) for payload in payloads)
        if self._buffered_bytes + size > self._max_buffered_bytes:
            raise TransportClosed(f"{self._buffered_bytes} bytes wait for the connection already")
        self._buffered.extend((message, echo) for message in messages)
        self._buffered_bytes += size

    async def subscribe(self, subject: str, sink: DeliverySink, *, queue: str = "", echo: bool = True) -> Subscription:
        _check_tokens(subject, wildcards=True)
        if any(map(str.isspace, queue)):
            raise ValueError(f"group {queue!r} has white space")
        self._require_connection()
        subscription = MemorySubscription(self, subject, queue, echo, sink)
        self._subscriptions.append(subscription)
        self.network.add(subscription)
        return subscription

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        inbox = f"_INBOX.{self.server_id}.{next(self._inboxes)}"
        self._check_publish(subject, inbox, [payload])
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        subscription = await self.subscribe(inbox, _first_into(reply))
        try:
            if not self.network.route(self, Message(subject, inbox, payload), echo=True):
                raise NoResponders(f"nobody listens on {subject}")
            return await asyncio.wait_for(reply, timeout_s)
        except TimeoutError:
            raise RequestTimeout(f"no reply on {subject} in {timeout_s:.3g} s") from None
        finally:
            await subscription.unsubscribe()

    async def flush(self, *, timeout_s: float) -> None:
        self._require_connection()

    # ------------------------------------------------------------------------------------------------------------------

    def _change_connection(self, connected: bool) -> None:
        if connected != self._connected:
            self._connected = connected
            for callback in self._callbacks:
                callback(connected)

    def _require_connection(self) -> None:
        if not self._connected:
            raise TransportClosed("there is no connection to the network now")

    def _check_publish(self, subject: str, reply: str, payloads: Sequence[bytes]) -> None:
        if not self._started:
            raise TransportClosed("not started yet, or stopped")
        _check_tokens(subject, wildcards=False)
        if reply:
            _check_tokens(reply, wildcards=False)
        longest = max(map(len, payloads), default=0)
        if longest > self.max_payload_bytes:
            raise PayloadTooLarge(f"{longest} bytes are more than the {self.max_payload_bytes} that can be carried")


def _first_into(reply: "asyncio.Future[bytes]") -> DeliverySink:
    def sink(deliveries: list[Delivery]) -> None:
        if not reply.done():
            reply.set_result(deliveries[0].payloads[0])

    return sink


def _check_tokens(subject: str, *, wildcards: bool) -> None:
    tokens = subject.split(".")
    if "" in tokens or any(character.isspace() or not character.isprintable() for character in subject):
        raise ValueError(f"subject {subject!r} has white space, a control character or an empty part between dots")
    if ">" in tokens[:-1] or (not wildcards and ("*" in tokens or ">" in tokens)):
        raise ValueError(f"subject {subject!r} has a wildcard where none may be")


def _matches(pattern: str, subject: str) -> bool:
    wanted, found = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(found) <= len(wanted):
            return False
        found = found[: len(wanted)]
    return len(wanted) == len(found) and all(map(lambda token, other: token in ("*", other), wanted, found))
