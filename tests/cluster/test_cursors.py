"""Cursors on real brokers: what was acked is what is read, after restarts, kills, failovers and compaction."""

import asyncio
from binascii import crc32
from collections.abc import Iterator
from pathlib import Path

import grpc
import nats
import pytest
from api_client import ApiClient, fails_with
from broker_process import BrokerProcess

from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.generated import internal_pb2 as internal

CURSORS = ("--set", "cursors.stream.partitions=3")


@pytest.fixture(scope="module")
def cursor_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    process = BrokerProcess(tmp_path_factory.mktemp("cursors") / "data", *CURSORS)
    process.start()
    yield process
    process.stop()


async def set_cursor(client: ApiClient, cursor_id: str, offset: int, *, stream: str = "s", partition: int = 0) -> None:
    await client("SetCursor", stream=stream, partition=partition, cursorId=cursor_id, offset=offset)


async def fetch_cursor(client: ApiClient, cursor_id: str, *, stream: str = "s", partition: int = 0) -> int:
    response = await client("FetchCursor", stream=stream, partition=partition, cursorId=cursor_id)
    return int(response.offset)


async def test_set_is_fetched_and_unknown_is_minus_one(cursor_broker: BrokerProcess) -> None:
    async with ApiClient(cursor_broker.address) as client:
        assert await fetch_cursor(client, "new") == -1
        for offset in (5, 4, -1, 0, (1 << 63) - 1):
            await set_cursor(client, "c", offset)
            assert await fetch_cursor(client, "c") == offset


async def test_cursor_is_of_its_stream_and_partition(cursor_broker: BrokerProcess) -> None:
    async with ApiClient(cursor_broker.address) as client:
        names = [("odd", "ü x", 3), ("odd", "ü x", 2), ("odd", "other", 2), ("a,b", "c", 0), ("a", "b,c", 0)]
        for number, (cursor_id, stream, partition) in enumerate(names):
            await set_cursor(client, cursor_id, number, stream=stream, partition=partition)
        found = [await fetch_cursor(client, one, stream=stream, partition=number) for one, stream, number in names]
        assert found == [0, 1, 2, 3, 4]


async def test_record_is_where_and_what_clients_of_the_original_expect(cursor_broker: BrokerProcess) -> None:
    async with ApiClient(cursor_broker.address) as client:
        await set_cursor(client, "where", 42, stream="it", partition=7)
        (message,) = [
            one
            for one in await client.messages(
                stream="__cursors",
                partition=crc32(b"where,it,7") % 3,
                startPosition=api.StartPosition.EARLIEST,
                stopPosition=api.StopPosition.STOP_LATEST,
            )
            if one.key == b"where,it,7"
        ]
        assert internal.Cursor.FromString(message.value) == internal.Cursor(
            stream="it", partition=7, cursor_id="where", offset=42
        )


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"cursorId": "c"}, "No stream provided"),
        ({"stream": "s"}, "No cursorId provided"),
        ({"stream": "s", "cursorId": "c" * 1025}, "Invalid cursorId: it is longer than 1024 bytes"),
        ({"stream": "s" * 256, "cursorId": "c"}, "Invalid stream: it is longer than 255 bytes"),
    ],
)
@pytest.mark.parametrize("method", ["SetCursor", "FetchCursor"])
async def test_bad_names_are_refused(
    cursor_broker: BrokerProcess, method: str, fields: dict[str, str], text: str
) -> None:
    async with ApiClient(cursor_broker.address) as client:
        with fails_with(grpc.StatusCode.INVALID_ARGUMENT, text):
            await client(method, **fields)


async def test_without_the_setting_there_are_no_cursors(broker: BrokerProcess) -> None:
    async with ApiClient(broker.address) as client:
        with fails_with(grpc.StatusCode.INTERNAL, "Cursors stream does not exist"):
            await set_cursor(client, "c", 1)
        with fails_with(grpc.StatusCode.INTERNAL, "Cursors stream does not exist"):
            await fetch_cursor(client, "c")


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_cursors_survive_the_end_of_the_server(tmp_path: Path, end: str) -> None:
    broker = BrokerProcess(tmp_path / "data")
    broker.start()
    try:
        broker.stop()
        broker.arguments += CURSORS  # asked for only later
        broker.start()
        async with ApiClient(broker.address) as client:
            for number in range(50):
                await set_cursor(client, f"c{number}", number)
                await set_cursor(client, "same", number)
        getattr(broker, end)()
        broker.start()
        async with ApiClient(broker.address) as client:
            assert [await fetch_cursor(client, f"c{number}") for number in range(50)] == list(range(50))
            assert await fetch_cursor(client, "same") == 49
    finally:
        broker.kill()


async def test_whoever_reaches_nats_cannot_forge_a_cursor(cursor_broker: BrokerProcess) -> None:
    subject = "liftbridge-default.cursors"
    async with ApiClient(cursor_broker.address) as client:
        await set_cursor(client, "mine", 7)
        number = crc32(b"mine,s,0") % 3
        forger = await nats.connect(cursor_broker.nats_url)
        await forger.publish(f"{subject}.{number}" if number else subject, b"forged")
        await forger.flush()
        await forger.close()
        for _ in range(3):
            await set_cursor(client, "mine", 8)
        (metadata,) = (await client("FetchMetadata", streams=["__cursors"])).streamMetadata
        messages = await client.messages(
            metadata.partitions[number].highWatermark + 1,
            stream="__cursors",
            partition=number,
            startPosition=api.StartPosition.EARLIEST,
        )
        assert b"forged" not in {message.value for message in messages}


async def test_cursors_are_right_after_compaction_with_nothing_remembered(tmp_path: Path) -> None:
    settings = ("streams.segment.max.bytes=2KiB", "streams.cleaner.interval=100ms", "cursors.stream.partitions=1")
    broker = BrokerProcess(tmp_path / "data", *(word for one in settings for word in ("--set", one)))
    broker.start()
    names, rounds = [f"c{number}" for number in range(20)], 30
    try:
        async with ApiClient(broker.address) as client:
            await set_cursor(client, "old", 5)  # never again, and soon compacted around
            for offset in range(rounds):
                await asyncio.gather(*(set_cursor(client, name, offset) for name in names))

            async def kept() -> int:
                start, stop = api.StartPosition.EARLIEST, api.StopPosition.STOP_LATEST
                return len(await client.messages(stream="__cursors", startPosition=start, stopPosition=stop))

            async with asyncio.timeout(20):
                while await kept() > len(names) * rounds // 4:
                    await asyncio.sleep(0.05)
        for end in ("stop", "kill"):
            getattr(broker, end)()
            broker.start()
            async with ApiClient(broker.address) as client:
                assert [await fetch_cursor(client, name) for name in names] == [rounds - 1] * len(names)
                assert await fetch_cursor(client, "old") == 5
                await set_cursor(client, "new", 1)
                assert await fetch_cursor(client, "new") == 1
    finally:
        broker.kill()
