"""Where a command line begins and ends.

``serve`` is the server and takes the original's flags; ``liftbridge --flags`` without a command means ``serve``, as it
does there. Errors are lines on standard error, without a traceback; :class:`liftbridge.cli.exits.Exit` has the exit codes.
"""

import argparse
import io
import os
import select
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from liftbridge.cli.exits import EXPECTED, Exit, Terminated, complain, exit_of_server_error
from liftbridge.cli.names import CLIENT_COMMANDS, COMPLETING

_NOT_SERVE = ("-h", "--help", "-v", "--version")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The entry point of the ``liftbridge`` command."""
    _open_standard_streams()
    _survive_encodings()
    if COMPLETING in os.environ:
        from liftbridge.cli.completion import complete

        sys.exit(complete(os.environ[COMPLETING]))
    code = run(sys.argv[1:] if argv is None else argv)
    _forget_what_cannot_be_written()
    sys.exit(code)


def _forget_what_cannot_be_written() -> None:
    """The command has said so. Python would complain again when it ends, and exit with a code of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_standard_streams() -> None:
    """What the caller closed gets lost; and no file or connection of ours gets its number, and with it our output."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _survive_encodings() -> None:
    """What the terminal's character set lacks is shown escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def run(argv: Sequence[str]) -> int:
    """Runs one command line and returns its exit code."""
    try:
        return _run(list(argv))
    except Terminated:
        return Exit.TERMINATED
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # the line on which the terminal shows ^C
        return Exit.INTERRUPTED
    except BrokenPipeError as error:
        if not _reader_is_gone():
            complain(error)
            return Exit.FAILED
        return Exit.BROKEN_PIPE
    except SystemExit as end:
        if end.code != 1:
            raise
        return Exit.BROKEN_PIPE  # so rich ends, in the middle of a table that nobody reads


def _reader_is_gone() -> bool:
    """Whether it is the standard output that broke, and not a connection of ours."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _run(arguments: list[str]) -> int:
    if arguments and arguments[0] in CLIENT_COMMANDS:
        from liftbridge.cli.clients import run_client_command

        return run_client_command(arguments)
    return _run_server_command(arguments)


def _run_server_command(arguments: list[str]) -> int:
    from liftbridge.cli.parser import read_command_line

    if arguments and arguments[0].startswith("-") and arguments[0] not in _NOT_SERVE:
        arguments.insert(0, "serve")
    try:
        options = read_command_line(arguments)
        command: Callable[[argparse.Namespace], int] = options.command
        code = command(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        raise
    except EXPECTED as error:
        complain(error)
        return exit_of_server_error(error)
