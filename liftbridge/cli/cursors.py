"""``liftbridge cursor``."""

import click

from liftbridge.cli.connection import check_partitions, client_command, find_stream
from liftbridge.cli.display import json_option, print_json
from liftbridge.cli.streams import stream_argument
from liftbridge.cli.values import OFFSET, PARTITION
from liftbridge.client import Client
from liftbridge.errors import NotFound

_cursor_argument = click.argument("cursor", metavar="CURSOR")
_partition_option = click.option(
    "--partition",
    "-p",
    type=PARTITION,
    default=0,
    show_default=True,
    metavar="NUMBER",
    help="Of the stream.",
)


@click.group("cursor")
def cursor_commands() -> None:
    """Get and set cursors: offsets that the cluster remembers for consumers."""


@client_command("get", parent=cursor_commands)
@_cursor_argument
@stream_argument
@_partition_option
@json_option
async def get(client: Client, *, cursor: str, stream: str, partition: int, as_json: bool) -> None:
    """Print the offset that a cursor was set to last."""
    offset = await client.fetch_cursor(cursor, stream, partition)
    if offset is None:
        check_partitions(await find_stream(client, stream), (partition,))
        raise NotFound(f"cursor {cursor} was never set for partition {partition} of stream {stream}")
    if as_json:
        print_json({"cursor": cursor, "stream": stream, "partition": partition, "offset": offset})
    else:
        print(offset)


@client_command("set", parent=cursor_commands)
@_cursor_argument
@stream_argument
@click.argument("offset", type=OFFSET)
@_partition_option
async def set_cursor(client: Client, *, cursor: str, stream: str, offset: int, partition: int) -> None:
    """Remember OFFSET, on every replica in sync."""
    check_partitions(await find_stream(client, stream), (partition,))
    await client.set_cursor(cursor, stream, partition, offset)
    print(f"cursor {cursor} of partition {partition} of stream {stream} is at {offset}")
