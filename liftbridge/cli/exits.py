"""How a command line ends: exit codes, and errors as lines for people."""

import logging
import sys
from enum import IntEnum

from liftbridge.errors import (
    ConfigError,
    DeadlineExceeded,
    InvalidRequest,
    LiftbridgeError,
    NotFound,
    PluginError,
    Unavailable,
)


class Exit(IntEnum):
    """The exit codes. 3 is ``cluster status``'s for a cluster that isn't healthy."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNHEALTHY = 3
    UNREACHABLE = 4
    NOT_FOUND = 5
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


class Terminated(BaseException):
    """SIGTERM ended a command, which cleaned up, as KeyboardInterrupt is for Ctrl-C."""


def exit_of_server_error(error: Exception) -> Exit:
    """For the commands of who runs servers."""
    return Exit.USAGE if isinstance(error, ConfigError | PluginError) else Exit.FAILED


def exit_of_client_error(error: Exception) -> Exit:
    """For the commands of clients: what servers answer says more."""
    match error:
        case ConfigError() | InvalidRequest():
            return Exit.USAGE
        case NotFound():
            return Exit.NOT_FOUND
        case Unavailable() | DeadlineExceeded():
            return Exit.UNREACHABLE
    return Exit.FAILED


def complain(error: Exception) -> None:
    """Lines on standard error; the traceback only where the log shows everything."""
    if logging.getLogger().isEnabledFor(logging.DEBUG):
        logging.getLogger(__name__).debug("what went wrong", exc_info=error)
    for line in _told(error).splitlines() or [type(error).__name__]:
        print(f"liftbridge: {line}", file=sys.stderr)


def _told(error: Exception) -> str:
    """What Python says of the system's errors, without their numbers."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


#: What commands raise on purpose, and what the system refuses them.
EXPECTED = (LiftbridgeError, OSError)
