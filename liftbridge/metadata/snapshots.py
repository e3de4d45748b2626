"""The bytes of the whole metadata, and of outcomes. Snapshots of older versions load: what they lack has its default."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from liftbridge.metadata.activity_outbox import ActivityEntry, ActivityOutbox
from liftbridge.metadata.config import StreamConfig
from liftbridge.metadata.model import (
    Applied,
    EventTimes,
    GroupState,
    MemberState,
    PartitionState,
    RefusalReason,
    Refused,
    ServerState,
    ServerStatus,
    StreamState,
)
from liftbridge.protocol.generated import internal_pb2 as internal

Outcome = Applied | Refused


@dataclass(frozen=True, slots=True)
class MetadataSnapshot:
    """Everything that a snapshot holds. ``outcomes`` are those of the latest commands with a request ID, oldest first."""

    servers: Mapping[str, ServerState]
    streams: Mapping[str, StreamState]
    applied_index: int
    outcomes: Mapping[str, Outcome]
    groups: Mapping[str, GroupState] = field(default_factory=dict)
    activity: ActivityOutbox = field(default_factory=ActivityOutbox)


def encode_snapshot(snapshot: MetadataSnapshot) -> bytes:
    """The same for equal snapshots."""
    return internal.MetadataSnapshot(
        servers=[_server_to_proto(one) for _, one in sorted(snapshot.servers.items())],
        streams=[_stream_to_proto(one) for _, one in sorted(snapshot.streams.items())],
        applied_index=snapshot.applied_index,
        outcomes=[
            internal.RememberedOutcome(request_id=request_id, outcome=outcome_to_proto(outcome))
            for request_id, outcome in snapshot.outcomes.items()
        ],
        activity=[internal.ActivityEntry(index=one.index, event=one.event) for one in snapshot.activity],
        activity_lost=snapshot.activity.lost,
        groups=[_group_to_proto(one) for _, one in sorted(snapshot.groups.items())],
    ).SerializeToString(deterministic=True)


def decode_snapshot(data: bytes) -> MetadataSnapshot:
    message = internal.MetadataSnapshot.FromString(data)
    return MetadataSnapshot(
        servers={one.server_id: _server_from_proto(one) for one in message.servers},
        streams={one.name: _stream_from_proto(one) for one in message.streams},
        applied_index=max((message.applied_index, *_known_indexes(message.streams))),
        outcomes={one.request_id: outcome_from_proto(one.outcome) for one in message.outcomes},
        activity=ActivityOutbox(
            (ActivityEntry(one.index, one.event) for one in message.activity), message.activity_lost
        ),
        groups={one.group_id: _group_from_proto(one) for one in message.groups},
    )


def _known_indexes(streams: Iterable[internal.Stream]) -> Iterable[int]:
    """Indexes that an old snapshot, which doesn't say its own, can't be older than."""
    for stream in streams:
        yield stream.stream_id
        yield from (partition.partition_epoch for partition in stream.partitions)


def outcome_to_proto(outcome: Outcome) -> internal.Outcome:
    if isinstance(outcome, Refused):
        return internal.Outcome(refusal_reason=outcome.reason, refusal=outcome.message)
    return internal.Outcome(index=outcome.index, accepted=outcome.accepted)


def outcome_from_proto(message: internal.Outcome) -> Outcome:
    if message.index:
        return Applied(message.index, tuple(message.accepted))
    try:
        reason = RefusalReason(message.refusal_reason)
    except ValueError:
        reason = RefusalReason.UNKNOWN_COMMAND
    return Refused(reason, message.refusal)


def _server_to_proto(server: ServerState) -> internal.Server:
    return internal.Server(
        server_id=server.server_id,
        host=server.host,
        port=server.port,
        incarnation=server.incarnation,
        status=internal.ServerStatus.Name(server.status),
    )


def _server_from_proto(message: internal.Server) -> ServerState:
    return ServerState(message.server_id, message.host, message.port, message.incarnation, ServerStatus(message.status))


def _stream_to_proto(stream: StreamState) -> internal.Stream:
    return internal.Stream(
        stream_id=stream.stream_id,
        name=stream.name,
        subject=stream.subject,
        group=stream.group,
        config=stream.config.to_proto(),
        creation_timestamp_ns=stream.creation_timestamp_ns,
        replication_factor=stream.replication_factor,
        resume_all=stream.resume_all,
        partitions=[
            internal.Partition(
                replicas=one.replicas,
                isr=one.isr,
                leader=one.leader,
                leader_epoch=one.leader_epoch,
                partition_epoch=one.partition_epoch,
                paused=one.paused,
                readonly=one.readonly,
                pause_times=_times_to_proto(one.pause_times),
                readonly_times=_times_to_proto(one.readonly_times),
            )
            for one in stream.partitions
        ],
    )


def _stream_from_proto(message: internal.Stream) -> StreamState:
    return StreamState(
        stream_id=message.stream_id,
        name=message.name,
        subject=message.subject,
        group=message.group,
        config=StreamConfig.from_proto(message.config),
        creation_timestamp_ns=message.creation_timestamp_ns,
        partitions=tuple(
            PartitionState(
                tuple(one.replicas),
                tuple(one.isr),
                one.leader,
                one.leader_epoch,
                one.partition_epoch,
                one.paused,
                one.readonly,
                EventTimes(one.pause_times.first_ns, one.pause_times.latest_ns),
                EventTimes(one.readonly_times.first_ns, one.readonly_times.latest_ns),
            )
            for one in message.partitions
        ),
        replication_factor=message.replication_factor or max(len(one.replicas) for one in message.partitions),
        resume_all=message.resume_all,
    )


def _times_to_proto(times: EventTimes) -> internal.EventTimes | None:
    return internal.EventTimes(first_ns=times.first_ns, latest_ns=times.latest_ns) if times.latest_ns else None


def _group_to_proto(group: GroupState) -> internal.ConsumerGroup:
    return internal.ConsumerGroup(
        group_id=group.group_id,
        created_index=group.created_index,
        changed_index=group.changed_index,
        coordinator=group.coordinator,
        coordinator_index=group.coordinator_index,
        members=[_member_to_proto(one) for _, one in sorted(group.members.items())],
    )


def _member_to_proto(member: MemberState) -> internal.GroupMember:
    return internal.GroupMember(
        consumer_id=member.consumer_id,
        joined_index=member.joined_index,
        streams=member.streams,
        assigned=[
            internal.AssignedStream(stream=stream, partitions=partitions)
            for stream, partitions in sorted(member.assigned.items())
        ],
    )


def _group_from_proto(message: internal.ConsumerGroup) -> GroupState:
    members = {
        one.consumer_id: MemberState(
            one.consumer_id,
            one.joined_index,
            tuple(one.streams),
            {assigned.stream: tuple(assigned.partitions) for assigned in one.assigned},
        )
        for one in message.members
    }
    return GroupState(
        message.group_id,
        message.created_index,
        message.changed_index,
        message.coordinator,
        message.coordinator_index,
        members,
    )
