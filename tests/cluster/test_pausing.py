"""Pause, resume and readonly as clients see them, on one server."""

import asyncio
import time
from collections.abc import AsyncIterator

import grpc
import nats
import pytest
from api_client import ApiClient, fails_with
from broker_process import BrokerProcess

from liftbridge.protocol.envelope import MessageType, envelope_header, open_envelope
from liftbridge.protocol.generated import api_pb2 as api

NOT_FOUND = grpc.StatusCode.NOT_FOUND
CLOSED = grpc.StatusCode.FAILED_PRECONDITION, "commit log was closed"
AT_THE_END = grpc.StatusCode.RESOURCE_EXHAUSTED, "End of readonly partition"


@pytest.fixture
async def nats_client(broker: BrokerProcess) -> AsyncIterator[nats.NATS]:
    client = await nats.connect(broker.nats_url)
    yield client
    await client.close()


@pytest.fixture
async def made(client: ApiClient, stream: str) -> str:
    """A stream of two partitions, with one message in each."""
    await client("CreateStream", name=stream, subject=stream, partitions=2)
    for partition in (0, 1):
        await client("Publish", stream=stream, partition=partition, value=b"before")
    return stream


async def partition_of(client: ApiClient, stream: str, number: int = 0) -> api.PartitionMetadata:
    (metadata,) = (await client("FetchMetadata", streams=[stream])).streamMetadata
    return metadata.partitions[number]


async def is_paused(client: ApiClient, stream: str) -> list[bool]:
    (metadata,) = (await client("FetchMetadata", streams=[stream])).streamMetadata
    return [metadata.partitions[number].paused for number in sorted(metadata.partitions)]


async def until_paused(client: ApiClient, stream: str, paused: list[bool], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while await is_paused(client, stream) != paused:
            await asyncio.sleep(0.02)


async def values(client: ApiClient, stream: str, partition: int = 0, **fields: object) -> list[bytes]:
    messages = await client.messages(
        stream=stream, partition=partition, startPosition=api.EARLIEST, stopPosition=api.STOP_LATEST, **fields
    )
    return [message.value for message in messages]


async def subscribed(client: ApiClient, **fields: object) -> grpc.aio.UnaryStreamCall:
    """After the message that says so."""
    call = client.subscribe(**fields)
    assert await call.read() == api.Message()
    return call


# --- pause ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PauseStream", "SetStreamReadonly"])
async def test_what_there_is_not_is_not_found_in_the_originals_words(client: ApiClient, made: str, method: str) -> None:
    for fields, text in [
        ({"name": "nothing"}, "stream not found"),
        ({"name": ""}, "stream not found"),
        ({"name": "nothing", "partitions": [0]}, "stream does not exist"),
        ({"name": made, "partitions": [0, 2]}, "partition does not exist"),
        ({"name": made, "partitions": [-1]}, "partition does not exist"),
    ]:
        with fails_with(NOT_FOUND, text):
            await client(method, **fields)
    for reserved in ("__cursors", "__activity"):
        with fails_with(grpc.StatusCode.INVALID_ARGUMENT, "Stream is reserved"):
            await client(method, name=reserved)


async def test_a_paused_partition_ends_its_subscribers_and_is_listed_with_its_leader(
    client: ApiClient, made: str
) -> None:
    call = await subscribed(client, stream=made, startPosition=api.NEW_ONLY)
    counted = (await client("FetchMetadata")).brokers[0]
    await client("PauseStream", name=made, partitions=[0])
    with fails_with(*CLOSED):
        await call.read()
    await client("PauseStream", name=made, partitions=[0])  # idempotent
    partition = await partition_of(client, made)
    assert partition.paused
    assert partition.leader == "broker"
    assert list(partition.isr) == list(partition.replicas) == ["broker"]
    assert partition.newestOffset == partition.highWatermark == 0
    assert partition.pauseTimestamps.latestTimestamp >= partition.pauseTimestamps.firstTimestamp > 0
    broker = (await client("FetchMetadata")).brokers[0]
    assert (broker.partitionCount, broker.leaderCount) == (counted.partitionCount - 1, counted.leaderCount - 1)
    with fails_with(grpc.StatusCode.FAILED_PRECONDITION, "The request should be sent to partition leader"):
        await client("FetchPartitionMetadata", stream=made, partition=0)
    assert await is_paused(client, made) == [True, False]


@pytest.mark.parametrize("position", [api.EARLIEST, api.LATEST, api.OFFSET, api.TIMESTAMP, api.NEW_ONLY])
@pytest.mark.parametrize("reverse", [False, True])
async def test_a_new_subscriber_of_a_paused_partition_hears_that_it_is_paused(
    client: ApiClient, broker: BrokerProcess, position: api.StartPosition, reverse: bool
) -> None:
    stream = f"paused-{position}-{reverse}"
    await client("CreateStream", name=stream, subject=stream)
    await client("Publish", stream=stream, value=b"x")
    await client("PauseStream", name=stream)
    call = await subscribed(client, stream=stream, startPosition=position, reverse=reverse)
    with fails_with(*CLOSED):
        await call.read()


async def test_a_publish_resumes_the_partition_first_and_others_stay_paused(client: ApiClient, made: str) -> None:
    await client("PauseStream", name=made)
    answer = await client("Publish", stream=made, value=b"after")
    assert answer.ack.offset == 1
    assert await is_paused(client, made) == [False, True]
    assert await values(client, made) == [b"before", b"after"]
    partition = await partition_of(client, made)
    assert partition.pauseTimestamps.latestTimestamp > partition.pauseTimestamps.firstTimestamp


async def test_with_resume_all_a_publish_to_any_partition_resumes_all(client: ApiClient, made: str) -> None:
    await client("PauseStream", name=made, resumeAll=True)
    await client("Publish", stream=made, value=b"after")
    assert await values(client, made, 1) == [b"before"]
    assert await is_paused(client, made) == [False, False]
    await client("PauseStream", name=made, partitions=[1], resumeAll=True)
    await client("Publish", stream=made, value=b"to the one that isn't paused")
    assert await is_paused(client, made) == [False, False]
    await client("PauseStream", name=made, resumeAll=True)
    await client("PauseStream", name=made, resumeAll=False)
    await client("Publish", stream=made, value=b"the latest pause counts")
    assert await is_paused(client, made) == [False, True]


async def test_a_session_keeps_its_order_through_pauses(client: ApiClient, stream: str) -> None:
    await client("CreateStream", name=stream, subject=stream, partitions=2)
    session = client.publish_async()
    count = 300

    async def write() -> None:
        for number in range(count):
            for partition in (0, 1):
                await session.write(
                    api.PublishRequest(
                        stream=stream, partition=partition, value=b"%d" % number, correlationId=f"{partition}-{number}"
                    )
                )
            if number % 50 == 25:
                await client("PauseStream", name=stream, partitions=[0], resumeAll=False)
        await session.done_writing()

    writing = asyncio.create_task(write())
    answers = [answer async for answer in session]
    await writing
    assert not [answer for answer in answers if answer.HasField("asyncError")]
    assert len(answers) == 2 * count
    for partition in (0, 1):
        assert await values(client, stream, partition) == [b"%d" % number for number in range(count)]


async def test_a_subscribe_resumes_the_partition_when_it_asks_so(client: ApiClient, made: str) -> None:
    await client("PauseStream", name=made)
    assert await values(client, made, resume=True) == [b"before"]
    assert await is_paused(client, made) == [False, True]


async def test_what_comes_over_nats_resumes_the_partition_and_is_stored_in_order(
    client: ApiClient, made: str, nats_client: nats.NATS
) -> None:
    await client("PauseStream", name=made)
    for number in range(500):
        await nats_client.publish(made, b"%d" % number)
    await nats_client.flush()
    await until_paused(client, made, [False, True])
    messages = await client.messages(501, stream=made, startPosition=api.EARLIEST)
    assert [message.value for message in messages] == [b"before", *(b"%d" % number for number in range(500))]


async def test_what_comes_over_nats_while_pausing_again_and_again_is_all_stored(
    client: ApiClient, stream: str, nats_client: nats.NATS
) -> None:
    await client("CreateStream", name=stream, subject=stream)
    pausing = asyncio.create_task(pause_often(client, stream))
    count = 3000
    for number in range(count):
        await nats_client.publish(stream, b"%d" % number)
        if number % 10 == 0:
            await asyncio.sleep(0.001)
    await nats_client.flush()
    pausing.cancel()
    await asyncio.gather(pausing, return_exceptions=True)
    messages = await client.messages(count, stream=stream, startPosition=api.EARLIEST, resume=True)
    assert [message.value for message in messages] == [b"%d" % number for number in range(count)]


async def pause_often(client: ApiClient, stream: str) -> None:
    while True:
        await client("PauseStream", name=stream)
        await asyncio.sleep(0.005)


async def test_an_envelope_over_nats_for_a_paused_partition_is_acked(
    client: ApiClient, made: str, nats_client: nats.NATS
) -> None:
    await client("PauseStream", name=made)
    ack = await publish_envelope(nats_client, made, api.Message(value=b"x", correlationId="1", offset=-1))
    assert (ack.stream, ack.offset, ack.ackError) == (made, 1, api.Ack.OK)


async def publish_envelope(client: nats.NATS, subject: str, message: api.Message) -> api.Ack:
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    message.ackInbox = inbox
    await client.publish(subject, envelope_header(MessageType.PUBLISH) + message.SerializeToString())
    answer = await subscription.next_msg(timeout=5)
    await subscription.unsubscribe()
    return api.Ack.FromString(bytes(open_envelope(answer.data, MessageType.ACK)))


async def test_a_paused_stream_on_another_streams_subject_gets_its_copy(client: ApiClient, stream: str) -> None:
    for name in (stream, f"{stream}-copy"):
        await client("CreateStream", name=name, subject=stream)
    await client("PauseStream", name=f"{stream}-copy")
    await client("Publish", stream=stream, value=b"both")
    await until_paused(client, f"{stream}-copy", [False])
    assert await values(client, f"{stream}-copy") == [b"both"]
    await client("PauseStream", name=f"{stream}-copy")
    await client("PauseStream", name=stream)
    answer = await client("PublishToSubject", subject=stream, value=b"to the subject")
    assert answer.ack.offset == 1
    await until_paused(client, f"{stream}-copy", [False])
    assert await values(client, f"{stream}-copy") == await values(client, stream) == [b"both", b"to the subject"]


async def test_a_paused_partition_of_a_group_is_resumed_by_what_is_published(client: ApiClient, stream: str) -> None:
    await client("CreateStream", name=stream, subject=stream, group="workers")
    await client("PauseStream", name=stream)
    assert (await client("Publish", stream=stream, value=b"x")).ack.offset == 0
    assert await is_paused(client, stream) == [False]


async def test_a_paused_stream_can_be_deleted_and_made_again(client: ApiClient, made: str) -> None:
    await client("PauseStream", name=made)
    await client("DeleteStream", name=made)
    await client("CreateStream", name=made, subject=made)
    assert (await client("Publish", stream=made, value=b"new")).ack.offset == 0


# --- readonly ---------------------------------------------------------------------------------------------------------


async def test_a_readonly_partition_takes_nothing_until_it_is_opened_again(
    client: ApiClient, made: str, nats_client: nats.NATS
) -> None:
    await client("SetStreamReadonly", name=made, partitions=[0], readonly=True)
    assert (await partition_of(client, made)).readonly
    with fails_with(grpc.StatusCode.FAILED_PRECONDITION, "readonly partition: 0"):
        await client("Publish", stream=made, value=b"x")
    session = client.publish_async()
    for policy in (api.LEADER, api.NONE):
        await session.write(api.PublishRequest(stream=made, value=b"x", ackPolicy=policy, correlationId="c"))
        answer = await session.read()
        assert answer.asyncError.code == api.PublishAsyncError.READONLY
        assert answer.asyncError.message == "readonly partition: 0"
        assert answer.correlationId == "c"
    session.cancel()
    ack = await publish_envelope(nats_client, made, api.Message(value=b"x", offset=-1))
    assert ack.ackError == api.Ack.UNKNOWN
    assert (await client("PublishToSubject", subject=made, value=b"x")).ack.ackError == api.Ack.UNKNOWN
    assert (await client("Publish", stream=made, partition=1, value=b"open")).ack.offset == 1
    await client("SetStreamReadonly", name=made, readonly=False)
    assert (await client("Publish", stream=made, value=b"again")).ack.offset == 1
    partition = await partition_of(client, made)
    assert not partition.readonly
    assert partition.readonlyTimestamps.latestTimestamp > partition.readonlyTimestamps.firstTimestamp > 0
    assert await values(client, made) == [b"before", b"again"]


async def test_what_plain_nats_clients_send_to_a_readonly_partition_is_counted_and_reported(
    broker: BrokerProcess, client: ApiClient, made: str, nats_client: nats.NATS
) -> None:
    await client("SetStreamReadonly", name=made, readonly=True)
    for _ in range(100):
        await nats_client.publish(made, b"x")
        await nats_client.flush()
    async with asyncio.timeout(5):
        while (reports := broker.log().count(f'{made}\\": messages from NATS are not stored')) == 0:
            await asyncio.sleep(0.02)
    assert reports == 1, "once in a while, not for each message"


async def test_subscribers_of_a_readonly_partition_read_to_its_end(client: ApiClient, made: str) -> None:
    running = await subscribed(client, stream=made, startPosition=api.EARLIEST)
    assert (await running.read()).value == b"before"
    await client("SetStreamReadonly", name=made, readonly=True)
    with fails_with(*AT_THE_END):
        await running.read()
    call = await subscribed(client, stream=made, startPosition=api.EARLIEST)
    assert (await call.read()).value == b"before"
    with fails_with(grpc.StatusCode.RESOURCE_EXHAUSTED, "Stop offset reached"):
        await call.read()
    for fields in (
        {"startPosition": api.NEW_ONLY},
        {"startPosition": api.OFFSET, "startOffset": 9},
    ):
        call = await subscribed(client, stream=made, **fields)
        with fails_with(*AT_THE_END):
            await call.read()
    call = await subscribed(
        client, stream=made, startPosition=api.EARLIEST, stopPosition=api.STOP_OFFSET, stopOffset=100
    )
    assert (await call.read()).value == b"before"
    with fails_with(*AT_THE_END):
        await call.read()
    call = await subscribed(client, stream=made, startPosition=api.LATEST, reverse=True)
    assert (await call.read()).value == b"before"


async def test_an_empty_readonly_partition_ends_at_once(client: ApiClient, stream: str) -> None:
    await client("CreateStream", name=stream, subject=stream)
    await client("SetStreamReadonly", name=stream, readonly=True)
    for position in (api.EARLIEST, api.NEW_ONLY, api.LATEST):
        call = await subscribed(client, stream=stream, startPosition=position)
        with fails_with(*AT_THE_END):
            await call.read()


async def test_readonly_and_paused_leave_each_other_alone(client: ApiClient, made: str, nats_client: nats.NATS) -> None:
    await client("SetStreamReadonly", name=made, partitions=[0], readonly=True)
    await client("PauseStream", name=made, partitions=[0])
    with fails_with(grpc.StatusCode.FAILED_PRECONDITION, "readonly partition: 0"):
        await client("Publish", stream=made, value=b"x")
    ack = await publish_envelope(nats_client, made, api.Message(value=b"x", offset=-1))
    assert ack.ackError == api.Ack.UNKNOWN
    assert await is_paused(client, made) == [True, False], "what isn't stored wakes nobody"
    assert await values(client, made, resume=True) == [b"before"]
    with fails_with(grpc.StatusCode.FAILED_PRECONDITION, "readonly partition: 0"):
        await client("Publish", stream=made, value=b"x")
    await client("PauseStream", name=made, partitions=[0])
    await client("SetStreamReadonly", name=made, partitions=[0], readonly=False)
    assert await is_paused(client, made) == [True, False]
    assert (await client("Publish", stream=made, value=b"x")).ack.offset == 1


# --- auto pause -------------------------------------------------------------------------------------------------------


async def test_an_idle_partition_is_paused_also_one_that_never_got_a_message(client: ApiClient, stream: str) -> None:
    began = time.monotonic()
    await client("CreateStream", name=stream, subject=stream, partitions=2, autoPauseTime={"value": 500})
    await asyncio.sleep(0.3)
    await client("Publish", stream=stream, partition=1, value=b"x")
    await until_paused(client, stream, [True, False])
    assert 0.4 < time.monotonic() - began < 2
    await until_paused(client, stream, [True, True])
    assert 0.75 < time.monotonic() - began < 3
    assert (await client("Publish", stream=stream, partition=1, value=b"y")).ack.offset == 1
    assert await is_paused(client, stream) == [True, False]
    await until_paused(client, stream, [True, True])


async def test_a_subscriber_prevents_the_automatic_pause_only_where_that_was_asked_for(
    client: ApiClient, stream: str
) -> None:
    lenient = f"{stream}-lenient"
    await client("CreateStream", name=stream, subject=stream, autoPauseTime={"value": 300})
    await client(
        "CreateStream",
        name=lenient,
        subject=lenient,
        autoPauseTime={"value": 300},
        autoPauseDisableIfSubscribers={"value": True},
    )
    cut = await subscribed(client, stream=stream, startPosition=api.NEW_ONLY)
    kept = await subscribed(client, stream=lenient, startPosition=api.NEW_ONLY)
    with fails_with(*CLOSED):
        await cut.read()
    await asyncio.sleep(0.7)
    assert await is_paused(client, lenient) == [False]
    await client("Publish", stream=lenient, value=b"x")
    assert (await kept.read()).value == b"x"
    kept.cancel()
    await until_paused(client, lenient, [True])


# --- restarts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kill", [False, True])
async def test_flags_and_times_survive_restarts(new_broker: BrokerProcess, kill: bool) -> None:
    new_broker.start()
    async with ApiClient(new_broker.address) as client:
        await client("CreateStream", name="orders", subject="orders", partitions=3)
        for value in (b"1", b"2"):
            await client("Publish", stream="orders", partition=2, value=value)
        received = (await partition_of(client, "orders", 2)).messagesReceivedTimestamps
        assert received.latestTimestamp > received.firstTimestamp > 0
        await client("PauseStream", name="orders", partitions=[0], resumeAll=True)
        await client("SetStreamReadonly", name="orders", partitions=[0, 2], readonly=True)
        before = [await partition_of(client, "orders", number) for number in range(3)]
    new_broker.kill() if kill else new_broker.stop()
    new_broker.start()
    async with ApiClient(new_broker.address) as client, await nats.connect(new_broker.nats_url) as nats_client:
        after = [await partition_of(client, "orders", number) for number in range(3)]
        for old, new in zip(before, after, strict=True):
            assert (old.paused, old.readonly) == (new.paused, new.readonly)
            assert (old.pauseTimestamps, old.readonlyTimestamps) == (new.pauseTimestamps, new.readonlyTimestamps)
        assert after[2].messagesReceivedTimestamps == received
        await client("SetStreamReadonly", name="orders", readonly=False)
        await nats_client.publish("orders", b"over NATS")
        await nats_client.flush()
        await until_paused(client, "orders", [False, False, False])
        assert await values(client, "orders") == [b"over NATS"]
        assert await values(client, "orders", 2) == [b"1", b"2"]
