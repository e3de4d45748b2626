"""A server's side of its session with the controller: signs of life out, and for how long the answers let it lead."""

import asyncio
import contextlib
import logging

from google.protobuf.message import DecodeError

from liftbridge.clock import Clock
from liftbridge.cluster.telling import troubles_to_proto
from liftbridge.errors import TransportError
from liftbridge.interfaces.consensus import Consensus
from liftbridge.interfaces.transport import Delivery, Transport
from liftbridge.partition.troubles import Troubles
from liftbridge.patience import subscribe_patiently
from liftbridge.protocol.generated import internal_pb2 as internal

logger = logging.getLogger(__name__)


def heartbeat_subject(namespace: str) -> str:
    """Where the controller listens."""
    return f"{namespace}.cluster.heartbeat"


class Heartbeats:
    """Sends while another server leads the metadata group.

    *Lease*: the controller lets half a session time-out pass after the last heartbeat it heard before it so much as
    asks whether a server is still there. ``holds_lease`` lasts as long from when the heartbeat was sent, so it ends
    earlier: whoever is declared dead has lost its lease before, and gets none before it knows what was decided. Two
    can act beside their successor until their lease ends, for half a time-out at most: a leader that others replaced
    while it lives and that was cut off just then, and a metadata leader that was. Nothing that is committed depends on
    leases (docs/decisions/0010).
    """

    def __init__(
        self,
        transport: Transport,
        consensus: Consensus,
        clock: Clock,
        *,
        namespace: str,
        cluster_id: str,
        server_id: str,
        incarnation: str,
        interval_s: float,
        session_timeout_s: float,
        troubles: Troubles,
    ) -> None:
        self._transport = transport
        self._consensus = consensus
        self._clock = clock
        self._subject = heartbeat_subject(namespace)
        self._reply_subject = f"{namespace}.cluster.session.{server_id}.{incarnation}"
        self._message = internal.Heartbeat(cluster_id=cluster_id, server_id=server_id, incarnation=incarnation)
        self._troubles = troubles
        self._told_version = 0
        self._server_id = server_id
        self._interval_s = interval_s
        self._lease_ns = int(session_timeout_s * 1e9) // 2
        self._sent_ns: dict[int, int] = {}
        self._lease_end_ns = 0
        #: A lease that begins once this server has applied so much: index and end.
        self._granted: tuple[int, int] = (0, 0)
        self._leader_changed = asyncio.Event()
        consensus.on_leader_change(lambda _status: self._leader_changed.set())

    @property
    def holds_lease(self) -> bool:
        """Whether this server may act as the leader of partitions now."""
        if not self._transport.connected:
            return False  # which the controller may have noticed already
        self._begin_granted()
        return self._consensus.status().is_leader or self._clock.monotonic_ns() < self._lease_end_ns

    async def run(self) -> None:
        """Until cancelled. Sends nothing while this server is the metadata leader itself."""
        subscription = await subscribe_patiently(self._transport, self._reply_subject, self._receive)
        try:
            while True:
                self._leader_changed.clear()
                if self._consensus.status().is_leader:
                    await self._leader_changed.wait()
                    continue
                self._beat()
                await _wait(self._leader_changed, self._interval_s)
        finally:
            await subscription.unsubscribe()

    def _beat(self) -> None:
        if self._told_version != self._troubles.version:
            self._told_version = self._troubles.version
            del self._message.troubles[:]
            self._message.troubles.extend(troubles_to_proto(self._troubles))
        self._message.number += 1
        now_ns = self._clock.monotonic_ns()
        self._sent_ns[self._message.number] = now_ns
        if len(self._sent_ns) > 64:
            del self._sent_ns[next(iter(self._sent_ns))]
        try:
            self._transport.publish(self._subject, [self._message.SerializeToString()], reply=self._reply_subject)
        except TransportError as error:
            logger.debug("a heartbeat was not sent: %s", error)

    def _receive(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            for payload in delivery.payloads:
                try:
                    reply = internal.HeartbeatReply.FromString(payload)
                except DecodeError:
                    continue
                sent_ns = self._sent_ns.pop(reply.number, None)
                # What this server said to itself while it led proves nothing once it doesn't any more.
                if sent_ns is not None and reply.controller != self._server_id:
                    self._begin_granted()
                    self._granted = (reply.index, sent_ns + self._lease_ns)

    def _begin_granted(self) -> None:
        index, end_ns = self._granted
        if self._consensus.status().applied_index >= index:
            self._lease_end_ns = max(self._lease_end_ns, end_ns)


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):  # not wait_for: before Python 3.12 it can lose a cancellation
        async with asyncio.timeout(timeout_s):
            await event.wait()
