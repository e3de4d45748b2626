"""A million messages with a thousand keys, published, read and compacted at once by a real broker:
``python tests/benchmarks/compaction.py [messages] [keys]``.

One client publishes with 1,000 in flight, one reads what is new, one reads from the start again and again. In the end the last
value of each key is compared with what was published. Prints how fast publishing was, without and with compaction; how long
compaction took until nothing was left to do; and the broker's memory at most.
"""

import argparse
import re
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import grpc
from broker_process import BrokerProcess
from raw_grpc import RawCall

from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.record_batch import RECORD_PREFIX

VALUE_BYTES = 200
BLOCK = 500
SEGMENT_BYTES = 16 * 1024 * 1024
_REMOVED = re.compile(r"compaction removed (\d+) messages, (\d+) of (\d+) bytes")
_LENGTH = struct.Struct(">I")


def key_of(number: int, keys: int) -> bytes:
    """Scattered, so that each segment has all of them."""
    return b"key-%06d" % (number * 7919 % keys)


def frame(message: bytes) -> bytes:
    return RECORD_PREFIX.pack(0, len(message)) + message


def frames(call: RawCall) -> Iterator[list[bytes]]:
    """The messages that the server sends, some at a time."""
    rest = b""
    for piece in call.messages():
        data, position, found = rest + piece, 0, []
        while position + 5 <= len(data):
            end = position + 5 + _LENGTH.unpack_from(data, position + 1)[0]
            if end > len(data):
                break
            found.append(data[position + 5 : end])
            position = end
        rest = data[position:]
        yield found


def create(broker: BrokerProcess, stream: str, *, compact: bool) -> None:
    with grpc.insecure_channel(broker.address) as channel:
        channel.unary_unary("/proto.API/CreateStream")(
            api.CreateStreamRequest(
                name=stream,
                subject=stream,
                compactEnabled=api.NullableBool(value=compact),
                segmentMaxBytes=api.NullableInt64(value=SEGMENT_BYTES),
                cleanerInterval=api.NullableInt64(value=500),
            ).SerializeToString(),
            timeout=10,
        )


def publish(broker: BrokerProcess, stream: str, messages: int, keys: int) -> float:
    """The seconds until the last ack. Message ``n`` gets offset ``n`` and says so."""
    began_s = time.perf_counter()
    with RawCall(broker.port, "PublishAsync") as call:
        answers = frames(call)
        acked = 0
        for start in range(0, messages, BLOCK):
            block = []
            for number in range(start, min(start + BLOCK, messages)):
                value = (b"%d " % number).ljust(VALUE_BYTES, b".")
                request = api.PublishRequest(stream=stream, key=key_of(number, keys), value=value, correlationId="c")
                block.append(frame(request.SerializeToString()))
            call.send(b"".join(block))
            while acked < start:
                acked += len(next(answers))
        while acked < messages:
            acked += len(next(answers))
    return time.perf_counter() - began_s


def subscribe(broker: BrokerProcess, **fields: object) -> Iterator[list[api.Message]]:
    with RawCall(broker.port, "Subscribe") as call:
        call.send(frame(api.SubscribeRequest(**fields).SerializeToString()))
        call.end()
        for some in frames(call):
            yield [message for one in some if (message := api.Message.FromString(one)).value]


def check_order(messages: list[api.Message], last: int) -> int:
    """Offsets only grow, and each message is the one that was published there. Returns the last."""
    for message in messages:
        assert message.offset > last, f"offset {message.offset} after {last}"
        assert int(message.value.split()[0]) == message.offset
        last = message.offset
    return last


def follow(broker: BrokerProcess, stream: str, messages: int) -> int:
    """Reads what is new up to the last message; returns how many it saw."""
    seen, last = 0, -1
    for some in subscribe(broker, stream=stream, startPosition=api.EARLIEST):
        last = check_order(some, last)
        seen += len(some)
        if last == messages - 1:
            break
    return seen


def replay(broker: BrokerProcess, stream: str, enough: threading.Event) -> int:
    """Reads everything again and again; returns how often."""
    rounds = 0
    while not enough.wait(0.2):
        read(broker, stream)
        rounds += 1
    return rounds


def read(broker: BrokerProcess, stream: str) -> dict[bytes, int]:
    """What is there: the offset of each key's last message."""
    found: dict[bytes, int] = {}
    last = -1
    for some in subscribe(broker, stream=stream, startPosition=api.EARLIEST, stopPosition=api.STOP_LATEST):
        last = check_order(some, last)
        found.update((message.key, message.offset) for message in some)
    return found


def count(broker: BrokerProcess, stream: str) -> int:
    options = {"startPosition": api.EARLIEST, "stopPosition": api.STOP_LATEST}
    return sum(len(some) for some in subscribe(broker, stream=stream, **options))


def wait_until_compacted(broker: BrokerProcess, stream: str) -> tuple[int, float]:
    """Until no pass removed anything for a while: how many messages are left, and how long it took."""
    began_s = ended_s = time.perf_counter()
    passes = len(_REMOVED.findall(broker.log()))
    while time.perf_counter() - ended_s < 3:
        time.sleep(0.1)
        now = len(_REMOVED.findall(broker.log()))
        if now != passes:
            passes, ended_s = now, time.perf_counter()
    return count(broker, stream), ended_s - began_s


def peak_bytes(broker: BrokerProcess) -> int:
    status = Path(f"/proc/{broker.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024  # type: ignore[index]


def run(broker: BrokerProcess, messages: int, keys: int) -> None:
    create(broker, "plain", compact=False)
    plain_s = publish(broker, "plain", messages // 10, keys)
    print(f"plain stream: {messages / 10 / plain_s:,.0f} messages a second; peak memory {peak_bytes(broker) >> 20} MiB")
    create(broker, "table", compact=True)
    enough = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        following = pool.submit(follow, broker, "table", messages)
        replaying = pool.submit(replay, broker, "table", enough)
        publish_s = publish(broker, "table", messages, keys)
        enough.set()
        print(
            f"compacted stream, with two readers: {messages:,} in {publish_s:.1f} s, {messages / publish_s:,.0f} a second"
        )
        print(f"the reader of what is new saw {following.result():,}; {replaying.result()} replays, all in order")
    left, seconds = wait_until_compacted(broker, "table")
    removed = _REMOVED.findall(broker.log())
    print(
        f"passes: {len(removed)}, which removed {sum(int(one) for one, _, _ in removed):,} messages; the last one ended"
    )
    print(f"{seconds:.1f} s after publishing; {left:,} messages are left (those of the active segment among them)")
    assert read(broker, "table") == {key_of(number, keys): number for number in range(messages)}
    print(f"the last message of each of {keys:,} keys is there; peak memory {peak_bytes(broker) >> 20} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("messages", nargs="?", type=int, default=1_000_000)
    parser.add_argument("keys", nargs="?", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        broker = BrokerProcess(Path(folder) / "data")
        broker.start()
        try:
            run(broker, arguments.messages, arguments.keys)
        finally:
            broker.stop()


if __name__ == "__main__":
    main()
