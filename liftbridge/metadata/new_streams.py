"""When a stream can be created, and what it is then."""

from collections.abc import Mapping

from liftbridge.metadata.commands import CreateStream, Placement
from liftbridge.metadata.model import (
    PartitionState,
    RefusalReason,
    Refused,
    ServerState,
    ServerStatus,
    StreamState,
)


def new_stream(command: CreateStream, servers: Mapping[str, ServerState], index: int) -> StreamState | Refused:
    """The stream as it is created at ``index``, or why its placements can't be."""
    if not command.placements:
        return Refused(RefusalReason.BAD_PLACEMENT, "no partitions provided")
    for placement in command.placements:
        if problem := _problem_of(placement, servers):
            return Refused(RefusalReason.BAD_PLACEMENT, problem)
    return StreamState(
        stream_id=index,
        name=command.name,
        subject=command.subject,
        group=command.group,
        config=command.config,
        creation_timestamp_ns=command.creation_timestamp_ns,
        partitions=tuple(_placed(placement, servers, index) for placement in command.placements),
        replication_factor=max(len(placement.replicas) for placement in command.placements),
    )


def _problem_of(placement: Placement, servers: Mapping[str, ServerState]) -> str:
    if placement.leader not in placement.replicas or len(set(placement.replicas)) != len(placement.replicas):
        return f"leader {placement.leader!r} and replicas {placement.replicas} don't fit together"
    for server_id in placement.replicas:
        server = servers.get(server_id)
        if server is not None and server.status is ServerStatus.GONE:
            return f"server {server_id} was removed"
    return ""


def _placed(placement: Placement, servers: Mapping[str, ServerState], index: int) -> PartitionState:
    """A new log is empty everywhere, so everybody is in sync; but who is down may stay so, and would hold up acks."""
    down = {one.server_id for one in servers.values() if one.status is ServerStatus.DOWN}
    isr = tuple(one for one in placement.replicas if one not in down) or placement.replicas
    leader = "" if placement.leader in down else placement.leader
    return PartitionState(placement.replicas, isr, leader, index, index)
