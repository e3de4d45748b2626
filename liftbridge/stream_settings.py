"""What the settings of streams mean: to the parts that carry them out, and in words for an operator."""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from liftbridge.activity import ActivitySettings
from liftbridge.config import Settings
from liftbridge.metadata.config import StreamConfig, StreamDefaults
from liftbridge.metadata.internal_streams import ALL_SERVERS, InternalStream
from liftbridge.metadata.model import ACTIVITY_STREAM, CURSORS_STREAM
from liftbridge.partition.durability import Durability
from liftbridge.partition.pending import ACK_ALL, ACK_LEADER, ACK_NONE
from liftbridge.partition.replication.exchange import ExchangeLimits
from liftbridge.partition.replication.leading import SyncLimits
from liftbridge.partition.replication.serving import ServingLimits

#: Cursors are read anew when their leader changes, and what compaction can't reach yet is this much at most.
_CURSORS_SEGMENT_BYTES = 16 * 1024 * 1024


def exchange_limits(settings: Mapping[str, Any]) -> ExchangeLimits:
    """When replicas and leaders are given up. A server that says nothing is given up sooner than one that is slow."""
    max_lag_ns = int(settings["clustering.replica.max.lag.time"] * 1e9)
    max_silence_ns = min(SyncLimits().max_silence_ns, max_lag_ns)
    return ExchangeLimits(
        sync=SyncLimits(max_silence_ns=max_silence_ns, max_lag_ns=max_lag_ns),
        serving=ServingLimits(max_silence_ns=max_silence_ns),
        suspect_after_ns=int(settings["clustering.replica.max.leader.timeout"] * 1e9),
    )


def stream_defaults(settings: Settings) -> Callable[[str], StreamDefaults]:
    """The defaults for a stream of a given name: the server's, changed by the templates that match, in their order."""
    plain = _defaults(settings)
    templates = settings.templates

    def defaults_for(stream: str) -> StreamDefaults:
        matching = [template for template in templates if fnmatchcase(stream, template.match)]
        if not matching:
            return plain
        values: dict[str, Any] = dict(settings)
        for template in matching:
            values.update(template.settings)
        return _defaults(values)

    return defaults_for


def _defaults(settings: Mapping[str, Any]) -> StreamDefaults:
    def nanoseconds(name: str) -> int:
        return int(settings[name] * 1e9)

    return StreamDefaults(
        retention_max_bytes=settings["streams.retention.max.bytes"],
        retention_max_messages=settings["streams.retention.max.messages"],
        retention_max_age_ns=nanoseconds("streams.retention.max.age"),
        cleaner_interval_ns=nanoseconds("streams.cleaner.interval"),
        compact_enabled=settings["streams.compact.enabled"],
        compact_dirty_percent=settings["streams.compact.dirty.percent"],
        tombstone_max_age_ns=nanoseconds("streams.compact.tombstones.max.age"),
        segment_max_bytes=settings["streams.segment.max.bytes"],
        segment_max_age_ns=nanoseconds("streams.segment.max.age") or nanoseconds("streams.retention.max.age"),
        min_isr=settings["clustering.min.insync.replicas"],
        durability=Durability(settings["streams.durability"]),
        sync_interval_s=settings["streams.durability.interval"],
        batch_max_messages=settings["batch.max.messages"],
        auto_pause_time_ns=nanoseconds("streams.auto.pause.time"),
        auto_pause_disable_if_subscribers=settings["streams.auto.pause.disable.if.subscribers"],
        max_message_bytes=settings["clustering.replication.max.bytes"],
        encryption=settings["streams.encryption"],
    )


def internal_streams(settings: Mapping[str, Any]) -> tuple[InternalStream, ...]:
    """The streams that the cluster keeps for itself, as far as they are asked for. Cursors are kept until somebody deletes
    the stream, whatever the limits for others are."""
    namespace = settings["clustering.namespace"]
    streams = []
    if settings["activity.stream.enabled"]:
        activity = StreamConfig(encryption=settings["streams.encryption"])
        streams.append(InternalStream(ACTIVITY_STREAM, f"{namespace}.activity", 1, ALL_SERVERS, activity))
    if settings["cursors.stream.partitions"]:
        config = StreamConfig(
            retention_max_bytes=0,
            retention_max_messages=0,
            retention_max_age_ms=0,
            segment_max_bytes=min(_CURSORS_SEGMENT_BYTES, settings["streams.segment.max.bytes"]),
            compact_enabled=True,
            encryption=settings["streams.encryption"],
        )
        streams.append(
            InternalStream(
                CURSORS_STREAM,
                f"{namespace}.cursors",
                settings["cursors.stream.partitions"],
                settings["cursors.stream.replication.factor"],
                config,
            )
        )
    return tuple(streams)


def activity_settings(settings: Mapping[str, Any]) -> ActivitySettings:
    """How events are published."""
    policies = {"none": ACK_NONE, "leader": ACK_LEADER, "all": ACK_ALL}
    return ActivitySettings(
        ack_policy=policies[settings["activity.stream.publish.ack.policy"]],
        publish_timeout_s=settings["activity.stream.publish.timeout"],
    )


def describe_retention(settings: Mapping[str, Any]) -> str:
    """The default retention policy, in the original's words."""
    parts = []
    if settings["streams.retention.max.messages"]:
        parts.append(f"Messages: {settings['streams.retention.max.messages']:,}")
    if settings["streams.retention.max.bytes"]:
        parts.append(f"Size: {_describe_size(settings['streams.retention.max.bytes'])}")
    if settings["streams.retention.max.age"]:
        parts.append(f"Age: {describe_duration(settings['streams.retention.max.age'])}")
    compact = "true" if settings["streams.compact.enabled"] else "false"
    return f"[{', '.join(parts) or 'no limits'}, Compact: {compact}]"


def _describe_size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def describe_duration(seconds: float) -> str:
    """``1 week``, ``1 day 12 hours``, ``1 minute 30 seconds``."""
    parts = []
    rest = seconds
    for unit, length in (("week", 604_800), ("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)):
        count, rest = divmod(rest, length)
        if count:
            parts.append(f"{int(count)} {unit}{'s' if count != 1 else ''}")
    if rest:
        parts.append(f"{round(rest * 1000)} ms")
    return " ".join(parts) or "0 seconds"
