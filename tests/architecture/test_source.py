"""Source a person can read: every module says what it is for, and none is too long to read in one sitting."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from liftbridge import client, errors
from liftbridge.client import blocking, nats_messages

_ROOT = Path(__file__).parents[2]
_MAX_LINES = 500
#: Files that are over the limit, with the reason. Shrink the list, don't add to it.
_TOO_LONG: dict[str, str] = {}


def _sources() -> list[str]:
    folders = [_ROOT / "liftbridge", *(_ROOT / "plugins").glob("*/liftbridge_*")]
    files = [file for folder in folders for file in folder.rglob("*.py") if "generated" not in file.parts]
    assert len(files) > 80, "the sources are not where this test looks"
    return sorted(str(file.relative_to(_ROOT)) for file in files)


@pytest.mark.parametrize("path", _sources())
def test_module_says_what_it_is_for(path: str) -> None:
    assert ast.get_docstring(ast.parse((_ROOT / path).read_text())), f"{path} has no docstring"


@pytest.mark.parametrize("path", _sources())
def test_module_can_be_read_in_one_sitting(path: str) -> None:
    lines = len((_ROOT / path).read_text().splitlines())
    assert (lines > _MAX_LINES) == (path in _TOO_LONG), f"{path} has {lines} lines"


def test_error_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    assert _drawn_tree() == _class_tree()


def test_every_error_says_what_it_means() -> None:
    """In its own docstring, or by its line in the tree."""
    undocumented = [
        name
        for name in _class_tree()
        if not getattr(errors, name).__doc__ and not re.search(rf"{name} +\w", _tree_text())
    ]
    assert undocumented == []


def _tree_text() -> str:
    return str(errors.__doc__).split("::\n", 1)[1].split("\nEvery class")[0]


def _drawn_tree() -> dict[str, str]:
    """Each class and its parent, from the drawing."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in _tree_text().splitlines():
        if match := re.match(r"    ([ │├└─]*)(\w+)", line):
            depth = len(match[1]) // 4
            path = [*path[:depth], match[2]]
            parents[match[2]] = path[depth - 1] if depth else "Exception"
    return parents


def _class_tree() -> dict[str, str]:
    return {
        name: one.__bases__[0].__name__
        for name, one in vars(errors).items()
        if inspect.isclass(one) and issubclass(one, errors.LiftbridgeError)
    }


def _public_of_the_client() -> Iterator[tuple[str, object]]:
    """What ``liftbridge.client`` and its modules for others offer, with the public methods of each class."""
    for module, names in (
        (client, client.__all__),
        (blocking, ["BlockingClient", "BlockingConsumer", "BlockingMessages"]),
        (nats_messages, ["parse_ack", "parse_message", "publish_message"]),
    ):
        for name in names:
            one = getattr(module, name)
            yield name, one
            if inspect.isclass(one):
                yield from ((f"{name}.{member}", what) for member, what in vars(one).items() if member[0] != "_")


def test_everything_public_of_the_client_is_documented() -> None:
    public = [
        (name, one)
        for name, one in _public_of_the_client()
        if inspect.isclass(one) or inspect.isroutine(one) or isinstance(one, property)
    ]
    assert len(public) > 70
    assert [name for name, one in public if not inspect.getdoc(one)] == []
