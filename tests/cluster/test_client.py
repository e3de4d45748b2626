"""The client library against a real broker: ours, and the original."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4
from zlib import crc32

import nats
import pytest
from api_client import ApiClient
from broker_process import BrokerProcess
from certificates import make_certificate
from original_process import Flavour

from liftbridge.client import (
    AckPolicy,
    Client,
    IncorrectOffset,
    Message,
    PartitionPaused,
    Publisher,
    RoundRobinPartitioner,
    StartAt,
    StopAt,
    Subscription,
    Tls,
    stream_call,
)
from liftbridge.client.blocking import BlockingClient
from liftbridge.client.nats_messages import parse_ack, publish_message
from liftbridge.errors import (
    AlreadyExists,
    ConfigError,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    ProtocolError,
    Unavailable,
)


@pytest.fixture(scope="module")
def broker(flavour: Flavour) -> BrokerProcess:
    return flavour.start("broker", {})


@pytest.fixture(scope="module")
def with_cursors(flavour: Flavour) -> BrokerProcess:
    """Groups are impatient, so that a test needn't wait."""
    return flavour.start("cursors", {"cursors.stream.partitions": "1", "groups.consumer.timeout": "1s"})


@pytest.fixture
async def client(broker: BrokerProcess) -> AsyncIterator[Client]:
    async with Client([broker.address]) as client:
        yield client


@pytest.fixture
async def stream(client: Client) -> str:
    name = f"s{uuid4().hex[:8]}"
    await client.create_stream(name, name)
    return name


async def values(subscription: Subscription) -> list[bytes]:
    return [message.value async for message in subscription]


async def test_a_message_comes_back_as_it_was_published(client: Client, stream: str) -> None:
    ack = await client.publish(stream, b"v", key=b"k", headers={"h": b"1"}, correlation_id="c")
    assert ack is not None
    assert (ack.stream, ack.offset, ack.correlation_id, ack.ack_policy) == (stream, 0, "c", AckPolicy.LEADER)
    async with client.subscribe(stream, start=StartAt.earliest()) as subscription:
        message = await anext(subscription)
    assert isinstance(message, Message)
    assert (message.offset, message.key, message.value, message.headers) == (0, b"k", b"v", {"h": b"1"})
    assert message.timestamp_ns == ack.reception_timestamp_ns
    assert message.subject == stream


async def test_without_acks_nothing_is_waited_for_and_all_arrives(client: Client, stream: str) -> None:
    assert await client.publish(stream, b"v", ack_policy=AckPolicy.NONE) is None
    async with client.publisher(stream, ack_policy=AckPolicy.NONE) as publisher:
        sent = [await publisher.publish(b"%d" % number + bytes(1000)) for number in range(3000)]
    assert [one.result() for one in sent] == [None] * 3000
    async with client.subscribe(stream, start=StartAt.earliest()) as subscription, asyncio.timeout(20):
        assert (await anext(subscription)).value == b"v"
        for number in range(3000):
            assert (await anext(subscription)).value.rstrip(b"\0") == b"%d" % number


async def test_a_publisher_keeps_order_and_bounds_what_is_in_flight(client: Client, stream: str) -> None:
    async with client.publisher(stream, max_in_flight=10) as publisher:
        acks = []
        for number in range(500):
            acks.append(await publisher.publish(b"%d" % number))
            assert sum(not ack.done() for ack in acks) <= 10
    assert [ack.result().offset for ack in acks] == list(range(500))
    assert await values(client.subscribe(stream, start=StartAt.earliest(), stop=StopAt.latest())) == [
        b"%d" % number for number in range(500)
    ]


async def test_positions(client: Client, stream: str) -> None:
    async with client.publisher(stream) as publisher:
        acks = [await (await publisher.publish(b"%d" % number)) for number in range(5)]
    stop = StopAt.latest()
    assert await values(client.subscribe(stream, start=StartAt.offset(3), stop=stop)) == [b"3", b"4"]
    assert await values(client.subscribe(stream, start=StartAt.latest(), stop=stop)) == [b"4"]
    assert await values(client.subscribe(stream, start=StartAt.earliest(), stop=StopAt.offset(1))) == [b"0", b"1"]
    moment_ns = acks[2].reception_timestamp_ns
    assert b"2" in await values(client.subscribe(stream, start=StartAt.timestamp(moment_ns), stop=stop))
    assert await values(client.subscribe(stream, start=StartAt.latest(), reverse=True)) == [
        b"4",
        b"3",
        b"2",
        b"1",
        b"0",
    ]


async def test_the_end_of_an_empty_stream_is_reached_at_once(client: Client, stream: str) -> None:
    assert await values(client.subscribe(stream, start=StartAt.earliest(), stop=StopAt.latest())) == []


async def test_new_messages_are_those_after_subscribing(client: Client, stream: str) -> None:
    await client.publish(stream, b"old")
    async with client.subscribe(stream) as subscription:
        await client.publish(stream, b"new")
        assert (await anext(subscription)).value == b"new"


async def test_waiting_for_a_message_may_be_given_up_and_costs_none(client: Client, stream: str) -> None:
    async with client.subscribe(stream) as subscription:
        for number in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(subscription), 0.05)
            await client.publish(stream, b"%d" % number)
            assert (await asyncio.wait_for(anext(subscription), 5)).value == b"%d" % number


async def test_an_idle_subscription_keeps_its_connection(
    client: Client, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it asks often whether the server is there, for which servers in Go hang up on others."""
    connects = []
    connect = stream_call.StreamCall.connect

    async def counted(call: stream_call.StreamCall, timeout_s: float) -> None:
        connects.append(call)
        await connect(call, timeout_s)

    monkeypatch.setattr(stream_call, "_SILENT_S", 0.05)
    monkeypatch.setattr(stream_call.StreamCall, "connect", counted)
    async with client.subscribe(stream) as subscription:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(subscription), 1)
        await client.publish(stream, b"late")
        assert (await asyncio.wait_for(anext(subscription), 5)).value == b"late"
    assert len(connects) == 1


async def test_a_subscription_ends_with_its_client(broker: BrokerProcess, stream: str) -> None:
    async with Client([broker.address]) as closed:
        waiting = asyncio.create_task(anext(closed.subscribe(stream)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(waiting), 0.2)
    with pytest.raises(InvalidRequest, match="the client is closed"):
        await asyncio.wait_for(waiting, 5)


async def test_large_messages_and_slow_readers(client: Client, stream: str) -> None:
    """More than a window, twice: what nobody takes stays with the server."""
    async with client.publisher(stream, max_in_flight=4) as publisher:
        for number in range(12):
            await publisher.publish(b"%d" % number + bytes(900_000))
    async with client.subscribe(stream, start=StartAt.earliest(), stop=StopAt.latest()) as subscription:
        read = []
        async for message in subscription:
            read.append(message.value.rstrip(b"\0"))
            await client.fetch_metadata()  # while more comes
    assert read == [b"%d" % number for number in range(12)]


async def test_keys_choose_partitions_and_round_robin_takes_them_in_turn(client: Client) -> None:
    name = f"s{uuid4().hex[:8]}"
    await client.create_stream(name, name, partitions=3)
    async with client.publisher(name) as publisher:
        for _ in range(4):
            await publisher.publish(b"x", key=b"the same")
    async with client.publisher(name, partitioner=RoundRobinPartitioner()) as publisher:
        for _ in range(6):
            await publisher.publish(b"y")
    counts = []
    for number in range(3):
        start, stop = StartAt.earliest(), StopAt.latest()
        counts.append(len(await values(client.subscribe(name, number, start=start, stop=stop))))
    assert sorted(counts) == [2, 2, 6]


async def test_a_stream_that_is_created_anew_has_its_new_partitions(client: Client) -> None:
    name = f"s{uuid4().hex[:8]}"
    for partitions in (1, 5):
        await client.create_stream(name, name, partitions=partitions)
        ack = await client.publish(name, b"x", key=b"oslo")
        assert ack is not None
        (written,) = [
            one for one in range(partitions) if (await client.fetch_partition_metadata(name, one)).newest_offset == 0
        ]
        assert written == crc32(b"oslo") % partitions
        await client.delete_stream(name)


async def test_who_gives_up_waiting_for_room_takes_none(client: Client, stream: str) -> None:
    async with client.publisher(stream, max_in_flight=1) as publisher:
        first = await publisher.publish(b"0")
        waiting = [asyncio.create_task(publisher.publish(b"%d" % number)) for number in (1, 2, 3)]
        first.add_done_callback(lambda _: waiting[0].cancel())
        await asyncio.wait(waiting, timeout=5)
        assert [task.cancelled() for task in waiting] == [True, False, False]
        with pytest.raises(InvalidRequest):
            client.publisher(stream, max_in_flight=0)


async def test_errors_are_those_of_the_broker(client: Client, stream: str) -> None:
    with pytest.raises(AlreadyExists, match="stream already exists"):
        await client.create_stream(stream, stream)
    with pytest.raises(NotFound):
        await client.delete_stream("absent")
    with pytest.raises(NotFound, match="no such stream"):
        await client.publish("absent", b"x")
    with pytest.raises(NotFound, match="no partition 7"):
        await anext(client.subscribe(stream, 7))
    async with client.publisher("absent") as publisher:
        with pytest.raises(NotFound):
            await (await publisher.publish(b"x"))


async def test_expected_offsets(client: Client) -> None:
    name = f"s{uuid4().hex[:8]}"
    await client.create_stream(name, name, optimistic_concurrency=True)
    await client.publish(name, b"0", expected_offset=0)
    with pytest.raises(IncorrectOffset):
        await client.publish(name, b"1", expected_offset=0)
    async with client.publisher(name) as publisher:
        with pytest.raises(IncorrectOffset):
            await (await publisher.publish(b"1", expected_offset=7))
        assert (await (await publisher.publish(b"1", expected_offset=1))).offset == 1


async def test_metadata(client: Client, broker: BrokerProcess) -> None:
    name = f"s{uuid4().hex[:8]}"
    await client.create_stream(name, name, partitions=2, retention_max_age=timedelta(days=1))
    await client.publish(name, b"x", partition=1)
    metadata = await client.fetch_metadata()
    (server,) = metadata.brokers.values()
    assert server.address == broker.address
    stream = metadata.streams[name]
    assert [one.leader for one in stream.partitions] == [server.server_id] * 2
    partition = await client.fetch_partition_metadata(name, 1)
    assert (partition.newest_offset, partition.high_watermark) == (0, 0)


async def test_no_server_is_an_error_that_names_where_was_looked() -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        async with Client(["127.0.0.1:1"], timeout_s=0.2):
            pass


async def test_over_tls_the_server_has_to_be_trusted(flavour: Flavour, tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    server = flavour.make("tls", {"tls.cert": str(files.cert), "tls.key": str(files.key)})
    server.launch()
    tls = Tls(ca=files.cert, server_name="localhost")
    async with Client([server.address], tls=tls, call_metadata={"authorization": "Bearer x"}, timeout_s=20) as client:
        await client.create_stream("secret", "secret")
        await client.publish("secret", b"0")
        async with client.publisher("secret") as publisher:
            await publisher.publish(b"1")
        stop = StopAt.latest()
        assert await values(client.subscribe("secret", start=StartAt.earliest(), stop=stop)) == [b"0", b"1"]
    with pytest.raises(Unavailable, match="is its certificate trusted"):
        async with Client([server.address], tls=Tls(), timeout_s=0.5):
            pass
    with pytest.raises(ConfigError, match="absent"):
        Client([server.address], tls=Tls(ca=tmp_path / "absent.pem"))


async def test_what_is_closed_says_so(client: Client, broker: BrokerProcess, stream: str) -> None:
    async with client.publisher(stream) as publisher:
        pass
    with pytest.raises(InvalidRequest, match="the publisher is closed"):
        await publisher.publish(b"x")
    async with Client([broker.address]) as closed:
        pass
    with pytest.raises(InvalidRequest, match="the client is closed"):
        await closed.publish(stream, b"x")
    with pytest.raises(InvalidRequest, match="join first"):
        await anext(client.consumer("g", [stream]))
    with pytest.raises(InvalidRequest, match="with BlockingClient"):
        BlockingClient([broker.address]).publish(stream, b"x")


async def test_a_reader_and_a_publisher_survive_a_restart(flavour: Flavour) -> None:
    server = flavour.start("restarted", {})
    seen: list[Message] = []

    async def read(client: Client) -> None:
        async for message in client.subscribe("s", start=StartAt.earliest()):
            seen.append(message)
            if message.value == b"199":
                return

    async with Client([server.address]) as client:
        await client.create_stream("s", "s")
        reader = asyncio.create_task(read(client))
        async with client.publisher("s") as publisher:
            for number in range(200):
                if number == 100:
                    await publisher.flush()
                    await asyncio.to_thread(server.kill)
                    await asyncio.to_thread(server.start)
                await _publish(publisher, b"%d" % number)
        await asyncio.wait_for(reader, 20)
    assert [message.offset for message in seen] == list(range(len(seen))), "each message once, in order"
    assert list(dict.fromkeys(message.value for message in seen)) == [b"%d" % number for number in range(200)]


async def test_the_latest_message_to_stop_at_stays_the_same_when_the_server_restarts(flavour: Flavour) -> None:
    server = flavour.start("latest", {})
    async with Client([server.address]) as client:
        await client.create_stream("s", "s")
        for number in range(3):
            await client.publish("s", b"%d" % number)
        async with client.subscribe("s", start=StartAt.earliest(), stop=StopAt.latest()) as subscription:
            assert (await anext(subscription)).value == b"0"
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            async with client.publisher("s") as publisher:
                await _publish(publisher, b"later")
            assert await values(subscription) == [b"1", b"2"]


async def _publish(publisher: Publisher, value: bytes) -> None:
    """Until it is acked: what broke on its way may come twice. The original serves before it knows its streams again."""
    while True:
        try:
            await (await publisher.publish(value))
            return
        except (Unavailable, NotFound):
            continue


async def test_cursors_are_remembered(with_cursors: BrokerProcess) -> None:
    async with Client([with_cursors.address]) as client:
        assert await client.fetch_cursor("mine", "s", 0) is None
        await client.set_cursor("mine", "s", 0, 7)
        assert await client.fetch_cursor("mine", "s", 0) == 7


async def test_without_cursors_the_error_says_what_to_set(client: Client) -> None:
    with pytest.raises(FailedPrecondition, match=r"cursors\.stream\.partitions"):
        await client.set_cursor("mine", "s", 0, 7, timeout_s=0.5)


async def test_members_of_a_group_share_partitions_and_go_on_behind_what_was_processed(
    with_cursors: BrokerProcess,
) -> None:
    async with Client([with_cursors.address]) as client:
        await client.create_stream("shared", "shared", partitions=4)
        seen: list[tuple[str, int, int]] = []

        async def consume(name: str) -> None:
            options = {"consumer_id": name, "start": StartAt.earliest(), "checkpoint_interval_s": 0.1}
            async with client.consumer("g", ["shared"], **options) as consumer:  # type: ignore[arg-type]
                async for message in consumer:
                    seen.append((name, message.partition, message.offset))

        async def publish(count: int) -> None:
            async with client.publisher("shared", partitioner=RoundRobinPartitioner()) as publisher:
                for _ in range(count):
                    await publisher.publish(b"x")

        async def until_seen(count: int) -> None:
            async with asyncio.timeout(20):
                while len({(partition, offset) for _, partition, offset in seen}) < count:
                    await asyncio.sleep(0.02)

        first = asyncio.create_task(consume("first"))
        await publish(40)
        await until_seen(40)
        second = asyncio.create_task(consume("second"))
        async with asyncio.timeout(20):
            while not any(name == "second" for name, *_ in seen):
                await publish(4)
                await asyncio.sleep(0.1)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        before = len({(partition, offset) for _, partition, offset in seen})
        await publish(40)
        await until_seen(before + 40)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        for number in range(4):
            offsets = {offset for _, partition, offset in seen if partition == number}
            assert offsets == set(range(max(offsets) + 1)), "none is skipped"


async def test_a_group_that_wants_what_is_new_misses_nothing_once_it_began(with_cursors: BrokerProcess) -> None:
    async with Client([with_cursors.address]) as client:
        await client.create_stream("begun", "begun")
        await client.publish("begun", b"old")
        async with client.consumer("begun", ["begun"]), asyncio.timeout(10):
            while await client.fetch_cursor("__group:begun", "begun", 0) != 0:
                await asyncio.sleep(0.02)
        await client.publish("begun", b"new")
        async with client.consumer("begun", ["begun"]) as consumer:
            assert (await asyncio.wait_for(anext(consumer), 10)).value == b"new"


async def test_the_message_that_a_loop_was_left_at_comes_again_unless_it_is_committed(
    with_cursors: BrokerProcess,
) -> None:
    async with Client([with_cursors.address]) as client:
        await client.create_stream("left", "left")
        for number in range(3):
            await client.publish("left", b"%d" % number)

        async def first_of(commit: bool) -> bytes:
            async with client.consumer("left", ["left"], start=StartAt.earliest()) as consumer, asyncio.timeout(10):
                message = await anext(consumer)
                if commit:
                    await consumer.commit()
                return message.value

        assert [await first_of(commit) for commit in (False, True, False, False)] == [b"0", b"0", b"1", b"1"]


async def test_a_member_that_was_given_up_joins_again(with_cursors: BrokerProcess) -> None:
    async with Client([with_cursors.address]) as client:
        await client.create_stream("again", "again")
        async with client.consumer("h", ["again"], consumer_id="m", start=StartAt.earliest()) as consumer:
            await client.publish("again", b"1")
            assert (await asyncio.wait_for(anext(consumer), 10)).value == b"1"
            async with ApiClient(with_cursors.address) as raw:
                await raw("LeaveConsumerGroup", groupId="h", consumerId="m")
            await client.publish("again", b"2")
            values = set()
            async with asyncio.timeout(20):
                while b"2" not in values:
                    values.add((await anext(consumer)).value)


def test_the_blocking_client_does_the_same(with_cursors: BrokerProcess) -> None:
    name = f"s{uuid4().hex[:8]}"
    with BlockingClient([with_cursors.address]) as client:
        client.create_stream(name, name)
        ack = client.publish(name, b"0")
        assert ack is not None
        assert ack.offset == 0
        new = client.subscribe(name)
        acks = client.publish_all(name, [b"1", b"2"])
        assert [ack.offset for ack in acks if ack is not None] == [1, 2]
        read = client.subscribe(name, start=StartAt.earliest(), stop=StopAt.latest())
        assert [message.value for message in read] == [b"0", b"1", b"2"]
        with new:
            assert [new.receive(timeout_s=5).value for _ in range(2)] == [b"1", b"2"]
            with pytest.raises(TimeoutError):
                new.receive(timeout_s=0.01)
        assert client.fetch_partition_metadata(name).newest_offset == 2
        with pytest.raises(NotFound):
            client.delete_stream("absent")
        with client.consume("blocking", [name], start=StartAt.earliest()) as consumer:
            assert next(consumer).value == b"0"
            consumer.commit()
            assert consumer.assignments == {(name, 0)}
        with client.consume("blocking", [name]) as consumer:
            assert next(consumer).value == b"1"


async def test_envelopes_by_plain_nats(broker: BrokerProcess) -> None:
    name = f"s{uuid4().hex[:8]}"
    connection = await nats.connect(broker.nats_url)
    try:
        async with Client([broker.address]) as client:
            await client.create_stream(name, name)
            inbox = connection.new_inbox()
            acks = await connection.subscribe(inbox)
            await connection.publish(name, publish_message(b"v", key=b"k", ack_inbox=inbox, correlation_id="c"))
            ack = parse_ack((await acks.next_msg(5)).data)
            assert (ack.offset, ack.correlation_id) == (0, "c")
            message = await anext(client.subscribe(name, start=StartAt.earliest()))
            assert (message.key, message.value) == (b"k", b"v")
    finally:
        await connection.close()
    with pytest.raises(ProtocolError):
        parse_ack(b"nonsense")


async def test_pausing_and_readonly(client: Client, stream: str) -> None:
    await client.publish(stream, b"0")
    await client.set_stream_readonly(stream)
    with pytest.raises(FailedPrecondition, match="readonly partition: 0"):
        await client.publish(stream, b"1")
    assert await values(client.subscribe(stream, start=StartAt.earliest())) == [b"0"]
    await client.set_stream_readonly(stream, readonly=False)
    async with client.subscribe(stream) as subscription:
        await client.pause_stream(stream)
        with pytest.raises(PartitionPaused):
            await anext(subscription)
    await client.publish(stream, b"1")
    assert await values(client.subscribe(stream, start=StartAt.earliest(), stop=StopAt.latest())) == [b"0", b"1"]
