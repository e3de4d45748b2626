"""The commands of clients without a cluster: how values are written, answers shown, and command lines end."""

import json
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liftbridge import cli
from liftbridge.cli.bench import measured, percentile
from liftbridge.cli.connection import unknown_stream
from liftbridge.cli.display import message_as_json, message_line, printable
from liftbridge.cli.entry import run
from liftbridge.cli.exits import Exit, exit_of_client_error, exit_of_server_error
from liftbridge.cli.reading import chunks_of, lines_of, whole
from liftbridge.cli.values import parse_header, parse_replicas, parse_seconds, parse_servers, parse_start, parse_stop
from liftbridge.client import Message, StartAt, StopAt
from liftbridge.errors import ConfigError, DeadlineExceeded, InvalidRequest, NotFound, PluginError, Unavailable

# --- values -----------------------------------------------------------------------------------------------------------


def test_servers_get_the_default_port() -> None:
    assert parse_servers("a, b:1,,[::1],[::1]:7") == ("a:9292", "b:1", "[::1]:9292", "[::1]:7")


@pytest.mark.parametrize("text", ["", ",", "a:b", "a:0", "a:65536", ":1"])
def test_what_is_no_server_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="host"):
        parse_servers(text)


def test_positions_are_names_offsets_times_and_ages() -> None:
    assert parse_start("earliest") == StartAt.earliest()
    assert parse_start("7") == StartAt.offset(7)
    assert parse_stop("latest") == StopAt.latest()
    assert parse_stop("7") == StopAt.offset(7)
    moment = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert parse_start("2026-01-31T12:00Z") == StartAt.timestamp(moment)
    assert parse_stop("2026-01-31 13:00+01:00") == StopAt.timestamp(moment)
    assert parse_start("2026-01-31T12:00") == StartAt.timestamp(datetime(2026, 1, 31, 12).astimezone())
    before_ns = time.time_ns()
    assert parse_start("99999999w") == StartAt.timestamp(0)
    assert before_ns - 600e9 <= parse_start("10m").start_timestamp_ns <= time.time_ns() - 600e9


@pytest.mark.parametrize("parse", [parse_start, parse_stop])
@pytest.mark.parametrize("text", ["", "tomorrow", "-1", "1.5", "10 apples"])
def test_what_is_no_position_is_told_what_would_be(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(ValueError, match=r"must be .*latest, an offset, a time"):
        parse(text)


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_seconds, "2.5", 2.5),
        (parse_seconds, "500ms", 0.5),
        (parse_seconds, "1e30", 604_800.0),
        (parse_replicas, "all", -1),
        (parse_replicas, "3", 3),
        (parse_header, "a=b=c", ("a", b"b=c")),
    ],
)
def test_other_values(parse: Callable[[str], object], text: str, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [(parse_seconds, one) for one in ("0", "-1", "inf", "nan", "soon")]
    + [(parse_replicas, one) for one in ("0", "-1", "some")]
    + [(parse_header, one) for one in ("a", "=b")],
)
def test_other_values_that_make_no_sense(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(ValueError, match=r"must|write it as"):
        parse(text)


async def _chunks(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@given(st.lists(st.binary().filter(lambda line: not set(line) & set(b"\n\r"))), st.integers(1, 9), st.booleans())
async def test_lines_are_the_same_however_they_arrive(lines: list[bytes], size: int, ended: bool) -> None:
    data = b"".join(line + b"\n" for line in lines)
    if not ended:
        data, lines = data.removesuffix(b"\n"), lines[:-1] + [one for one in lines[-1:] if one]
    assert [line async for line in lines_of(_chunks(data, size), 1000)] == lines


async def test_a_line_without_an_end_is_refused_when_it_is_too_long() -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"short\nlonger "
        while True:
            yield b"x" * 10

    lines = lines_of(endless(), 40)
    assert await anext(lines) == b"short"
    with pytest.raises(InvalidRequest, match=r"^line 2 of the standard input is larger than 40"):
        await anext(lines)


async def test_a_line_may_be_as_long_as_is_said() -> None:
    assert [line async for line in lines_of(_chunks(b"1234\n1234", 9), 4)] == [b"1234", b"1234"]
    with pytest.raises(InvalidRequest, match="line 1 of"):
        await anext(lines_of(_chunks(b"12345\n", 9), 4))


async def test_an_endless_file_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"^/dev/zero is larger than 1MiB"):
        await whole(chunks_of(Path("/dev/zero")), "/dev/zero", 1 << 20)
    assert await whole(chunks_of(Path("/dev/null")), "/dev/null", 1) == b""


async def test_lines_from_windows_are_lines() -> None:
    assert [line async for line in lines_of(_chunks(b"a\r\nb\r\n\r\n", 2), 9)] == [b"a", b"b", b""]


# --- answers ----------------------------------------------------------------------------------------------------------


def message(**more: Any) -> Message:
    fields = {"offset": 3, "value": b"v", "key": b"", "timestamp_ns": 1_500_000_000, "stream": "s", "partition": 1}
    return Message(**{**fields, "subject": "s", "reply_subject": "", "headers": {}, **more})


def test_a_message_for_people_does_nothing_to_their_terminal() -> None:
    shown = message_line(message(value=b"\x1b[2J\n\xff", key="é".encode()), partitions=True)
    assert shown == "1:3  1970-01-01T00:00:01.500Z  [é] \\x1b[2J\\n\\xff"
    assert message_line(message(), partitions=False) == "3  1970-01-01T00:00:01.500Z  v"


@given(st.text())
def test_printable_text_is_printable(text: str) -> None:
    assert printable(text).isprintable()


@given(st.binary(), st.binary(), st.binary())
def test_a_message_for_programs_loses_nothing(key: bytes, value: bytes, header: bytes) -> None:
    import base64

    shown = json.loads(json.dumps(message_as_json(message(key=key, value=value, headers={"h": header}))))
    for name, data in (("key", key), ("value", value)):
        assert (f"{name}_base64" in shown) != (name in shown)
        back = base64.b64decode(shown[f"{name}_base64"]) if f"{name}_base64" in shown else shown[name].encode()
        assert back == data
    written = shown["headers"]["h"]
    assert (written.encode() if isinstance(written, str) else base64.b64decode(written["base64"])) == header


def test_an_unknown_stream_is_told_of_the_known_ones() -> None:
    assert unknown_stream("wether", ["__cursors", "a", "weather"]) == (
        "there is no stream wether (did you mean weather?); there are: a, weather"
    )
    assert "create it with 'liftbridge stream create x'" in unknown_stream("x", ["__cursors"])
    assert unknown_stream("x", [f"stream{number}" for number in range(12)]).endswith("stream9 and 2 more")


def test_percentiles_are_measured_values() -> None:
    ordered = [float(number) for number in range(1, 101)]
    assert [percentile(ordered, percent) for percent in (0, 50, 99, 99.9, 100)] == [1, 50, 99, 100, 100]
    assert percentile([7.0], 50) == 7.0


def test_a_measurement_knows_rates_and_latencies() -> None:
    phase = measured("publish", 1000, 500, 2.0, [0.001, 0.002])
    assert (phase.messages_per_s, phase.megabytes_per_s, phase.p50_ms, phase.max_ms) == (500, 0.25, 1.0, 2.0)
    assert measured("subscribe", 1, 1, 1.0, []).p50_ms is None


# --- ends -------------------------------------------------------------------------------------------------------------


def test_exit_codes_of_errors() -> None:
    errors = [ConfigError(), InvalidRequest(), NotFound(), Unavailable(), DeadlineExceeded(), OSError()]
    assert [int(exit_of_client_error(error)) for error in errors] == [2, 2, 5, 4, 4, 1]
    assert [int(exit_of_server_error(error)) for error in (ConfigError(), PluginError(), Unavailable())] == [2, 2, 1]


WRONG = [
    ("stream describe", "Missing argument 'STREAM'"),
    ("stream create s --partitions 0", '"0" must be a whole number from 1 on'),
    ("stream create s --retention-max-age 7", '"7" must be a duration with a unit'),
    ("stream create s --retention-max-bytes lots", '"lots" must be a size'),
    ("stream create s --replication-factor some", 'or "all"'),
    ("stream nope", "No such command 'nope'"),
    ("publish s --nope", "No such option '--nope'"),
    ("publish s v --ack maybe", "'maybe' is not one of 'leader', 'all', 'none'"),
    ("publish s v --header h", '"h" is no header'),
    ("publish s --file missing", "'missing' does not exist"),
    ("subscribe s --from tomorrow", "must be new, earliest, latest, an offset"),
    ("subscribe s --count 0", "must be a whole number from 1 on"),
    ("subscribe s --count 99999999999", "must be at most 2147483647"),
    ("subscribe s --from 99999999999999999999", "is no offset: there are 9223372036854775807 at most"),
    ("subscribe s --until 9999-12-31", "is a time before 1970 or after 2262"),
    ("subscribe s --from 0001-01-01", "is a time before 1970 or after 2262"),
    ("stream create s --partitions 99999999999", "must be at most 2147483647"),
    ("stream create s --replication-factor 99999999999", "must be a whole number from 1 on"),
    ("stream create s --retention-max-age 99999999999w", "is longer than anything lasts"),
    ("stream create s --retention-max-bytes 99999999999TB", "must be at most 9223372036854775807 bytes"),
    ("stream create s --retention-max-messages 99999999999999999999", "must be at most 9223372036854775807"),
    ("publish s v --expected-offset 99999999999999999999", "must be at most 9223372036854775807"),
    ("cursor set c s 99999999999999999999", "must be at most 9223372036854775807"),
    ("bench --size 10TB", "must be at most 1GiB"),
    ("stream list --call-metadata Name=v", "its name may have lower case letters"),
    ("stream list --call-metadata name=ü", "its value may have printable ASCII characters only"),
    ("stream list --server http://host:9292", "without a scheme"),
    ("cursor set c s many", '"many" must be a whole number from 0 on'),
    ("bench --size big", '"big" must be a size'),
    ("stream list --timeout 0", "must be more than 0 seconds"),
    ("stream list --server a:b", '"a:b" is no address'),
    ("stream list --tls-cert missing", "does not exist"),
    ("completion tcsh", "'tcsh' is not one of"),
    ("completion", "Choose from: bash, zsh, fish"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_what_is_typed_wrong_is_said_without_asking_a_server(
    arguments: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments.split()) == Exit.USAGE
    shown = capsys.readouterr()
    assert shown.out == ""
    first, second = shown.err.splitlines()
    assert first.startswith("liftbridge: ")
    assert said in first
    command = " ".join(
        word for word in arguments.split()[:2] if word in ("stream", "cursor", "describe", "create", "list")
    )
    assert second.startswith(f"liftbridge: try 'liftbridge {command}")


def test_no_server_is_said_with_what_to_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["stream", "list", "--server", "127.0.0.1:1", "--timeout", "0.2"]) == Exit.UNREACHABLE
    first, second = capsys.readouterr().err.splitlines()
    assert first == "liftbridge: no server answers at 127.0.0.1:1 (tried for 0.2 s)"
    assert "is one running there" in second
    assert "LIFTBRIDGE_SERVERS" in second


@pytest.mark.parametrize("command", ["stream", "stream create", "publish", "subscribe", "group consume", "bench"])
def test_help_of_client_commands(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command.split(), "--help"]) == 0
    assert f"Usage: liftbridge {command}" in capsys.readouterr().out


def test_a_group_without_an_action_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["stream"]) == Exit.USAGE
    assert capsys.readouterr().err.startswith("Usage: liftbridge stream")


# --- completion -------------------------------------------------------------------------------------------------------


def completed(words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    monkeypatch.setenv("_LIFTBRIDGE_COMPLETE", "bash_complete")
    monkeypatch.setenv("LIFTBRIDGE_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 0
    return [line.partition(",")[2] for line in capsys.readouterr().out.splitlines() if line]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("liftbridge se", ["serve"]),
        ("liftbridge s", ["serve", "stream", "subscribe"]),
        ("liftbridge cluster ", ["drain", "remove", "status", "transfer-leader"]),
        ("liftbridge serve --raft", ["--raft-bootstrap-seed", "--raft-bootstrap-peers"]),
        ("liftbridge config ", ["check", "show"]),
        ("liftbridge stream de", ["delete", "describe"]),
        ("liftbridge publish s v --ack ", ["leader", "all", "none"]),
        ("liftbridge stream describe ", []),
    ],
)
def test_shells_complete_every_command(
    words: str, found: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sorted(completed(words, monkeypatch, capsys)) == sorted(found)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_asks_us(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert f"_LIFTBRIDGE_COMPLETE={shell}_complete" in capsys.readouterr().out
