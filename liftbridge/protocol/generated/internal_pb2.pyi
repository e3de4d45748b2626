from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Command(_message.Message):
    __slots__ = ("register_server", "create_stream", "delete_stream")
    REGISTER_SERVER_FIELD_NUMBER: _ClassVar[int]
    CREATE_STREAM_FIELD_NUMBER: _ClassVar[int]
    DELETE_STREAM_FIELD_NUMBER: _ClassVar[int]
    register_server: RegisterServer
    create_stream: CreateStream
    delete_stream: DeleteStream
    def __init__(self, register_server: _Optional[_Union[RegisterServer, _Mapping]] = ..., create_stream: _Optional[_Union[CreateStream, _Mapping]] = ..., delete_stream: _Optional[_Union[DeleteStream, _Mapping]] = ...) -> None: ...

class RegisterServer(_message.Message):
    __slots__ = ("server_id", "host", "port", "incarnation")
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    server_id: str
    host: str
    port: int
    incarnation: str
    def __init__(self, server_id: _Optional[str] = ..., host: _Optional[str] = ..., port: _Optional[int] = ..., incarnation: _Optional[str] = ...) -> None: ...

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
    __slots__ = ("servers", "streams")
    SERVERS_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    servers: _containers.RepeatedCompositeFieldContainer[Server]
    streams: _containers.RepeatedCompositeFieldContainer[Stream]
    def __init__(self, servers: _Optional[_Iterable[_Union[Server, _Mapping]]] = ..., streams: _Optional[_Iterable[_Union[Stream, _Mapping]]] = ...) -> None: ...

class Server(_message.Message):
    __slots__ = ("server_id", "host", "port", "incarnation")
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    server_id: str
    host: str
    port: int
    incarnation: str
    def __init__(self, server_id: _Optional[str] = ..., host: _Optional[str] = ..., port: _Optional[int] = ..., incarnation: _Optional[str] = ...) -> None: ...

class Stream(_message.Message):
    __slots__ = ("stream_id", "name", "subject", "group", "config", "creation_timestamp_ns", "partitions")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    CREATION_TIMESTAMP_NS_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    stream_id: int
    name: str
    subject: str
    group: str
    config: StreamConfig
    creation_timestamp_ns: int
    partitions: _containers.RepeatedCompositeFieldContainer[Partition]
    def __init__(self, stream_id: _Optional[int] = ..., name: _Optional[str] = ..., subject: _Optional[str] = ..., group: _Optional[str] = ..., config: _Optional[_Union[StreamConfig, _Mapping]] = ..., creation_timestamp_ns: _Optional[int] = ..., partitions: _Optional[_Iterable[_Union[Partition, _Mapping]]] = ...) -> None: ...

class Partition(_message.Message):
    __slots__ = ("replicas", "isr", "leader", "leader_epoch", "partition_epoch", "paused", "readonly")
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    ISR_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    LEADER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    PARTITION_EPOCH_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    READONLY_FIELD_NUMBER: _ClassVar[int]
    replicas: _containers.RepeatedScalarFieldContainer[str]
    isr: _containers.RepeatedScalarFieldContainer[str]
    leader: str
    leader_epoch: int
    partition_epoch: int
    paused: bool
    readonly: bool
    def __init__(self, replicas: _Optional[_Iterable[str]] = ..., isr: _Optional[_Iterable[str]] = ..., leader: _Optional[str] = ..., leader_epoch: _Optional[int] = ..., partition_epoch: _Optional[int] = ..., paused: _Optional[bool] = ..., readonly: _Optional[bool] = ...) -> None: ...
