"""What a server is for a partition: its leader or a follower. Taking a role on and giving it up, and nothing in between.

A change of role is a barrier: the old role is over, and everybody who waited for it has an answer, before the new one begins.
"""

import logging
from concurrent.futures import Executor
from dataclasses import dataclass

from liftbridge.clock import Clock
from liftbridge.interfaces.transport import Subscription, Transport
from liftbridge.partition.assignment import Assignment
from liftbridge.partition.durability import Durability
from liftbridge.partition.ingress import SubjectIngress
from liftbridge.partition.leader import PartitionLeader
from liftbridge.partition.partition import Partition
from liftbridge.partition.replication.cluster import Servers
from liftbridge.partition.replication.exchange import ReplicationExchange
from liftbridge.partition.replication.fetching import FollowedPartition
from liftbridge.partition.replication.following import FollowerReplication
from liftbridge.partition.replication.leading import LeaderReplication
from liftbridge.partition.replication.sessions import LedPartition
from liftbridge.patience import subscribe_patiently

logger = logging.getLogger(__name__)

_SUBSCRIBE_RETRY_S = 0.5


@dataclass(eq=False, slots=True)
class LeaderRole:
    """This server leads: publishers and followers are served."""

    leader_epoch: int
    leader: PartitionLeader
    led: LedPartition
    ingress: Subscription

    @property
    def settled(self) -> bool:
        return self.led.replication.settled

    def fits(self, target: Assignment) -> bool:
        return target.leads and target.leader_epoch == self.leader_epoch


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
        return not target.leads and (target.leader, target.leader_epoch) == (self.leader_id, self.leader_epoch)


Role = LeaderRole | FollowerRole


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

    async def take_on(self, target: Assignment, partition: Partition) -> Role | None:
        """Begins what the assignment asks for; None while there is nobody to follow."""
        if target.leads:
            return await self._lead(target, partition)
        if target.leader in ("", self.server_id):
            return None
        return self._follow(target, partition)

    async def _lead(self, target: Assignment, partition: Partition) -> LeaderRole:
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
        ingress = SubjectIngress(leader, self.transport, target.key.stream, target.base_subject)
        return LeaderRole(target.leader_epoch, leader, led, await self._subscribe(target, ingress))

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

    def _follow(self, target: Assignment, partition: Partition) -> FollowerRole:
        settings = target.leader_settings
        followed = FollowedPartition(
            target.key.log_id,
            partition,
            FollowerReplication(partition, target.leader_epoch, str(target.key)),
            needs_sync=settings.durability is Durability.SYNC,
            sync_interval_s=settings.sync_interval_s if settings.durability is Durability.INTERVAL else 0.0,
        )
        self.exchange.follow(target.leader, followed)
        return FollowerRole(target.leader_epoch, target.leader, followed)

    def go_on(self, role: Role, target: Assignment) -> None:
        """The role stays; the ISR may be another."""
        if isinstance(role, LeaderRole):
            self.exchange.isr_changed(role.led, target.isr, target.partition_epoch)

    async def give_up(self, role: Role) -> None:
        """Ends the role because another server has it now: what waits is answered before this first waits."""
        if isinstance(role, FollowerRole):
            self.exchange.unfollow(role.leader_id, role.followed.log_id)
            return
        role.leader.step_down()
        self.exchange.unlead(role.led.log_id)
        await role.ingress.unsubscribe()

    async def finish(self, role: Role) -> None:
        """Ends the role because the server stops or the partition is deleted: what was taken is still stored."""
        if isinstance(role, LeaderRole):
            await role.ingress.unsubscribe()
            await role.leader.close()
        await self.give_up(role)


@dataclass(frozen=True, slots=True)
class _Followers:
    """The followers of one partition, as its leader sees them."""

    exchange: ReplicationExchange
    led: LedPartition

    def appended(self) -> None:
        self.exchange.appended(self.led)

    def committed(self) -> None:
        self.exchange.committed(self.led)
