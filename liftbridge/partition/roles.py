"""What a server is for a partition: its leader, a follower, or who wakes it up. Taking a role on and giving it up.

A change of role is a barrier: the old role is over, and everybody who waited for it has an answer, before the new one begins.
Only the listener, the ear on the partition's subject, is handed from one role to the next, as long as both are this server's.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from liftbridge.clock import Clock
from liftbridge.interfaces.transport import Subscription, Transport
from liftbridge.partition.assignment import Assignment
from liftbridge.partition.durability import Durability
from liftbridge.partition.ingress import SubjectIngress
from liftbridge.partition.leader import PartitionLeader
from liftbridge.partition.partition import Partition, PartitionKey
from liftbridge.partition.replication.cluster import Servers
from liftbridge.partition.replication.exchange import ReplicationExchange
from liftbridge.partition.replication.fetching import FollowedPartition
from liftbridge.partition.replication.following import FollowerReplication
from liftbridge.partition.replication.leading import LeaderReplication
from liftbridge.partition.replication.sessions import LedPartition
from liftbridge.partition.waiting_room import Intake, WaitingRoom
from liftbridge.patience import subscribe_patiently

logger = logging.getLogger(__name__)

_SUBSCRIBE_RETRY_S = 0.5


@dataclass(eq=False, slots=True)
class LeaderRole:
    """This server leads: publishers and followers are served."""

    leader_epoch: int
    leader: PartitionLeader
    led: LedPartition

    @property
    def settled(self) -> bool:
        return self.led.replication.settled

    def fits(self, target: Assignment) -> bool:
        return target.leads and not target.paused and target.leader_epoch == self.leader_epoch


@dataclass(eq=False, slots=True)
class FollowerRole:
    """This server copies what the leader has."""

    leader_epoch: int
    leader_id: str
    followed: FollowedPartition

    @property
    def settled(self) -> bool:
        return self.followed.replication.agrees

    def fits(self, target: Assignment) -> bool:
        return not (target.leads or target.paused) and (target.leader, target.leader_epoch) == (
            self.leader_id,
            self.leader_epoch,
        )


@dataclass(eq=False, slots=True)
class PausedRole:
    """This server leads a paused partition: what is published waits in the room, and makes it resume the partition."""

    room: WaitingRoom

    @property
    def settled(self) -> bool:
        return False

    def fits(self, target: Assignment) -> bool:
        return target.leads and target.paused


Role = LeaderRole | FollowerRole | PausedRole


@dataclass(eq=False, slots=True)
class Listener:
    """Hears what is published on the subject of a partition that this server leads, paused or not."""

    ingress: SubjectIngress
    subscription: Subscription


class _NoSubscription:
    """For a subject that the transport doesn't take, or nobody may publish to: clients of the API can all the same."""

    async def unsubscribe(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Roles:
    """What every role needs."""

    transport: Transport
    clock: Clock
    sync_executor: Executor
    exchange: ReplicationExchange
    servers: Servers
    server_id: str
    #: Sees to it that a paused partition is resumed.
    wake: Callable[[PartitionKey], None]

    def room(self, target: Assignment) -> WaitingRoom:
        """For what is published before the leader runs."""
        return WaitingRoom(target.key, target.leader_settings, readonly=target.readonly, wake=self.wake)

    async def listen(self, target: Assignment, intake: Intake) -> Listener:
        """Begins to hear what is published. Waits for the transport if it is away."""
        ingress = SubjectIngress(intake, self.transport, self.clock, target.key, target.base_subject)
        return Listener(ingress, await self._subscribe(target, ingress))

    def lead(self, target: Assignment, partition: Partition) -> LeaderRole:
        """Begins to lead."""
        settings = target.leader_settings
        replication = LeaderReplication(
            partition,
            server_id=self.server_id,
            leader_epoch=target.leader_epoch,
            replicas=target.replicas,
            isr=target.isr,
            partition_epoch=target.partition_epoch,
            min_isr=settings.min_isr,
            now_ns=self.clock.monotonic_ns(),
            durable_end=partition.high_watermark if settings.durability is Durability.SYNC else None,
            limits=self.exchange.limits.sync,
            may_serve=self.servers.may_serve,
            is_down=self.servers.is_down,
        )
        leader = PartitionLeader(partition, replication, settings, self.clock, self.sync_executor)
        led = LedPartition(target.key.log_id, partition, replication, leader.committed)
        if target.replicas != (self.server_id,):
            leader.replicate(_Followers(self.exchange, led))
            self.exchange.lead(led)
        leader.start()
        leader.set_readonly(target.readonly)
        return LeaderRole(target.leader_epoch, leader, led)

    async def _subscribe(self, target: Assignment, ingress: SubjectIngress) -> Subscription:
        echo = bool(target.group)
        if not target.listens:
            return _NoSubscription()
        try:
            return await subscribe_patiently(
                self.transport, target.subject, ingress.receive, queue=target.group, echo=echo
            )
        except ValueError as error:
            logger.error("%s gets nothing from its subject: %s", target.key, error)
            return _NoSubscription()

    def follow(
        self, target: Assignment, partition: Partition, begin_anew: Callable[[FollowedPartition], None]
    ) -> FollowerRole | None:
        """Begins to follow; None while there is nobody to follow."""
        if target.leader in ("", self.server_id):
            return None
        partition.set_readonly(False)  # what the leader will still send, only the leader knows
        settings = target.leader_settings
        followed = FollowedPartition(
            target.key.log_id,
            partition,
            FollowerReplication(partition, target.leader_epoch, str(target.key)),
            needs_sync=settings.durability is Durability.SYNC,
            sync_interval_s=settings.sync_interval_s if settings.durability is Durability.INTERVAL else 0.0,
            begin_anew=begin_anew,
        )
        self.exchange.follow(target.leader, followed)
        return FollowerRole(target.leader_epoch, target.leader, followed)

    def go_on(self, role: Role, target: Assignment) -> None:
        """The role stays; the ISR, or whether messages are taken, may be another."""
        if isinstance(role, LeaderRole):
            role.leader.set_readonly(target.readonly)
            self.exchange.isr_changed(role.led, target.isr, target.partition_epoch)
        elif isinstance(role, PausedRole):
            role.room.readonly = target.readonly

    def give_up(self, role: Role) -> None:
        """Ends the role because another server, or another epoch, has it now: what waits is answered."""
        match role:
            case FollowerRole():
                self.exchange.unfollow(role.leader_id, role.followed.log_id)
            case LeaderRole():
                role.leader.step_down()
                self.exchange.unlead(role.led.log_id)
            case PausedRole():
                role.room.close(f"this server no longer leads {role.room.key}")

    async def finish(self, role: Role) -> None:
        """Ends the role because the partition is paused or deleted, or the server stops: what was taken is still stored."""
        if isinstance(role, LeaderRole):
            await role.leader.close()
        self.give_up(role)


@dataclass(frozen=True, slots=True)
class _Followers:
    """The followers of one partition, as its leader sees them."""

    exchange: ReplicationExchange
    led: LedPartition

    def appending(self) -> None:
        self.exchange.appending()

    def appended(self) -> None:
        self.exchange.appended(self.led)

    def committed(self) -> None:
        self.exchange.committed(self.led)
