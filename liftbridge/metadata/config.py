"""A stream's settings: what it overrides, the server's defaults, and what holds in the end."""

from dataclasses import dataclass, fields

from liftbridge.partition.durability import Durability
from liftbridge.protocol.generated import internal_pb2 as internal


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """What a stream overrides since its creation; None means the default of the server that holds the partition."""

    retention_max_bytes: int | None = None
    retention_max_messages: int | None = None
    retention_max_age_ms: int | None = None
    cleaner_interval_ms: int | None = None
    segment_max_bytes: int | None = None
    segment_max_age_ms: int | None = None
    compact_enabled: bool | None = None
    compact_max_workers: int | None = None
    auto_pause_time_ms: int | None = None
    auto_pause_disable_if_subscribers: bool | None = None
    min_isr: int | None = None
    optimistic_concurrency_control: bool | None = None
    encryption: bool | None = None

    def to_proto(self) -> internal.StreamConfig:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return internal.StreamConfig(**{name: value for name, value in values.items() if value is not None})

    @classmethod
    def from_proto(cls, message: internal.StreamConfig) -> "StreamConfig":
        return cls(
            **{field.name: getattr(message, field.name) for field in fields(cls) if message.HasField(field.name)}
        )


@dataclass(frozen=True, slots=True)
class StreamDefaults:
    """A server's defaults for streams that override nothing. Limits of 0 mean none."""

    retention_max_bytes: int = 0
    retention_max_messages: int = 0
    retention_max_age_ns: int = 168 * 3600 * 1_000_000_000
    cleaner_interval_ns: int = 300 * 1_000_000_000
    compact_enabled: bool = False
    compact_dirty_percent: int = 50
    tombstone_max_age_ns: int = 0
    segment_max_bytes: int = 268_435_456
    segment_max_age_ns: int = 168 * 3600 * 1_000_000_000
    min_isr: int = 1
    durability: Durability = Durability.PAGE
    sync_interval_s: float = 1.0
    batch_max_messages: int = 1024
    auto_pause_time_ns: int = 0
    auto_pause_disable_if_subscribers: bool = False
    max_message_bytes: int = 1_048_576
    encryption: bool = False
