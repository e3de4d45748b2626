"""The pages' commands and code do what the pages say. Ports and folders are the test's own."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from broker_process import BrokerProcess
from pages import ROOT, blocks


def test_the_tutorials_code_publishes_and_reads_back(new_broker: BrokerProcess) -> None:
    new_broker.start()
    (code,) = blocks("docs/tutorial/first-stream.md", "python")
    assert "localhost:9292" in code
    code = code.replace("localhost:9292", new_broker.address)
    for offset in range(2):  # the page says that everything is there after a restart
        done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
        if offset == 0:
            assert done.returncode == 0, done.stderr
            assert done.stdout == "stored at offset 0\n0 b'oslo' b'3.1'\n"
        else:
            assert "stream already exists" in done.stderr
        assert new_broker.stop() == 0
        new_broker.start()
    dump = [*shlex.split(blocks("docs/tutorial/first-stream.md", "sh")[1])][1]
    assert dump == "dump-log"
    folders = [str(one) for one in (new_broker.data_dir / "streams").glob("*/") if one.is_dir()]
    shown = subprocess.run(
        [sys.executable, "-m", "liftbridge", dump, *folders], check=False, capture_output=True, text=True, timeout=60
    )
    assert shown.returncode == 0
    assert "3.1" in shown.stdout


def test_the_programs_of_the_client_tutorial_print_what_the_page_says(tmp_path: Path) -> None:
    page = "docs/tutorial/python-client.md"
    broker = BrokerProcess(tmp_path / "data", "--set", "cursors.stream.partitions=1")
    assert " ".join(broker.arguments) in blocks(page, "sh")[0]
    broker.start()
    try:
        programs = blocks(page, "python")
        for program, output in zip(programs, blocks(page, "text"), strict=True):
            assert "localhost" in program
            code = program.replace("localhost:9292", broker.address).replace("nats://localhost:4222", broker.nats_url)
            done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
            assert (done.stdout, done.stderr) == (output, "")
    finally:
        broker.stop()


def test_the_commands_of_the_readme_publish_and_read_back(new_broker: BrokerProcess) -> None:
    new_broker.start()
    environment = {**os.environ, "LIFTBRIDGE_SERVERS": new_broker.address}
    (block,) = (block for block in blocks("README.md", "sh") if "liftbridge publish" in block)
    shown = [
        subprocess.run(
            [sys.executable, "-m", *shlex.split(line)],
            check=True,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout
        for line in block.splitlines()
    ]
    assert shown[-1].endswith("Oslo 3.1\n")


def test_the_commands_of_the_overview_exist() -> None:
    commands = re.findall(
        r"^\| `liftbridge ([a-z-]+(?: [a-z]+)?)", (ROOT / "docs" / "reference" / "cli.md").read_text(), re.MULTILINE
    )
    assert len(commands) >= 15
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "liftbridge", *command.split(), "--help"],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
