"""What there is to see: every metric, with its meaning and where its value is from.

Names and units as Prometheus wants them. Labels are bounded by what an operator makes: streams, partitions, groups, and
words from lists; never by who connects.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from liftbridge.interfaces.figures import (
    GroupPosition,
    LeaderFigures,
    LogFigures,
    ReplicaFigures,
    ReplicaRole,
    ServerFigures,
)

_PARTITION = ("stream", "partition")
#: Reasons that are nobody's mistake but the cluster's: there from the start with 0, so that the first one is an increase.
_REASONS_TO_WATCH = ("storage", "too_few_replicas")
Family = GaugeMetricFamily | CounterMetricFamily


@dataclass(frozen=True, slots=True)
class PartitionMetric:
    """One metric of each replica here. ``read`` gives its value, None where there is none; with another ``label``, values by
    what that says. ``name`` ends in ``_total`` for what is counted."""

    name: str
    meaning: str
    read: Callable[[ReplicaFigures], float | Mapping[str, float] | None]
    label: str = ""

    def family(self, replicas: Iterable[ReplicaFigures]) -> Family:
        """The metric with the values of these replicas."""
        labels = (*_PARTITION, self.label) if self.label else _PARTITION
        family = _counter_or_gauge(self.name, self.meaning, labels)
        for replica in replicas:
            place, value = (replica.stream, str(replica.partition)), self.read(replica)
            if isinstance(value, Mapping):
                for word, one in value.items():
                    family.add_metric((*place, word), one)
            elif value is not None:
                family.add_metric(place, value)
        return family


def _counter_or_gauge(name: str, meaning: str, labels: Sequence[str]) -> Family:
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    return kind(name, meaning, labels=labels)


def _word(text: str) -> str:
    return text.lower().replace(" ", "_")


def _of_log(read: Callable[[LogFigures], float]) -> Callable[[ReplicaFigures], float | None]:
    return lambda replica: None if replica.log is None else read(replica.log)


def _of_leader(read: Callable[[LeaderFigures], float | None]) -> Callable[[ReplicaFigures], float | None]:
    return lambda replica: None if replica.leader is None else read(replica.leader)


def _problem(replica: ReplicaFigures) -> Mapping[str, float]:
    return {_word(replica.problem): 1} if replica.problem is not None else {}


def _refused(replica: ReplicaFigures) -> Mapping[str, float]:
    counted = {_word(reason): count for reason, count in (replica.refused_messages or {}).items()}
    return dict.fromkeys(_REASONS_TO_WATCH, 0) | counted if replica.leader is not None else counted


PARTITION_METRICS = (
    PartitionMetric(
        "liftbridge_partition_is_leader",
        "1 on the server that leads the partition, 0 on the others with a replica of it.",
        lambda one: one.role is ReplicaRole.LEADER,
    ),
    PartitionMetric(
        "liftbridge_partition_start_offset",
        "The first offset that is kept.",
        _of_log(lambda log: log.start_offset),
    ),
    PartitionMetric(
        "liftbridge_partition_end_offset",
        "The offset that the next message gets; its rate is that of messages.",
        _of_log(lambda log: log.end_offset),
    ),
    PartitionMetric(
        "liftbridge_partition_high_watermark",
        "The first offset that isn't committed, as far as this server knows: readers get what is below.",
        _of_log(lambda log: log.high_watermark),
    ),
    PartitionMetric(
        "liftbridge_partition_size_bytes",
        "What the messages take on the disk.",
        _of_log(lambda log: log.size_bytes),
    ),
    PartitionMetric(
        "liftbridge_partition_subscriptions",
        "Subscriptions that this server serves.",
        lambda one: one.subscriptions,
    ),
    PartitionMetric(
        "liftbridge_partition_replicas",
        "Servers that have a replica; said by the leader.",
        _of_leader(lambda leader: leader.replicas),
    ),
    PartitionMetric(
        "liftbridge_partition_in_sync_replicas",
        "Replicas in sync, the leader's included; said by the leader.",
        _of_leader(lambda leader: leader.in_sync),
    ),
    PartitionMetric(
        "liftbridge_partition_min_in_sync_replicas",
        "Replicas in sync that ack policy ALL needs; with fewer, such publishes are refused. Said by the leader.",
        _of_leader(lambda leader: leader.min_in_sync),
    ),
    PartitionMetric(
        "liftbridge_partition_follower_lag_messages",
        "What the slowest follower lacks; said by the leader, once a follower was heard of.",
        _of_leader(lambda leader: leader.lag_messages),
    ),
    PartitionMetric(
        "liftbridge_partition_problem",
        "1 while this server's replica is no use: damaged (it can't be opened), cannot_store (the disk takes nothing).",
        _problem,
        label="problem",
    ),
    PartitionMetric(
        "liftbridge_partition_refused_messages_total",
        "Messages that this server refused as the leader, since it opened the log.",
        _refused,
        label="reason",
    ),
    PartitionMetric(
        "liftbridge_partition_dropped_messages_total",
        "Messages from plain NATS that were not stored, and whose publishers asked for no ack; said by the leader, since it "
        "listens.",
        _of_leader(lambda leader: leader.dropped_messages),
    ),
    PartitionMetric(
        "liftbridge_partition_lost_messages_total",
        "Messages that counted as committed and were dropped, because the leader doesn't have them, since the log was opened.",
        _of_log(lambda log: log.lost_messages),
    ),
)


@dataclass(frozen=True, slots=True)
class ServerMetric:
    """One metric of the server or of its cluster. ``read`` gives its value, or values by what ``label`` says."""

    name: str
    meaning: str
    read: Callable[[ServerFigures], float | Mapping[str, float]]
    label: str = ""

    def family(self, server: ServerFigures) -> Family:
        """The metric with its values."""
        family = _counter_or_gauge(self.name, self.meaning, (self.label,) if self.label else ())
        value = self.read(server)
        for word, one in (value if isinstance(value, Mapping) else {"": value}).items():
            family.add_metric((word,) if self.label else (), one)
        return family


SERVER_METRICS = (
    ServerMetric(
        "liftbridge_transport_connected", "1 while this server is connected to NATS.", lambda one: one.connected
    ),
    ServerMetric(
        "liftbridge_server_holds_lease",
        "1 while the cluster hears of this server; with 0, others may lead what it leads.",
        lambda one: one.holds_lease,
    ),
    ServerMetric(
        "liftbridge_metadata_leader_known",
        "1 while this server knows a metadata leader; without one, nothing is created and nobody is elected.",
        lambda one: bool(one.metadata_leader),
    ),
    ServerMetric(
        "liftbridge_metadata_is_leader",
        "1 on the metadata leader, 0 on the others.",
        lambda one: one.is_metadata_leader,
    ),
    ServerMetric("liftbridge_metadata_term", "The term of the metadata group: elections so far.", lambda one: one.term),
    ServerMetric(
        "liftbridge_metadata_commit_index",
        "The last change of metadata that this server knows to be committed.",
        lambda one: one.commit_index,
    ),
    ServerMetric(
        "liftbridge_metadata_applied_index",
        "The last change of metadata that this server has applied.",
        lambda one: one.applied_index,
    ),
    ServerMetric(
        "liftbridge_metadata_events_total",
        "Changes that this server has applied since its start, by what happened; each partition counts. All servers count the "
        "same ones.",
        lambda one: {kind.name.lower(): count for kind, count in one.events.items()},
        label="event",
    ),
    ServerMetric(
        "liftbridge_cluster_servers",
        "Servers of the cluster by status, as this server knows.",
        lambda one: one.cluster.servers,
        label="status",
    ),
    ServerMetric("liftbridge_cluster_streams", "Streams, as this server knows.", lambda one: one.cluster.streams),
    ServerMetric(
        "liftbridge_cluster_partitions",
        "Partitions of all streams, as this server knows.",
        lambda one: one.cluster.partitions,
    ),
    ServerMetric(
        "liftbridge_cluster_offline_partitions",
        "Partitions without a leader, as this server knows.",
        lambda one: one.cluster.offline_partitions,
    ),
    ServerMetric(
        "liftbridge_cluster_under_replicated_partitions",
        "Partitions with fewer replicas in sync than they should have, as this server knows.",
        lambda one: one.cluster.under_replicated_partitions,
    ),
    ServerMetric(
        "liftbridge_group_members",
        "Members of the consumer groups that this server coordinates.",
        lambda one: {group.group_id: group.members for group in one.groups},
        label="group",
    ),
)


GROUP_POSITION_NAME = "liftbridge_group_next_offset"
_GROUP_POSITION_MEANING = (
    "The first offset that the group hasn't processed, by its cursor; said by the server that keeps the cursor, of groups that "
    "have members."
)


def group_positions_family(positions: Iterable[GroupPosition]) -> Metric:
    """Where groups stand."""
    family = GaugeMetricFamily(GROUP_POSITION_NAME, _GROUP_POSITION_MEANING, labels=("group", *_PARTITION))
    for one in positions:
        family.add_metric((one.group_id, one.stream, str(one.partition)), one.next_offset)
    return family


@dataclass(frozen=True, slots=True)
class Identity:
    """What never changes while the server runs."""

    server_id: str
    namespace: str
    version: str


@dataclass(frozen=True, slots=True)
class Disk:
    """Of the file system that holds the data directory. ``free_bytes`` are those that the server may use."""

    size_bytes: int
    free_bytes: int


def server_families(server: ServerFigures, identity: Identity, *, serving: bool, disk: Disk | None) -> Iterator[Metric]:
    """Everything but the partitions. Without ``disk``, its metrics are left out."""
    info = InfoMetricFamily("liftbridge_server", "The server: its ID, the cluster's namespace and the version.")
    info.add_metric((), {"server_id": identity.server_id, "namespace": identity.namespace, "version": identity.version})
    yield info
    yield GaugeMetricFamily("liftbridge_server_serving", "1 while clients are served, as /readyz says.", value=serving)
    for metric in SERVER_METRICS:
        yield metric.family(server)
    if disk is not None:
        meaning = "Of the file system that holds the data directory."
        yield GaugeMetricFamily("liftbridge_data_dir_size_bytes", meaning, value=disk.size_bytes)
        yield GaugeMetricFamily(
            "liftbridge_data_dir_free_bytes", f"What the server may use. {meaning}", value=disk.free_bytes
        )
