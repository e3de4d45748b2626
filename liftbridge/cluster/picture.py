"""The cluster as the metadata leader sees it, for people."""

from collections import Counter
from typing import Any

from liftbridge.cluster.control import ControllerCore
from liftbridge.interfaces.consensus import ConsensusStatus
from liftbridge.metadata.state import MetadataState
from liftbridge.protocol.generated import internal_pb2 as internal


def cluster_picture(
    state: MetadataState, status: ConsensusStatus, core: ControllerCore, cluster_id: str, now_ns: int
) -> internal.ClusterPicture:
    """Every server with a record, and every member of the metadata group that has none yet."""
    replicas: Counter[str] = Counter()
    leaderships: Counter[str] = Counter()
    in_sync: Counter[str] = Counter()
    partitions = [one for stream in state.streams.values() for one in stream.partitions]
    for partition in partitions:
        replicas.update(partition.replicas)
        in_sync.update(partition.isr)
        leaderships[partition.leader] += 1
    members = {*status.voters, *status.learners}
    return internal.ClusterPicture(
        cluster_id=cluster_id,
        metadata_leader=status.leader,
        term=status.term,
        applied_index=status.applied_index,
        partitions=len(partitions),
        offline_partitions=sum(not one.leader for one in partitions),
        partitions_out_of_sync=sum(len(one.isr) < len(one.replicas) for one in partitions),
        members=[
            internal.MemberPicture(
                server_id=server_id,
                voter=server_id in status.voters,
                member=server_id in members,
                replicas=replicas[server_id],
                leaderships=leaderships[server_id],
                in_sync=in_sync[server_id],
                silent_ms=_silent_ms(core, server_id, now_ns),
                **_record(state, server_id),
            )
            for server_id in sorted(members | set(state.servers))
        ],
    )


def _record(state: MetadataState, server_id: str) -> dict[str, Any]:
    server = state.servers.get(server_id)
    if server is None:
        return {"status": "joining"}
    return {
        "host": server.host,
        "port": server.port,
        "incarnation": server.incarnation,
        "status": server.status.name.lower(),
    }


def _silent_ms(core: ControllerCore, server_id: str, now_ns: int) -> int | None:
    silence_s = core.silence_s(server_id, now_ns)
    return None if silence_s is None else int(silence_s * 1000)
