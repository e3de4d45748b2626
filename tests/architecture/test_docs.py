"""The reference is complete: every hook, every setting with its default, every flag; and nothing that isn't there."""

import argparse
import re
from pathlib import Path

import pytest
from setting_docs import shown_default, table_rows

from liftbridge import hookspecs
from liftbridge.cli import make_parser
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
    shown = set(re.findall(r"`(--?[a-z][\w-]*)", _read("cli.md")))
    assert shown <= known


def _words(parser: argparse.ArgumentParser, command: str) -> list[str]:
    """Every command in full, and every spelling of every flag."""
    words = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                words += [f"{command} {name}", *_words(sub, f"{command} {name}")]
        words += action.option_strings
    return words
