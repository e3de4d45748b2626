"""Where the partitions of a new stream go. Plugins may decide; what they decide is checked."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from liftbridge.errors import InternalError, Unavailable
from liftbridge.metadata.commands import Placement
from liftbridge.metadata.model import ServerStatus
from liftbridge.metadata.state import MetadataState


class PlacementPolicy(Protocol):
    """Asked for each partition; None leaves the decision to the default."""

    def place_replicas(
        self, stream: str, partition: int, replication_factor: int, loads: Mapping[str, int]
    ) -> Sequence[str] | None: ...

    def choose_leader(
        self, stream: str, partition: int, candidates: Sequence[str], leaderships: Mapping[str, int]
    ) -> str | None: ...


def place(
    state: MetadataState,
    policy: PlacementPolicy,
    *,
    stream: str,
    partitions: int,
    replication_factor: int,
    servers: Sequence[str],
) -> tuple[Placement, ...]:
    """Spreads replicas and leaderships over ``servers``, counting what the same request placed before. Those that are
    down are used only when the others are too few, and never to lead."""
    live = [one for one in servers if is_live(state, one)]
    loads = Counter(dict.fromkeys(live if len(live) >= replication_factor else servers, 0))
    leaderships = Counter(dict.fromkeys(live, 0))
    for existing in state.streams.values():
        for partition in existing.partitions:
            loads.update(server for server in partition.replicas if server in loads)
            leaderships.update([partition.leader] if partition.leader in leaderships else [])
    placements = []
    for number in range(partitions):
        replicas = _replicas(policy, stream, number, replication_factor, loads)
        leader = choose_leader(policy, stream, number, [one for one in replicas if one in live], leaderships)
        loads.update(replicas)
        leaderships[leader] += 1
        placements.append(Placement(replicas, leader))
    return tuple(placements)


def _replicas(
    policy: PlacementPolicy, stream: str, partition: int, replication_factor: int, loads: Counter[str]
) -> tuple[str, ...]:
    chosen = policy.place_replicas(stream, partition, replication_factor, dict(loads))
    if chosen is None:
        return tuple(sorted(loads, key=lambda server: (loads[server], server))[:replication_factor])
    if len(set(chosen)) != replication_factor or not set(chosen) <= set(loads):
        raise InternalError(
            f"a liftbridge_place_replicas hook answered {list(chosen)} for partition {partition} of stream {stream}; "
            f"{replication_factor} different ones of {sorted(loads)} were asked for"
        )
    return tuple(chosen)


def choose_leader(
    policy: PlacementPolicy, stream: str, partition: int, candidates: Sequence[str], leaderships: Counter[str]
) -> str:
    """The candidate with the fewest leaderships, and of those the first replica, unless a plugin decides."""
    if not candidates:
        raise Unavailable(f"no server that is up could lead partition {partition} of stream {stream}")
    chosen = policy.choose_leader(stream, partition, candidates, dict(leaderships))
    if chosen is None:
        return min(candidates, key=lambda server: leaderships[server])
    if chosen not in candidates:
        raise InternalError(
            f"a liftbridge_choose_leader hook answered {chosen!r} for partition {partition} of stream {stream}; "
            f"one of {list(candidates)} was asked for"
        )
    return chosen


def is_live(state: MetadataState, server_id: str) -> bool:
    server = state.servers.get(server_id)
    return server is not None and server.status is ServerStatus.LIVE
