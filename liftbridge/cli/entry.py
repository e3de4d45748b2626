"""Where a command line begins and ends.

``serve`` is the server and takes the original's flags; ``liftbridge --flags`` without a command means ``serve``, as it
does there. Errors are lines on standard error, without a traceback; :class:`liftbridge.cli.exits.Exit` has the exit codes.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from liftbridge.cli.exits import EXPECTED, Exit, complain, exit_of_server_error
from liftbridge.cli.parser import CLIENT_COMMANDS, make_parser

_NOT_SERVE = ("-h", "--help", "-v", "--version")
#: Set by the scripts that complete commands, when they ask what fits.
_COMPLETING = "_LIFTBRIDGE_COMPLETE"


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The entry point of the ``liftbridge`` command."""
    if _COMPLETING in os.environ:
        from liftbridge.cli.completion import complete

        sys.exit(complete(os.environ[_COMPLETING]))
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Runs one command line and returns its exit code."""
    try:
        return _run(list(argv))
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Python would complain, when it ends, that it can't write the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.BROKEN_PIPE


def _run(arguments: list[str]) -> int:
    if arguments and arguments[0] in CLIENT_COMMANDS:
        from liftbridge.cli.clients import run_client_command

        return run_client_command(arguments)
    if arguments and arguments[0].startswith("-") and arguments[0] not in _NOT_SERVE:
        arguments.insert(0, "serve")
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return Exit.DONE
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except BrokenPipeError:
        raise
    except EXPECTED as error:
        complain(error)
        return exit_of_server_error(error)
