"""CreateStream, DeleteStream and metadata against a real broker (reference: the original's API, sections 4 and 7)."""

from typing import Any

import grpc
import pytest
from api_client import ApiClient, fails_with
from broker_process import BrokerProcess

from liftbridge.protocol.generated import api_pb2 as api

INVALID = grpc.StatusCode.INVALID_ARGUMENT


async def test_a_created_stream_is_in_the_metadata(client: ApiClient, broker: BrokerProcess, stream: str) -> None:
    await client("CreateStream", name=stream, subject="made", partitions=3)
    metadata = await client("FetchMetadata", streams=[stream])
    assert [(one.id, one.host, one.port) for one in metadata.brokers] == [("broker", "127.0.0.1", broker.port)]
    (found,) = metadata.streamMetadata
    assert (found.name, found.subject, sorted(found.partitions)) == (stream, "made", [0, 1, 2])
    partition = found.partitions[2]
    assert (partition.leader, list(partition.replicas), list(partition.isr)) == ("broker", ["broker"], ["broker"])
    assert (partition.highWatermark, partition.newestOffset) == (-1, -1)


async def test_names_are_unique_whatever_the_subject(client: ApiClient, stream: str) -> None:
    await client("CreateStream", name=stream, subject="one")
    with fails_with(grpc.StatusCode.ALREADY_EXISTS, "stream already exists"):
        await client("CreateStream", name=stream, subject="two")


async def test_unknown_streams_and_groups_are_named_in_the_metadata(client: ApiClient) -> None:
    metadata = await client("FetchMetadata", streams=["nowhere"], groups=["nobody"])
    assert metadata.streamMetadata[0].error == api.StreamMetadata.UNKNOWN_STREAM
    assert metadata.groupMetadata[0].error == api.ConsumerGroupMetadata.UNKNOWN_GROUP


async def test_a_deleted_stream_is_gone_and_its_name_begins_at_offset_0_again(client: ApiClient, stream: str) -> None:
    for value in (b"old", b"new"):
        await client("CreateStream", name=stream, subject="again")
        response = await client("Publish", stream=stream, value=value)
        assert response.ack.offset == 0
        (message,) = await client.messages(1, stream=stream, startPosition=api.EARLIEST)
        assert message.value == value
        await client("DeleteStream", name=stream)
        with fails_with(grpc.StatusCode.NOT_FOUND, "stream does not exist"):
            await client("DeleteStream", name=stream)


async def test_subscribers_of_a_deleted_stream_are_told(client: ApiClient, stream: str) -> None:
    await client("CreateStream", name=stream, subject="doomed")
    call = client.subscribe(stream=stream)
    await call.read()
    await client("DeleteStream", name=stream)
    with fails_with(grpc.StatusCode.NOT_FOUND, "commit log was deleted"):
        await call.read()


async def test_partition_metadata_has_offsets_and_times(client: ApiClient, stream: str) -> None:
    await client("CreateStream", name=stream, subject="counted")
    acks = [(await client("Publish", stream=stream, value=b"x")).ack for _ in range(3)]
    metadata = (await client("FetchPartitionMetadata", stream=stream)).metadata
    assert (metadata.highWatermark, metadata.newestOffset) == (2, 2)
    assert metadata.messagesReceivedTimestamps.firstTimestamp == acks[0].receptionTimestamp
    assert metadata.messagesReceivedTimestamps.latestTimestamp == acks[2].receptionTimestamp
    with fails_with(grpc.StatusCode.NOT_FOUND, "partition not found"):
        await client("FetchPartitionMetadata", stream=stream, partition=1)


def nullable(value: int) -> api.NullableInt64:
    return api.NullableInt64(value=value)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"name": ""}, "Name cannot be empty"),
        ({"name": "a b"}, "Name is invalid"),
        ({"name": "a\nb"}, "Name is invalid"),
        ({"name": "a..b"}, "Name is invalid"),
        ({"name": "../../etc"}, "Name is invalid"),
        ({"name": "n" * 10_000}, "Name is invalid"),
        ({"name": "__cursors"}, "Stream is reserved"),
        ({"name": "__activity"}, "Stream is reserved"),
        ({"subject": ""}, "Subject is invalid"),
        ({"subject": "a b"}, "Subject is invalid"),
        ({"subject": "a..b"}, "Subject is invalid"),
        ({"subject": ">.a"}, "Subject is invalid"),
        ({"subject": "s" * 10_000}, "Subject is invalid"),
        ({"group": "a b"}, "Group is invalid"),
        ({"partitions": -1}, "Invalid partitions -1"),
        ({"partitions": 2**31 - 1}, "Invalid partitions"),
        ({"replicationFactor": -2}, "Invalid replicationFactor -2"),
        ({"replicationFactor": 2}, "Invalid replicationFactor 2, cluster size 1"),
        ({"cleanerInterval": nullable(-1)}, "Invalid cleanerInterval -1"),
        ({"segmentMaxBytes": nullable(-1)}, "Invalid segmentMaxBytes -1"),
        ({"segmentMaxBytes": nullable(1 << 40)}, "Invalid segmentMaxBytes"),
        ({"retentionMaxAge": nullable((1 << 63) - 1)}, "Invalid retentionMaxAge"),
        ({"retentionMaxMessages": nullable(-5)}, "Invalid retentionMaxMessages -5"),
    ],
)
async def test_absurd_streams_are_refused_and_the_broker_lives(
    client: ApiClient, fields: dict[str, Any], text: str
) -> None:
    with fails_with(INVALID, text):
        await client("CreateStream", **{"name": "absurd", "subject": "absurd", **fields})
    assert (await client("FetchMetadata", streams=["absurd"])).streamMetadata[0].error


@pytest.mark.parametrize("name", ["ü", "x/y", "st*r", "__other", "/etc/passwd", "a.b"])
async def test_odd_names_are_only_names(client: ApiClient, name: str) -> None:
    await client("CreateStream", name=name, subject="odd")
    assert (await client("Publish", stream=name, value=b"x")).ack.stream == name
    await client("DeleteStream", name=name)


async def test_encryption_without_a_key_is_refused(client: ApiClient, stream: str) -> None:
    with fails_with(grpc.StatusCode.FAILED_PRECONDITION, "no encryption key; set LIFTBRIDGE_ENCRYPTION_KEY"):
        await client("CreateStream", name=stream, subject="secret", encryption=api.NullableBool(value=True))


async def test_retention_by_messages_keeps_whole_new_segments(client: ApiClient, stream: str) -> None:
    await client(
        "CreateStream",
        name=stream,
        subject="trimmed",
        segmentMaxBytes=nullable(1),
        retentionMaxMessages=nullable(3),
        cleanerInterval=nullable(50),
    )
    for number in range(10):
        await client("Publish", stream=stream, value=b"%d" % number)
    first = -1
    while first != 7:
        (message,) = await client.messages(1, stream=stream, startPosition=api.EARLIEST)
        first = message.offset
        assert first <= 7
    kept = await client.messages(stream=stream, startPosition=api.EARLIEST, stopPosition=api.STOP_LATEST)
    assert [message.offset for message in kept] == [7, 8, 9]
    gone = await client.messages(
        stream=stream, startPosition=api.OFFSET, startOffset=0, stopPosition=api.STOP_OFFSET, stopOffset=5
    )
    assert gone == [], "a stop offset that is no longer there still stops"
