"""Subscribe from every position to every stop, against a real broker (reference: the original's API, section 5)."""

import asyncio

import grpc
import pytest
from api_client import ApiClient, fails_with

from liftbridge.protocol.generated import api_pb2 as api

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
INVALID = grpc.StatusCode.INVALID_ARGUMENT
COUNT = 10


@pytest.fixture
async def times(client: ApiClient, stream: str) -> list[int]:
    """Makes the stream with ten messages, in several batches and segments, and returns their timestamps."""
    await client("CreateStream", name=stream, subject=f"read.{stream}", segmentMaxBytes=api.NullableInt64(value=300))
    acks = [(await client("Publish", stream=stream, value=b"%d" % number)).ack for number in range(COUNT)]
    return [ack.receptionTimestamp for ack in acks]


async def offsets(client: ApiClient, stream: str, count: int | None = None, **fields) -> list[int]:
    messages = await client.messages(count, stream=stream, **fields)
    assert [message.value for message in messages] == [b"%d" % message.offset for message in messages]
    return [message.offset for message in messages]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"startPosition": api.EARLIEST}, range(10)),
        ({"startPosition": api.LATEST}, [9]),
        ({"startPosition": api.OFFSET, "startOffset": 4}, range(4, 10)),
        ({"startPosition": api.OFFSET, "startOffset": -7}, range(10)),
        (
            {"startPosition": api.OFFSET, "startOffset": 2, "stopPosition": api.STOP_OFFSET, "stopOffset": 5},
            range(2, 6),
        ),
        ({"startPosition": api.EARLIEST, "stopPosition": api.STOP_OFFSET, "stopOffset": 0}, [0]),
    ],
)
async def test_forward_positions(client: ApiClient, stream: str, times: list[int], fields, expected) -> None:
    fields = {"stopPosition": api.STOP_LATEST, "startTimestamp": -6795364578871345152, **fields}
    assert await offsets(client, stream, **fields) == list(expected)


async def test_positions_by_time(client: ApiClient, stream: str, times: list[int]) -> None:
    for number, time in enumerate(times):
        assert await offsets(
            client, stream, startPosition=api.TIMESTAMP, startTimestamp=time, stopPosition=api.STOP_LATEST
        ) == list(range(number, 10))
        assert await offsets(
            client, stream, startPosition=api.EARLIEST, stopPosition=api.STOP_TIMESTAMP, stopTimestamp=time
        ) == list(range(number + 1))
    assert await offsets(client, stream, 1, startPosition=api.TIMESTAMP, startTimestamp=0) == [0]


async def test_new_only_and_beyond_the_end_wait_for_the_next_message(
    client: ApiClient, stream: str, times: list[int]
) -> None:
    calls = [
        client.subscribe(stream=stream, startPosition=api.NEW_ONLY),
        client.subscribe(stream=stream, startPosition=api.OFFSET, startOffset=100),
        client.subscribe(stream=stream, startPosition=api.TIMESTAMP, startTimestamp=times[-1] + 1),
    ]
    for call in calls:
        await call.read()
    await client("Publish", stream=stream, value=b"10")
    assert [(await call.read()).offset for call in calls] == [10, 10, 10]


async def test_a_stop_that_is_not_written_yet_is_waited_for(client: ApiClient, stream: str, times: list[int]) -> None:
    call = client.subscribe(stream=stream, startPosition=api.LATEST, stopPosition=api.STOP_OFFSET, stopOffset=11)
    await call.read()
    for number in (10, 11, 12):
        await client("Publish", stream=stream, value=b"%d" % number)
    assert [(await call.read()).offset for _ in range(3)] == [9, 10, 11]
    with fails_with(EXHAUSTED, "Stop offset reached"):
        await call.read()


@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        ({"stream": "nowhere"}, grpc.StatusCode.NOT_FOUND, "No such partition"),
        ({"partition": 1}, grpc.StatusCode.NOT_FOUND, "No such partition"),
        ({"partition": -1}, grpc.StatusCode.NOT_FOUND, "No such partition"),
        ({"startPosition": 99}, INVALID, "Unknown StartPosition 99"),
        ({"stopPosition": 99}, INVALID, "Unknown StopPosition 99"),
        ({"consumer": {"groupId": "g"}}, INVALID, "Consumer id cannot be empty when group id is provided"),
        ({"stopPosition": api.STOP_LATEST}, INVALID, "Stop offset is before start offset: 9 < 10"),
        (
            {"startPosition": api.OFFSET, "startOffset": 5, "stopPosition": api.STOP_OFFSET, "stopOffset": 3},
            INVALID,
            "Stop offset is before start offset: 3 < 5",
        ),
        (
            {"startPosition": api.EARLIEST, "stopPosition": api.STOP_TIMESTAMP, "stopTimestamp": 1},
            grpc.StatusCode.INTERNAL,
            "timestamp is before the beginning of the log",
        ),
    ],
)
async def test_bad_subscriptions_are_refused_before_the_handshake(
    client: ApiClient, stream: str, times: list[int], fields, code, text
) -> None:
    with fails_with(code, text):
        await client.subscribe(**{"stream": stream, **fields}).read()


async def test_a_bounded_read_ends_with_its_reason(client: ApiClient, stream: str, times: list[int]) -> None:
    call = client.subscribe(stream=stream, startPosition=api.LATEST, stopPosition=api.STOP_LATEST)
    await call.read()
    assert (await call.read()).offset == 9
    with fails_with(EXHAUSTED, "Stop offset reached"):
        await call.read()


async def test_a_bounded_read_of_an_empty_stream_says_so(client: ApiClient, stream: str) -> None:
    await client("CreateStream", name=stream, subject="empty")
    for fields in ({"stopPosition": api.STOP_LATEST}, {"reverse": True}):
        with fails_with(EXHAUSTED, "Stream is empty"):
            await client.subscribe(stream=stream, startPosition=api.EARLIEST, **fields).read()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"startPosition": api.LATEST}, range(9, -1, -1)),
        ({"startPosition": api.NEW_ONLY}, range(9, -1, -1)),
        ({"startPosition": api.OFFSET, "startOffset": 50}, range(9, -1, -1)),
        ({"startPosition": api.OFFSET, "startOffset": 3}, [3, 2, 1, 0]),
        ({"startPosition": api.EARLIEST}, [0]),
        ({"startPosition": api.LATEST, "stopPosition": api.STOP_OFFSET, "stopOffset": 6}, [9, 8, 7, 6]),
        ({"startPosition": api.LATEST, "stopPosition": api.STOP_LATEST}, [9]),
    ],
)
async def test_reverse_positions(client: ApiClient, stream: str, times: list[int], fields, expected) -> None:
    assert await offsets(client, stream, reverse=True, **fields) == list(expected)


async def test_reverse_by_time(client: ApiClient, stream: str, times: list[int]) -> None:
    assert await offsets(client, stream, reverse=True, startPosition=api.TIMESTAMP, startTimestamp=times[5]) == [
        5,
        4,
        3,
        2,
        1,
        0,
    ]
    assert await offsets(
        client, stream, reverse=True, startPosition=api.LATEST, stopPosition=api.STOP_TIMESTAMP, stopTimestamp=times[7]
    ) == [9, 8, 7]


async def test_a_later_member_of_a_group_takes_the_partition_over(
    client: ApiClient, stream: str, times: list[int]
) -> None:
    first = client.subscribe(stream=stream, consumer={"groupId": "g", "groupEpoch": 2, "consumerId": "a"})
    await first.read()
    with fails_with(grpc.StatusCode.FAILED_PRECONDITION, "Consumer is not currently assigned this partition"):
        await client.subscribe(stream=stream, consumer={"groupId": "g", "groupEpoch": 1, "consumerId": "b"}).read()
    second = client.subscribe(stream=stream, consumer={"groupId": "g", "groupEpoch": 2, "consumerId": "b"})
    await second.read()
    assert await first.read() is grpc.aio.EOF, "the one before ends without an error"
    await client("Publish", stream=stream, value=b"10")
    assert (await second.read()).offset == 10


async def test_a_slow_reader_delays_nobody_and_costs_no_memory(broker, client: ApiClient, stream: str) -> None:
    await client("CreateStream", name=stream, subject=f"slow.{stream}")
    slow = client.subscribe(stream=stream, startPosition=api.EARLIEST)
    await slow.read()
    session = client.publish_async()
    count, size = 4000, 10_000

    async def write() -> None:
        for number in range(count):
            await session.write(api.PublishRequest(stream=stream, value=bytes(size), correlationId=str(number)))
        await session.done_writing()

    before = broker.resident_bytes()
    writing = asyncio.create_task(write())
    assert len([answer async for answer in session]) == count
    await writing
    quick = [message.offset async for message in client.iterate(count, stream=stream, startPosition=api.EARLIEST)]
    assert quick == list(range(count))
    assert broker.resident_bytes() - before < count * size / 2, "40 MB went through, and don't stay"
    assert [(await slow.read()).offset for _ in range(100)] == list(range(100))
    slow.cancel()
