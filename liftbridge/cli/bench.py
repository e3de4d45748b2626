"""``liftbridge bench``: how fast a cluster is, from here."""

import asyncio
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass

import click

from liftbridge.cli.connection import client_command, complete_stream, find_stream
from liftbridge.cli.display import json_option, print_json, print_table
from liftbridge.cli.values import COUNT, MESSAGE_SIZE, REPLICAS
from liftbridge.client import Ack, AckPolicy, Client, StartAt
from liftbridge.errors import RequestError

_PERCENTILES = (50.0, 90.0, 99.0, 99.9)


@dataclass(frozen=True, slots=True)
class Phase:
    """One measurement. Latencies are milliseconds from publishing to the ack; None where there is none."""

    name: str
    messages: int
    seconds: float
    messages_per_s: float
    megabytes_per_s: float
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    p99_9_ms: float | None = None
    max_ms: float | None = None


@client_command("bench")
@click.option("--stream", help="Publish to this stream, and leave the messages there.", shell_complete=complete_stream)
@click.option(
    "--messages",
    "-n",
    type=COUNT,
    default=100_000,
    show_default=True,
    metavar="COUNT",
    help="How many.",
)
@click.option(
    "--size", type=MESSAGE_SIZE, default="256", show_default=True, metavar="SIZE", help="Bytes of each value."
)
@click.option(
    "--in-flight",
    type=COUNT,
    default=1000,
    show_default=True,
    metavar="COUNT",
    help="Messages without an ack at a time; 1 measures the latency of one.",
)
@click.option(
    "--ack", type=click.Choice(["leader", "all"]), default="leader", show_default=True, help="What counts as stored."
)
@click.option(
    "--replication-factor", type=REPLICAS, default="1", show_default=True, metavar="COUNT|all", help="Of a new stream."
)
@json_option
async def bench(
    client: Client,
    *,
    stream: str | None,
    messages: int,
    size: int,
    in_flight: int,
    ack: str,
    replication_factor: int,
    as_json: bool,
) -> None:
    """Publish messages to partition 0, read them back, and say how fast that was. Uses a stream of its own, which it
    deletes, unless --stream names one. Latencies contain the time in which messages wait for each other."""
    async with _stream(client, stream, replication_factor) as name:
        with _progress() as progress:
            published, first = await _publish(client, name, messages, size, in_flight, AckPolicy[ack.upper()], progress)
            read = await _subscribe(client, name, first, messages, size, progress)
    phases = [published, read]
    if as_json:
        print_json([asdict(phase) for phase in phases])
    else:
        _print(phases)


@asynccontextmanager
async def _stream(client: Client, name: str | None, replication_factor: int) -> AsyncIterator[str]:
    if name is not None:
        yield (await find_stream(client, name)).name
        return
    name = f"bench-{secrets.token_hex(4)}"
    await client.create_stream(name, name, replication_factor=replication_factor)
    try:
        yield name
    finally:
        await _delete(client, name)


# --- measuring --------------------------------------------------------------------------------------------------------


async def _delete(client: Client, name: str) -> None:
    """What else went wrong is told by whoever raised it."""
    try:
        await client.delete_stream(name)
    except RequestError as error:
        print(
            f"liftbridge: stream {name} is left behind ({error}): 'liftbridge stream delete {name}' deletes it",
            file=sys.stderr,
        )


async def _publish(
    client: Client, stream: str, messages: int, size: int, in_flight: int, policy: AckPolicy, progress: "Progress"
) -> tuple[Phase, int]:
    """The measurement, and the offset of the first message. Raises what a message failed with."""
    value = secrets.token_bytes(size)
    latencies_s: list[float] = []
    advance = progress.begin("publish", messages)
    clock = time.perf_counter

    def watch(answer: "asyncio.Future[Ack | None]") -> None:
        sent_s = clock()

        def stored(_: object) -> None:
            latencies_s.append(clock() - sent_s)
            advance(len(latencies_s))

        answer.add_done_callback(stored)

    answers = []
    begin_s = clock()
    async with client.publisher(stream, max_in_flight=in_flight, ack_policy=policy) as publisher:
        for _ in range(messages):
            answer = await publisher.publish(value, partition=0)
            watch(answer)
            answers.append(answer)
    seconds = clock() - begin_s
    offsets = [ack.offset for answer in answers if (ack := answer.result()) is not None]
    return measured("publish", messages, size, seconds, sorted(latencies_s)), offsets[0]


async def _subscribe(
    client: Client, stream: str, first_offset: int, messages: int, size: int, progress: "Progress"
) -> Phase:
    advance = progress.begin("subscribe", messages)
    received = 0
    begin_s = time.perf_counter()
    async with client.subscribe(stream, 0, start=StartAt.offset(first_offset)) as subscription:
        async for _ in subscription:
            received += 1
            advance(received)
            if received == messages:
                break
    return measured("subscribe", messages, size, time.perf_counter() - begin_s, [])


def measured(name: str, messages: int, size: int, seconds: float, latencies_s: list[float]) -> Phase:
    """``latencies_s`` are sorted, ``size`` is in bytes."""
    rate = messages / seconds
    shown = [percentile(latencies_s, one) for one in (*_PERCENTILES, 100.0)] if latencies_s else [None] * 5
    return Phase(
        name,
        messages,
        round(seconds, 3),
        round(rate, 1),
        round(rate * size / 1e6, 3),
        *(None if one is None else round(one * 1e3, 3) for one in shown),
    )


def percentile(ordered: list[float], percent: float) -> float:
    """The smallest value that so many percent of all are not above."""
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, min(len(ordered), int(rank)) - 1)]


# --- showing ----------------------------------------------------------------------------------------------------------


class Progress:
    """A bar on standard error for each phase, where somebody can see it."""

    _SHOWN_EVERY = 1000

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        console = Console(stderr=True)
        columns = (TextColumn("{task.description:9}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bars = Bars(*columns, console=console, disable=not console.is_terminal, transient=True)

    def begin(self, name: str, total: int) -> Callable[[int], None]:
        task = self.bars.add_task(name, total=total)

        def advance(done: int) -> None:
            if done % self._SHOWN_EVERY == 0 or done == total:
                self.bars.update(task, completed=done)

        return advance


@contextmanager
def _progress() -> Iterator[Progress]:
    progress = Progress()
    with progress.bars:
        yield progress


def _print(phases: list[Phase]) -> None:
    columns = ["", "messages", "seconds", "per s", "MB/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms"]
    rows = [list(asdict(phase).values()) for phase in phases]
    print_table(columns, rows, numbers=columns[1:])
