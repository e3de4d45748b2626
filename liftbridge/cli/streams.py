"""``liftbridge stream``."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import click

from liftbridge.cli.connection import check_partitions, client_command, complete_stream, find_stream
from liftbridge.cli.display import json_option, moment, print_json, print_table
from liftbridge.cli.values import COUNT, DURATION, LONG_COUNT, PARTITION, REPLICAS, SIZE
from liftbridge.client import Client, Partition, Stream
from liftbridge.errors import AlreadyExists, FailedPrecondition, Unavailable

_Decorator = Callable[[Any], Any]

stream_argument = click.argument("stream", metavar="STREAM", shell_complete=complete_stream)


def _partitions_option(help: str) -> _Decorator:
    return click.option("--partition", "-p", "partitions", type=PARTITION, multiple=True, metavar="NUMBER", help=help)


@click.group("stream")
def stream_commands() -> None:
    """Create, look at, pause and delete streams."""


# --- creating ---------------------------------------------------------------------------------------------------------


@client_command("create", parent=stream_commands)
@click.argument("name")
@click.option("--subject", help="The NATS subject that it records (default: its name).")
@click.option("--partitions", type=COUNT, default=1, show_default=True, metavar="COUNT", help="How many.")
@click.option(
    "--replication-factor",
    type=REPLICAS,
    default="1",
    show_default=True,
    metavar="COUNT|all",
    help="Servers that hold each partition.",
)
@click.option("--group", default="", help="Share a NATS queue group with other streams of the subject.")
@click.option("--retention-max-bytes", type=SIZE, metavar="SIZE", help="Delete the oldest beyond that, as 10GiB.")
@click.option("--retention-max-messages", type=LONG_COUNT, metavar="COUNT", help="The same by number.")
@click.option("--retention-max-age", type=DURATION, metavar="DURATION", help="The same by age, as 7d.")
@click.option("--cleaner-interval", type=DURATION, metavar="DURATION", help="How often retention looks.")
@click.option("--segment-max-bytes", type=SIZE, metavar="SIZE", help="Begin another file then.")
@click.option("--segment-max-age", type=DURATION, metavar="DURATION", help="Or then.")
@click.option("--compact/--no-compact", default=None, help="Keep only the last message of each key.")
@click.option("--auto-pause-time", type=DURATION, metavar="DURATION", help="Pause partitions nobody publishes to.")
@click.option(
    "--auto-pause-disable-if-subscribers/--auto-pause-with-subscribers",
    default=None,
    help="Whether subscribers keep a partition from being paused.",
)
@click.option("--min-isr", type=COUNT, metavar="COUNT", help="Replicas that must be in sync to take messages.")
@click.option(
    "--optimistic-concurrency/--no-optimistic-concurrency", default=None, help="Check the offsets publishers expect."
)
@click.option("--encryption/--no-encryption", default=None, help="Encrypt what is stored.")
@click.option("--if-not-exists", is_flag=True, help="A stream of that name is fine, whatever its settings are.")
async def create(client: Client, *, name: str, subject: str | None, if_not_exists: bool, **settings: Any) -> None:
    """Create a stream, which records what is published on a NATS subject. What isn't given is left to the servers."""
    try:
        await client.create_stream(name, subject or name, **settings)
    except AlreadyExists:
        if not if_not_exists:
            raise AlreadyExists(f"there is a stream {name} already") from None
        print(f"stream {name} exists already")
    else:
        print(f"created stream {name} on subject {subject or name}")


# --- looking ----------------------------------------------------------------------------------------------------------


@client_command("list", parent=stream_commands)
@click.option("--all", "show_all", is_flag=True, help="The cluster's own streams too.")
@json_option
async def list_streams(client: Client, *, show_all: bool, as_json: bool) -> None:
    """List the streams."""
    streams = sorted((await client.fetch_metadata()).streams.values(), key=lambda one: one.name)
    rows = [_row(one) for one in streams if show_all or not one.name.startswith("__")]
    if as_json:
        print_json(rows)
    elif not rows:
        print("There are no streams. Create one with 'liftbridge stream create NAME'.")
    else:
        print_table(list(rows[0]), [list(row.values()) for row in rows], numbers=("partitions", "replicas"))


def _row(stream: Stream) -> dict[str, Any]:
    return {
        "name": stream.name,
        "subject": stream.subject,
        "partitions": len(stream.partitions),
        "replicas": max((len(one.replicas) for one in stream.partitions), default=0),
        "created": moment(stream.created_ns),
        "state": _state(stream),
    }


def _state(stream: Stream) -> list[str]:
    """What is unusual: of all partitions, or of some."""
    states = {
        "offline": [not one.leader for one in stream.partitions],
        "paused": [one.paused for one in stream.partitions],
        "readonly": [one.readonly for one in stream.partitions],
    }
    return [name if all(flags) else f"{name} in parts" for name, flags in states.items() if any(flags)]


@client_command("describe", parent=stream_commands)
@stream_argument
@json_option
async def describe(client: Client, *, stream: str, as_json: bool) -> None:
    """Show a stream and its partitions: who leads and holds them, and how far they are."""
    known = await find_stream(client, stream)
    partitions = await asyncio.gather(*(_ask_leader(client, known, one) for one in known.partitions))
    if as_json:
        rows = [_partition(one, led=led) for one, led in partitions]
        print_json(_row(known) | {"partitions": rows})
        return
    print(f"stream    {known.name}\nsubject   {known.subject}\ncreated   {moment(known.created_ns) or 'unknown'}\n")
    columns = ["partition", "leader", "replicas", "in sync", "next offset", "committed", "last message", "state"]
    cells = [list(_cells(one, led=led)) for one, led in partitions]
    print_table(columns, cells, numbers=("partition", "next offset", "committed"))


async def _ask_leader(client: Client, stream: Stream, partition: Partition) -> tuple[Partition, bool]:
    """As the leader sees it, and True; as any server does, and False, where none answers for it."""
    if partition.paused or not partition.leader:
        return partition, False
    try:
        return await client.fetch_partition_metadata(stream.name, partition.number), True
    except (FailedPrecondition, Unavailable):
        return partition, False


def _partition(one: Partition, *, led: bool) -> dict[str, Any]:
    """Offsets are those of the messages to come, so that 0 is the first and their difference a number of messages."""
    return {
        "partition": one.number,
        "leader": one.leader or None,
        "replicas": list(one.replicas),
        "isr": list(one.isr),
        "next_offset": one.newest_offset + 1 if led else None,
        "committed_offset": one.high_watermark + 1 if led else None,
        "last_message": moment(one.messages_received.latest_ns),
        "paused": one.paused,
        "readonly": one.readonly,
    }


def _cells(one: Partition, *, led: bool) -> tuple[Any, ...]:
    shown = _partition(one, led=led)
    flags = {"offline": not one.leader, "paused": one.paused, "readonly": one.readonly}
    state = [name for name, flag in flags.items() if flag]
    return (*list(shown.values())[:-2], state)


# --- changing ---------------------------------------------------------------------------------------------------------


@client_command("delete", parent=stream_commands)
@click.argument("streams", nargs=-1, required=True, metavar="STREAM...", shell_complete=complete_stream)
@click.option("--yes", "-y", is_flag=True, help="Don't ask.")
async def delete(client: Client, *, streams: tuple[str, ...], yes: bool) -> None:
    """Delete streams and all of their messages."""
    for name in streams:
        await find_stream(client, name)
    if not yes:
        _confirm(streams)
    for name in streams:
        await client.delete_stream(name)
        print(f"deleted stream {name}")


def _confirm(streams: tuple[str, ...]) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("this deletes messages for good, and nobody is here to ask: say --yes")
    click.confirm(f"Delete {', '.join(streams)} with all messages?", abort=True)


@client_command("pause", parent=stream_commands)
@stream_argument
@_partitions_option("Only this one; may be repeated.")
@click.option("--resume-all", is_flag=True, help="Resume all of them when one is resumed.")
async def pause(client: Client, *, stream: str, partitions: tuple[int, ...], resume_all: bool) -> None:
    """Pause a stream: its partitions take up no resources until somebody publishes to them."""
    check_partitions(await find_stream(client, stream), partitions)
    await client.pause_stream(stream, partitions, resume_all=resume_all)
    print(f"paused {_what(stream, partitions)}")


@client_command("readonly", parent=stream_commands)
@stream_argument
@_partitions_option("Only this one; may be repeated.")
@click.option("--off", is_flag=True, help="Take messages again.")
async def readonly(client: Client, *, stream: str, partitions: tuple[int, ...], off: bool) -> None:
    """Refuse messages to a stream."""
    check_partitions(await find_stream(client, stream), partitions)
    await client.set_stream_readonly(stream, partitions, readonly=not off)
    print(f"{_what(stream, partitions)} {'takes messages again' if off else 'is readonly'}")


def _what(stream: str, partitions: tuple[int, ...]) -> str:
    if not partitions:
        return f"stream {stream}"
    return f"partition {', '.join(map(str, partitions))} of stream {stream}"
