"""Log lines in the original's style: ``time="..." level=info msg="..."``, or coloured on a terminal."""

import logging
import sys
from datetime import datetime

_LEVELS = {"warn": logging.WARNING}
_NAMES = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
    logging.CRITICAL: "fatal",
}
_COLOURS = {
    logging.DEBUG: 37,
    logging.INFO: 36,
    logging.WARNING: 33,
    logging.ERROR: 31,
    logging.CRITICAL: 31,
}


class PlainFormatter(logging.Formatter):
    """Key and value pairs, one line each."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'time="{_time(record)}" level={_NAMES.get(record.levelno, "info")} msg="{escaped}"'


class TerminalFormatter(logging.Formatter):
    """For people who watch."""

    def format(self, record: logging.LogRecord) -> str:
        colour = _COLOURS.get(record.levelno, 36)
        name = _NAMES.get(record.levelno, "info")[:4].upper()
        text = f"\x1b[{colour}m{name}\x1b[0m[{_time(record)}] {record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created).strftime("%Y-%m-%d %H:%M:%S")


def configure_logging(level: str, *, nats: bool = False, raft: bool = False) -> None:
    """Sends everything at ``level`` and above to standard error, and everything of the parts that are asked for."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TerminalFormatter() if sys.stderr.isatty() else PlainFormatter())
    logging.basicConfig(level=_LEVELS.get(level, level.upper()), handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    for name, wanted in (("liftbridge_transport_nats.embedded", nats), ("liftbridge_raft_builtin", raft)):
        logging.getLogger(name).setLevel(logging.DEBUG if wanted else logging.NOTSET)
