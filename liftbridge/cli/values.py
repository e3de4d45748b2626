"""How values are written on a command line, and what is said of those that are written otherwise."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import click

from liftbridge.client import StartAt, StopAt
from liftbridge.config import parse_duration, parse_size

_DEFAULT_PORT = 9292
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
    return name, value.encode()


def parse_seconds(text: str) -> float:
    """``2.5`` or ``500ms``; more than nothing."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = parse_duration(text)
    if not 0 < seconds < float("inf"):
        raise ValueError("must be more than 0 seconds")
    return seconds


def parse_timedelta(text: str) -> timedelta:
    return timedelta(seconds=parse_duration(text))


def parse_replicas(text: str) -> int:
    """``all`` or a number."""
    if text == "all":
        return -1
    if not text.isdecimal() or int(text) == 0:
        raise ValueError('must be a whole number from 1 on, or "all"')
    return int(text)


# --- positions --------------------------------------------------------------------------------------------------------


def parse_start(text: str) -> StartAt:
    """``new``, ``earliest``, ``latest``, an offset, a time or an age."""
    named = {"new": StartAt.new, "earliest": StartAt.earliest, "latest": StartAt.latest}
    if text in named:
        return named[text]()
    if text.isdecimal():
        return StartAt.offset(int(text))
    return StartAt.timestamp(_moment_ns(text, f"must be new, earliest, latest, {_POSITION}"))


def parse_stop(text: str) -> StopAt:
    """``latest``, an offset, a time or an age."""
    if text == "latest":
        return StopAt.latest()
    if text.isdecimal():
        return StopAt.offset(int(text))
    return StopAt.timestamp(_moment_ns(text, f"must be latest, {_POSITION}"))


def _moment_ns(text: str, wanted: str) -> int:
    """Nanoseconds since 1970. Times without a zone are local; ages count back from now."""
    try:
        return time.time_ns() - int(parse_duration(text) * 1e9)
    except ValueError:
        pass
    try:
        return int(datetime.fromisoformat(text).astimezone().timestamp() * 1e6) * 1000
    except (ValueError, OverflowError):
        raise ValueError(wanted) from None


# --- as Click wants them ----------------------------------------------------------------------------------------------


SERVERS = _Parsed("servers", parse_servers)
HEADER = _Parsed("header", parse_header)
SECONDS = _Parsed("seconds", parse_seconds)
DURATION = _Parsed("duration", parse_timedelta)
SIZE = _Parsed("size", parse_size)
REPLICAS = _Parsed("replicas", parse_replicas)
START = _Parsed("start", parse_start)
STOP = _Parsed("stop", parse_stop)
