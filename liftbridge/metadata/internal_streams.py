"""The streams that the cluster keeps for itself: what they should be, and what to propose until they are. Without IO."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from liftbridge.metadata.commands import ChangePartitions, Command, CreateStream, PartitionChange
from liftbridge.metadata.config import StreamConfig
from liftbridge.metadata.model import ServerStatus, StreamState
from liftbridge.metadata.placement import PlacementPolicy, is_live, place
from liftbridge.metadata.state import MetadataState

#: "On every server."
ALL_SERVERS = -1


@dataclass(frozen=True, slots=True)
class InternalStream:
    """One of them, as the settings of the metadata leader want it. ``replication_factor`` may be ``ALL_SERVERS``."""

    name: str
    subject: str
    partitions: int
    replication_factor: int
    config: StreamConfig = field(default_factory=StreamConfig)


@dataclass(frozen=True, slots=True)
class InternalStreams:
    """All that this server's settings ask for. ``max_replicas`` bounds "on every server"; 0 is no bound.

    A stream is made as soon as there is one server for it, and gets its other replicas when their servers come: so it
    survives that server also in a cluster that began with one. It never loses replicas here.
    """

    wanted: Sequence[InternalStream] = ()
    max_replicas: int = 0

    def plan(self, state: MetadataState, policy: PlacementPolicy, now_ns: int) -> Iterator[Command]:
        """What is missing now; nothing when all is as it should be, or no server is up. ``now_ns`` is the time of day."""
        for one in self.wanted:
            stream = state.streams.get(one.name)
            if stream is None:
                yield from self._create(one, state, policy, now_ns)
            elif changes := tuple(self._grow(one, stream, state)):
                yield ChangePartitions(changes)

    def _create(
        self, one: InternalStream, state: MetadataState, policy: PlacementPolicy, now_ns: int
    ) -> Iterator[Command]:
        live = [server_id for server_id in sorted(state.servers) if is_live(state, server_id)]
        if not live:
            return
        placements = place(
            state,
            policy,
            stream=one.name,
            partitions=one.partitions,
            replication_factor=min(self._replicas(one, state), len(live)),
            servers=live,
        )
        yield CreateStream(one.name, one.subject, "", one.config, now_ns, placements)

    def _grow(self, one: InternalStream, stream: StreamState, state: MetadataState) -> Iterator[PartitionChange]:
        """Another set of replicas begins another leader epoch, so it is done once for all servers that are there."""
        target = self._replicas(one, state)
        held = Counter({server_id: 0 for server_id in sorted(state.servers) if is_live(state, server_id)})
        for other in state.streams.values():
            for partition in other.partitions:
                held.update(server_id for server_id in partition.replicas if server_id in held)
        for number, partition in enumerate(stream.partitions):
            missing = target - len(partition.replicas)
            others = sorted((one for one in held if one not in partition.replicas), key=lambda one: held[one])
            joining = others[: max(0, missing)]
            if joining and partition.leader:
                held.update(joining)
                replicas = (*partition.replicas, *joining)
                yield PartitionChange(stream.stream_id, number, partition.partition_epoch, replicas=replicas)

    def _replicas(self, one: InternalStream, state: MetadataState) -> int:
        """How many there should be; a server that is down counts, because it holds its replica when it is back."""
        usable = sum(server.status in (ServerStatus.LIVE, ServerStatus.DOWN) for server in state.servers.values())
        bound = self.max_replicas or usable
        return min(usable, bound if one.replication_factor == ALL_SERVERS else one.replication_factor)
