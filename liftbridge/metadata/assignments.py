"""From metadata to what this server should run: a function of the state, without IO."""

from collections.abc import Callable
from typing import NamedTuple

from liftbridge.interfaces.log import LogSettings
from liftbridge.interfaces.routing import SubjectRouter
from liftbridge.metadata.config import StreamConfig, StreamDefaults
from liftbridge.metadata.model import ACTIVITY_STREAM, CURSORS_STREAM
from liftbridge.metadata.state import MetadataState, StreamState
from liftbridge.partition.assignment import Assignment, AutoPause, CompactionSettings, RetentionSettings
from liftbridge.partition.leader import LeaderSettings
from liftbridge.partition.partition import PartitionKey

_MS_NS = 1_000_000
#: The cluster itself writes to these, and to no subject.
_RESERVED = (ACTIVITY_STREAM, CURSORS_STREAM)
_NEVER = AutoPause()
#: What the original makes of an explicit 0.
_ZERO_SEGMENT_BYTES = 1 << 30
_ZERO_CLEANER_INTERVAL_NS = 300 * 1_000_000_000


class LocalAssignments:
    """The partitions that one start of a server holds. What a stream comes to is remembered until the stream changes,
    because most changes of metadata are about one stream of many."""

    def __init__(
        self,
        state: MetadataState,
        server_id: str,
        incarnation: str,
        router: SubjectRouter,
        defaults_for: Callable[[str], StreamDefaults],
    ) -> None:
        self._state = state
        self._server_id = server_id
        self._incarnation = incarnation
        self._router = router
        self._defaults_for = defaults_for
        self._remembered: dict[str, _StreamAssignments] = {}

    def current(self) -> list[Assignment]:
        """As of now. The server leads nothing before this start of it is registered, because until then the leader
        epochs are those of an earlier start."""
        server = self._state.servers.get(self._server_id)
        registered = server is not None and server.incarnation == self._incarnation
        before, self._remembered = self._remembered, {}
        for name, stream in self._state.streams.items():
            known = before.get(name)
            if known is None or known.stream is not stream or known.registered != registered:
                known = self._work_out(stream, registered)
            self._remembered[name] = known
        return [assignment for one in self._remembered.values() for assignment in one.assignments]

    def _work_out(self, stream: StreamState, registered: bool) -> "_StreamAssignments":
        defaults = self._defaults_for(stream.name)
        assignments = [
            _assignment(stream, number, self._server_id, registered, self._router, defaults)
            for number, partition in enumerate(stream.partitions)
            if self._server_id in partition.replicas
        ]
        return _StreamAssignments(stream, registered, assignments)


class _StreamAssignments(NamedTuple):
    """What ``stream`` came to, and whether this start of the server was registered then."""

    stream: StreamState
    registered: bool
    assignments: list[Assignment]


def _assignment(
    stream: StreamState, number: int, server_id: str, registered: bool, router: SubjectRouter, defaults: StreamDefaults
) -> Assignment:
    partition = stream.partitions[number]
    return Assignment(
        key=PartitionKey(stream.name, number, stream.stream_id),
        base_subject=stream.subject,
        subject=router.partition_subject(stream.subject, number),
        group=stream.group,
        replicas=partition.replicas,
        isr=partition.isr,
        leader=partition.leader,
        leader_epoch=partition.leader_epoch,
        partition_epoch=partition.partition_epoch,
        leads=registered and partition.leader == server_id,
        leader_settings=_leader_settings(stream.config, defaults),
        log_settings=_log_settings(stream.config, defaults),
        retention=_retention(stream.config, defaults),
        compaction=_compaction(stream.config, defaults),
        # Nobody but the servers has anything to say there; whoever reaches the transport could forge it.
        listens=stream.name not in _RESERVED,
        paused=partition.paused,
        readonly=partition.readonly,
        encrypted=bool(stream.config.encryption),
        auto_pause=_NEVER if stream.name in _RESERVED else _auto_pause(stream.config, defaults),
    )


def _leader_settings(config: StreamConfig, defaults: StreamDefaults) -> LeaderSettings:
    return LeaderSettings(
        durability=defaults.durability,
        sync_interval_s=defaults.sync_interval_s,
        batch_max_messages=defaults.batch_max_messages,
        max_message_bytes=defaults.max_message_bytes,
        min_isr=_either(config.min_isr, defaults.min_isr),
        check_expected_offsets=bool(config.optimistic_concurrency_control),
    )


def _log_settings(config: StreamConfig, defaults: StreamDefaults) -> LogSettings:
    segment_bytes = _either(config.segment_max_bytes, defaults.segment_max_bytes)
    return LogSettings(
        segment_max_bytes=segment_bytes or _ZERO_SEGMENT_BYTES,
        segment_max_age_ns=_ns(config.segment_max_age_ms, defaults.segment_max_age_ns),
    )


def _retention(config: StreamConfig, defaults: StreamDefaults) -> RetentionSettings:
    interval_ns = _ns(config.cleaner_interval_ms, defaults.cleaner_interval_ns)
    return RetentionSettings(
        max_bytes=_either(config.retention_max_bytes, defaults.retention_max_bytes),
        max_messages=_either(config.retention_max_messages, defaults.retention_max_messages),
        max_age_ns=_ns(config.retention_max_age_ms, defaults.retention_max_age_ns),
        check_interval_ns=interval_ns or _ZERO_CLEANER_INTERVAL_NS,
    )


def _compaction(config: StreamConfig, defaults: StreamDefaults) -> CompactionSettings:
    return CompactionSettings(
        enabled=bool(_either(config.compact_enabled, defaults.compact_enabled)),
        min_dirty_percent=defaults.compact_dirty_percent,
        tombstone_max_age_ns=defaults.tombstone_max_age_ns,
    )


def _auto_pause(config: StreamConfig, defaults: StreamDefaults) -> AutoPause:
    unless_subscribed = config.auto_pause_disable_if_subscribers
    return AutoPause(
        _ns(config.auto_pause_time_ms, defaults.auto_pause_time_ns),
        defaults.auto_pause_disable_if_subscribers if unless_subscribed is None else unless_subscribed,
    )


def _either(override: int | None, default: int) -> int:
    return default if override is None else override


def _ns(override_ms: int | None, default_ns: int) -> int:
    return default_ns if override_ms is None else override_ms * _MS_NS
