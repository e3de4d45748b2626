"""``liftbridge publish``."""

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import click

from liftbridge.cli.connection import check_partitions, client_command, find_stream
from liftbridge.cli.display import json_option, print_json_line
from liftbridge.cli.reading import chunks_of, lines_of, whole
from liftbridge.cli.streams import stream_argument
from liftbridge.cli.values import HEADER, MESSAGE_SIZE, OFFSET, PARTITION, argument_bytes
from liftbridge.client import Ack, AckPolicy, Client, KeyPartitioner, Partitioner, Publisher, RoundRobinPartitioner
from liftbridge.errors import RequestError
from liftbridge.tasks import end_tasks


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish."""

    value: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class _Sent:
    number: int
    partition: int
    answer: "asyncio.Future[Ack | None]"


@client_command("publish")
@stream_argument
@click.argument("values", nargs=-1, metavar="[VALUE]...")
@click.option(
    "--file",
    "-f",
    "files",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    multiple=True,
    help="Publish a file as one message; - is the whole standard input. May be repeated.",
)
@click.option("--key", "-k", default="", help="The key of every message.")
@click.option("--key-separator", metavar="TEXT", help="A line is key, separator, value.")
@click.option(
    "--header", "-H", "headers", type=HEADER, multiple=True, metavar="NAME=VALUE", help="A header; may be repeated."
)
@click.option("--partition", "-p", type=PARTITION, metavar="NUMBER", help="Where to; else by key, else 0.")
@click.option("--round-robin", is_flag=True, help="To one partition after the other.")
@click.option(
    "--ack",
    type=click.Choice([policy.name.lower() for policy in AckPolicy]),
    default="leader",
    show_default=True,
    help="Who must have a message until it counts as stored; none: don't wait.",
)
@click.option("--expected-offset", type=OFFSET, metavar="OFFSET", help="Store only if it gets this one.")
@click.option(
    "--max-size",
    "max_bytes",
    type=MESSAGE_SIZE,
    default="64MiB",
    show_default=True,
    metavar="SIZE",
    help="Refuse a larger file or line, instead of reading on.",
)
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but errors.")
@json_option
async def publish(
    client: Client,
    *,
    stream: str,
    values: tuple[str, ...],
    files: tuple[Path, ...],
    key: str,
    key_separator: str | None,
    headers: tuple[tuple[str, bytes], ...],
    partition: int | None,
    round_robin: bool,
    ack: str,
    expected_offset: int | None,
    max_bytes: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Publish each VALUE as a message; without one, each line of the standard input. Prints where they are stored."""
    _refuse_contradictions(values, files, key_separator, partition, round_robin, expected_offset)
    known = await find_stream(client, stream)
    check_partitions(known, () if partition is None else (partition,))
    policy = AckPolicy[ack.upper()]
    async with client.publisher(stream, ack_policy=policy) as publisher:
        run = _Run(
            publisher,
            partitions=len(known.partitions),
            partition=partition,
            partitioner=RoundRobinPartitioner() if round_robin else KeyPartitioner(),
            keyless_everywhere=round_robin,
            headers=dict(headers),
            expected_offset=expected_offset,
        )
        await run.publish(
            _outgoing(values, files, argument_bytes(key), key_separator, max_bytes), _printer(stream, quiet, as_json)
        )


def _refuse_contradictions(
    values: tuple[str, ...],
    files: tuple[Path, ...],
    key_separator: str | None,
    partition: int | None,
    round_robin: bool,
    expected_offset: int | None,
) -> None:
    if values and files:
        raise click.UsageError("publish values or files, not both at once")
    if round_robin and partition is not None:
        raise click.UsageError("--partition and --round-robin contradict each other")
    if key_separator == "":
        raise click.UsageError("--key-separator is empty")
    if key_separator and (values or files):
        raise click.UsageError("--key-separator is for lines of the standard input")
    if expected_offset is not None and len(values) + len(files) != 1:
        raise click.UsageError("--expected-offset is for a single message")


async def _outgoing(
    values: tuple[str, ...], files: tuple[Path, ...], key: bytes, key_separator: str | None, max_bytes: int
) -> AsyncIterator[Outgoing]:
    for value in values:
        yield Outgoing(argument_bytes(value), key)
    for file in files:
        yield Outgoing(await _read(file, max_bytes), key)
    if values or files:
        return
    if sys.stdin.isatty():
        print("each line is a message; Ctrl-D ends", file=sys.stderr)
    async for line in lines_of(chunks_of(sys.stdin.fileno()), max_bytes):
        yield _split(line, key, key_separator)


async def _read(file: Path, max_bytes: int) -> bytes:
    if str(file) == "-":
        return await whole(chunks_of(sys.stdin.fileno()), "the standard input", max_bytes)
    return await whole(chunks_of(file), str(file), max_bytes)


def _split(line: bytes, key: bytes, key_separator: str | None) -> Outgoing:
    """A line without the separator has the key of all."""
    if key_separator is None:
        return Outgoing(line, key)
    before, found, after = line.partition(argument_bytes(key_separator))
    return Outgoing(after, before) if found else Outgoing(line, key)


class _Printer:
    """Shows where a message is stored."""

    def __init__(self, stream: str, *, as_json: bool) -> None:
        self._stream = stream
        self._as_json = as_json

    def show(self, partition: int, ack: Ack | None) -> None:
        if self._as_json:
            offset = None if ack is None else ack.offset
            print_json_line({"stream": self._stream, "partition": partition, "offset": offset})
        elif ack is not None:
            print(f"partition {partition}, offset {ack.offset}", flush=True)


def _printer(stream: str, quiet: bool, as_json: bool) -> _Printer | None:
    return None if quiet else _Printer(stream, as_json=as_json)


class _Run:
    """Publishes messages, many in flight, and hears of each in order."""

    def __init__(
        self,
        publisher: Publisher,
        *,
        partitions: int,
        partition: int | None,
        partitioner: Partitioner,
        keyless_everywhere: bool,
        headers: dict[str, bytes],
        expected_offset: int | None,
    ) -> None:
        self._publisher = publisher
        self._partitions = partitions
        self._partition = partition
        self._partitioner = partitioner
        self._keyless_everywhere = keyless_everywhere
        self._headers = headers
        self._expected_offset = expected_offset
        self._sent: asyncio.Queue[_Sent | None] = asyncio.Queue()
        self._failed: RequestError | None = None

    async def publish(self, messages: AsyncIterator[Outgoing], printer: _Printer | None) -> None:
        """Raises what the first message failed with that wasn't stored; none is begun after that is known."""
        sender = asyncio.create_task(self._send(messages))
        listener = asyncio.create_task(self._listen(printer, sender))
        try:
            await asyncio.wait((sender, listener), return_when=asyncio.FIRST_COMPLETED)
            await end_tasks([sender])  # it is done, unless the listener ended first: that can't print
            self._sent.put_nowait(None)
            await listener
        finally:
            await end_tasks([sender, listener])
        if self._failed is not None:
            raise self._failed
        sender.result()

    async def _send(self, messages: AsyncIterator[Outgoing]) -> None:
        number = 0
        async for message in messages:
            number += 1
            partition = self._choose(message)
            answer = await self._publisher.publish(
                message.value,
                key=message.key,
                headers=self._headers,
                partition=partition,
                expected_offset=self._expected_offset,
            )
            self._sent.put_nowait(_Sent(number, partition, answer))

    def _choose(self, message: Outgoing) -> int:
        if self._partition is not None:
            return self._partition
        if not message.key and not self._keyless_everywhere:
            return 0
        return self._partitioner(message.key, message.value, self._partitions)

    async def _listen(self, printer: _Printer | None, sender: "asyncio.Task[None]") -> None:
        while (sent := await self._sent.get()) is not None:
            try:
                ack = await sent.answer
            except RequestError as error:
                if self._failed is None:
                    self._failed = type(error)(f"message {sent.number}: {error}")
                    sender.cancel()
                continue
            if printer is not None:
                printer.show(sent.partition, ack)
