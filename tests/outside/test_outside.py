"""Outside of the checkout: the wheel of Liftbridge in fresh environments, as anybody gets it. Run by ``tox -e outside``."""

import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_TUTORIAL = _ROOT / "docs" / "tutorial" / "write-a-plugin.md"
_PLUGIN = _ROOT / "tests" / "outside_plugin"
_WHEEL = os.environ.get("TOX_PACKAGE", "")

pytestmark = [
    pytest.mark.skipif(not _WHEEL, reason="needs the built wheel: run tox -e outside"),
    pytest.mark.timeout(300),
]

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: How the page says where a block of code goes: the end of the text before it.
_TARGET = re.compile(r"(Put this into|Add this at the end of)\s+`([^`]+)`:\s*\Z")


@dataclass(frozen=True, slots=True)
class Step:
    """A block of the page, in order. ``path`` is the file that it goes to, "" for commands and for what they print."""

    language: str
    text: str
    path: str = ""
    is_more: bool = False


def steps() -> Iterator[Step]:
    page = _TUTORIAL.read_text()
    for match in _BLOCK.finditer(page):
        target = _TARGET.search(page, 0, match.start())
        if match[1] in ("sh", "text"):
            yield Step(match[1], match[2])
        else:
            assert target is not None, f"the page doesn't say where this goes: {match[2][:80]}"
            yield Step(match[1], match[2], target[2], target[1] == "Add this at the end of")


def script(blocks: Path) -> str:
    """All that a reader does: commands as they stand, and the files as an editor would write them."""
    lines = ["set -euo pipefail"]
    for number, step in enumerate(steps()):
        if step.path:
            block = blocks / str(number)
            block.write_text(step.text)
            lines.append(f"cat '{block}' {'>>' if step.is_more else '>'} {step.path}")
        elif step.language == "sh":
            lines.append(step.text)
    return "\n".join(lines)


def environment(constraints: Path) -> dict[str, str]:
    """``pip install liftbridge`` means the wheel, and nothing of the checkout or of tox's environment is seen."""
    wheel = Path(_WHEEL)
    constraints.write_text(f"liftbridge=={wheel.name.split('-')[1]}\n")
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    links = f"{wheel.parent} {os.environ.get('PIP_FIND_LINKS', '')}"
    return {**kept, "PIP_CONSTRAINT": str(constraints), "PIP_FIND_LINKS": links, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    ran = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


def code_lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line]


def test_the_tutorial_leads_word_by_word_to_the_plugin_that_is_tested_here(tmp_path: Path) -> None:
    output = run(["bash", "-c", script(tmp_path)], tmp_path, environment(tmp_path / "constraints.txt"))
    for line in (line for step in steps() if step.language == "text" for line in step.text.splitlines()):
        assert line in output, f"the page promises {line!r}, and this came: {output}"
    project = tmp_path / "liftbridge-storage-onefile"
    for path in (
        path for path in _PLUGIN.rglob("*") if path.is_file() and path.suffix in (".py", ".md", ".toml", ".ini")
    ):
        assert code_lines(path) == code_lines(project / path.relative_to(_PLUGIN)), path
    assert len(list((project / "dist").iterdir())) == 2


def install_into_an_empty_environment(tmp_path: Path) -> dict[str, str]:
    clean = environment(tmp_path / "constraints.txt")
    run([sys.executable, "-m", "venv", "empty"], tmp_path, clean)
    run(["empty/bin/pip", "install", "--quiet", "liftbridge"], tmp_path, clean)
    return clean


def test_the_wheel_alone_runs_the_demo_in_an_empty_environment(tmp_path: Path) -> None:
    clean = install_into_an_empty_environment(tmp_path)
    where = run(["empty/bin/python", "-c", "import liftbridge; print(liftbridge.__file__)"], tmp_path, clean)
    assert where.startswith(str(tmp_path))
    assert "Lima 22.0" in run(["empty/bin/liftbridge", "demo"], tmp_path, clean)
    offered = run(["empty/bin/liftbridge", "plugins"], tmp_path, clean)
    for name in ("segments", "sqlite", "memory", "lmdb", "raft_builtin", "nats", "subjects", "grpc"):
        assert f" {name} " in offered


def test_the_wheel_alone_runs_the_client_tutorial_in_an_empty_environment(tmp_path: Path) -> None:
    clean = install_into_an_empty_environment(tmp_path)
    page = (_ROOT / "docs" / "tutorial" / "python-client.md").read_text()
    blocks = _BLOCK.findall(page)
    programs = [text for language, text in blocks if language == "python"]
    outputs = [text for language, text in blocks if language == "text"]
    ports = dict(zip(("9292", "4222"), free_ports(2), strict=True))
    command = [
        "empty/bin/liftbridge",
        "serve",
        "-e",
        "--raft-bootstrap-seed",
        "--data-dir",
        "data",
        "--host",
        "127.0.0.1",
    ]
    command += ["--port", str(ports["9292"]), "--set", "cursors.stream.partitions=1"]
    command += ["--set", f"transport.nats.embedded.listen=127.0.0.1:{ports['4222']}"]
    with subprocess.Popen(command, cwd=tmp_path, env=clean, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            assert any("Serving clients" in line for line in server.stderr)
            for program, output in zip(programs, outputs, strict=True):
                for port, taken in ports.items():
                    program = program.replace(f"localhost:{port}", f"127.0.0.1:{taken}")
                assert run(["empty/bin/python", "-c", program], tmp_path, clean) == output
        finally:
            server.terminate()


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as taken:
        sockets = [taken.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]
