"""What a cluster consists of, as one of its servers sees it."""

from collections.abc import Mapping
from dataclasses import dataclass

from liftbridge.addresses import join_address
from liftbridge.protocol.generated import api_pb2 as api


@dataclass(frozen=True, slots=True)
class Broker:
    """A server. The counts are of partitions that it holds, and of those that it leads."""

    server_id: str
    address: str
    partition_count: int
    leader_count: int


@dataclass(frozen=True, slots=True)
class EventTimes:
    """When something happened first and last, in nanoseconds since 1970; 0: never."""

    first_ns: int
    latest_ns: int


@dataclass(frozen=True, slots=True)
class Partition:
    """``leader``, ``replicas`` and ``isr`` are server IDs, ``leader`` empty while there is none. Offsets are of the last
    committed and of the last message, -1 when there is none."""

    number: int
    leader: str
    replicas: tuple[str, ...]
    isr: tuple[str, ...]
    high_watermark: int
    newest_offset: int
    paused: bool
    readonly: bool
    messages_received: EventTimes
    pauses: EventTimes
    readonly_changes: EventTimes


@dataclass(frozen=True, slots=True)
class Stream:
    """``partitions`` in the order of their numbers."""

    name: str
    subject: str
    created_ns: int
    partitions: tuple[Partition, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group: the server that coordinates it, and its generation."""

    group_id: str
    coordinator: str
    epoch: int


@dataclass(frozen=True, slots=True)
class ClusterMetadata:
    """By server ID, by name, by group ID. What was asked for and doesn't exist is missing."""

    brokers: Mapping[str, Broker]
    streams: Mapping[str, Stream]
    groups: Mapping[str, Group]


def metadata_from_proto(response: api.FetchMetadataResponse) -> ClusterMetadata:
    brokers = [
        Broker(one.id, join_address(one.host, one.port), one.partitionCount, one.leaderCount)
        for one in response.brokers
    ]
    streams = [
        Stream(
            one.name,
            one.subject,
            one.creationTimestamp,
            tuple(partition_from_proto(one.partitions[number]) for number in sorted(one.partitions)),
        )
        for one in response.streamMetadata
        if one.error == api.StreamMetadata.OK
    ]
    groups = [
        Group(one.groupId, one.coordinator, one.epoch)
        for one in response.groupMetadata
        if one.error == api.ConsumerGroupMetadata.OK and one.coordinator
    ]
    return ClusterMetadata(
        {one.server_id: one for one in brokers},
        {one.name: one for one in streams},
        {one.group_id: one for one in groups},
    )


def partition_from_proto(partition: api.PartitionMetadata) -> Partition:
    return Partition(
        number=partition.id,
        leader=partition.leader,
        replicas=tuple(partition.replicas),
        isr=tuple(partition.isr),
        high_watermark=partition.highWatermark,
        newest_offset=partition.newestOffset,
        paused=partition.paused,
        readonly=partition.readonly,
        messages_received=_times(partition.messagesReceivedTimestamps),
        pauses=_times(partition.pauseTimestamps),
        readonly_changes=_times(partition.readonlyTimestamps),
    )


def _times(times: api.PartitionEventTimestamps) -> EventTimes:
    return EventTimes(times.firstTimestamp, times.latestTimestamp)
