"""NATS, as servers see it: at most once, in order on each connection, with questions that nobody answers. And links
past it, from server to server (:mod:`simulation.links`).

A server has two connections, as the real transport has: what goes out with ``echo`` and what goes out without may
overtake each other. Hostile networks repeat and reorder more than NATS would; only conversations that must bear that
(Raft's, replication's and forwarding's) get it.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import count
from typing import NamedTuple

from liftbridge.errors import NoResponders, PayloadTooLarge, RequestTimeout, TransportClosed
from liftbridge.interfaces.transport import Delivery, DeliverySink, Subscription, Transport
from simulation.links import DirectLink, Link
from simulation.process import Process, Timeline

MAX_PAYLOAD_BYTES = 16 * 1024
#: In the subjects of conversations that bear anything.
_HARDENED = (".raft.", ".replication.", ".publish.", ".published.")


class Message(NamedTuple):
    subject: str
    reply: str
    payload: bytes


class Network:
    """What may go wrong: ``loss`` and ``repeats`` are probabilities, ``cut`` links carry nothing. ``hidden`` cuts are those
    that NATS has not noticed: it still thinks that somebody listens there. ``links``: whether there are direct ones, and
    what is ``_direct`` is about those; all else is about NATS."""

    def __init__(self, timeline: Timeline, chance: random.Random) -> None:
        self.timeline = timeline
        self.chance = chance
        self.delay_s = 0.001
        self.loss = 0.0
        self.repeats = 0.0
        self.reorders = 0.0
        self.cut: set[Link] = set()
        self.hidden: set[Link] = set()
        self.slow: dict[Link, float] = {}
        self.links = chance.random() < 0.8
        self.cut_direct: set[Link] = set()
        self.slow_direct: dict[Link, float] = {}
        #: What is sent next on these breaks them.
        self.fragile: set[Link] = set()
        #: Says of a subject whether it is cut off on a link though the link itself works.
        self.mute: Callable[[Link, str], bool] | None = None
        self._exact: defaultdict[str, list[SimulatedSubscription]] = defaultdict(list)
        self._wild: list[SimulatedSubscription] = []
        self._busy_until_ns: dict[tuple[Link, bool], int] = {}
        self._direct: dict[tuple[SimulatedTransport, SimulatedTransport], DirectLink] = {}

    def heal(self) -> None:
        self.loss = self.repeats = self.reorders = 0.0
        self.cut.clear()
        self.hidden.clear()
        self.slow.clear()
        self.cut_direct.clear()
        self.slow_direct.clear()
        self.fragile.clear()
        self.mute = None

    # --- subscriptions ------------------------------------------------------------------------------------------------

    def add(self, subscription: "SimulatedSubscription") -> None:
        if subscription.subject.endswith(".>") or "*" in subscription.subject:
            self._wild.append(subscription)
        else:
            self._exact[subscription.subject].append(subscription)

    def remove(self, subscription: "SimulatedSubscription") -> None:
        for place in (self._wild, self._exact.get(subscription.subject, [])):
            if subscription in place:
                place.remove(subscription)

    def forget(self, transport: "SimulatedTransport") -> None:
        """Its connections are closed."""
        for subscription in list(transport.subscriptions):
            self.remove(subscription)
        self._direct = {ends: link for ends, link in self._direct.items() if transport not in ends}

    # --- messages -----------------------------------------------------------------------------------------------------

    def route(self, sender: "SimulatedTransport", message: Message, *, echo: bool) -> int:
        """Sends it on its way; returns how many listen, as far as NATS knows."""
        listening = 0
        groups: dict[str, list[SimulatedSubscription]] = {}
        for subscription in self._listeners(message.subject):
            own_echo = subscription.owner is sender and not echo and not subscription.echo
            link = Link(sender.server_id, subscription.owner.server_id)
            if own_echo or (link in self.cut and link not in self.hidden):
                continue
            listening += 1
            if subscription.queue:
                groups.setdefault(subscription.queue, []).append(subscription)
            else:
                self._send(link, subscription, message, echo)
        for members in groups.values():
            chosen = members[self.chance.randrange(len(members))]
            self._send(Link(sender.server_id, chosen.owner.server_id), chosen, message, echo)
        return listening

    def is_cut(self, sender: "SimulatedTransport", receiver: "SimulatedTransport") -> bool:
        return Link(sender.server_id, receiver.server_id) in self.cut

    def send_direct(self, sender: "SimulatedTransport", messages: list[Message]) -> bool:
        """Whether there is a link to the server that listens: then they take it."""
        if not self.links:
            return False
        for subscription in self._listeners(messages[0].subject):
            owner = subscription.owner
            if subscription.direct and owner is not sender:
                link = self._direct.setdefault((sender, owner), DirectLink(self, sender, owner))
                if link.reaches(subscription):
                    for message in messages:
                        link.send(subscription, message)
                    return True
        return False

    def _listeners(self, subject: str) -> "list[SimulatedSubscription]":
        return [*self._exact.get(subject, ()), *(one for one in self._wild if _matches(one.subject, subject))]

    def _send(self, link: Link, subscription: "SimulatedSubscription", message: Message, echo: bool) -> None:
        away = link.source != link.target
        if link in self.cut or (self.mute is not None and self.mute(link, message.subject)):
            return
        if away and self.loss and self.chance.random() < self.loss:
            return
        delay_s = (self.delay_s if away else 0.0001) * (0.5 + self.chance.random()) + self.slow.get(link, 0.0)
        due_ns = self.timeline.now_ns + int(delay_s * 1e9)
        bears_anything = away and any(part in message.subject for part in _HARDENED)
        if bears_anything and self.repeats and self.chance.random() < self.repeats:
            late_ns = due_ns + int(self.chance.random() * 0.2e9)
            self.timeline.at(late_ns, lambda: self._arrive(link, subscription, message))
        if not (bears_anything and self.reorders and self.chance.random() < self.reorders):
            due_ns = max(due_ns, self._busy_until_ns.get((link, echo), 0))
            self._busy_until_ns[link, echo] = due_ns
        self.timeline.at(due_ns, lambda: self._arrive(link, subscription, message))

    def _arrive(self, link: Link, subscription: "SimulatedSubscription", message: Message) -> None:
        if link not in self.cut and subscription.owner.connected:
            subscription.take(message)


class SimulatedSubscription:
    """What arrives in one turn reaches the sink in one list."""

    def __init__(self, owner: "SimulatedTransport", subject: str, queue: str, echo: bool, sink: DeliverySink) -> None:
        self.owner = owner
        self.subject = subject
        self.queue = queue
        self.echo = echo
        self.live = True
        self.direct = False
        self._sink = sink
        self._arrived: list[Delivery] = []

    def take(self, message: Message) -> None:
        """It reaches the process, now or when that is thawed."""
        if self.live and self.owner.started:
            self.owner.process.happen(lambda: self._arrive(message))

    def _arrive(self, message: Message) -> None:
        if not self._arrived:
            self.owner.process.call_soon(self._hand_over)
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
        self.owner.network.remove(self)
        if self in self.owner.subscriptions:
            self.owner.subscriptions.remove(self)


class SimulatedTransport(Transport):
    """One process's connections."""

    def __init__(self, network: Network, server_id: str, process: Process) -> None:
        self.network = network
        self.server_id = server_id
        self.process = process
        self.subscriptions: list[SimulatedSubscription] = []
        self.started = False
        self._connected = False
        self._buffered: list[tuple[Message, bool]] = []
        self._callbacks: list[Callable[[bool], None]] = []
        self._inboxes = count(1)

    def set_connected(self, connected: bool) -> None:
        """NATS goes away, or comes back and gets what was held for it."""
        if connected == self._connected or not self.started:
            return
        self._connected = connected
        for callback in self._callbacks:
            callback(connected)
        buffered, self._buffered = (self._buffered, []) if connected else ([], self._buffered)
        for message, echo in buffered:
            self.network.route(self, message, echo=echo)

    async def start(self) -> None:
        self.started = self._connected = True

    async def stop(self) -> None:
        self.started = self._connected = False
        self.network.forget(self)

    @property
    def max_payload_bytes(self) -> int:
        return MAX_PAYLOAD_BYTES

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
        for message in self._messages(subject, payloads, reply):
            if self._connected:
                self.network.route(self, message, echo=echo)
            else:
                self._buffered.append((message, echo))

    def _messages(self, subject: str, payloads: Sequence[bytes], reply: str) -> list[Message]:
        if not self.started or not self.process.alive:
            raise TransportClosed("stopped")
        if max(map(len, payloads), default=0) > MAX_PAYLOAD_BYTES:
            raise PayloadTooLarge("larger than the network takes")
        return [Message(subject, reply, bytes(payload)) for payload in payloads]

    def publish_direct(self, subject: str, payloads: Sequence[bytes], *, reply: str = "") -> None:
        messages = self._messages(subject, payloads, reply)
        if messages and not self.network.send_direct(self, messages):
            super().publish_direct(subject, payloads, reply=reply)

    async def subscribe_direct(self, subject: str, sink: DeliverySink) -> Subscription:
        subscription = await self.subscribe(subject, sink)
        subscription.direct = True
        return subscription

    async def subscribe(
        self, subject: str, sink: DeliverySink, *, queue: str = "", echo: bool = True
    ) -> SimulatedSubscription:
        if not self._connected or not self.process.alive:
            raise TransportClosed("there is no connection now")
        subscription = SimulatedSubscription(self, subject, queue, echo, sink)
        self.subscriptions.append(subscription)
        self.network.add(subscription)
        return subscription

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        inbox = f"_INBOX.{self.server_id}.{next(self._inboxes)}"
        reply: asyncio.Future[bytes] = self.process.create_future()

        def first(deliveries: list[Delivery]) -> None:
            if not reply.done():
                reply.set_result(deliveries[0].payloads[0])

        subscription = await self.subscribe(inbox, first)
        try:
            if not self.network.route(self, Message(subject, inbox, payload), echo=True):
                await asyncio.sleep(self.network.delay_s)
                raise NoResponders(f"nobody listens on {subject}")
            async with asyncio.timeout(timeout_s):
                return await reply
        except TimeoutError:
            raise RequestTimeout(f"no reply on {subject} in {timeout_s} s") from None
        finally:
            await subscription.unsubscribe()

    async def flush(self, *, timeout_s: float) -> None:
        if not self._connected:
            raise TransportClosed("there is no connection now")


def _matches(pattern: str, subject: str) -> bool:
    if pattern.endswith(".>"):
        return subject.startswith(pattern[:-1])
    wanted, found = pattern.split("."), subject.split(".")
    return len(wanted) == len(found) and all(one in ("*", other) for one, other in zip(wanted, found, strict=True))
