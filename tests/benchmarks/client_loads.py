"""What python_clients.py runs in processes of their own: ``client_loads.py LOAD ADDRESS STREAM MESSAGES``.

Prints one JSON object. Loads whose names begin with ``theirs`` are python-liftbridge's, and need nothing of ours.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

SIZE = 256
IN_FLIGHT = 1000
THREADS = 64


def measured(seconds: list[float], total_s: float) -> dict[str, float]:
    seconds.sort()
    return {
        "per_second": len(seconds) / total_s,
        "p50_us": seconds[len(seconds) // 2] * 1e6,
        "p99_us": seconds[len(seconds) * 99 // 100] * 1e6,
    }


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


# --- ours -------------------------------------------------------------------------------------------------------------


async def ours_publish(address: str, stream: str, messages: int) -> dict[str, float]:
    from liftbridge.client import Client

    value, seconds = b"x" * SIZE, []
    async with Client([address]) as client:
        await client.publish(stream, value)
        began = time.perf_counter()
        for _ in range(messages):
            sent = time.perf_counter()
            await client.publish(stream, value)
            seconds.append(time.perf_counter() - sent)
        return measured(seconds, time.perf_counter() - began)


def ours_blocking(address: str, stream: str, messages: int) -> dict[str, float]:
    from liftbridge.client.blocking import BlockingClient

    value = b"x" * SIZE
    with BlockingClient([address]) as client:
        client.publish(stream, value)
        began = time.perf_counter()
        seconds = [timed(lambda: client.publish(stream, value)) for _ in range(messages)]
        return measured(seconds, time.perf_counter() - began)


async def ours_publisher(address: str, stream: str, messages: int) -> dict[str, float]:
    from liftbridge.client import Client

    value, seconds = b"x" * SIZE, []
    async with Client([address]) as client, client.publisher(stream, max_in_flight=IN_FLIGHT) as publisher:
        await (await publisher.publish(value))
        began = time.perf_counter()
        for _ in range(messages):
            sent = time.perf_counter()
            ack = await publisher.publish(value)
            ack.add_done_callback(lambda _, sent=sent: seconds.append(time.perf_counter() - sent))
        await publisher.flush()
        await asyncio.sleep(0)  # the callbacks of the last acks
        return measured(seconds, time.perf_counter() - began)


async def ours_replay(address: str, stream: str, messages: int) -> dict[str, float]:
    from liftbridge.client import Client, StartAt

    async with Client([address]) as client, client.subscribe(stream, start=StartAt.earliest()) as subscription:
        began, received = time.perf_counter(), 0
        async for _ in subscription:
            received += 1
            if received == messages:
                break
        return {"per_second": messages / (time.perf_counter() - began)}


def ours_blocking_replay(address: str, stream: str, messages: int) -> dict[str, float]:
    from liftbridge.client import StartAt
    from liftbridge.client.blocking import BlockingClient

    with BlockingClient([address]) as client, client.subscribe(stream, start=StartAt.earliest()) as subscription:
        began = time.perf_counter()
        assert sum(1 for _ in islice(subscription, messages)) == messages
        return {"per_second": messages / (time.perf_counter() - began)}


# --- python-liftbridge ------------------------------------------------------------------------------------------------


def theirs_publish(address: str, stream: str, messages: int) -> dict[str, float]:
    from python_liftbridge import Lift, Message

    client, value = Lift(ip_address=address), "x" * SIZE

    def publish() -> None:
        assert client.publish(Message(value=value, stream=stream).ack_policy_leader()).ack.stream == stream

    publish()
    began = time.perf_counter()
    seconds = [timed(publish) for _ in range(messages)]
    return measured(seconds, time.perf_counter() - began)


def theirs_publisher(address: str, stream: str, messages: int) -> dict[str, float]:
    """It has one message in flight for each thread."""
    from python_liftbridge import Lift, Message

    client, value = Lift(ip_address=address), "x" * SIZE

    def publish(_: int) -> float:
        return timed(lambda: client.publish(Message(value=value, stream=stream).ack_policy_leader()))

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(publish, range(THREADS)))
        began = time.perf_counter()
        seconds = list(pool.map(publish, range(messages)))
        return measured(seconds, time.perf_counter() - began)


def theirs_replay(address: str, stream: str, messages: int) -> dict[str, float]:
    from python_liftbridge import Lift, Stream

    client = Lift(ip_address=address)
    received: Iterator[Any] = client.subscribe(Stream(subject=stream, name=stream).start_at_earliest_received())
    next(received)  # the empty one that says "subscribed"
    began = time.perf_counter()
    assert sum(1 for _ in islice(received, messages)) == messages
    return {"per_second": messages / (time.perf_counter() - began)}


LOADS: dict[str, Callable[[str, str, int], Any]] = {
    one.__name__: one
    for one in (
        ours_publish, ours_blocking, ours_publisher, ours_replay, ours_blocking_replay,
        theirs_publish, theirs_publisher, theirs_replay,
    )
}  # fmt: skip


if __name__ == "__main__":
    result = LOADS[sys.argv[1]](sys.argv[2], sys.argv[3], int(sys.argv[4]))
    print(json.dumps(asyncio.run(result) if asyncio.iscoroutine(result) else result), flush=True)
    sys.stdout.close()
