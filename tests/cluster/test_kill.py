"""kill -9 in the middle of publishing: what was acked is there after the restart, at its offset, in order, once."""

import asyncio
import os
import random

import grpc
import pytest
from api_client import ApiClient
from broker_process import BrokerProcess

from liftbridge.protocol.generated import api_pb2 as api

#: LIFTBRIDGE_TEST_KILLS=100 for the whole of it; a run of the suite does a few.
KILLS = int(os.environ.get("LIFTBRIDGE_TEST_KILLS", "4"))
MESSAGES = 20_000


async def publish_until_killed(broker: BrokerProcess, first: int, kill_after: int) -> dict[int, bytes]:
    """Publishes up to 20,000 messages, kills the broker after so many acks, and returns what was acked: offset to value."""
    acked: dict[int, bytes] = {}
    sent: dict[str, bytes] = {}
    async with ApiClient(broker.address) as client:
        session = client.publish_async()

        async def write() -> None:
            for number in range(first, first + MESSAGES):
                value = b"%d" % number
                sent[str(number)] = value
                await session.write(api.PublishRequest(stream="killed", value=value, correlationId=str(number)))

        writing = asyncio.create_task(write())
        try:
            while True:
                try:
                    answer = await asyncio.wait_for(session.read(), 20)
                except TimeoutError:
                    progress = f"{len(sent)} written, {len(acked)} acked, kill after {kill_after}, {writing}"
                    pytest.fail(f"no ack and no end for 20 s: {progress}; {broker.log()[-2000:]}")
                assert not answer.HasField("asyncError"), answer
                acked[answer.ack.offset] = sent[answer.correlationId]
                if len(acked) == kill_after:
                    broker.kill()
        except grpc.aio.AioRpcError as error:
            assert not broker.running, f"the session ended before the kill: {error}"
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
    return acked


@pytest.mark.timeout(60 + 10 * KILLS)
async def test_no_acked_message_is_lost_moved_or_doubled_by_a_kill(new_broker: BrokerProcess) -> None:
    seed = random.randrange(1 << 32)
    generator = random.Random(seed)
    acked: dict[int, bytes] = {}
    values: set[bytes] = set()
    offset = 0
    new_broker.start()
    async with ApiClient(new_broker.address) as client:
        await client("CreateStream", name="killed", subject="killed")
    for round_ in range(KILLS):
        fresh = await publish_until_killed(new_broker, round_ * MESSAGES, generator.randrange(1, MESSAGES))
        assert not fresh.keys() & acked.keys(), f"seed {seed}: an offset was acked twice"
        acked |= fresh
        new_broker.start()
        async with ApiClient(new_broker.address) as client:
            newest = (await client("FetchPartitionMetadata", stream="killed")).metadata.newestOffset
            if round_ == KILLS - 1:
                offset, values = 0, set()  # all of it once more; the rounds before read what was new
            async for message in client.iterate(
                stream="killed", startPosition=api.OFFSET, startOffset=offset, stopPosition=api.STOP_LATEST
            ):
                assert message.offset == offset, f"seed {seed}: offset {message.offset} where {offset} is next"
                assert acked.get(offset, message.value) == message.value, f"seed {seed}: other content at {offset}"
                assert message.value not in values, f"seed {seed}: {message.value!r} is there twice"
                values.add(message.value)
                offset += 1
        assert offset == newest + 1
        assert offset > max(acked), f"seed {seed}: acked messages are missing at the end"


async def test_sigterm_stops_cleanly_while_clients_are_busy(new_broker: BrokerProcess) -> None:
    new_broker.start()
    async with ApiClient(new_broker.address) as client:
        await client("CreateStream", name="busy", subject="busy")
        subscription = client.subscribe(stream="busy")
        await subscription.read()
        session = client.publish_async()
        await session.write(api.PublishRequest(stream="busy", value=b"x", correlationId="1"))
        assert (await session.read()).ack.offset == 0
        assert (await subscription.read()).value == b"x"
        assert await asyncio.to_thread(new_broker.stop) == 0
        for call in (subscription, session):
            with pytest.raises(grpc.aio.AioRpcError, check=lambda error: error.code() is grpc.StatusCode.UNAVAILABLE):
                while True:
                    await call.read()


@pytest.mark.parametrize("durability", ["interval", "sync"])
async def test_every_durability_acks_and_survives(new_broker: BrokerProcess, durability: str) -> None:
    new_broker.arguments += ["--set", f"streams.durability={durability}", "--set", "streams.durability.interval=20ms"]
    new_broker.start()
    async with ApiClient(new_broker.address) as client:
        await client("CreateStream", name="synced", subject="synced")
        responses = await asyncio.gather(*(client("Publish", stream="synced", value=b"x") for _ in range(200)))
        assert sorted(response.ack.offset for response in responses) == list(range(200))
    new_broker.kill()
    new_broker.start()
    async with ApiClient(new_broker.address) as client:
        assert len(await client.messages(200, stream="synced", startPosition=api.EARLIEST)) == 200


async def test_a_flipped_bit_takes_one_partition_offline_and_not_the_server(new_broker: BrokerProcess) -> None:
    new_broker.start()
    async with ApiClient(new_broker.address) as client:
        for name in ("good", "bad"):
            await client("CreateStream", name=name, subject=name)
            for _ in range(5):
                await client("Publish", stream=name, value=bytes(100))
    new_broker.kill()
    (segment,) = sorted(new_broker.data_dir.glob("streams/*/*.log"))[-1:]
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    new_broker.start()
    async with ApiClient(new_broker.address) as client:
        assert len(await client.messages(5, stream="good", startPosition=api.EARLIEST)) == 5
        for call in (client("Publish", stream="bad", value=b"x"), client.subscribe(stream="bad").read()):
            with pytest.raises(grpc.aio.AioRpcError, check=lambda error: "damaged at byte" in error.details()):
                await call
    assert "is offline" in new_broker.log()
