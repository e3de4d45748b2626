"""How values are written on a command line, and what is said of those that are written otherwise."""

import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import click

from liftbridge.client import StartAt, StopAt
from liftbridge.config import parse_duration, parse_seconds, parse_size

_DEFAULT_PORT = 9292
#: What fields of the API hold.
_INT32, _INT64 = 2**31 - 1, 2**63 - 1
_LARGEST_MESSAGE = 2**30
#: What gRPC sends along with a call.
_METADATA_NAME = re.compile(r"[a-z0-9_.\-]+")
_POSITION = "an offset, a time like 2026-01-31T12:00 or an age like 10m"


class _Parsed(click.ParamType):  # type: ignore[type-arg] # generic only in newer versions of Click
    """Texts that ``parse`` understands; what it raises ValueError with is shown. Defaults may be values already."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(f'"{value}" {error}', param, ctx)


def parse_servers(text: str) -> tuple[str, ...]:
    """``a, b:9293``: addresses with ports."""
    servers = tuple(_parse_server(one.strip()) for one in text.split(",") if one.strip())
    if not servers:
        raise ValueError("names no server: write it as host or host:port")
    return servers


def _parse_server(text: str) -> str:
    if "/" in text:
        raise ValueError("is no address: write it as host or host:port, without a scheme")
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return f"{text}:{_DEFAULT_PORT}"
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("is no address: write it as host or host:port")
    return text


def parse_header(text: str) -> tuple[str, bytes]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError("is no header: write it as NAME=VALUE")
    return name, argument_bytes(value)


def argument_bytes(text: str) -> bytes:
    """An argument as it was typed, also where that isn't UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def parse_metadata(text: str) -> tuple[str, str]:
    """What gRPC takes; it would end the process over anything else."""
    name, value = parse_header(text)
    if not _METADATA_NAME.fullmatch(name):
        raise ValueError("can't be sent: its name may have lower case letters, digits, dashes, dots and underscores")
    if name.endswith("-bin") or not all(0x20 <= byte < 0x7F for byte in value):
        raise ValueError("can't be sent: its value may have printable ASCII characters only")
    return name, value.decode()


def parse_timedelta(text: str) -> timedelta:
    try:
        return timedelta(seconds=parse_duration(text))
    except OverflowError:
        raise ValueError("is longer than anything lasts") from None


def parse_bytes(text: str) -> int:
    size = parse_size(text)
    if size > _INT64:
        raise ValueError(f"must be at most {_INT64} bytes")
    return size


def parse_message_size(text: str) -> int:
    """Of a message that is made here."""
    size = parse_size(text)
    if size > _LARGEST_MESSAGE:
        raise ValueError("must be at most 1GiB")
    return size


def whole(least: int, most: int) -> click.ParamType:  # type: ignore[type-arg] # see _Parsed
    """Whole numbers within limits. Click's own type would show ``most`` in every help."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise ValueError(f"must be a whole number from {least} on")
        if number > most:
            raise ValueError(f"must be at most {most}")
        return number

    return _Parsed("number", parse)


def parse_replicas(text: str) -> int:
    """``all`` or a number."""
    if text == "all":
        return -1
    if not text.isdecimal() or not 0 < int(text) <= _INT32:
        raise ValueError('must be a whole number from 1 on, or "all"')
    return int(text)


# --- positions --------------------------------------------------------------------------------------------------------


def parse_start(text: str) -> StartAt:
    """``new``, ``earliest``, ``latest``, an offset, a time or an age."""
    named = {"new": StartAt.new, "earliest": StartAt.earliest, "latest": StartAt.latest}
    if text in named:
        return named[text]()
    if text.isdecimal():
        return StartAt.offset(_offset(text))
    return StartAt.timestamp(_moment_ns(text, f"must be new, earliest, latest, {_POSITION}"))


def parse_stop(text: str) -> StopAt:
    """``latest``, an offset, a time or an age."""
    if text == "latest":
        return StopAt.latest()
    if text.isdecimal():
        return StopAt.offset(_offset(text))
    return StopAt.timestamp(_moment_ns(text, f"must be latest, {_POSITION}"))


def _offset(text: str) -> int:
    if int(text) > _INT64:
        raise ValueError(f"is no offset: there are {_INT64} at most")
    return int(text)


def _moment_ns(text: str, wanted: str) -> int:
    """Nanoseconds since 1970. Times without a zone are local; ages count back from now, to 1970 at most."""
    try:
        age_s = parse_duration(text)
    except ValueError:
        return _time_ns(text, wanted)
    return max(0, time.time_ns() - int(min(age_s, time.time()) * 1e9))


def _time_ns(text: str, wanted: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(wanted) from None
    try:
        moment_ns = int(moment.astimezone().timestamp() * 1e6) * 1000
    except (ValueError, OverflowError):  # near the ends of the calendar
        moment_ns = -1
    if not 0 <= moment_ns <= _INT64:
        raise ValueError("is a time before 1970 or after 2262, which no message has")
    return moment_ns


# --- as Click wants them ----------------------------------------------------------------------------------------------


SERVERS = _Parsed("servers", parse_servers)
HEADER = _Parsed("header", parse_header)
METADATA = _Parsed("metadata", parse_metadata)
SECONDS = _Parsed("seconds", parse_seconds)
DURATION = _Parsed("duration", parse_timedelta)
SIZE = _Parsed("size", parse_bytes)
REPLICAS = _Parsed("replicas", parse_replicas)
START = _Parsed("start", parse_start)
STOP = _Parsed("stop", parse_stop)
MESSAGE_SIZE = _Parsed("size", parse_message_size)
COUNT = whole(1, _INT32)
LONG_COUNT = whole(0, _INT64)
PARTITION = whole(0, _INT32)
OFFSET = whole(0, _INT64)
