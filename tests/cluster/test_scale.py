"""A million messages, and what the broker keeps of them in memory: nothing."""

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from api_client import ApiClient
from broker_process import BrokerProcess
from raw_grpc import RawCall

from liftbridge.protocol.generated import api_pb2 as api

MESSAGES = 1_000_000
AT_ONCE = 2_000
#: One read from the log, what waits for the client's socket, and the allocator's habits; the messages take 100 MiB.
MAX_GROWTH_BYTES = 24 * 1024 * 1024


@contextmanager
def watched_memory(broker: BrokerProcess) -> Iterator[list[int]]:
    """Samples of the broker's resident bytes."""
    samples = [broker.resident_bytes()]
    over = threading.Event()

    def sample() -> None:
        while not over.wait(0.05):
            samples.append(broker.resident_bytes())

    sampling = threading.Thread(target=sample)
    sampling.start()
    try:
        yield samples
    finally:
        over.set()
        sampling.join()


def framed(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def publish(broker: BrokerProcess) -> None:
    with RawCall(broker.port, "PublishAsync") as call:
        for first in range(0, MESSAGES, AT_ONCE):
            numbers = range(first, first + AT_ONCE)
            requests = (
                api.PublishRequest(stream="million", value=b"%07d" % number, ackPolicy=api.AckPolicy.NONE)
                for number in numbers
            )
            call.send(b"".join(framed(request.SerializeToString()) for request in requests))
        call.end()
        assert list(call.messages()) == [], "nobody asked for acks"


def replayed_values(broker: BrokerProcess) -> Iterator[bytes]:
    """The value of each message, in order, found by its place: all messages are equally long."""
    request = api.SubscribeRequest(
        stream="million", startPosition=api.StartPosition.EARLIEST, stopPosition=api.StopPosition.STOP_LATEST
    )
    with RawCall(broker.port, "Subscribe") as call:
        call.send(framed(request.SerializeToString()))
        call.end()
        received = bytearray()
        for piece in call.messages():
            received += piece
            position = 0
            while len(received) - position >= 5:
                end = position + 5 + int.from_bytes(received[position + 1 : position + 5], "big")
                if end > len(received):
                    break
                if end - position > 5:  # the first one, which says "subscribed", is empty
                    value = received.find(b"\x1a\x07", position, end) + 2
                    yield bytes(received[value : value + 7])
                position = end
            del received[:position]


@pytest.mark.timeout(300)
async def test_a_million_small_messages_replay_in_order_with_flat_memory(new_broker: BrokerProcess) -> None:
    new_broker.start()
    async with ApiClient(new_broker.address) as client:
        await client("CreateStream", name="million", subject="million")
        publish(new_broker)
        assert (await client("FetchPartitionMetadata", stream="million")).metadata.newestOffset == MESSAGES - 1
    with watched_memory(new_broker) as samples:
        expected = (b"%07d" % number for number in range(MESSAGES))
        differing = sum(one != other for one, other in zip(replayed_values(new_broker), expected, strict=True))
    assert differing == 0
    assert max(samples) - samples[0] < MAX_GROWTH_BYTES
    assert max(samples) < 128 * 1024 * 1024
