"""``liftbridge group``."""

import click

from liftbridge.cli.connection import client_command, complete_stream, find_stream
from liftbridge.cli.display import json_option, print_json, print_table
from liftbridge.cli.subscribe import count_option, print_messages, printer, raw_option, start_option
from liftbridge.client import Client, StartAt
from liftbridge.errors import NotFound


@click.group("group")
def group_commands() -> None:
    """Look at a consumer group, or consume as a member."""


@client_command("show", parent=group_commands)
@click.argument("groups", nargs=-1, required=True, metavar="GROUP...")
@json_option
async def show(client: Client, *, groups: tuple[str, ...], as_json: bool) -> None:
    """Show the server that coordinates a group, and its epoch, which grows with every change of members."""
    metadata = await client.fetch_metadata(groups=groups)
    for name in groups:
        if name not in metadata.groups:
            raise NotFound(f"there is no consumer group {name}: a group exists while it has members")
    rows = []
    for name in groups:
        group = metadata.groups[name]
        broker = metadata.brokers.get(group.coordinator)
        address = None if broker is None else broker.address
        rows.append({"group": name, "coordinator": group.coordinator, "address": address, "epoch": group.epoch})
    if as_json:
        print_json(rows)
    else:
        print_table(list(rows[0]), [list(row.values()) for row in rows], numbers=("epoch",))


@client_command("consume", parent=group_commands)
@click.argument("group", metavar="GROUP")
@click.argument("streams", nargs=-1, required=True, metavar="STREAM...", shell_complete=complete_stream)
@click.option("--consumer-id", default="", metavar="NAME", help="The member's name (default: a random one).")
@start_option("Where partitions begin that the group has no cursor for. Default: new.")
@count_option
@raw_option
@json_option
async def consume(
    client: Client,
    *,
    group: str,
    streams: tuple[str, ...],
    consumer_id: str,
    start: StartAt | None,
    count: int | None,
    raw: bool,
    as_json: bool,
) -> None:
    """Print messages as a member of a consumer group, which shares the partitions of the streams among its members.

    A message that is printed counts as processed. The servers need cursors: cursors.stream.partitions.
    """
    show = printer(raw=raw, as_json=as_json)
    for name in streams:
        await find_stream(client, name)
    async with client.consumer(group, streams, consumer_id=consumer_id, start=start) as consumer:
        await print_messages(consumer, show, count)
        await consumer.commit()
