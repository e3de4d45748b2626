"""The reference is complete: every hook, every setting with its default, every flag; and nothing that isn't there."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from setting_docs import shown_default, table_rows

from liftbridge import hookspecs
from liftbridge.cli.clients import make_group
from liftbridge.cli.connection import shared_options
from liftbridge.cli.exits import Exit
from liftbridge.cli.names import CLIENT_COMMANDS
from liftbridge.cli.parser import make_parser
from liftbridge.interfaces.settings import Setting
from liftbridge.plugin_manager import PluginManager
from liftbridge.settings import KERNEL_SETTINGS

_REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
_SETTINGS = [*KERNEL_SETTINGS, *PluginManager().settings()]
_HOOKS = sorted(name for name in vars(hookspecs) if name.startswith("liftbridge_"))


def _read(page: str) -> str:
    return (_REFERENCE / page).read_text()


@pytest.mark.parametrize("setting", _SETTINGS, ids=lambda setting: setting.name)
def test_setting_is_documented_as_it_is_declared(setting: Setting) -> None:
    rows = table_rows(_read("config.md"))
    assert setting.name in rows, f"{setting.name}: add it with `python tests/support/setting_docs.py`"
    row = rows[setting.name]
    assert row.kind == setting.kind
    assert row.default == shown_default(setting)
    assert row.aliases == setting.aliases
    assert row.meaning.startswith(setting.help.replace("|", "\\|")), "the page says something else than the code"


def test_config_page_has_no_setting_that_does_not_exist() -> None:
    assert set(table_rows(_read("config.md"))) == {setting.name for setting in _SETTINGS}


@pytest.mark.parametrize("hook", _HOOKS)
def test_hook_has_a_section(hook: str) -> None:
    assert f"\n### `{hook}(" in _read("hooks.md")


def test_hooks_page_shows_each_hook_with_its_arguments() -> None:
    import inspect

    shown = dict(re.findall(r"\n### `(liftbridge_\w+)\(([^)]*)\)`", _read("hooks.md")))
    real = {name: ", ".join(inspect.signature(getattr(hookspecs, name)).parameters) for name in _HOOKS}
    assert shown == real


def test_every_command_and_flag_is_on_the_cli_page() -> None:
    page = _read("cli.md")
    missing = [
        word for word in _words(make_parser(), "liftbridge") if f"`{word}" not in page and f", {word}`" not in page
    ]
    assert missing == []


def test_cli_page_has_no_flag_that_does_not_exist() -> None:
    known = {word for word in _words(make_parser(), "liftbridge") if word.startswith("-")}
    known |= {flag for command in _CLIENT_COMMANDS.values() for flag in _flags(command)}
    shown = set(re.findall(r"`(--?[a-z][\w-]*)", _read("cli.md")))
    assert shown <= known


_SHARED = {flag for option in shared_options() for flag in option.opts}


def _client_commands() -> Iterator[tuple[str, click.Command]]:
    """Every command of clients, by the words that call it."""
    group = make_group()
    for name in CLIENT_COMMANDS:
        command = group.get_command(click.Context(group), name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {action}", one) for action, one in command.commands.items())


def _flags(command: click.Command) -> set[str]:
    return {
        flag for one in command.params if isinstance(one, click.Option) for flag in (*one.opts, *one.secondary_opts)
    }


_CLIENT_COMMANDS = dict(_client_commands())


@pytest.mark.parametrize("words", _CLIENT_COMMANDS)
def test_each_client_command_has_a_section_with_its_own_flags(words: str) -> None:
    _, found, section = _read("cli.md").partition(f"# `liftbridge {words}`\n")
    assert found
    rows = re.findall(r"^\| (`-.*?`) \|", section.split("\n#")[0], re.MULTILINE)
    assert set(re.findall(r"`(-[\w-]+)`", " ".join(rows))) == _flags(_CLIENT_COMMANDS[words]) - _SHARED


def test_the_flags_that_every_client_command_has_are_in_one_place() -> None:
    section = _read("cli.md").split("\n## Commands of clients\n")[1].split("\n#")[0]
    assert {flag for flag in _SHARED if f"`{flag}`" not in section} == set()
    assert all(flag in _flags(one) for one in _CLIENT_COMMANDS.values() if "--json" in _flags(one) for flag in _SHARED)


def test_every_exit_code_is_explained() -> None:
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", _read("cli.md"), re.MULTILINE)} == set(Exit)


def _words(parser: argparse.ArgumentParser, command: str) -> list[str]:
    """Every command in full, and every spelling of every flag."""
    words = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                words += [f"{command} {name}", *_words(sub, f"{command} {name}")]
        words += action.option_strings
    return words


def test_every_test_that_the_feature_table_names_exists() -> None:
    root = _REFERENCE.parents[1]
    named = re.findall(r"`([\w/.]+\.py)::(\w+)`", _read("features.md"))
    assert len(named) > 80
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (root / path).is_file() or f"def {name}(" not in (root / path).read_text()
    ]
    assert missing == []


def test_every_decision_is_in_the_index() -> None:
    pages = _REFERENCE.parent / "decisions"
    index = (pages / "README.md").read_text()
    for page in sorted(pages.glob("0*.md")):
        title = page.read_text().splitlines()[0].removeprefix("# ").split(". ", 1)[1]
        assert f"[{title}]({page.name})" in index, page.name
