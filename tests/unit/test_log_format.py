"""Log lines: one line an event, whatever it holds."""

import logging
import re

import pytest

from liftbridge.log_format import PlainFormatter, TerminalFormatter, configure_logging


def _record(text: str, level: int = logging.INFO, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("x", level, "x.py", 1, text, arguments, None)


def test_plain_line_is_the_originals() -> None:
    line = PlainFormatter().format(_record("Starting on %s", logging.WARNING, "localhost:9292"))
    assert re.fullmatch(r'time="\d{4}-\d\d-\d\d \d\d:\d\d:\d\d" level=warning msg="Starting on localhost:9292"', line)


def test_text_from_outside_cannot_forge_a_line() -> None:
    line = PlainFormatter().format(_record('a"\ntime="now" level=info msg="forged \\'))
    assert "\n" not in line
    assert line.endswith(r'msg="a\"\ntime=\"now\" level=info msg=\"forged \\"')


def test_terminal_line_is_coloured() -> None:
    assert re.match(r"\x1b\[31mERRO\x1b\[0m\[.*\] no", TerminalFormatter().format(_record("no", logging.ERROR)))


@pytest.fixture
def _restored_logging() -> object:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield None
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("_restored_logging")
def test_level_holds_for_all_but_the_parts_that_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("warn", raft=True)
    logging.getLogger("liftbridge.server").info("hidden")
    logging.getLogger("liftbridge_raft_builtin.driver").debug("of Raft")
    logging.getLogger("liftbridge.server").warning("shown")
    configure_logging("warn")
    logging.getLogger("liftbridge_raft_builtin.driver").debug("hidden")
    shown = capsys.readouterr().err
    assert [re.sub(r"^time=\"[^\"]+\" ", "", line) for line in shown.splitlines()] == [
        'level=debug msg="of Raft"',
        'level=warning msg="shown"',
    ]
