"""The commands of clients against a real broker, each as the process that a shell would start."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from broker_process import BrokerProcess, free_port
from cluster_processes import eventually

_PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "use-the-command-line.md"
_LIFTBRIDGE = [sys.executable, "-m", "liftbridge"]
Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    process = BrokerProcess(tmp_path_factory.mktemp("broker") / "data", "--set", "cursors.stream.partitions=2")
    process.start()
    yield process
    process.stop()


@pytest.fixture(autouse=True)
def _cluster(broker: BrokerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFTBRIDGE_SERVERS", broker.address)


def liftbridge(*arguments: str, stdin: bytes = b"") -> Done:
    """A command line that ended, as everything but a bug does: without a traceback."""
    done = subprocess.run([*_LIFTBRIDGE, *arguments], input=stdin, capture_output=True, timeout=60, check=False)
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in err, err
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def ok(*arguments: str, stdin: bytes = b"") -> str:
    done = liftbridge(*arguments, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def refused(code: int, *arguments: str) -> str:
    """What standard error says, without the name that each of its lines begins with."""
    done = liftbridge(*arguments)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    lines = done.stderr.splitlines()
    assert all(line.startswith("liftbridge: ") for line in lines)
    return "\n".join(line.removeprefix("liftbridge: ") for line in lines)


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def values(*arguments: str) -> list[str]:
    return [one["value"] for one in json_lines(ok("subscribe", *arguments, "--json"))]


@pytest.fixture
def stream() -> str:
    name = f"s{uuid4().hex[:8]}"
    ok("stream", "create", name)
    return name


@pytest.fixture
def wide() -> str:
    """A stream of three partitions."""
    name = f"w{uuid4().hex[:8]}"
    ok("stream", "create", name, "--partitions", "3")
    return name


# --- streams ----------------------------------------------------------------------------------------------------------


def test_a_stream_is_created_listed_described_and_deleted() -> None:
    name = f"s{uuid4().hex[:8]}"
    created = ok(
        "stream", "create", name, "--subject", "some.subject", "--partitions", "2", "--retention-max-age", "7d"
    )
    assert created == f"created stream {name} on subject some.subject\n"
    assert name in ok("stream", "list")
    (row,) = [one for one in json.loads(ok("stream", "list", "--json")) if one["name"] == name]
    assert (row["subject"], row["partitions"], row["replicas"], row["state"]) == ("some.subject", 2, 1, [])
    ok("publish", name, "a", "b")
    shown = json.loads(ok("stream", "describe", name, "--json"))
    assert [one["next_offset"] for one in shown["partitions"]] == [2, 0]
    assert [one["committed_offset"] for one in shown["partitions"]] == [2, 0]
    assert {one["leader"] for one in shown["partitions"]} == {"broker"}
    assert "some.subject" in ok("stream", "describe", name)
    assert "say --yes" in refused(2, "stream", "delete", name)
    assert ok("stream", "delete", name, "--yes") == f"deleted stream {name}\n"
    assert name not in ok("stream", "list")


def test_every_option_of_a_stream_reaches_the_broker() -> None:
    name = f"s{uuid4().hex[:8]}"
    options = "--replication-factor all --group g --retention-max-bytes 1GiB --retention-max-messages 5 --min-isr 1"
    options += " --cleaner-interval 1m --segment-max-bytes 1MiB --segment-max-age 1h --compact --auto-pause-time 1h"
    options += " --auto-pause-disable-if-subscribers --optimistic-concurrency --no-encryption"
    ok("stream", "create", name, *options.split())
    ok("publish", name, "0", "--expected-offset", "0")
    assert "incorrect expected offset" in refused(1, "publish", name, "1", "--expected-offset", "5")


def test_a_stream_that_is_there_is_an_error_or_fine(stream: str) -> None:
    assert refused(1, "stream", "create", stream) == f"there is a stream {stream} already"
    assert ok("stream", "create", stream, "--if-not-exists") == f"stream {stream} exists already\n"


def test_the_clusters_own_streams_are_shown_on_demand() -> None:
    assert "__cursors" not in ok("stream", "list")
    assert "__cursors" in ok("stream", "list", "--all")


def test_pausing_and_readonly_show_in_the_list(wide: str) -> None:
    def state() -> list[str]:
        return next(one["state"] for one in json.loads(ok("stream", "list", "--json")) if one["name"] == wide)

    assert ok("stream", "pause", wide, "-p", "1") == f"paused partition 1 of stream {wide}\n"
    assert state() == ["paused in parts"]
    assert json.loads(ok("stream", "describe", wide, "--json"))["partitions"][1]["paused"] is True
    assert ok("stream", "pause", wide, "--resume-all") == f"paused stream {wide}\n"
    assert state() == ["paused"]
    ok("publish", wide, "x")
    assert state() == []
    assert ok("stream", "readonly", wide) == f"stream {wide} is readonly\n"
    assert state() == ["readonly"]
    assert refused(1, "publish", wide, "x") == "message 1: readonly partition: 0"
    assert ok("stream", "readonly", wide, "--off") == f"stream {wide} takes messages again\n"
    assert ok("publish", wide, "x") == "partition 0, offset 1\n"


# --- publishing -------------------------------------------------------------------------------------------------------


def test_arguments_are_messages_with_a_key_and_headers(stream: str) -> None:
    published = ok("publish", stream, "a", "b", "--key", "k", "-H", "h=1", "-H", "e=", "--ack", "all")
    assert published == "partition 0, offset 0\npartition 0, offset 1\n"
    first, second = json_lines(ok("subscribe", stream, "--no-follow", "--json"))
    assert (first["offset"], first["key"], first["value"], first["headers"]) == (0, "k", "a", {"h": "1", "e": ""})
    assert (first["stream"], first["partition"], first["subject"]) == (stream, 0, stream)
    assert second["value"] == "b"


def test_what_is_typed_in_another_character_set_is_kept_in_messages_and_refused_in_names(stream: str) -> None:
    latin = "f\udcfcr"  # an argument that isn't UTF-8, as Python has it
    ok("publish", stream, latin, "--key", latin, "--header", f"h={latin}", "--quiet")
    ok("publish", stream, "--key-separator", "\udcff", "--quiet", stdin=b"k\xffv")
    first, second = json_lines(ok("subscribe", stream, "--no-follow", "--json", "--partition", "0"))
    assert (first["key_base64"], first["value_base64"], first["headers"]["h"]) == ("Zvxy", "Zvxy", {"base64": "Zvxy"})
    assert (second["key"], second["value"]) == ("k", "v")
    for command in (
        ["stream", "create", latin],
        ["group", "show", latin],
        ["publish", stream, "-H", f"{latin}=1", "v"],
    ):
        assert refused(2, *command) == '"f\\udcfcr" isn\'t UTF-8, and names have to be'


def test_lines_of_standard_input_are_messages(stream: str) -> None:
    published = json_lines(ok("publish", stream, "--json", stdin=b"one\ntwo\r\n\nlast"))
    assert published == [{"stream": stream, "partition": 0, "offset": offset} for offset in range(4)]
    assert values(stream, "--no-follow") == ["one", "two", "", "last"]


def test_many_lines_keep_their_order(stream: str) -> None:
    lines = [f"line {number}" for number in range(5_000)]
    assert ok("publish", stream, "--quiet", stdin="\n".join(lines).encode()) == ""
    assert ok("subscribe", stream, "--no-follow", "--raw").splitlines() == lines


def test_files_are_messages_whole(stream: str, tmp_path: Path) -> None:
    file = tmp_path / "binary"
    file.write_bytes(b"\x00\xff\nend\n")
    ok("publish", stream, "--file", str(file), "--file", "-", stdin=b"two\nlines")
    first, second = json_lines(ok("subscribe", stream, "--no-follow", "--json"))
    assert first["value_base64"] == "AP8KZW5kCg=="
    assert second["value"] == "two\nlines"


def test_a_file_that_no_server_reads_is_refused_for_sure(stream: str, tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(bytes(5_000_000))
    said = refused(2, "publish", stream, "--file", str(file))
    assert "reads no request that large" in said
    assert "may be stored" not in said


def test_what_never_ends_is_refused_and_what_came_before_is_stored(stream: str) -> None:
    said = refused(2, "publish", stream, "--file", "/dev/zero", "--max-size", "3MiB")
    assert said.startswith("/dev/zero is larger than 3MiB")
    done = liftbridge("publish", stream, "--max-size", "10", stdin=b"one\ntwo\n" + b"x" * 11)
    assert (done.returncode, done.stdout) == (2, "partition 0, offset 0\npartition 0, offset 1\n")
    assert done.stderr.startswith("liftbridge: line 3 of the standard input is larger than 10")
    assert values(stream, "--no-follow") == ["one", "two"]


def test_a_key_decides_the_partition(wide: str) -> None:
    published = json_lines(ok("publish", wide, "--key-separator", ":", "--json", stdin=b"a:1\nb:2\na:3\nnone"))
    partitions = [one["partition"] for one in published]
    assert partitions[0] == partitions[2]
    assert partitions[3] == 0
    shown = {one["value"]: one for one in json_lines(ok("subscribe", wide, "--no-follow", "--json"))}
    assert {value: one["key"] for value, one in shown.items()} == {"1": "a", "2": "b", "3": "a", "none": ""}
    assert [shown[value]["partition"] for value in ("1", "2", "3", "none")] == partitions


def test_partitions_by_number_and_in_turn(wide: str) -> None:
    assert ok("publish", wide, "x", "-p", "2") == "partition 2, offset 0\n"
    published = json_lines(ok("publish", wide, "a", "b", "c", "d", "--round-robin", "--json"))
    assert [one["partition"] for one in published] == [0, 1, 2, 0]


def test_without_acks_nothing_is_said_of_offsets(stream: str) -> None:
    assert ok("publish", stream, "a", "--ack", "none") == ""
    assert json_lines(ok("publish", stream, "b", "--ack", "none", "--json"))[0]["offset"] is None
    assert values(stream, "--from", "earliest", "--count", "2") == ["a", "b"]


def test_the_first_message_that_fails_ends_a_publish(stream: str) -> None:
    ok("stream", "readonly", stream)
    done = liftbridge("publish", stream, stdin=b"x\n" * 20_000)
    assert done.returncode == 1
    assert done.stderr == "liftbridge: message 1: readonly partition: 0\n"


def test_contradictions_are_usage_errors(stream: str, tmp_path: Path) -> None:
    file = str(tmp_path)
    assert "is a directory" in refused(2, "publish", stream, "--file", file)
    for arguments, said in (
        (("publish", stream, "v", "--file", "-"), "not both"),
        (("publish", stream, "v", "-p", "0", "--round-robin"), "contradict"),
        (("publish", stream, "v", "--key-separator", ":"), "standard input"),
        (("publish", stream, "v", "w", "--expected-offset", "0"), "single message"),
        (("subscribe", stream, "--raw", "--json"), "contradict"),
        (("subscribe", stream, "--reverse", "--no-follow"), "oldest"),
        (("subscribe", stream, "--until", "3", "--follow"), "--until"),
    ):
        assert said in refused(2, *arguments)


# --- subscribing ------------------------------------------------------------------------------------------------------


def test_positions(stream: str) -> None:
    ok("publish", stream, *"abcde")
    assert values(stream, "--from", "2", "--until", "3") == ["c", "d"]
    assert values(stream, "--from", "earliest", "--until", "latest") == list("abcde")
    assert values(stream, "--from", "1", "--until", "2", "--no-follow") == ["b", "c"]
    assert values(stream, "--from", "latest", "--count", "1") == ["e"]
    assert values(stream, "--from", "10m", "--count", "3") == ["a", "b", "c"]
    assert values(stream, "--reverse") == list("edcba")
    assert values(stream, "--reverse", "--from", "1", "--isr") == ["b", "a"]
    moment = json_lines(ok("subscribe", stream, "--from", "3", "--count", "1", "--json"))[0]["timestamp"]
    assert "d" in values(stream, "--from", moment, "--until", "latest")


def test_an_empty_stream_has_nothing_and_ends(stream: str) -> None:
    assert ok("subscribe", stream, "--no-follow") == ""


def test_a_partition_that_ends_before_the_start_has_nothing_and_the_others_are_shown(wide: str) -> None:
    ok("publish", wide, *"abc", "-p", "1")
    assert values(wide, "--from", "2", "--no-follow") == ["c"]
    assert values(wide, "--from", "2", "--until", "latest") == ["c"]
    assert "is before start offset" in refused(2, "subscribe", wide, "-p", "1", "--from", "2", "--until", "1")


def test_people_get_lines_that_name_the_place(wide: str) -> None:
    ok("publish", wide, "a\x1bb", "-p", "1", "--key", "k")
    (line,) = ok("subscribe", wide, "--no-follow").splitlines()
    assert re.fullmatch(r"1:0  \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z  \[k\] a\\x1bb", line)


def test_a_paused_partition_is_an_error_unless_it_is_resumed(stream: str) -> None:
    ok("publish", stream, "a")
    ok("stream", "pause", stream)
    assert "is paused" in refused(1, "subscribe", stream, "--from", "earliest")
    assert values(stream, "--from", "earliest", "--count", "1", "--resume") == ["a"]


def following(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*_LIFTBRIDGE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def next_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize("command", [("subscribe",), ("group", "consume", "ctrl-c")], ids=["subscribe", "consume"])
def test_ctrl_c_ends_following_without_a_traceback(stream: str, command: Sequence[str]) -> None:
    process = following(*command, stream, "--from", "earliest")
    for value in ("one", "two"):
        ok("publish", stream, value)
        assert next_line(process).endswith(f"  {value}\n")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, "", "")


def test_sigterm_ends_a_command_as_ctrl_c_does_and_it_cleans_up(stream: str) -> None:
    member = following("group", "consume", "sigterm", stream, "--from", "earliest")
    ok("publish", stream, "one")
    assert next_line(member).endswith("  one\n")
    member.terminate()
    out, err = member.communicate(timeout=20)
    assert (member.returncode, out, err) == (143, "", "")
    assert "there is no consumer group sigterm" in refused(5, "group", "show", "sigterm"), "it left"
    bench = following("bench", "--messages", "100000000")
    eventually(lambda: "bench-" in ok("stream", "list"))
    bench.terminate()
    bench.communicate(timeout=20)
    assert bench.returncode == 143
    assert "bench-" not in ok("stream", "list")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["stream list", "publish {0}", "plugins"])
def test_closed_standard_streams_are_empty_or_lose_what_is_written(stream: str, closed: str, command: str) -> None:
    script = f'"$@" {closed}; echo "$?" >&3'
    read, write = os.pipe()
    process = subprocess.Popen(
        ["bash", "-c", script.replace(">&3", f">&{write}"), "sh", *_LIFTBRIDGE, *command.format(stream).split()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=[write],
    )
    os.close(write)
    assert process.communicate(timeout=60)[1] == b""
    with os.fdopen(read) as codes:
        assert codes.read() == "0\n"


def test_what_the_terminal_has_no_characters_for_is_escaped(stream: str) -> None:
    ok("publish", stream, "é")
    for encoding, options, shown in (
        ("ascii", ["--json"], b'"value": "\\u00e9"'),
        ("ascii", [], b"  \\xe9\n"),
        ("utf-8", ["--json"], '"value": "é"'.encode()),
    ):
        done = subprocess.run(
            [*_LIFTBRIDGE, "subscribe", stream, "--no-follow", *options],
            env=os.environ | {"PYTHONIOENCODING": encoding},
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert shown in done.stdout


def test_a_full_disk_is_said_of_the_output() -> None:
    with open("/dev/full", "w") as full:
        for command in (["stream", "list"], ["stream", "list", "--json"], ["config", "show"], ["plugins"]):
            done = subprocess.run([*_LIFTBRIDGE, *command], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
            assert (done.returncode, done.stderr) == (1, "liftbridge: No space left on device\n")


def test_ctrl_c_ends_a_publish_that_waits_for_lines(stream: str) -> None:
    process = subprocess.Popen(
        [*_LIFTBRIDGE, "publish", stream],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write("one\n")
    process.stdin.flush()
    assert next_line(process) == "partition 0, offset 0\n", "an ack is shown before the next line comes"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, "", "")


def test_ctrl_c_ends_a_publish_that_waits_for_a_file(stream: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [*_LIFTBRIDGE, "publish", stream, "--file", str(pipe)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with pipe.open("wb"):  # it reads
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20) == (b"", b"")
    assert process.returncode == 130


def test_a_reader_that_goes_away_ends_it_quietly(stream: str) -> None:
    ok("publish", stream, "--quiet", stdin=b"some value\n" * 5_000)
    script = '"$@" | head -1; echo "${PIPESTATUS[0]}"'
    for command in (["subscribe", stream, "--no-follow"], ["subscribe", stream, "--no-follow", "--raw"]):
        done = subprocess.run(
            ["bash", "-c", script, "sh", *_LIFTBRIDGE, *command],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        line, code = done.stdout.splitlines()
        assert line.endswith("some value")
        assert (code, done.stderr) == ("141", "")


def _consume(address: str, stream: str) -> "subprocess.Popen[str]":
    """A member that has shown one message."""
    process = subprocess.Popen(
        [*_LIFTBRIDGE, "group", "consume", "readers", stream, "--from", "earliest", "--raw", "--server", address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert next_line(process) == "one\n"
    return process


def test_a_member_of_a_group_says_that_servers_are_away_and_goes_on(new_broker: BrokerProcess) -> None:
    new_broker.arguments += ["--set", "cursors.stream.partitions=1"]
    new_broker.start()
    ok("stream", "create", "letters", "--server", new_broker.address)
    ok("publish", "letters", "one", "--quiet", "--server", new_broker.address)
    process = _consume(new_broker.address, "letters")
    assert process.stderr is not None
    new_broker.kill()
    said = process.stderr.readline()
    assert re.match(r"liftbridge: consumer group readers: .* failing for \d+ s, and tried on: .*\n", said)
    new_broker.start()
    ok("publish", "letters", "two", "--quiet", "--server", new_broker.address)
    assert next_line(process) == "two\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "works again after" in err


def test_a_member_whose_stream_is_deleted_ends_with_an_error(broker: BrokerProcess, stream: str) -> None:
    ok("publish", stream, "one", "--quiet")
    process = _consume(broker.address, stream)
    ok("stream", "delete", stream, "--yes")
    _, err = process.communicate(timeout=30)
    assert err == f"liftbridge: consumer group readers: deleted, so there is nothing to read: {stream}\n"
    assert process.returncode == 5


# --- groups and cursors -----------------------------------------------------------------------------------------------


def test_a_group_goes_on_where_its_last_member_ended(wide: str) -> None:
    group = f"g{uuid4().hex[:8]}"
    ok("publish", wide, *"abc", "-p", "1")
    consumed = json_lines(ok("group", "consume", group, wide, "--from", "earliest", "--count", "2", "--json"))
    assert [one["value"] for one in consumed] == ["a", "b"]
    assert ok("group", "consume", group, wide, "--count", "1", "--raw") == "c\n"


def test_a_group_with_a_member_is_shown(broker: BrokerProcess, stream: str) -> None:
    group = f"g{uuid4().hex[:8]}"
    ok("publish", stream, "a")
    assert f"there is no consumer group {group}" in refused(5, "group", "show", group)
    process = following("group", "consume", group, stream, "--from", "earliest", "--consumer-id", "me")
    try:
        assert next_line(process).endswith("a\n")
        (shown,) = json.loads(ok("group", "show", group, "--json"))
        assert (shown["group"], shown["coordinator"], shown["address"]) == (group, "broker", broker.address)
        assert isinstance(shown["epoch"], int)
        assert broker.address in ok("group", "show", group)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)


def test_cursors_are_set_and_got(wide: str) -> None:
    assert "never set" in refused(5, "cursor", "get", "c", wide)
    assert ok("cursor", "set", "c", wide, "7", "-p", "2") == f"cursor c of partition 2 of stream {wide} is at 7\n"
    assert ok("cursor", "get", "c", wide, "-p", "2") == "7\n"
    shown = json.loads(ok("cursor", "get", "c", wide, "-p", "2", "--json"))
    assert shown == {"cursor": "c", "stream": wide, "partition": 2, "offset": 7}


def test_a_cursor_of_what_is_not_there_says_so(wide: str) -> None:
    assert refused(5, "cursor", "get", "c", wide) == f"cursor c was never set for partition 0 of stream {wide}"
    assert "its partitions are 0 to 2" in refused(5, "cursor", "get", "c", wide, "--partition", "9")
    assert "there is no stream absent" in refused(5, "cursor", "get", "c", "absent")


def test_a_cluster_without_cursors_says_how_to_get_them(new_broker: BrokerProcess) -> None:
    new_broker.start()
    ok("stream", "create", "s", "--server", new_broker.address)
    said = refused(1, "cursor", "set", "c", "s", "1", "--server", new_broker.address)
    assert "set cursors.stream.partitions" in said
    said = refused(1, "group", "consume", "g", "s", "--server", new_broker.address)
    assert "set cursors.stream.partitions" in said


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_bench_measures_and_leaves_nothing_behind() -> None:
    published, read = json.loads(ok("bench", "--messages", "500", "--size", "1KiB", "--in-flight", "10", "--json"))
    assert (published["name"], published["messages"], read["name"]) == ("publish", 500, "subscribe")
    assert 0 < published["p50_ms"] <= published["p99_ms"] <= published["max_ms"] <= published["seconds"] * 1e3
    assert published["messages_per_s"] == pytest.approx(500 / published["seconds"], rel=0.02)
    assert read["p50_ms"] is None
    assert "p99.9 ms" in ok("bench", "--messages", "10")
    assert not any(one["name"].startswith("bench-") for one in json.loads(ok("stream", "list", "--json")))


def test_bench_says_what_it_left_behind_and_why_it_ended(new_broker: BrokerProcess) -> None:
    new_broker.start()
    bench = following("bench", "--messages", "100000000", "--server", new_broker.address, "--timeout", "500ms")
    eventually(lambda: "bench-" in ok("stream", "list", "--server", new_broker.address))
    new_broker.kill()
    _, err = bench.communicate(timeout=60)
    assert bench.returncode == 4
    left, ended = err.splitlines()
    assert re.fullmatch(
        r"liftbridge: stream (bench-\w+) is left behind \(.*\): 'liftbridge stream delete \1' deletes it", left
    )
    assert ended.startswith("liftbridge: ")


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="there is no IPv6 here")
def test_a_server_with_an_ipv6_address_is_reached_at_it(tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path / "data", "--host", "::1")
    broker.launch()
    try:
        server = ("--server", f"[::1]:{broker.port}")
        ok("stream", "create", "s", "--timeout", "20", *server)
        ok("publish", "s", "v", *server)
        assert values("s", "--no-follow", *server) == ["v"]
        assert f"Serving clients on [::1]:{broker.port}" in broker.log()
    finally:
        broker.stop()


def test_bench_with_a_stream_that_is_there_keeps_it(stream: str) -> None:
    ok("publish", stream, "before")
    ok("bench", "--stream", stream, "--messages", "10", "--ack", "all")
    assert len(json_lines(ok("subscribe", stream, "--no-follow", "--json"))) == 11


UNKNOWN = [
    "stream describe {0}",
    "stream delete {0} --yes",
    "stream pause {0}",
    "stream readonly {0}",
    "publish {0} v",
    "subscribe {0}",
    "group consume g {0}",
    "cursor set c {0} 1",
    "bench --stream {0}",
]


def test_an_unknown_stream_is_told_what_streams_there_are(stream: str) -> None:
    typed = stream[:-1]
    for command in UNKNOWN:
        said = refused(5, *command.format(typed).split())
        assert said.startswith(f"there is no stream {typed} (did you mean {stream}?); there are: ")


def test_an_unknown_partition_is_told_which_there_are(wide: str) -> None:
    for command in ("publish {0} v -p 3", "subscribe {0} -p 3", "stream pause {0} -p 3", "cursor set c {0} 1 -p 3"):
        said = refused(5, *command.format(wide).split())
        assert said == f"stream {wide} has no partition 3: its partitions are 0 to 2"


def test_publishing_waits_as_long_as_it_is_told(new_broker: BrokerProcess) -> None:
    new_broker.start()
    server = ("--server", new_broker.address)
    ok("stream", "create", "s", *server)
    process = subprocess.Popen(
        [*_LIFTBRIDGE, "publish", "s", "--timeout", "500ms", *server],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write("one\n")
    process.stdin.flush()
    assert next_line(process) == "partition 0, offset 0\n"
    os.kill(new_broker.pid, signal.SIGSTOP)
    _, err = process.communicate("two\n", timeout=20)
    os.kill(new_broker.pid, signal.SIGCONT)
    assert err == f"liftbridge: message 2: no ack from {new_broker.address} in 0.5 s; the message may be stored\n"
    assert process.returncode == 4


def test_no_server_there() -> None:
    address = f"127.0.0.1:{free_port()}"
    said = refused(4, "publish", "s", "v", "--server", address, "--timeout", "500ms")
    assert said.startswith(f"no server answers at {address} (tried for 0.5 s)\n")


def test_one_server_that_answers_is_enough(broker: BrokerProcess) -> None:
    ok("stream", "list", "--server", f"127.0.0.1:{free_port()},{broker.address}")


def test_tls_to_a_server_without_is_said(broker: BrokerProcess) -> None:
    assert "does it speak TLS" in refused(4, "stream", "list", "--tls", "--timeout", "1")


def test_the_names_of_streams_are_completed(stream: str) -> None:
    def completed(incomplete: str) -> str:
        environment = os.environ | {
            "_LIFTBRIDGE_COMPLETE": "bash_complete",
            "COMP_WORDS": f"liftbridge stream describe {incomplete}",
            "COMP_CWORD": "3",
        }
        done = subprocess.run(_LIFTBRIDGE, env=environment, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout

    assert completed(stream[:-2]) == f"plain,{stream}\n"
    assert "__" not in completed("")
    assert completed("__c") == "plain,__cursors\n"


def test_a_person_is_asked_before_a_stream_is_deleted(stream: str) -> None:
    master, slave = pty.openpty()
    for answer, code in ((b"n\n", 1), (b"y\n", 0)):
        process = subprocess.Popen(
            [*_LIFTBRIDGE, "stream", "delete", stream], stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        os.write(master, answer)
        shown = process.communicate(timeout=60)[0].decode()
        assert f"Delete {stream} with all messages?" in shown
        assert process.returncode == code, shown
    os.close(master)
    os.close(slave)
    refused(5, "stream", "describe", stream)


def test_the_commands_of_the_how_to_do_what_it_says(broker: BrokerProcess, tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", _PAGE.read_text(), re.MULTILINE | re.DOTALL)
    script = "".join(blocks).replace("localhost:9292", broker.address).replace("/etc/hostname", str(_PAGE))
    script = f'set -e -o pipefail\nliftbridge() {{ "{sys.executable}" -m liftbridge "$@"; }}\n{script}'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for text in (
        "created stream weather on subject weather.readings",
        "[rome] 20.5",
        "[oslo] 3.2",
        "deleted stream weather",
    ):
        assert text in done.stdout
    assert "\n1\n" in done.stdout, "the cursor"
