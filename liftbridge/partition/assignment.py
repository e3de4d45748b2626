"""What this server should be doing for one partition; worked out from metadata, carried out by the manager."""

from dataclasses import dataclass

from liftbridge.interfaces.log import LogSettings
from liftbridge.partition.leader import LeaderSettings
from liftbridge.partition.partition import PartitionKey


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """Limits of one partition, 0 for none, and how often they are looked at."""

    max_bytes: int
    max_messages: int
    max_age_ns: int
    check_interval_ns: int


@dataclass(frozen=True, slots=True)
class CompactionSettings:
    """Whether only the last message of each key stays. A pass needs ``min_dirty_percent`` of what could be compacted to
    be new. A message that is nothing but a key is removed after ``tombstone_max_age_ns``, 0 for never."""

    enabled: bool = False
    min_dirty_percent: int = 50
    tombstone_max_age_ns: int = 0


@dataclass(frozen=True, slots=True)
class AutoPause:
    """After which time without messages a partition is paused, 0 for never, and whether not while it has subscribers."""

    idle_ns: int = 0
    unless_subscribed: bool = False


@dataclass(frozen=True, slots=True)
class Assignment:
    """One partition's role on this server. ``base_subject`` is the stream's, ``subject`` the partition's own.

    ``replicas``, ``isr`` and ``leader`` are server IDs; ``leader`` is "" while the partition is offline. ``leads`` is
    whether this start of this server is the leader. ``listens``: to its subject on the transport. ``paused``: the log is closed,
    and the leader waits for somebody who wants the partition. ``readonly``: the leader takes no messages. ``encrypted``: what is
    stored is.
    """

    key: PartitionKey
    base_subject: str
    subject: str
    group: str
    replicas: tuple[str, ...]
    isr: tuple[str, ...]
    leader: str
    leader_epoch: int
    partition_epoch: int
    leads: bool
    leader_settings: LeaderSettings
    log_settings: LogSettings
    retention: RetentionSettings
    compaction: CompactionSettings = CompactionSettings()
    listens: bool = True
    paused: bool = False
    readonly: bool = False
    auto_pause: AutoPause = AutoPause()
    encrypted: bool = False
