"""The partitions of a server "a" by themselves: who assigns them is the test."""

from liftbridge.clock import SystemClock
from liftbridge.interfaces.log import LogSettings, LogStorage
from liftbridge.interfaces.transport import Transport
from liftbridge.partition.assignment import Assignment, RetentionSettings
from liftbridge.partition.leader import LeaderSettings
from liftbridge.partition.manager import PartitionManager
from liftbridge.partition.partition import PartitionKey
from liftbridge.partition.replication.cluster import Servers
from liftbridge.partition.replication.exchange import ReplicationExchange


class NoController:
    """Nobody asks for anything here."""

    async def change_isr(self, *_: object, **__: object) -> bool:
        return False

    async def suspect_leader(self, *_: object, **__: object) -> bool:
        return False


def partition_manager(storage: LogStorage, transport: Transport, servers: Servers) -> PartitionManager:
    clock = SystemClock()
    exchange = ReplicationExchange(
        transport, clock, NoController(), servers, namespace="n", server_id="a", incarnation="a-1"
    )
    return PartitionManager(storage, transport, clock, exchange, servers, server_id="a")


def assignment(stream: str, stream_id: int, *, leader: str = "a", replicas: str = "a", min_isr: int = 1) -> Assignment:
    return Assignment(
        key=PartitionKey(stream, 0, stream_id),
        base_subject=stream,
        subject=stream,
        group="",
        replicas=tuple(replicas),
        isr=tuple(replicas),
        leader=leader,
        leader_epoch=1,
        partition_epoch=1,
        leads=leader == "a",
        leader_settings=LeaderSettings(min_isr=min_isr, max_message_bytes=100),
        log_settings=LogSettings(),
        retention=RetentionSettings(0, 0, 0, 1),
    )
