"""The client itself: every call of the API."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self

from liftbridge.client.brokers import Brokers, Deadline
from liftbridge.client.consumer import Consumer
from liftbridge.client.cursors import Cursors
from liftbridge.client.metadata import ClusterMetadata, Partition, partition_from_proto
from liftbridge.client.partitioners import KeyPartitioner, Partitioner
from liftbridge.client.positions import StartAt, StopAt
from liftbridge.client.publisher import Publisher
from liftbridge.client.records import Ack, AckPolicy, ack_from_proto
from liftbridge.client.security import Tls
from liftbridge.client.subscription import Subscription
from liftbridge.errors import InvalidRequest
from liftbridge.protocol.generated import api_pb2 as api

#: For calls that name no time of their own.
DEFAULT_TIMEOUT_S = 5.0
ANY_OFFSET = -1


class Client:
    """Use it as ``async with Client(["host:9292"]) as client``. One client serves a whole program: it keeps one
    connection to each server, and each publisher and subscription has its own beside. Any number of coroutines of one event
    loop may use it at once.

    ``call_metadata`` goes with every call, for servers or proxies that ask for credentials. ``timeout_s`` is for calls
    that don't bring their own.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        tls: Tls | None = None,
        call_metadata: Mapping[str, str] | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        if isinstance(addresses, str):
            raise InvalidRequest(f'addresses are a list: ["{addresses}"]')
        self._brokers = Brokers(addresses, tls=tls, call_metadata=call_metadata or {})
        self._cursors = Cursors(self._brokers)
        self._timeout_s = timeout_s
        self._by_key = KeyPartitioner()

    async def __aenter__(self) -> Self:
        """Raises Unavailable when no server can be reached."""
        try:
            await self._brokers.connected(self._deadline(None))
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends whatever still runs. Idempotent."""
        await self._brokers.close()

    def _deadline(self, timeout_s: float | None) -> Deadline:
        return Deadline(self._timeout_s if timeout_s is None else timeout_s)

    # --- streams ------------------------------------------------------------------------------------------------------

    async def create_stream(
        self,
        name: str,
        subject: str,
        *,
        group: str = "",
        replication_factor: int = 1,
        partitions: int = 1,
        retention_max_bytes: int | None = None,
        retention_max_messages: int | None = None,
        retention_max_age: timedelta | None = None,
        cleaner_interval: timedelta | None = None,
        segment_max_bytes: int | None = None,
        segment_max_age: timedelta | None = None,
        compact: bool | None = None,
        compact_max_workers: int | None = None,
        auto_pause_time: timedelta | None = None,
        auto_pause_disable_if_subscribers: bool | None = None,
        min_isr: int | None = None,
        optimistic_concurrency: bool | None = None,
        encryption: bool | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Attaches a new stream to a NATS subject. None leaves a setting to the server; a ``replication_factor`` of -1 means
        all servers. Raises AlreadyExists, InvalidRequest, FailedPrecondition."""
        request = api.CreateStreamRequest(
            name=name, subject=subject, group=group, replicationFactor=replication_factor, partitions=partitions
        )
        numbers = {
            "retentionMaxBytes": retention_max_bytes,
            "retentionMaxMessages": retention_max_messages,
            "retentionMaxAge": _milliseconds(retention_max_age),
            "cleanerInterval": _milliseconds(cleaner_interval),
            "segmentMaxBytes": segment_max_bytes,
            "segmentMaxAge": _milliseconds(segment_max_age),
            "compactMaxGoroutines": compact_max_workers,
            "autoPauseTime": _milliseconds(auto_pause_time),
            "minIsr": min_isr,
        }
        flags = {
            "compactEnabled": compact,
            "autoPauseDisableIfSubscribers": auto_pause_disable_if_subscribers,
            "optimisticConcurrencyControl": optimistic_concurrency,
            "encryption": encryption,
        }
        for field, value in {**numbers, **flags}.items():
            if value is not None:
                getattr(request, field).value = value
        await self._brokers.call("CreateStream", request, self._deadline(timeout_s))
        self._brokers.forget(name)

    async def delete_stream(self, name: str, *, timeout_s: float | None = None) -> None:
        """The stream and its data. Raises NotFound."""
        await self._brokers.call("DeleteStream", api.DeleteStreamRequest(name=name), self._deadline(timeout_s))
        self._brokers.forget(name)

    async def pause_stream(
        self, name: str, partitions: Sequence[int] = (), *, resume_all: bool = False, timeout_s: float | None = None
    ) -> None:
        """Frees what these partitions (none named: all of them) occupy, until somebody publishes or resumes them; with
        ``resume_all``, one resumes them all. Raises NotFound."""
        request = api.PauseStreamRequest(name=name, partitions=partitions, resumeAll=resume_all)
        await self._brokers.call_until_done("PauseStream", request, self._deadline(timeout_s))

    async def set_stream_readonly(
        self, name: str, partitions: Sequence[int] = (), *, readonly: bool = True, timeout_s: float | None = None
    ) -> None:
        """Refuses messages for these partitions (none named: all of them), or takes them again. Raises NotFound."""
        request = api.SetStreamReadonlyRequest(name=name, partitions=partitions, readonly=readonly)
        await self._brokers.call_until_done("SetStreamReadonly", request, self._deadline(timeout_s))

    # --- publishing ---------------------------------------------------------------------------------------------------

    async def publish(
        self,
        stream: str,
        value: bytes,
        *,
        key: bytes = b"",
        headers: Mapping[str, bytes] | None = None,
        partition: int | None = None,
        partitioner: Partitioner | None = None,
        ack_policy: AckPolicy = AckPolicy.LEADER,
        expected_offset: int | None = None,
        correlation_id: str = "",
        timeout_s: float | None = None,
    ) -> Ack | None:
        """Publishes one message and waits for its ack; None with AckPolicy.NONE. Who publishes many uses
        :meth:`publisher`.

        Without ``partition`` a message goes where the ``partitioner`` says; without that, one with a key by its key and one
        without to partition 0. Raises NotFound, FailedPrecondition (readonly), IncorrectOffset, InvalidRequest: then the
        message is not stored. DeadlineExceeded and Unavailable leave it open.
        """
        deadline = self._deadline(timeout_s)
        number = await self._choose(stream, key, value, partition, partitioner, deadline)
        request = api.PublishRequest(
            stream=stream,
            partition=number,
            key=key,
            value=value,
            headers=headers,
            ackPolicy=int(ack_policy),  # type: ignore[arg-type]
            correlationId=correlation_id,
            expectedOffset=ANY_OFFSET if expected_offset is None else expected_offset,
        )
        response = await self._brokers.call("Publish", request, deadline)
        return ack_from_proto(response.ack) if response.HasField("ack") else None

    async def publish_to_subject(
        self,
        subject: str,
        value: bytes,
        *,
        key: bytes = b"",
        headers: Mapping[str, bytes] | None = None,
        ack_policy: AckPolicy = AckPolicy.LEADER,
        correlation_id: str = "",
        timeout_s: float | None = None,
    ) -> Ack | None:
        """Publishes to a NATS subject, for whichever streams are attached to it; the first one's ack comes back. Raises
        DeadlineExceeded when nobody acks."""
        request = api.PublishToSubjectRequest(
            subject=subject,
            key=key,
            value=value,
            headers=headers,
            ackPolicy=int(ack_policy),  # type: ignore[arg-type]
            correlationId=correlation_id,
        )
        response = await self._brokers.call("PublishToSubject", request, self._deadline(timeout_s))
        return ack_from_proto(response.ack) if response.HasField("ack") else None

    def publisher(
        self,
        stream: str,
        *,
        max_in_flight: int = 1000,
        ack_policy: AckPolicy = AckPolicy.LEADER,
        partitioner: Partitioner | None = None,
        ack_timeout_s: float | None = None,
    ) -> Publisher:
        """For many messages to one stream; see :class:`Publisher`. ``ack_timeout_s`` is the client's time-out if it isn't
        given."""
        return Publisher(
            self._brokers,
            stream,
            max_in_flight=max_in_flight,
            ack_policy=ack_policy,
            partitioner=partitioner,
            ack_timeout_s=self._timeout_s if ack_timeout_s is None else ack_timeout_s,
        )

    async def _choose(
        self,
        stream: str,
        key: bytes,
        value: bytes,
        partition: int | None,
        partitioner: Partitioner | None,
        deadline: Deadline,
    ) -> int:
        if partition is not None:
            return partition
        if partitioner is None and not key:
            return 0
        known = await self._brokers.stream(stream, deadline)
        return (partitioner or self._by_key)(key, value, len(known.partitions))

    # --- subscribing --------------------------------------------------------------------------------------------------

    def subscribe(
        self,
        stream: str,
        partition: int = 0,
        *,
        start: StartAt | None = None,
        stop: StopAt | None = None,
        reverse: bool = False,
        read_isr_replica: bool = False,
        resume: bool = False,
        patience_s: float = 30.0,
    ) -> Subscription:
        """Messages of one partition, from new ones on unless ``start`` says otherwise; see :class:`Subscription`.

        ``reverse`` goes from the start backward. ``read_isr_replica`` reads from any replica in sync. ``resume`` resumes a
        paused partition. ``patience_s`` is how long the partition may be without a leader.
        """
        return Subscription(
            self._brokers,
            stream,
            partition,
            start=start or StartAt.new(),
            stop=stop or StopAt.never(),
            reverse=reverse,
            read_isr_replica=read_isr_replica,
            resume=resume,
            patience_s=patience_s,
        )

    def consumer(
        self,
        group_id: str,
        streams: Sequence[str],
        *,
        consumer_id: str = "",
        start: StartAt | None = None,
        checkpoint_interval_s: float | None = 5.0,
    ) -> Consumer:
        """A member of a consumer group; see :class:`Consumer`. ``start`` is where a partition begins that the group has no
        cursor for, new messages unless it says otherwise. Without ``checkpoint_interval_s`` (None) only ``commit`` and
        the end remember what was processed. The server needs cursors (``cursors.stream.partitions``)."""
        return Consumer(
            self._brokers,
            group_id,
            streams,
            consumer_id=consumer_id,
            start=start,
            checkpoint_interval_s=checkpoint_interval_s,
        )

    # --- cursors ------------------------------------------------------------------------------------------------------

    async def set_cursor(
        self, cursor_id: str, stream: str, partition: int, offset: int, *, timeout_s: float | None = None
    ) -> None:
        """Remembers an offset, durably and on every replica. Raises FailedPrecondition where the servers keep no
        cursors (``cursors.stream.partitions``)."""
        await self._cursors.set(cursor_id, stream, partition, offset, self._deadline(timeout_s))

    async def fetch_cursor(
        self, cursor_id: str, stream: str, partition: int, *, timeout_s: float | None = None
    ) -> int | None:
        """The offset that was set last; None when none was. Raises FailedPrecondition where the servers keep no cursors."""
        return await self._cursors.fetch(cursor_id, stream, partition, self._deadline(timeout_s))

    # --- metadata -----------------------------------------------------------------------------------------------------

    async def fetch_metadata(
        self, *, streams: Sequence[str] = (), groups: Sequence[str] = (), timeout_s: float | None = None
    ) -> ClusterMetadata:
        """The servers, the streams (none named: all) and the groups that are named."""
        request = api.FetchMetadataRequest(streams=streams, groups=groups)
        return await self._brokers.fetch(request, self._deadline(timeout_s))

    async def fetch_partition_metadata(
        self, stream: str, partition: int = 0, *, timeout_s: float | None = None
    ) -> Partition:
        """One partition, as its leader sees it. Raises NotFound."""
        request = api.FetchPartitionMetadataRequest(stream=stream, partition=partition)
        response = await self._brokers.call_leader(
            "FetchPartitionMetadata", request, self._deadline(timeout_s), stream=stream, partition=lambda _: partition
        )
        return partition_from_proto(response.metadata)


def _milliseconds(duration: timedelta | None) -> int | None:
    return None if duration is None else int(duration / timedelta(milliseconds=1))
