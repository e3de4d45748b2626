"""Completion of commands in shells: Click's scripts, and Click's answers to them, for the commands in argparse too."""

import argparse
import contextlib
import io
from typing import Any

import click
from click.shell_completion import get_completion_class, shell_complete

from liftbridge.cli.clients import make_group
from liftbridge.cli.names import CLIENT_COMMANDS, COMPLETING
from liftbridge.cli.parser import make_parser, subparsers


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes commands, options and names of streams.

    In bash: eval "$(liftbridge completion bash)", once or in ~/.bashrc.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    with contextlib.redirect_stderr(io.StringIO()):  # Click looks for a bash to warn of an old one
        print(kind(everything(), {}, "liftbridge", COMPLETING).source())


def complete(instruction: str) -> int:
    """Answers a script; what it wants is in the environment. Returns the exit code."""
    return shell_complete(everything(), {}, "liftbridge", COMPLETING, instruction)


def everything() -> click.Group:
    """Every command, to be completed and not to be run."""
    group = make_group()
    for name, parser in subparsers(make_parser()).items():
        if name not in CLIENT_COMMANDS:
            group.add_command(_mirror(name, parser))
    return group


def _mirror(name: str, parser: argparse.ArgumentParser) -> click.Command:
    options = [_option(action) for action in parser._actions if action.option_strings]
    actions = subparsers(parser)
    if actions:
        return click.Group(name, params=options, commands=[_mirror(*item) for item in actions.items()])
    arguments = [_argument(action) for action in parser._actions if not action.option_strings]
    return click.Command(name, params=[*options, *arguments], add_help_option=False, help=parser.description)


def _option(action: argparse.Action) -> click.Parameter:
    names = ["option_" + action.option_strings[-1].strip("-").replace("-", "_"), *action.option_strings]
    return click.Option(names, is_flag=action.nargs == 0, multiple=True, type=_type(action), help=action.help)


def _argument(action: argparse.Action) -> click.Parameter:
    return click.Argument([action.dest.lower()], required=False, type=_type(action))


def _type(action: argparse.Action) -> "click.ParamType[Any] | None":
    if action.nargs == 0:
        return None
    if action.choices is not None:
        return click.Choice([str(one) for one in action.choices])
    return click.Path() if action.metavar in ("FILE", "DIR", None) else click.STRING
