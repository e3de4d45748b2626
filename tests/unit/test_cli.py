"""The command line: flags become settings, errors are lines, and exit codes say whose fault it is."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from liftbridge import cli
from liftbridge.cli import operators
from liftbridge.config import Settings
from liftbridge.errors import TransportError
from liftbridge.interfaces.log import LogSettings
from liftbridge.interfaces.provider import Seam
from liftbridge.protocol.record_batch import encode_batch
from liftbridge.protocol.record_encoding import encode_record, encode_trailer
from liftbridge.protocol.request_fields import stored_fields
from liftbridge.settings import PROVIDER_SETTINGS
from liftbridge.testing.log_suite import LOG, fill
from liftbridge.testing.memory_index import MemoryIndexStorage
from liftbridge_storage_segments.storage import SegmentStorage


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings that servers were started with; none really runs."""
    from liftbridge import running

    started: list[Settings] = []

    def run(settings: Settings, plugins: object) -> int:
        started.append(settings)
        return 0

    monkeypatch.setattr(running, "run", run)
    monkeypatch.setattr(operators, "_configure_logging", lambda settings: None)
    return started


def test_every_flag_of_the_original_sets_what_it_did(served: list[Settings], tmp_path: Path) -> None:
    flags = (
        "--server-id s1 --namespace ns -e --nc nats.conf -p 1 --tls-cert c --tls-key k -l debug --raft-bootstrap-seed"
    )
    assert cli.run(["serve", *flags.split(), "--data-dir", str(tmp_path), "--host", "h"]) == 0
    wanted = {
        "clustering.server.id": "s1",
        "clustering.namespace": "ns",
        "transport.nats.embedded": True,
        "transport.nats.embedded.config": Path("nats.conf"),
        "endpoint.grpc.port": 1,
        "endpoint.grpc.host": "h",
        "endpoint.grpc.tls.cert": "c",
        "endpoint.grpc.tls.key": "k",
        "logging.level": "debug",
        "clustering.raft.bootstrap.seed": True,
        "data.dir": tmp_path,
    }
    assert {name: served[0][name] for name in wanted} == wanted


@pytest.mark.parametrize("short", ["--id=s1 --ns=n", "--id s1 --ns n"])
def test_flags_without_a_command_mean_serve(served: list[Settings], short: str) -> None:
    assert cli.run(["--raft-bootstrap-seed", *short.split()]) == 0
    assert served[0]["clustering.server.id"] == "s1"
    assert served[0]["clustering.namespace"] == "n"


def test_a_server_that_stores_where_nobody_said_warns(
    served: list[Settings], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cli.run(["serve", "--data-dir", str(tmp_path)])
    assert caplog.messages == []
    cli.run(["serve"])
    assert caplog.messages == [
        f"Everything is stored in {served[1]['data.dir']}, which the system may empty: say where with --data-dir"
    ]


def test_lists_come_by_comma_or_repeated(served: list[Settings]) -> None:
    cli.run(["serve", "-n", "nats://a, nats://b", "-n", "nats://c", "--raft-bootstrap-peers", "x,y"])
    assert served[0]["transport.nats.servers"] == ("nats://a", "nats://b", "nats://c")
    assert served[0]["clustering.raft.bootstrap.peers"] == ("x", "y")


def test_set_takes_any_setting_and_an_equals_sign_in_the_value(served: list[Settings]) -> None:
    cli.run(["serve", "--set", "streams.durability=sync", "--set", "nats.password = a=b"])
    assert served[0]["streams.durability"] == "sync"
    assert served[0]["transport.nats.password"] == "a=b"


def test_flag_that_is_not_given_leaves_the_file_alone(served: list[Settings], tmp_path: Path) -> None:
    file = tmp_path / "server.conf"
    file.write_text("port = 7\nlogging.level = warn\n")
    cli.run(["--config", str(file), "--level", "error"])
    assert served[0]["endpoint.grpc.port"] == 7
    assert served[0]["logging.level"] == "error"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--set", "streams.durability"], "--set key=value"),
        (["serve", "--set", "nonsense=1"], 'Unknown configuration setting "nonsense"'),
        (
            ["serve", "--port", "many"],
            'command line: Invalid endpoint.grpc.port setting "many": must be a whole number',
        ),
        (["serve", "--set", "transport=pigeons"], 'no transport is called "pigeons"'),
        (["serve", "--config", "missing.conf"], "missing.conf"),
        (["config", "check", "missing.conf"], "missing.conf"),
        (["dump-log", "missing-directory"], "there is no missing-directory"),
    ],
)
def test_wrong_request_is_one_line_and_exit_code_2(
    served: list[Settings], capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert cli.run(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("liftbridge: ")
    assert said in line
    assert served == []


def test_failure_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, served: list[Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    from liftbridge import running

    def fail(settings: Settings, plugins: object) -> int:
        raise TransportError("failed to connect to NATS")

    monkeypatch.setattr(running, "run", fail)
    assert cli.run(["serve"]) == 1
    assert capsys.readouterr().err == "liftbridge: failed to connect to NATS\n"


def test_a_connection_that_breaks_is_no_reader_that_went_away(
    monkeypatch: pytest.MonkeyPatch, served: list[Settings], capfd: pytest.CaptureFixture[str]
) -> None:
    from liftbridge import running

    def fail(settings: Settings, plugins: object) -> int:
        raise BrokenPipeError("the connection broke")

    monkeypatch.setattr(running, "run", fail)
    assert cli.run(["serve"]) == 1
    assert capfd.readouterr().err == "liftbridge: the connection broke\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sevre"], 'there is no command "sevre"; did you mean "serve"?\ntry \'liftbridge --help\''),
        (
            ["--data-dri", "x"],
            'there is no "--data-dri" here; did you mean "--data-dir"?\ntry \'liftbridge serve --help\'',
        ),
        (
            ["cluster", "drain", "a", "--jsn"],
            'no "--jsn" here; did you mean "--json"?\ntry \'liftbridge cluster drain --help',
        ),
        (["serve", "extra"], 'there is no "extra" here\ntry'),
        (["cluster", "drain"], "required: SERVER\ntry 'liftbridge cluster drain --help'"),
        (["cluster", "status", "--timeout", "nan"], '--timeout: "nan" must be more than 0 seconds\ntry'),
        (["cluster", "status", "--timeout", "soon"], '--timeout: "soon" must be a duration with a unit'),
        (["cluster", "transfer-leader", "a", "--partition", "1"], "--partition needs --stream"),
        (["cluster", "transfer-leader", "a", "--partition", "-1"], '"-1" is no number of a partition'),
        (["demo", "--port", "x"], "--port: invalid int value: 'x'\ntry 'liftbridge demo --help'"),
    ],
)
def test_words_that_mean_nothing_are_named_with_what_may_be_meant(
    served: list[Settings], capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert cli.run(arguments) == 2
    assert said in capsys.readouterr().err.replace("\nliftbridge: ", "\n")
    assert served == []


def test_without_anything_it_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 0
    assert "usage: liftbridge" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["plugins", "plugins --json", "config show", "config show --json"])
def test_a_reader_that_went_away_ends_any_command_quietly(command: str) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "liftbridge", *command.split()],
            stdout=write_end,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr) == (141, b"")


def test_an_interrupt_while_the_command_is_imported_is_no_traceback() -> None:
    interrupt = "import sys; sys.modules.pop('argparse', None)\nclass Interrupt:\n  def find_spec(self, name, *_):\n"
    interrupt += "    if name == 'argparse': raise KeyboardInterrupt\nsys.meta_path.insert(0, Interrupt())\n"
    command = [sys.executable, "-c", interrupt + "from liftbridge.cli import main\nmain(['plugins'])"]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_installed_command_tells_its_version() -> None:
    ran = subprocess.run([sys.executable, "-m", "liftbridge", "-v"], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("liftbridge version ")


def test_plugins_lists_what_is_installed_and_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["plugins", "--json"]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert {row["kind"] for row in rows if row["chosen"]} == set(Seam) - {Seam.AUTHORIZER}
    assert {row["distribution"] for row in rows} >= {"liftbridge"}
    assert cli.run(["plugins"]) == 0
    table = capsys.readouterr().out
    assert all(row["name"] in table for row in rows)


def test_every_seam_is_chosen_by_a_setting() -> None:
    assert set(PROVIDER_SETTINGS) == set(Seam)


def test_config_show_tells_values_and_origins_but_no_secrets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIFTBRIDGE_CLUSTERING_NAMESPACE", "elsewhere")
    file = tmp_path / "server.conf"
    file.write_text(
        "port = 7\nnats.password = hush\n[templates]\n[[audit]]\nmatch = audit-*\nstreams.durability = sync\n"
    )
    assert cli.run(["config", "show", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"endpoint.grpc.port = 7    # {file}, line 1" in lines
    assert "clustering.namespace = elsewhere    # environment variable LIFTBRIDGE_CLUSTERING_NAMESPACE" in lines
    assert "batch.max.messages = 1024    # default" in lines
    assert f"transport.nats.password = (hidden)    # {file}, line 2" in lines
    assert "templates.audit.match = audit-*" in lines
    assert "templates.audit.streams.durability = sync" in lines
    assert not any("hush" in line for line in lines)


def test_what_config_show_prints_is_a_config_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "first.conf", tmp_path / "second.conf"
    first.write_text(
        "streams.retention.max.age = 1.5h\nstreams.retention.max.bytes = 1500MiB\nstreams.segment.max.bytes = 1001\n"
        "nats.servers = nats://a, nats://b\nendpoint.grpc.host = 'h#1, h2'\n"
        "[templates]\n[[audit]]\nmatch = audit-*\nstreams.cleaner.interval = 90s\n"
    )
    shown = []
    for file in (first, second):
        assert cli.run(["config", "show", str(file)]) == 0
        lines = capsys.readouterr().out.splitlines()
        second.write_text("\n".join(lines))
        shown.append([line.partition("    # ")[0] for line in lines])
    assert shown[0] == shown[1]
    for line in ("streams.retention.max.age = 90m", "streams.retention.max.bytes = 1500MiB", "data.dir = "):
        assert any(one.startswith(line) for one in shown[0]), line
    assert "templates.audit.streams.cleaner.interval = 90s" in shown[0]


def test_config_show_for_programs_has_values_and_origins_but_no_secrets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "server.conf"
    file.write_text(
        "port = 7\nnats.password = hush\nnats.servers = nats://a, nats://b\nstreams.retention.max.age = 1.5h\n"
        "data.dir = /d\n[templates]\n[[audit]]\nmatch = audit-*\nstreams.segment.max.bytes = 1MiB\n"
    )
    assert cli.run(["config", "show", str(file), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    settings = shown["settings"]
    assert settings["endpoint.grpc.port"] == {"value": 7, "source": f"{file}, line 1"}
    assert settings["batch.max.messages"] == {"value": 1024, "source": "default"}
    assert settings["transport.nats.servers"]["value"] == ["nats://a", "nats://b"]
    assert settings["streams.retention.max.age"]["value"] == 5400
    assert settings["data.dir"]["value"] == "/d"
    assert settings["transport.nats.password"]["value"] == "(hidden)"
    assert shown["templates"] == [
        {"name": "audit", "match": "audit-*", "settings": {"streams.segment.max.bytes": 1048576}}
    ]


def test_config_check_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "server.conf"
    file.write_text("port = 7\n")
    assert cli.run(["config", "check", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"checked": str(file), "ok": True}


def test_config_check_warns_and_approves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "server.yaml"
    file.write_text("streams.retention.max.age: 3600\n")
    assert cli.run(["config", "check", str(file)]) == 0
    shown = capsys.readouterr()
    assert "ok" in shown.out
    assert "nanoseconds" in shown.err


def test_config_check_knows_which_plugins_are_installed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "server.conf"
    file.write_text("storage.log = tape\ntransport = pigeons\n")
    assert cli.run(["config", "check", str(file)]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert 'no log storage is called "tape"' in first
    assert 'no transport is called "pigeons"' in second


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("endpoints =", "endpoints: name at least one"),
        ("encryption.keys = floppy:a", 'encryption.keys = "floppy:a": must be env:NAME'),
        ("encryption.keys = file:/nowhere/keys", "encryption.keys: can't read /nowhere/keys"),
        ("clustering.session.heartbeat = 5s", "clustering.session.heartbeat is 5s"),
        ("clustering.raft.heartbeat = 1h", "clustering.raft.election.timeout is 0.6s"),
        ("transport.nats.servers = mail://a", 'transport.nats.servers: "mail://a" begins with neither'),
        ("endpoint.grpc.listen = nohost", 'endpoint.grpc.listen: could not parse address string "nohost"'),
        ("endpoint.grpc.tls.cert = a.pem", "endpoint.grpc.tls.cert and endpoint.grpc.tls.key go together"),
    ],
)
def test_config_check_refuses_what_a_server_would_not_start_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, said: str
) -> None:
    file = tmp_path / "server.conf"
    file.write_text(f"{line}\n")
    assert cli.run(["config", "check", str(file)]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.out == ""


def test_config_check_names_all_that_does_not_fit_together_and_touches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "server.conf"
    file.write_text(f"endpoint.grpc.listen = x\nclustering.session.heartbeat = 5s\ndata.dir = {tmp_path / 'data'}\n")
    assert cli.run(["config", "check", str(file)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert cli.run(["config", "show", str(file)]) == 0
    assert list(tmp_path.iterdir()) == [file]


def test_dump_log_refuses_what_is_no_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["dump-log", str(tmp_path)]) == 2
    assert "neither a segment file nor a partition's directory" in capsys.readouterr().err


def test_dump_log_shows_several_logs_and_no_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        storage = SegmentStorage(tmp_path / name, MemoryIndexStorage())
        fill(storage.open(LOG, LogSettings()), 1)
        storage.close()
        (tmp_path / name / "streams" / "3-1" / "server.log").write_text("no segment")
    logs = [str(tmp_path / name / "streams" / "3-1") for name in ("one", "two")]
    assert cli.run(["dump-log", *logs]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith((" ", "0"))] == [f"{log}:" for log in logs]
    assert sum("checksum ok" in line for line in lines) == 2
    assert cli.run(["dump-log", f"{logs[0]}/server.log"]) == 2


def test_dump_log_for_programs_is_an_object_on_each_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = SegmentStorage(tmp_path, MemoryIndexStorage())
    log = storage.open(LOG, LogSettings())
    trailer = encode_trailer(timestamp_ns=9, stream="weather", partition=1, subject="s", reply="")
    for offset, value in enumerate((b"v" * 100, b"\xff")):
        item = stored_fields(b"k", value, {"h": b"1"})
        record = encode_record(item, offset, trailer=trailer)
        log.append(
            [
                encode_batch(
                    record, base_offset=offset, end_offset=offset + 1, record_count=1, leader_epoch=1, timestamp_ns=9
                )
            ]
        )
    storage.close()
    directory = str(tmp_path / "streams" / "3-1")
    (segment,) = Path(directory).glob("*.log")
    with segment.open("ab") as damaged:
        damaged.write(b"garbage")
    assert cli.run(["dump-log", directory, directory, "--json"]) == 0
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert entries[: len(entries) // 2] == entries[len(entries) // 2 :]
    first, batch, text, _, binary, damage = entries[:6]
    assert (first["kind"], first["path"]) == ("segment", str(segment))
    assert (batch["kind"], batch["base_offset"], batch["end_offset"], batch["records"]) == ("batch", 0, 1, 1)
    assert (text["kind"], text["offset"], text["key"], text["value"]) == ("message", 0, "k", "v" * 100)
    assert (text["stream"], text["subject"], text["headers"]) == (
        "weather",
        "s",
        {"h": "1", "subject": "s", "reply": ""},
    )
    assert binary["value_base64"] == "/w=="
    assert (damage["kind"], damage["size_bytes"]) == ("damage", 7)


def test_a_new_plugin_has_no_name_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["plugin", "new", "acme-segments", "--directory", str(tmp_path), "--seam"]
    assert cli.run([*command, "log_storage"]) == 2
    said = 'there is a log storage called "segments" already, from liftbridge: let the name end in another word'
    assert capsys.readouterr().err == f"liftbridge: {said}\n"
    assert list(tmp_path.iterdir()) == []
    assert cli.run([*command, "transport"]) == 0
