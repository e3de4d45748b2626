"""Answers on standard output: tables and lines for people, JSON for programs."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from liftbridge.client import Message
from liftbridge.protocol.json_text import bytes_entry, header_value

#: ``--json`` and ``--raw``.
json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")
_WIDTH_OF_FILES = 200
#: Character sets in which JSON needs no escapes.
_UNICODE = ("utf-8", "utf8")


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def print_json_line(value: Any) -> None:
    """One line, on its way at once."""
    print(json.dumps(value, ensure_ascii=(sys.stdout.encoding or "").lower() not in _UNICODE), flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, numbers: Sequence[str] = ()) -> None:
    """``numbers`` names the columns whose ends are aligned."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row))
    Console(width=None if sys.stdout.isatty() else _WIDTH_OF_FILES).print(table)


def cell(value: Any) -> str:
    """A value in a table."""
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    return "" if value is None else printable(str(value))


def moment(time_ns: int) -> str | None:
    """UTC, to the millisecond; None for never."""
    if time_ns <= 0:
        return None
    return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def printable(text: str) -> str:
    """Without what would do something to a terminal."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def shown(data: bytes) -> str:
    """Bytes for people: text where they are text."""
    return printable(data.decode("utf-8", "backslashreplace"))


# --- messages ---------------------------------------------------------------------------------------------------------


def message_line(message: Message, *, partitions: bool) -> str:
    """For people: where it is, when it came, its key, its value. ``partitions``: there are several."""
    place = f"{message.partition}:{message.offset}" if partitions else str(message.offset)
    key = f"[{shown(message.key)}] " if message.key else ""
    return f"{place}  {moment(message.timestamp_ns)}  {key}{shown(message.value)}"


def message_as_json(message: Message) -> dict[str, Any]:
    """Bytes that aren't UTF-8 are in base64, under ``value_base64`` and ``key_base64``; such a header is an object."""
    return {
        "stream": message.stream,
        "partition": message.partition,
        "offset": message.offset,
        "timestamp": moment(message.timestamp_ns),
        "timestamp_ns": message.timestamp_ns,
        "subject": message.subject,
        "reply_subject": message.reply_subject,
        **bytes_entry("key", message.key),
        **bytes_entry("value", message.value),
        "headers": {name: header_value(value) for name, value in message.headers.items()},
    }
