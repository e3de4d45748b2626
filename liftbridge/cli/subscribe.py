"""``liftbridge subscribe``, and how messages are printed."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import click

from liftbridge.cli.connection import check_partitions, client_command, find_stream
from liftbridge.cli.display import json_option, message_as_json, message_line, print_json_line
from liftbridge.cli.streams import stream_argument
from liftbridge.cli.values import COUNT, PARTITION, START, STOP
from liftbridge.client import Client, Message, StartAt, StopAt, Subscription
from liftbridge.errors import InvalidRequest, LiftbridgeError
from liftbridge.tasks import end_tasks

#: Messages that wait to be printed.
_AHEAD = 1000
#: How a server refuses a subscription that would stop before it starts.
_NOTHING_UP_TO_STOP = "is before start offset"

raw_option = click.option("--raw", is_flag=True, help="Only values, as they are, each with a line end.")
count_option = click.option("--count", "-n", type=COUNT, metavar="COUNT", help="End after so many messages.")


def start_option(default: str) -> Callable[[Any], Any]:
    return click.option(
        "--from",
        "start",
        type=START,
        metavar="POSITION",
        help=f"new, earliest, latest, an offset, a time (2026-01-31T12:00) or an age (10m). {default}",
    )


@client_command("subscribe")
@stream_argument
@click.option(
    "--partition",
    "-p",
    "partitions",
    type=PARTITION,
    multiple=True,
    metavar="NUMBER",
    help="Only this one; may be repeated (default: all).",
)
@start_option("Default: new; with --no-follow earliest, with --reverse latest.")
@click.option("--until", "stop", type=STOP, metavar="POSITION", help="End there: latest, an offset, a time or an age.")
@click.option(
    "--follow/--no-follow", default=None, help="Wait for what comes (the default), or end with what is there."
)
@click.option("--reverse", is_flag=True, help="Backward from the start to the oldest message.")
@count_option
@click.option("--isr", "read_isr_replica", is_flag=True, help="Read from any replica in sync, not only the leader.")
@click.option("--resume", is_flag=True, help="Resume partitions that are paused.")
@raw_option
@json_option
async def subscribe(
    client: Client,
    *,
    stream: str,
    partitions: tuple[int, ...],
    start: StartAt | None,
    stop: StopAt | None,
    follow: bool | None,
    reverse: bool,
    count: int | None,
    read_isr_replica: bool,
    resume: bool,
    raw: bool,
    as_json: bool,
) -> None:
    """Print the messages of a stream. The order of each partition is kept; Ctrl-C ends it."""
    show = printer(raw=raw, as_json=as_json)
    if reverse and (follow is not None or stop is not None):
        raise click.UsageError("--reverse ends with the oldest message: it has no --follow and no --until")
    if stop is not None and follow:
        raise click.UsageError("--until and --follow contradict each other")
    known = await find_stream(client, stream)
    check_partitions(known, partitions)
    ending = follow is False and stop is None
    subscriptions = [
        client.subscribe(
            stream,
            number,
            start=start or (StartAt.latest() if reverse else StartAt.earliest() if ending else StartAt.new()),
            stop=StopAt.latest() if ending else stop,
            reverse=reverse,
            read_isr_replica=read_isr_replica,
            resume=resume,
        )
        for number in dict.fromkeys(partitions or range(len(known.partitions)))
    ]
    until_latest = ending or stop == StopAt.latest()
    async with merged(subscriptions, until_latest=until_latest) as messages:
        await print_messages(messages, show, count)


# --- printing ---------------------------------------------------------------------------------------------------------


def printer(*, raw: bool, as_json: bool, partitions: bool = True) -> Callable[[Message], None]:
    """What prints one message, which then is on its way."""
    if raw and as_json:
        raise click.UsageError("--raw and --json contradict each other")
    if raw:
        return _print_raw
    if as_json:
        return lambda message: print_json_line(message_as_json(message))
    return lambda message: print(message_line(message, partitions=partitions), flush=True)


def _print_raw(message: Message) -> None:
    sys.stdout.buffer.write(message.value + b"\n")
    sys.stdout.buffer.flush()


async def print_messages(messages: AsyncIterator[Message], show: Callable[[Message], None], count: int | None) -> None:
    """Until the messages end, or ``count`` are printed."""
    printed = 0
    async for message in messages:
        show(message)
        printed += 1
        if printed == count:
            return


# --- several partitions as one ----------------------------------------------------------------------------------------


@asynccontextmanager
async def merged(subscriptions: Sequence[Subscription], *, until_latest: bool) -> AsyncIterator[AsyncIterator[Message]]:
    """The messages of all of them as they come; they end when all have ended. Raises what a server refuses one with.
    ``until_latest``: a partition that ends before the start has nothing to show."""
    async with AsyncExitStack() as stack:
        begun = []
        for subscription in subscriptions:
            try:
                begun.append(await stack.enter_async_context(subscription))
            except InvalidRequest as error:
                if not until_latest or _NOTHING_UP_TO_STOP not in str(error):
                    raise
        waiting: asyncio.Queue[Message | LiftbridgeError | None] = asyncio.Queue(_AHEAD)
        tasks = [asyncio.create_task(_forward(one, waiting)) for one in begun]
        try:
            yield _take(waiting, len(tasks))
        finally:
            await end_tasks(tasks)


async def _forward(subscription: Subscription, waiting: "asyncio.Queue[Message | LiftbridgeError | None]") -> None:
    try:
        async for message in subscription:
            await waiting.put(message)
    except LiftbridgeError as error:
        await waiting.put(error)
    await waiting.put(None)


async def _take(waiting: "asyncio.Queue[Message | LiftbridgeError | None]", running: int) -> AsyncIterator[Message]:
    while running:
        match await waiting.get():
            case None:
                running -= 1
            case Message() as message:
                yield message
            case LiftbridgeError() as error:
                raise error
