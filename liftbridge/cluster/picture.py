"""The cluster as the metadata leader sees it, for people."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from liftbridge.cluster.control import ControllerCore
from liftbridge.interfaces.consensus import ConsensusStatus
from liftbridge.interfaces.log import LogId
from liftbridge.metadata.model import ServerStatus
from liftbridge.metadata.state import MetadataState
from liftbridge.protocol.generated import internal_pb2 as internal

_MAX_SHOWN = 100


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
    troubles = list(_troubles(state, core))
    members = {*status.voters, *status.learners}
    return internal.ClusterPicture(
        cluster_id=cluster_id,
        metadata_leader=status.leader,
        term=status.term,
        applied_index=status.applied_index,
        partitions=len(partitions),
        offline_partitions=sum(not one.leader for one in partitions),
        partitions_out_of_sync=sum(len(one.isr) < len(one.replicas) for one in partitions),
        troubles=troubles[:_MAX_SHOWN],
        replicas_in_trouble=len(troubles),
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


def _troubles(state: MetadataState, core: ControllerCore) -> Iterator[internal.TroublePicture]:
    """Of the replicas on servers that are up; those on others are out of sync, or their partitions offline."""
    for stream in state.streams.values():
        for number, partition in enumerate(stream.partitions):
            for server_id in partition.replicas:
                trouble = core.trouble(server_id, LogId(stream.stream_id, number))
                if trouble is not None and _is_up(state, server_id):
                    yield internal.TroublePicture(
                        stream=stream.name,
                        partition=number,
                        server_id=server_id,
                        leads=server_id == partition.leader,
                        kind=trouble.kind.name,
                        text=trouble.text,
                    )


def _is_up(state: MetadataState, server_id: str) -> bool:
    server = state.servers.get(server_id)
    return server is not None and server.status in (ServerStatus.LIVE, ServerStatus.DRAINING)


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
