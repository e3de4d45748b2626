"""FetchMetadata and FetchPartitionMetadata: local state, no leader needed, quick. Offsets here are the API's: inclusive,
-1 when there is none."""

from collections import Counter

from liftbridge.broker.api import CallContext
from liftbridge.errors import FailedPrecondition, NotFound
from liftbridge.metadata.state import MetadataState, PartitionState, ServerStatus, StreamState
from liftbridge.partition.local import NO_FIGURES
from liftbridge.partition.manager import PartitionManager
from liftbridge.protocol.generated import api_pb2 as api


class ClusterMetadataHandlers:
    """The control calls that read."""

    def __init__(self, state: MetadataState, partitions: PartitionManager) -> None:
        self._state = state
        self._partitions = partitions

    async def fetch_metadata(self, request: api.FetchMetadataRequest, call: CallContext) -> api.FetchMetadataResponse:
        """Brokers, the streams asked for (all of them, when none is named) and groups."""
        del call
        names = request.streams or list(self._state.streams)
        return api.FetchMetadataResponse(
            brokers=self._brokers(),
            streamMetadata=[self._stream(name) for name in names],
            groupMetadata=[self._group(group_id) for group_id in request.groups],
        )

    async def fetch_partition_metadata(
        self, request: api.FetchPartitionMetadataRequest, call: CallContext
    ) -> api.FetchPartitionMetadataResponse:
        """One partition, as its leader sees it."""
        del call
        stream = self._state.streams.get(request.stream)
        if stream is None or not 0 <= request.partition < len(stream.partitions):
            raise NotFound("partition not found")
        local = self._partitions.get(request.stream, request.partition)
        if local is None or not local.is_leader:
            raise FailedPrecondition("The request should be sent to partition leader")
        return api.FetchPartitionMetadataResponse(metadata=self._partition(stream, request.partition))

    def _brokers(self) -> list[api.Broker]:
        """Those that a client can connect to."""
        held: Counter[str] = Counter()
        led: Counter[str] = Counter()
        for stream in self._state.streams.values():
            for partition in stream.partitions:
                if not partition.paused:
                    held.update(partition.replicas)
                    led[partition.leader] += 1
        return [
            api.Broker(
                id=server.server_id,
                host=server.host,
                port=server.port,
                partitionCount=held[server.server_id],
                leaderCount=led[server.server_id],
            )
            for server in self._state.servers.values()
            if server.status in (ServerStatus.LIVE, ServerStatus.DRAINING)
        ]

    def _stream(self, name: str) -> api.StreamMetadata:
        stream = self._state.streams.get(name)
        if stream is None:
            return api.StreamMetadata(name=name, error=api.StreamMetadata.UNKNOWN_STREAM)
        return api.StreamMetadata(
            name=stream.name,
            subject=stream.subject,
            creationTimestamp=stream.creation_timestamp_ns,
            partitions={number: self._partition(stream, number) for number in range(len(stream.partitions))},
        )

    def _group(self, group_id: str) -> api.ConsumerGroupMetadata:
        group = self._state.groups.get(group_id)
        if group is None:
            return api.ConsumerGroupMetadata(groupId=group_id, error=api.ConsumerGroupMetadata.UNKNOWN_GROUP)
        return api.ConsumerGroupMetadata(groupId=group_id, coordinator=group.coordinator, epoch=group.epoch)

    def _partition(self, stream: StreamState, number: int) -> api.PartitionMetadata:
        state: PartitionState = stream.partitions[number]
        local = self._partitions.get(stream.name, number)
        figures = local.figures() if local is not None else NO_FIGURES
        return api.PartitionMetadata(
            id=number,
            leader=state.leader,
            replicas=state.replicas,
            isr=state.isr,
            highWatermark=_last(figures.high_watermark),
            newestOffset=_last(figures.end_offset),
            paused=state.paused,
            readonly=state.readonly,
            messagesReceivedTimestamps=_times(figures.received_first_ns, figures.received_latest_ns),
            pauseTimestamps=_times(*state.pause_times),
            readonlyTimestamps=_times(*state.readonly_times),
        )


def _last(end_offset: int) -> int:
    """The API's inclusive number for an exclusive end."""
    return end_offset - 1


def _times(first_ns: int, latest_ns: int) -> api.PartitionEventTimestamps | None:
    """None for what never happened."""
    return api.PartitionEventTimestamps(firstTimestamp=first_ns, latestTimestamp=latest_ns) if latest_ns else None
