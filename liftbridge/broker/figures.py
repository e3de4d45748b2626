"""What this server says of itself to whoever watches over it. Nothing is gathered in advance but rare events: everything
is read from what is there when somebody asks, so that messages pay nothing for it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from types import MappingProxyType

from liftbridge.cursors import Cursor, Cursors
from liftbridge.interfaces.consensus import ConsensusStatus
from liftbridge.interfaces.events import MetadataEvent, MetadataEventKind
from liftbridge.interfaces.figures import (
    ClusterFigures,
    GroupFigures,
    GroupPosition,
    LeaderFigures,
    LogFigures,
    ReplicaFigures,
    ReplicaProblem,
    ReplicaRole,
    ServerFigures,
)
from liftbridge.metadata.model import MemberState, PartitionState, ServerStatus, StreamState
from liftbridge.metadata.state import MetadataState
from liftbridge.partition.local import LocalPartition
from liftbridge.partition.manager import PartitionManager
from liftbridge.partition.partition import Partition
from liftbridge.partition.roles import FollowerRole, LeaderRole, PausedRole


class FiguresSource:
    """See :mod:`liftbridge.interfaces.figures`. ``status`` is that of consensus; ``connected`` and ``holds_lease`` are asked for
    each time."""

    def __init__(
        self,
        state: MetadataState,
        partitions: PartitionManager,
        cursors: Cursors,
        *,
        server_id: str,
        status: Callable[[], ConsensusStatus],
        connected: Callable[[], bool],
        holds_lease: Callable[[], bool],
    ) -> None:
        self._state = state
        self._partitions = partitions
        self._cursors = cursors
        self._server_id = server_id
        self._status = status
        self._connected = connected
        self._holds_lease = holds_lease
        self._events = Counter(dict.fromkeys(MetadataEventKind, 0))
        self._cluster: tuple[int, ClusterFigures] | None = None
        state.subscribe_events(self._count)

    def _count(self, event: MetadataEvent) -> None:
        self._events[event.kind] += len(event.partitions) or 1

    def server(self) -> ServerFigures:
        """The server, as of now."""
        status = self._status()
        return ServerFigures(
            connected=self._connected(),
            holds_lease=self._holds_lease(),
            metadata_leader=status.leader,
            is_metadata_leader=status.is_leader,
            term=status.term,
            commit_index=status.commit_index,
            applied_index=status.applied_index,
            cluster=self._cluster_figures(),
            groups=tuple(
                GroupFigures(group.group_id, len(group.members))
                for group in self._state.groups.values()
                if group.coordinator == self._server_id
            ),
            events=MappingProxyType(dict(self._events)),
        )

    def _cluster_figures(self) -> ClusterFigures:
        """Worked out anew only when metadata changed: it looks at every partition of the cluster."""
        if self._cluster is None or self._cluster[0] != self._state.version:
            self._cluster = (self._state.version, cluster_figures(self._state))
        return self._cluster[1]

    def replicas(self) -> Iterator[ReplicaFigures]:
        """Each replica here, as of when it is asked for. What goes away in between may be left out."""
        for local in list(self._partitions):
            yield replica_figures(local)

    async def group_positions(self) -> AsyncIterator[GroupPosition]:
        """Of the groups that have members, by the cursors that this server keeps."""
        for group in list(self._state.groups.values()):
            for member in group.members.values():
                known = await self._cursors.known_here(_cursors_of(group.group_id, member))
                for cursor, offset in known.items():
                    yield GroupPosition(group.group_id, cursor.stream, cursor.partition, offset + 1)
                await asyncio.sleep(0)


def _cursors_of(group_id: str, member: MemberState) -> Iterator[Cursor]:
    """All clients call the cursors of their groups so."""
    for stream, numbers in member.assigned.items():
        yield from (Cursor(f"__group:{group_id}", stream, number) for number in numbers)


def cluster_figures(state: MetadataState) -> ClusterFigures:
    """What metadata says now."""
    partitions = [(stream, one) for stream in state.streams.values() for one in stream.partitions]
    statuses = Counter(server.status for server in state.servers.values())
    return ClusterFigures(
        servers={one.name.lower(): statuses[one] for one in ServerStatus if one is not ServerStatus.GONE},
        streams=len(state.streams),
        partitions=len(partitions),
        offline_partitions=sum(not one.leader for _, one in partitions),
        under_replicated_partitions=sum(_is_under_replicated(stream, one) for stream, one in partitions),
    )


def _is_under_replicated(stream: StreamState, partition: PartitionState) -> bool:
    return len(partition.isr) < max(len(partition.replicas), stream.replication_factor)


def replica_figures(local: LocalPartition) -> ReplicaFigures:
    """One replica, as of now."""
    key, partition = local.assignment.key, local.partition
    refused = partition.refused_messages if partition is not None else {}
    return ReplicaFigures(
        stream=key.stream,
        partition=key.partition,
        role=_role(local),
        problem=_problem(local),
        subscriptions=partition.subscribers if partition is not None else 0,
        log=_log_figures(partition) if partition is not None else None,
        leader=_leader_figures(local, local.role) if isinstance(local.role, LeaderRole) else None,
        refused_messages={kind.name.lower().replace("_", " "): count for kind, count in refused.items()},
    )


def _role(local: LocalPartition) -> ReplicaRole:
    match local.role:
        case LeaderRole():
            return ReplicaRole.LEADER
        case FollowerRole():
            return ReplicaRole.FOLLOWER
        case PausedRole():
            return ReplicaRole.PAUSED
    return ReplicaRole.PAUSED if local.assignment.paused and local.damage is None else ReplicaRole.NONE


def _problem(local: LocalPartition) -> ReplicaProblem | None:
    if local.damage is not None:
        return ReplicaProblem.DAMAGED
    if local.partition is not None and local.partition.cannot_store:
        return ReplicaProblem.CANNOT_STORE
    return None


def _log_figures(partition: Partition) -> LogFigures:
    log = partition.log
    return LogFigures(
        log.start_offset, log.end_offset, partition.high_watermark, log.size_bytes, partition.lost_messages
    )


def _leader_figures(local: LocalPartition, role: LeaderRole) -> LeaderFigures:
    replication = role.led.replication
    return LeaderFigures(
        replicas=len(local.assignment.replicas),
        in_sync=len(replication.isr),
        min_in_sync=role.leader.settings.min_isr,
        lag_messages=replication.lag_messages(),
        dropped_messages=local.listener.ingress.dropped_messages if local.listener is not None else 0,
    )
