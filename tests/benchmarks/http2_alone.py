"""What HTTP/2 alone costs a message: ``python tests/benchmarks/http2_alone.py [messages]``.

Bytes of a client go into a connection and answers come out, without sockets, broker or event loop. Prints microseconds of
CPU a message, the least of several rounds, and Python calls a message: those don't depend on the machine, so compare them
before and after a change.
"""

import argparse
import cProfile
import pstats
import struct
import time
from collections.abc import Callable
from itertools import cycle, islice

import hpack

from liftbridge_endpoint_grpc.http2.connection import Http2Connection
from liftbridge_endpoint_grpc.http2.events import DataReceived
from liftbridge_endpoint_grpc.http2.frames import END_HEADERS, END_STREAM, MAX_WINDOW, PREFACE, FrameType, frame

ROUNDS = 15
REQUEST = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/proto.API/Publish"),
    (":authority", "127.0.0.1:9292"),
    ("content-type", "application/grpc"),
    ("user-agent", "grpc-go/1.20.0"),
    ("te", "trailers"),
    ("grpc-timeout", "29000000u"),
]
WINDOWS = frame(FrameType.SETTINGS, 0, 0, struct.pack(">HI", 4, MAX_WINDOW)) + frame(
    FrameType.WINDOW_UPDATE, 0, 0, struct.pack(">I", MAX_WINDOW - 65_535)
)
#: What grpcio sends for each small answer.
UPDATES = b"".join(frame(FrameType.WINDOW_UPDATE, 0, stream_id, b"\0\0\0\1") for stream_id in (0, 1))


def connected() -> Http2Connection:
    connection = Http2Connection()
    connection.receive(PREFACE + WINDOWS)
    return connection


def one_call_each(messages: int) -> Callable[[], None]:
    """Publish: headers and data in, a whole response out."""
    encoder = hpack.Encoder()
    reads = [
        frame(FrameType.HEADERS, END_HEADERS, stream_id, bytes(encoder.encode(REQUEST)))
        + frame(FrameType.DATA, END_STREAM, stream_id, bytes(300))
        for stream_id in range(1, 2 * messages, 2)
    ]

    def run() -> None:
        connection = connected()
        for number, data in enumerate(reads):
            connection.receive(data)
            connection.output.send_response(2 * number + 1, bytes(30), bytes(60), bytes(12))
            connection.output.take()

    return run


def one_stream(messages: int, *, sizes: list[int], per_read: int, updates: bool = False) -> Callable[[], None]:
    """PublishAsync: DATA frames in, an answer for each read out."""
    frames = [frame(FrameType.DATA, 0, 1, bytes(size)) for size in islice(cycle(sizes), messages)]
    reads = [b"".join(frames[start : start + per_read]) for start in range(0, messages, per_read)]
    opening = frame(FrameType.HEADERS, END_HEADERS, 1, bytes(hpack.Encoder().encode(REQUEST)))

    def run() -> None:
        connection = connected()
        connection.receive(opening)
        for data in reads:
            for event in connection.receive(data):
                if isinstance(event, DataReceived):
                    connection.give_credit(1, event.credit_bytes)
            connection.output.send_data(1, bytes(60))
            connection.output.take()
            if updates:
                connection.receive(UPDATES)

    return run


def measure(name: str, run: Callable[[], None], messages: int) -> None:
    profiler = cProfile.Profile()
    profiler.runcall(run)
    functions = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    calls = sum(counts[0] for (path, _, _), counts in functions.items() if not path.startswith("~"))
    took_s = min(timed(run) for _ in range(ROUNDS))
    print(f"{name:36} {took_s / messages * 1e6:6.2f} us {calls / messages:6.2f} calls")


def timed(run: Callable[[], None]) -> float:
    began_s = time.process_time()
    run()
    return time.process_time() - began_s


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("messages", type=int, nargs="?", default=3000)
    count = parser.parse_args().messages
    measure("a call for each", one_call_each(count), count)
    measure("one stream, one at a time", one_stream(count, sizes=[300], per_read=1), count)
    measure("the same, with grpcio's updates", one_stream(count, sizes=[300], per_read=1, updates=True), count)
    measure("one stream, 100 of a size a read", one_stream(count, sizes=[300], per_read=100), count)
    measure("one stream, 100 of three sizes", one_stream(count, sizes=[300, 301, 302], per_read=100), count)
