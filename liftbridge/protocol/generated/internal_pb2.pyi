from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ServerStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LIVE: _ClassVar[ServerStatus]
    DOWN: _ClassVar[ServerStatus]
    DRAINING: _ClassVar[ServerStatus]
    GONE: _ClassVar[ServerStatus]
LIVE: ServerStatus
DOWN: ServerStatus
DRAINING: ServerStatus
GONE: ServerStatus

class Command(_message.Message):
    __slots__ = ("register_server", "create_stream", "delete_stream", "change_partitions", "change_server", "pause_partitions", "resume_partitions", "set_readonly", "join_group", "leave_group", "change_coordinators", "activity_published", "request_id")
    REGISTER_SERVER_FIELD_NUMBER: _ClassVar[int]
    CREATE_STREAM_FIELD_NUMBER: _ClassVar[int]
    DELETE_STREAM_FIELD_NUMBER: _ClassVar[int]
    CHANGE_PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    CHANGE_SERVER_FIELD_NUMBER: _ClassVar[int]
    PAUSE_PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    RESUME_PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    SET_READONLY_FIELD_NUMBER: _ClassVar[int]
    JOIN_GROUP_FIELD_NUMBER: _ClassVar[int]
    LEAVE_GROUP_FIELD_NUMBER: _ClassVar[int]
    CHANGE_COORDINATORS_FIELD_NUMBER: _ClassVar[int]
    ACTIVITY_PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    register_server: RegisterServer
    create_stream: CreateStream
    delete_stream: DeleteStream
    change_partitions: ChangePartitions
    change_server: ChangeServer
    pause_partitions: PausePartitions
    resume_partitions: ResumePartitions
    set_readonly: SetReadonly
    join_group: JoinGroup
    leave_group: LeaveGroup
    change_coordinators: ChangeCoordinators
    activity_published: ActivityPublished
    request_id: str
    def __init__(self, register_server: _Optional[_Union[RegisterServer, _Mapping]] = ..., create_stream: _Optional[_Union[CreateStream, _Mapping]] = ..., delete_stream: _Optional[_Union[DeleteStream, _Mapping]] = ..., change_partitions: _Optional[_Union[ChangePartitions, _Mapping]] = ..., change_server: _Optional[_Union[ChangeServer, _Mapping]] = ..., pause_partitions: _Optional[_Union[PausePartitions, _Mapping]] = ..., resume_partitions: _Optional[_Union[ResumePartitions, _Mapping]] = ..., set_readonly: _Optional[_Union[SetReadonly, _Mapping]] = ..., join_group: _Optional[_Union[JoinGroup, _Mapping]] = ..., leave_group: _Optional[_Union[LeaveGroup, _Mapping]] = ..., change_coordinators: _Optional[_Union[ChangeCoordinators, _Mapping]] = ..., activity_published: _Optional[_Union[ActivityPublished, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class RegisterServer(_message.Message):
    __slots__ = ("server_id", "host", "port", "incarnation", "unclean")
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    UNCLEAN_FIELD_NUMBER: _ClassVar[int]
    server_id: str
    host: str
    port: int
    incarnation: str
    unclean: bool
    def __init__(self, server_id: _Optional[str] = ..., host: _Optional[str] = ..., port: _Optional[int] = ..., incarnation: _Optional[str] = ..., unclean: _Optional[bool] = ...) -> None: ...

class ChangePartitions(_message.Message):
    __slots__ = ("changes",)
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[PartitionChange]
    def __init__(self, changes: _Optional[_Iterable[_Union[PartitionChange, _Mapping]]] = ...) -> None: ...

class PartitionChange(_message.Message):
    __slots__ = ("stream_id", "partition", "partition_epoch", "leader", "isr", "replicas", "unclean")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    PARTITION_EPOCH_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    ISR_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    UNCLEAN_FIELD_NUMBER: _ClassVar[int]
    stream_id: int
    partition: int
    partition_epoch: int
    leader: str
    isr: _containers.RepeatedScalarFieldContainer[str]
    replicas: _containers.RepeatedScalarFieldContainer[str]
    unclean: bool
    def __init__(self, stream_id: _Optional[int] = ..., partition: _Optional[int] = ..., partition_epoch: _Optional[int] = ..., leader: _Optional[str] = ..., isr: _Optional[_Iterable[str]] = ..., replicas: _Optional[_Iterable[str]] = ..., unclean: _Optional[bool] = ...) -> None: ...

class ChangeServer(_message.Message):
    __slots__ = ("server_id", "incarnation", "status")
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    server_id: str
    incarnation: str
    status: ServerStatus
    def __init__(self, server_id: _Optional[str] = ..., incarnation: _Optional[str] = ..., status: _Optional[_Union[ServerStatus, str]] = ...) -> None: ...

class CreateStream(_message.Message):
    __slots__ = ("name", "subject", "group", "config", "creation_timestamp_ns", "placements")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    CREATION_TIMESTAMP_NS_FIELD_NUMBER: _ClassVar[int]
    PLACEMENTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    subject: str
    group: str
    config: StreamConfig
    creation_timestamp_ns: int
    placements: _containers.RepeatedCompositeFieldContainer[Placement]
    def __init__(self, name: _Optional[str] = ..., subject: _Optional[str] = ..., group: _Optional[str] = ..., config: _Optional[_Union[StreamConfig, _Mapping]] = ..., creation_timestamp_ns: _Optional[int] = ..., placements: _Optional[_Iterable[_Union[Placement, _Mapping]]] = ...) -> None: ...

class Placement(_message.Message):
    __slots__ = ("replicas", "leader")
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    replicas: _containers.RepeatedScalarFieldContainer[str]
    leader: str
    def __init__(self, replicas: _Optional[_Iterable[str]] = ..., leader: _Optional[str] = ...) -> None: ...

class DeleteStream(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class PausePartitions(_message.Message):
    __slots__ = ("stream", "partitions", "resume_all", "timestamp_ns", "leader_epochs")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    RESUME_ALL_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_NS_FIELD_NUMBER: _ClassVar[int]
    LEADER_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    stream: str
    partitions: _containers.RepeatedScalarFieldContainer[int]
    resume_all: bool
    timestamp_ns: int
    leader_epochs: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, stream: _Optional[str] = ..., partitions: _Optional[_Iterable[int]] = ..., resume_all: _Optional[bool] = ..., timestamp_ns: _Optional[int] = ..., leader_epochs: _Optional[_Iterable[int]] = ...) -> None: ...

class ResumePartitions(_message.Message):
    __slots__ = ("stream", "partitions", "timestamp_ns")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_NS_FIELD_NUMBER: _ClassVar[int]
    stream: str
    partitions: _containers.RepeatedScalarFieldContainer[int]
    timestamp_ns: int
    def __init__(self, stream: _Optional[str] = ..., partitions: _Optional[_Iterable[int]] = ..., timestamp_ns: _Optional[int] = ...) -> None: ...

class SetReadonly(_message.Message):
    __slots__ = ("stream", "partitions", "readonly", "timestamp_ns")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    READONLY_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_NS_FIELD_NUMBER: _ClassVar[int]
    stream: str
    partitions: _containers.RepeatedScalarFieldContainer[int]
    readonly: bool
    timestamp_ns: int
    def __init__(self, stream: _Optional[str] = ..., partitions: _Optional[_Iterable[int]] = ..., readonly: _Optional[bool] = ..., timestamp_ns: _Optional[int] = ...) -> None: ...

class ActivityPublished(_message.Message):
    __slots__ = ("up_to_index",)
    UP_TO_INDEX_FIELD_NUMBER: _ClassVar[int]
    up_to_index: int
    def __init__(self, up_to_index: _Optional[int] = ...) -> None: ...

class JoinGroup(_message.Message):
    __slots__ = ("group_id", "consumer_id", "streams")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    consumer_id: str
    streams: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, group_id: _Optional[str] = ..., consumer_id: _Optional[str] = ..., streams: _Optional[_Iterable[str]] = ...) -> None: ...

class LeaveGroup(_message.Message):
    __slots__ = ("group_id", "consumer_id", "expired", "joined_index", "coordinator_index")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_FIELD_NUMBER: _ClassVar[int]
    JOINED_INDEX_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_INDEX_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    consumer_id: str
    expired: bool
    joined_index: int
    coordinator_index: int
    def __init__(self, group_id: _Optional[str] = ..., consumer_id: _Optional[str] = ..., expired: _Optional[bool] = ..., joined_index: _Optional[int] = ..., coordinator_index: _Optional[int] = ...) -> None: ...

class ChangeCoordinators(_message.Message):
    __slots__ = ("changes",)
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[CoordinatorChange]
    def __init__(self, changes: _Optional[_Iterable[_Union[CoordinatorChange, _Mapping]]] = ...) -> None: ...

class CoordinatorChange(_message.Message):
    __slots__ = ("group_id", "changed_index", "coordinator")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    CHANGED_INDEX_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    changed_index: int
    coordinator: str
    def __init__(self, group_id: _Optional[str] = ..., changed_index: _Optional[int] = ..., coordinator: _Optional[str] = ...) -> None: ...

class StreamConfig(_message.Message):
    __slots__ = ("retention_max_bytes", "retention_max_messages", "retention_max_age_ms", "cleaner_interval_ms", "segment_max_bytes", "segment_max_age_ms", "compact_enabled", "compact_max_workers", "auto_pause_time_ms", "auto_pause_disable_if_subscribers", "min_isr", "optimistic_concurrency_control", "encryption")
    RETENTION_MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    RETENTION_MAX_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    RETENTION_MAX_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    CLEANER_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_MAX_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    COMPACT_ENABLED_FIELD_NUMBER: _ClassVar[int]
    COMPACT_MAX_WORKERS_FIELD_NUMBER: _ClassVar[int]
    AUTO_PAUSE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    AUTO_PAUSE_DISABLE_IF_SUBSCRIBERS_FIELD_NUMBER: _ClassVar[int]
    MIN_ISR_FIELD_NUMBER: _ClassVar[int]
    OPTIMISTIC_CONCURRENCY_CONTROL_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTION_FIELD_NUMBER: _ClassVar[int]
    retention_max_bytes: int
    retention_max_messages: int
    retention_max_age_ms: int
    cleaner_interval_ms: int
    segment_max_bytes: int
    segment_max_age_ms: int
    compact_enabled: bool
    compact_max_workers: int
    auto_pause_time_ms: int
    auto_pause_disable_if_subscribers: bool
    min_isr: int
    optimistic_concurrency_control: bool
    encryption: bool
    def __init__(self, retention_max_bytes: _Optional[int] = ..., retention_max_messages: _Optional[int] = ..., retention_max_age_ms: _Optional[int] = ..., cleaner_interval_ms: _Optional[int] = ..., segment_max_bytes: _Optional[int] = ..., segment_max_age_ms: _Optional[int] = ..., compact_enabled: _Optional[bool] = ..., compact_max_workers: _Optional[int] = ..., auto_pause_time_ms: _Optional[int] = ..., auto_pause_disable_if_subscribers: _Optional[bool] = ..., min_isr: _Optional[int] = ..., optimistic_concurrency_control: _Optional[bool] = ..., encryption: _Optional[bool] = ...) -> None: ...

class MetadataSnapshot(_message.Message):
    __slots__ = ("servers", "streams", "applied_index", "outcomes", "groups", "activity", "activity_lost")
    SERVERS_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    APPLIED_INDEX_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    ACTIVITY_FIELD_NUMBER: _ClassVar[int]
    ACTIVITY_LOST_FIELD_NUMBER: _ClassVar[int]
    servers: _containers.RepeatedCompositeFieldContainer[Server]
    streams: _containers.RepeatedCompositeFieldContainer[Stream]
    applied_index: int
    outcomes: _containers.RepeatedCompositeFieldContainer[RememberedOutcome]
    groups: _containers.RepeatedCompositeFieldContainer[ConsumerGroup]
    activity: _containers.RepeatedCompositeFieldContainer[ActivityEntry]
    activity_lost: int
    def __init__(self, servers: _Optional[_Iterable[_Union[Server, _Mapping]]] = ..., streams: _Optional[_Iterable[_Union[Stream, _Mapping]]] = ..., applied_index: _Optional[int] = ..., outcomes: _Optional[_Iterable[_Union[RememberedOutcome, _Mapping]]] = ..., groups: _Optional[_Iterable[_Union[ConsumerGroup, _Mapping]]] = ..., activity: _Optional[_Iterable[_Union[ActivityEntry, _Mapping]]] = ..., activity_lost: _Optional[int] = ...) -> None: ...

class ActivityEntry(_message.Message):
    __slots__ = ("index", "event")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    index: int
    event: bytes
    def __init__(self, index: _Optional[int] = ..., event: _Optional[bytes] = ...) -> None: ...

class ConsumerGroup(_message.Message):
    __slots__ = ("group_id", "created_index", "changed_index", "coordinator", "coordinator_index", "members")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_INDEX_FIELD_NUMBER: _ClassVar[int]
    CHANGED_INDEX_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_INDEX_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    created_index: int
    changed_index: int
    coordinator: str
    coordinator_index: int
    members: _containers.RepeatedCompositeFieldContainer[GroupMember]
    def __init__(self, group_id: _Optional[str] = ..., created_index: _Optional[int] = ..., changed_index: _Optional[int] = ..., coordinator: _Optional[str] = ..., coordinator_index: _Optional[int] = ..., members: _Optional[_Iterable[_Union[GroupMember, _Mapping]]] = ...) -> None: ...

class GroupMember(_message.Message):
    __slots__ = ("consumer_id", "joined_index", "streams", "assigned")
    CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    JOINED_INDEX_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    ASSIGNED_FIELD_NUMBER: _ClassVar[int]
    consumer_id: str
    joined_index: int
    streams: _containers.RepeatedScalarFieldContainer[str]
    assigned: _containers.RepeatedCompositeFieldContainer[AssignedStream]
    def __init__(self, consumer_id: _Optional[str] = ..., joined_index: _Optional[int] = ..., streams: _Optional[_Iterable[str]] = ..., assigned: _Optional[_Iterable[_Union[AssignedStream, _Mapping]]] = ...) -> None: ...

class AssignedStream(_message.Message):
    __slots__ = ("stream", "partitions")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    stream: str
    partitions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, stream: _Optional[str] = ..., partitions: _Optional[_Iterable[int]] = ...) -> None: ...

class RememberedOutcome(_message.Message):
    __slots__ = ("request_id", "outcome")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    outcome: Outcome
    def __init__(self, request_id: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, _Mapping]] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("index", "accepted", "refusal_reason", "refusal")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_REASON_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    index: int
    accepted: _containers.RepeatedScalarFieldContainer[bool]
    refusal_reason: int
    refusal: str
    def __init__(self, index: _Optional[int] = ..., accepted: _Optional[_Iterable[bool]] = ..., refusal_reason: _Optional[int] = ..., refusal: _Optional[str] = ...) -> None: ...

class Server(_message.Message):
    __slots__ = ("server_id", "host", "port", "incarnation", "status")
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    server_id: str
    host: str
    port: int
    incarnation: str
    status: ServerStatus
    def __init__(self, server_id: _Optional[str] = ..., host: _Optional[str] = ..., port: _Optional[int] = ..., incarnation: _Optional[str] = ..., status: _Optional[_Union[ServerStatus, str]] = ...) -> None: ...

class Stream(_message.Message):
    __slots__ = ("stream_id", "name", "subject", "group", "config", "creation_timestamp_ns", "partitions", "replication_factor", "resume_all")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    CREATION_TIMESTAMP_NS_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    REPLICATION_FACTOR_FIELD_NUMBER: _ClassVar[int]
    RESUME_ALL_FIELD_NUMBER: _ClassVar[int]
    stream_id: int
    name: str
    subject: str
    group: str
    config: StreamConfig
    creation_timestamp_ns: int
    partitions: _containers.RepeatedCompositeFieldContainer[Partition]
    replication_factor: int
    resume_all: bool
    def __init__(self, stream_id: _Optional[int] = ..., name: _Optional[str] = ..., subject: _Optional[str] = ..., group: _Optional[str] = ..., config: _Optional[_Union[StreamConfig, _Mapping]] = ..., creation_timestamp_ns: _Optional[int] = ..., partitions: _Optional[_Iterable[_Union[Partition, _Mapping]]] = ..., replication_factor: _Optional[int] = ..., resume_all: _Optional[bool] = ...) -> None: ...

class Partition(_message.Message):
    __slots__ = ("replicas", "isr", "leader", "leader_epoch", "partition_epoch", "paused", "readonly", "pause_times", "readonly_times")
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    ISR_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    LEADER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    PARTITION_EPOCH_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    READONLY_FIELD_NUMBER: _ClassVar[int]
    PAUSE_TIMES_FIELD_NUMBER: _ClassVar[int]
    READONLY_TIMES_FIELD_NUMBER: _ClassVar[int]
    replicas: _containers.RepeatedScalarFieldContainer[str]
    isr: _containers.RepeatedScalarFieldContainer[str]
    leader: str
    leader_epoch: int
    partition_epoch: int
    paused: bool
    readonly: bool
    pause_times: EventTimes
    readonly_times: EventTimes
    def __init__(self, replicas: _Optional[_Iterable[str]] = ..., isr: _Optional[_Iterable[str]] = ..., leader: _Optional[str] = ..., leader_epoch: _Optional[int] = ..., partition_epoch: _Optional[int] = ..., paused: _Optional[bool] = ..., readonly: _Optional[bool] = ..., pause_times: _Optional[_Union[EventTimes, _Mapping]] = ..., readonly_times: _Optional[_Union[EventTimes, _Mapping]] = ...) -> None: ...

class EventTimes(_message.Message):
    __slots__ = ("first_ns", "latest_ns")
    FIRST_NS_FIELD_NUMBER: _ClassVar[int]
    LATEST_NS_FIELD_NUMBER: _ClassVar[int]
    first_ns: int
    latest_ns: int
    def __init__(self, first_ns: _Optional[int] = ..., latest_ns: _Optional[int] = ...) -> None: ...

class Cursor(_message.Message):
    __slots__ = ("stream", "partition", "cursor_id", "offset")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    CURSOR_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    stream: str
    partition: int
    cursor_id: str
    offset: int
    def __init__(self, stream: _Optional[str] = ..., partition: _Optional[int] = ..., cursor_id: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class ControlRequest(_message.Message):
    __slots__ = ("cluster_id", "sender", "timeout_ms", "proposal", "suspect_leader", "join", "show_cluster", "drain_server", "remove_server", "transfer_leader", "report_coordinator", "read_index")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    PROPOSAL_FIELD_NUMBER: _ClassVar[int]
    SUSPECT_LEADER_FIELD_NUMBER: _ClassVar[int]
    JOIN_FIELD_NUMBER: _ClassVar[int]
    SHOW_CLUSTER_FIELD_NUMBER: _ClassVar[int]
    DRAIN_SERVER_FIELD_NUMBER: _ClassVar[int]
    REMOVE_SERVER_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_LEADER_FIELD_NUMBER: _ClassVar[int]
    REPORT_COORDINATOR_FIELD_NUMBER: _ClassVar[int]
    READ_INDEX_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    sender: str
    timeout_ms: int
    proposal: bytes
    suspect_leader: SuspectLeader
    join: Join
    show_cluster: ShowCluster
    drain_server: DrainServer
    remove_server: RemoveServer
    transfer_leader: TransferLeader
    report_coordinator: ReportCoordinator
    read_index: ReadIndex
    def __init__(self, cluster_id: _Optional[str] = ..., sender: _Optional[str] = ..., timeout_ms: _Optional[int] = ..., proposal: _Optional[bytes] = ..., suspect_leader: _Optional[_Union[SuspectLeader, _Mapping]] = ..., join: _Optional[_Union[Join, _Mapping]] = ..., show_cluster: _Optional[_Union[ShowCluster, _Mapping]] = ..., drain_server: _Optional[_Union[DrainServer, _Mapping]] = ..., remove_server: _Optional[_Union[RemoveServer, _Mapping]] = ..., transfer_leader: _Optional[_Union[TransferLeader, _Mapping]] = ..., report_coordinator: _Optional[_Union[ReportCoordinator, _Mapping]] = ..., read_index: _Optional[_Union[ReadIndex, _Mapping]] = ...) -> None: ...

class ControlReply(_message.Message):
    __slots__ = ("outcome", "error", "cluster_id", "cluster", "done", "read_index")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    READ_INDEX_FIELD_NUMBER: _ClassVar[int]
    outcome: Outcome
    error: ControlError
    cluster_id: str
    cluster: ClusterPicture
    done: str
    read_index: int
    def __init__(self, outcome: _Optional[_Union[Outcome, _Mapping]] = ..., error: _Optional[_Union[ControlError, _Mapping]] = ..., cluster_id: _Optional[str] = ..., cluster: _Optional[_Union[ClusterPicture, _Mapping]] = ..., done: _Optional[str] = ..., read_index: _Optional[int] = ...) -> None: ...

class ControlError(_message.Message):
    __slots__ = ("kind", "text")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        TRY_AGAIN: _ClassVar[ControlError.Kind]
        OUTCOME_UNKNOWN: _ClassVar[ControlError.Kind]
        REFUSED: _ClassVar[ControlError.Kind]
    TRY_AGAIN: ControlError.Kind
    OUTCOME_UNKNOWN: ControlError.Kind
    REFUSED: ControlError.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    kind: ControlError.Kind
    text: str
    def __init__(self, kind: _Optional[_Union[ControlError.Kind, str]] = ..., text: _Optional[str] = ...) -> None: ...

class SuspectLeader(_message.Message):
    __slots__ = ("stream_id", "partition", "leader_epoch", "reporter", "incarnation")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    LEADER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    REPORTER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    stream_id: int
    partition: int
    leader_epoch: int
    reporter: str
    incarnation: str
    def __init__(self, stream_id: _Optional[int] = ..., partition: _Optional[int] = ..., leader_epoch: _Optional[int] = ..., reporter: _Optional[str] = ..., incarnation: _Optional[str] = ...) -> None: ...

class ReportCoordinator(_message.Message):
    __slots__ = ("group_id", "consumer_id", "coordinator", "epoch")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    consumer_id: str
    coordinator: str
    epoch: int
    def __init__(self, group_id: _Optional[str] = ..., consumer_id: _Optional[str] = ..., coordinator: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class Join(_message.Message):
    __slots__ = ("server_id", "incarnation")
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    server_id: str
    incarnation: str
    def __init__(self, server_id: _Optional[str] = ..., incarnation: _Optional[str] = ...) -> None: ...

class ShowCluster(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReadIndex(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DrainServer(_message.Message):
    __slots__ = ("server_id",)
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    server_id: str
    def __init__(self, server_id: _Optional[str] = ...) -> None: ...

class RemoveServer(_message.Message):
    __slots__ = ("server_id", "accept_loss")
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_LOSS_FIELD_NUMBER: _ClassVar[int]
    server_id: str
    accept_loss: bool
    def __init__(self, server_id: _Optional[str] = ..., accept_loss: _Optional[bool] = ...) -> None: ...

class TransferLeader(_message.Message):
    __slots__ = ("server_id", "stream", "partition", "accept_loss")
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_LOSS_FIELD_NUMBER: _ClassVar[int]
    server_id: str
    stream: str
    partition: int
    accept_loss: bool
    def __init__(self, server_id: _Optional[str] = ..., stream: _Optional[str] = ..., partition: _Optional[int] = ..., accept_loss: _Optional[bool] = ...) -> None: ...

class HandOver(_message.Message):
    __slots__ = ("partitions",)
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    partitions: _containers.RepeatedCompositeFieldContainer[LedPartition]
    def __init__(self, partitions: _Optional[_Iterable[_Union[LedPartition, _Mapping]]] = ...) -> None: ...

class LedPartition(_message.Message):
    __slots__ = ("stream_id", "partition", "leader_epoch")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    LEADER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    stream_id: int
    partition: int
    leader_epoch: int
    def __init__(self, stream_id: _Optional[int] = ..., partition: _Optional[int] = ..., leader_epoch: _Optional[int] = ...) -> None: ...

class ClusterPicture(_message.Message):
    __slots__ = ("cluster_id", "metadata_leader", "term", "applied_index", "members", "partitions", "offline_partitions", "partitions_out_of_sync", "troubles", "replicas_in_trouble")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    METADATA_LEADER_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    APPLIED_INDEX_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    OFFLINE_PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_OUT_OF_SYNC_FIELD_NUMBER: _ClassVar[int]
    TROUBLES_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_IN_TROUBLE_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    metadata_leader: str
    term: int
    applied_index: int
    members: _containers.RepeatedCompositeFieldContainer[MemberPicture]
    partitions: int
    offline_partitions: int
    partitions_out_of_sync: int
    troubles: _containers.RepeatedCompositeFieldContainer[TroublePicture]
    replicas_in_trouble: int
    def __init__(self, cluster_id: _Optional[str] = ..., metadata_leader: _Optional[str] = ..., term: _Optional[int] = ..., applied_index: _Optional[int] = ..., members: _Optional[_Iterable[_Union[MemberPicture, _Mapping]]] = ..., partitions: _Optional[int] = ..., offline_partitions: _Optional[int] = ..., partitions_out_of_sync: _Optional[int] = ..., troubles: _Optional[_Iterable[_Union[TroublePicture, _Mapping]]] = ..., replicas_in_trouble: _Optional[int] = ...) -> None: ...

class TroublePicture(_message.Message):
    __slots__ = ("stream", "partition", "server_id", "leads", "kind", "text")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    LEADS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    stream: str
    partition: int
    server_id: str
    leads: bool
    kind: PartitionTrouble.Kind
    text: str
    def __init__(self, stream: _Optional[str] = ..., partition: _Optional[int] = ..., server_id: _Optional[str] = ..., leads: _Optional[bool] = ..., kind: _Optional[_Union[PartitionTrouble.Kind, str]] = ..., text: _Optional[str] = ...) -> None: ...

class MemberPicture(_message.Message):
    __slots__ = ("server_id", "host", "port", "incarnation", "status", "voter", "member", "replicas", "leaderships", "in_sync", "silent_ms")
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    VOTER_FIELD_NUMBER: _ClassVar[int]
    MEMBER_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    LEADERSHIPS_FIELD_NUMBER: _ClassVar[int]
    IN_SYNC_FIELD_NUMBER: _ClassVar[int]
    SILENT_MS_FIELD_NUMBER: _ClassVar[int]
    server_id: str
    host: str
    port: int
    incarnation: str
    status: str
    voter: bool
    member: bool
    replicas: int
    leaderships: int
    in_sync: int
    silent_ms: int
    def __init__(self, server_id: _Optional[str] = ..., host: _Optional[str] = ..., port: _Optional[int] = ..., incarnation: _Optional[str] = ..., status: _Optional[str] = ..., voter: _Optional[bool] = ..., member: _Optional[bool] = ..., replicas: _Optional[int] = ..., leaderships: _Optional[int] = ..., in_sync: _Optional[int] = ..., silent_ms: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("cluster_id", "server_id", "incarnation", "number", "troubles")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TROUBLES_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    server_id: str
    incarnation: str
    number: int
    troubles: _containers.RepeatedCompositeFieldContainer[PartitionTrouble]
    def __init__(self, cluster_id: _Optional[str] = ..., server_id: _Optional[str] = ..., incarnation: _Optional[str] = ..., number: _Optional[int] = ..., troubles: _Optional[_Iterable[_Union[PartitionTrouble, _Mapping]]] = ...) -> None: ...

class PartitionTrouble(_message.Message):
    __slots__ = ("stream_id", "partition", "kind", "text")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        CANNOT_OPEN: _ClassVar[PartitionTrouble.Kind]
        CANNOT_STORE: _ClassVar[PartitionTrouble.Kind]
    CANNOT_OPEN: PartitionTrouble.Kind
    CANNOT_STORE: PartitionTrouble.Kind
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    stream_id: int
    partition: int
    kind: PartitionTrouble.Kind
    text: str
    def __init__(self, stream_id: _Optional[int] = ..., partition: _Optional[int] = ..., kind: _Optional[_Union[PartitionTrouble.Kind, str]] = ..., text: _Optional[str] = ...) -> None: ...

class HeartbeatReply(_message.Message):
    __slots__ = ("cluster_id", "controller", "term", "number", "index")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    controller: str
    term: int
    number: int
    index: int
    def __init__(self, cluster_id: _Optional[str] = ..., controller: _Optional[str] = ..., term: _Optional[int] = ..., number: _Optional[int] = ..., index: _Optional[int] = ...) -> None: ...

class Presence(_message.Message):
    __slots__ = ("cluster_id", "server_id", "incarnation", "host", "port", "established")
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    ESTABLISHED_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    server_id: str
    incarnation: str
    host: str
    port: int
    established: bool
    def __init__(self, cluster_id: _Optional[str] = ..., server_id: _Optional[str] = ..., incarnation: _Optional[str] = ..., host: _Optional[str] = ..., port: _Optional[int] = ..., established: _Optional[bool] = ...) -> None: ...
