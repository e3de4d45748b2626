"""Compaction and retention by real brokers: what clients read before, meanwhile and after, over kills and failovers."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from api_client import ApiClient
from broker_process import BrokerProcess
from cluster_processes import ClusterProcesses

from liftbridge.protocol.generated import api_pb2 as api

#: A segment for each message, and the cleaner as often as tests need it.
TINY = {"segmentMaxBytes": api.NullableInt64(value=1), "cleanerInterval": api.NullableInt64(value=100)}
COMPACTED = {**TINY, "compactEnabled": api.NullableBool(value=True)}


async def publish(client: ApiClient, stream: str, messages: Sequence[tuple[str, str]]) -> None:
    for key, value in messages:
        await client("Publish", stream=stream, key=key.encode(), value=value.encode(), ackPolicy=api.ALL)


async def read_all(client: ApiClient, stream: str) -> list[tuple[int, str, str]]:
    messages = await client.messages(stream=stream, startPosition=api.EARLIEST, stopPosition=api.STOP_LATEST)
    return [(message.offset, message.key.decode(), message.value.decode()) for message in messages]


async def wait_until_read(client: ApiClient, stream: str, offsets: Sequence[int]) -> list[tuple[int, str, str]]:
    """Reads until exactly these are left."""
    async with asyncio.timeout(20):
        while True:
            found = await read_all(client, stream)
            if [offset for offset, _, _ in found] == list(offsets):
                return found
            await asyncio.sleep(0.05)


async def test_the_last_message_of_each_key_stays_and_so_do_those_without_a_key(client: ApiClient, stream: str) -> None:
    await client("CreateStream", name=stream, subject="compacted", **COMPACTED)
    await publish(client, stream, [("a", "1"), ("b", "1"), ("", "x"), ("a", "2"), ("b", "2"), ("a", ""), ("", "y")])
    left = await wait_until_read(client, stream, [2, 4, 5, 6])
    assert left == [(2, "", "x"), (4, "b", "2"), (5, "a", ""), (6, "", "y")], "an empty value is a value"
    await publish(client, stream, [("b", "3"), ("c", "1"), ("", "z")])
    await wait_until_read(client, stream, [2, 5, 6, 7, 8, 9])
    for stop, expected in ((3, [2]), (4, [2]), (5, [2, 5])):
        found = await client.messages(
            stream=stream, startPosition=api.OFFSET, startOffset=1, stopPosition=api.STOP_OFFSET, stopOffset=stop
        )
        assert [message.offset for message in found] == expected
    found = await client.messages(stream=stream, startPosition=api.LATEST, reverse=True)
    assert [message.offset for message in found] == [9, 8, 7, 6, 5, 2]


async def test_a_stream_that_does_not_ask_for_it_keeps_everything(client: ApiClient, stream: str) -> None:
    await client("CreateStream", name=stream, subject="plain", **TINY)
    await client("CreateStream", name=f"{stream}-compacted", subject="other", **COMPACTED)
    for name in (stream, f"{stream}-compacted"):
        await publish(client, name, [("a", "1")] * 4)
    await wait_until_read(client, f"{stream}-compacted", [3])
    assert len(await read_all(client, stream)) == 4


async def test_a_subscriber_goes_on_while_what_it_reads_is_compacted(client: ApiClient, stream: str) -> None:
    await client("CreateStream", name=stream, subject="busy", **COMPACTED)
    subscriber = client.iterate(stream=stream, startPosition=api.NEW_ONLY, stopPosition=api.STOP_ON_CANCEL)
    received: list[int] = []

    async def receive() -> None:
        async for message in subscriber:
            received.append(message.offset)

    receiving = asyncio.create_task(receive())
    first = (await client("Publish", stream=stream, key=b"k", value=b"0")).ack.offset
    while not received:  # subscribed
        await client("Publish", stream=stream, key=b"k", value=b"0")
        await asyncio.sleep(0.01)
    begin = received[0]
    last = 0
    for number in range(300):
        last = (await client("Publish", stream=stream, key=b"k%d" % (number % 3), value=b"%d" % number)).ack.offset
    async with asyncio.timeout(20):
        while received[-1] < last:
            await asyncio.sleep(0.01)
    receiving.cancel()
    assert received == sorted(set(received))
    assert begin >= first
    assert received[-1] == last
    left = await read_all(client, stream)
    assert {key: offset for offset, key, _ in left} == {"k0": last - 2, "k1": last - 1, "k2": last} | (
        {"k": max(offset for offset, key, _ in left if key == "k")}
    )


async def test_after_kill_9_everything_is_as_compaction_left_it(new_broker: BrokerProcess) -> None:
    new_broker.start()
    async with ApiClient(new_broker.address) as client:
        await client("CreateStream", name="s", subject="s", **COMPACTED)
        await publish(client, "s", [("a", "1"), ("b", "1"), ("a", "2"), ("b", "2"), ("", "x")])
        left = await wait_until_read(client, "s", [2, 3, 4])
    new_broker.kill()
    for summary in new_broker.data_dir.glob("streams/*/*.summary"):
        summary.unlink()
    new_broker.start()
    async with ApiClient(new_broker.address) as client:
        assert await read_all(client, "s") == left
        await publish(client, "s", [("a", "3"), ("", "y")])
        await wait_until_read(client, "s", [3, 4, 5, 6])


async def test_templates_choose_compaction_tombstones_and_limits_by_name(tmp_path: Path) -> None:
    config = tmp_path / "liftbridge.conf"
    config.write_text(
        "[templates]\n"
        "[[tables]]\n"
        "match = table-*\n"
        "streams.compact.enabled = true\n"
        "streams.compact.tombstones.max.age = 300ms\n"
        "streams.segment.max.bytes = 1\n"
        "streams.cleaner.interval = 100ms\n"
        "streams.durability = sync\n"
        "[[few]]\n"
        "match = few-*\n"
        "streams.retention.max.messages = 2\n"
        "streams.segment.max.bytes = 1\n"
        "streams.cleaner.interval = 100ms\n"
    )
    broker = BrokerProcess(tmp_path / "data", "--config", str(config))
    broker.start()
    try:
        async with ApiClient(broker.address) as client:
            for name in ("table-1", "few-1"):
                await client("CreateStream", name=name, subject=name)
                await publish(client, name, [("a", "1"), ("b", "1"), ("a", ""), ("", "x"), ("b", "2"), ("", "y")])
            await wait_until_read(client, "table-1", [3, 4, 5])
            await wait_until_read(client, "few-1", [4, 5])
        broker.stop()
        broker.start()
        async with ApiClient(broker.address) as client:
            await wait_until_read(client, "few-1", [4, 5])
            await publish(client, "few-1", [("", "z")])
            await wait_until_read(client, "few-1", [5, 6])
            await publish(client, "table-1", [("b", ""), ("", "z")])
            await wait_until_read(client, "table-1", [3, 5, 7])
    finally:
        broker.stop()


async def test_a_follower_that_was_away_copies_the_gaps_and_can_lead(tmp_path: Path) -> None:
    cluster = ClusterProcesses(tmp_path)
    try:
        cluster.form("a", "b", "c")
        cluster.call("a", "CreateStream", name="s", subject="s", replicationFactor=3, **COMPACTED)

        def publish_all(server_id: str, pairs: Sequence[tuple[str, str]]) -> None:
            for key, value in pairs:
                cluster.call(
                    server_id,
                    "Publish",
                    stream="s",
                    key=key.encode(),
                    value=value.encode(),
                    ackPolicy=api.ALL,
                    timeout=10,
                )

        leader = cluster.partition("a", "s").leader
        publish_all(leader, [("a", "1"), ("b", "1")])
        away = next(one for one in ("a", "b", "c") if one != leader)
        cluster.servers[away].kill()
        publish_all(leader, [(key, str(number)) for number in range(20) for key in "abc"] + [("", "end")])
        async with ApiClient(cluster.servers[leader].address) as client:
            left = await wait_until_read(client, "s", [59, 60, 61, 62])
        cluster.servers[away].start()
        await wait_for_isr(cluster, leader, 3)
        publish_all(leader, [("a", "last")])
        left = [*left[1:], (63, "a", "last")]
        cluster.servers[leader].kill()
        survivors = [one for one in ("a", "b", "c") if one != leader]
        async with asyncio.timeout(30):
            while (new_leader := cluster.partition(survivors[0], "s").leader) == leader or not new_leader:
                await asyncio.sleep(0.1)
        publish_all(new_leader, [("", "more")])
        for one in survivors:
            async with ApiClient(cluster.servers[one].address) as client:
                async with asyncio.timeout(20):
                    while (found := await read_replica(client))[-1][0] != 64 or len(found) != 5:
                        await asyncio.sleep(0.1)
                assert found == [*left, (64, "", "more")], "equal by content, whatever the bytes"
    finally:
        cluster.kill()
        cluster.nats.stop()


async def read_replica(client: ApiClient) -> list[tuple[int, str, str]]:
    messages = await client.messages(
        stream="s", startPosition=api.EARLIEST, stopPosition=api.STOP_LATEST, readISRReplica=True
    )
    return [(message.offset, message.key.decode(), message.value.decode()) for message in messages]


async def wait_for_isr(cluster: ClusterProcesses, server_id: str, size: int) -> None:
    async with asyncio.timeout(30):
        while len(cluster.partition(server_id, "s").isr) != size:
            await asyncio.sleep(0.1)
