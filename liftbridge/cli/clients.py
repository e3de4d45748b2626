"""The commands for who uses a cluster: their list, each imported when it is called, and how they end."""

import importlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from liftbridge.cli.exits import EXPECTED, Exit, complain, exit_of_client_error
from liftbridge.cli.names import CLIENT_COMMANDS

#: Where each command is: a module, and its name there.
_PLACES = {
    "stream": ("liftbridge.cli.streams", "stream_commands"),
    "publish": ("liftbridge.cli.publish", "publish"),
    "subscribe": ("liftbridge.cli.subscribe", "subscribe"),
    "group": ("liftbridge.cli.groups", "group_commands"),
    "cursor": ("liftbridge.cli.cursors", "cursor_commands"),
    "bench": ("liftbridge.cli.bench", "bench"),
    "completion": ("liftbridge.cli.completion", "completion"),
}


class LazyGroup(click.Group):
    """Imports the module of a command when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*CLIENT_COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _PLACES:
            return super().get_command(ctx, cmd_name)
        module, name = _PLACES[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


def make_group() -> LazyGroup:
    """Every command of clients; the tests hold the reference to it."""
    return LazyGroup("liftbridge", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})


def run_client_command(arguments: Sequence[str]) -> int:
    """Returns the exit code. Raises KeyboardInterrupt and BrokenPipeError."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # grpcio's own log would be lines that no command wrote
    group = make_group()
    try:
        with _warnings_as_lines(), group.make_context("liftbridge", list(arguments)) as context:
            group.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as end:  # --help, for instance
        return end.exit_code
    except click.exceptions.Abort:
        print("liftbridge: nothing was done", file=sys.stderr)
        return Exit.FAILED
    except click.ClickException as error:
        _explain(error)
        return Exit.USAGE
    except UnicodeEncodeError as error:  # bytes of an argument, which only values, keys and headers may have
        from liftbridge.cli.display import printable  # not above: grpcio comes with it, and reads GRPC_VERBOSITY once

        print(f'liftbridge: "{printable(error.object)}" isn\'t UTF-8, and names have to be', file=sys.stderr)
        return Exit.USAGE
    except BrokenPipeError:
        raise
    except EXPECTED as error:
        complain(error)
        return exit_of_client_error(error)
    return Exit.DONE


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """What the client library warns of, people see as they see errors."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("liftbridge: %(message)s"))
    logger = logging.getLogger("liftbridge")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _explain(error: click.ClickException) -> None:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        print(error.format_message(), file=sys.stderr)
        return
    print(f"liftbridge: {' '.join(error.format_message().split())}", file=sys.stderr)
    if isinstance(error, click.UsageError) and error.ctx is not None:
        print(f"liftbridge: try '{error.ctx.command_path} --help'", file=sys.stderr)
