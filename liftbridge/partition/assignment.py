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
class Assignment:
    """One partition's role on this server. ``base_subject`` is the stream's, ``subject`` the partition's own.

    ``replicas``, ``isr`` and ``leader`` are server IDs; ``leader`` is "" while the partition is offline. ``leads`` is
    whether this start of this server is the leader.
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
    listens: bool = True
