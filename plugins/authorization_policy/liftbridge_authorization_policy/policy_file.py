"""The policy file: a line of comma-separated values for each rule, as the original's."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from liftbridge.errors import ConfigError


class Line(NamedTuple):
    """``kind`` is ``p`` for a rule, and with some models others, such as ``g`` for who has a role."""

    number: int
    kind: str
    values: tuple[str, ...]


def read_policy(path: Path) -> list[Line]:
    """Without empty lines and comments, which begin with ``#``. Raises ConfigError that names the line."""
    return list(_parse(path, read_text(path, "failed to load authorization permissions")))


def read_text(path: Path, failure: str) -> str:
    """The content of an operator's file. Raises ConfigError, which begins with ``failure``."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{failure}: can't read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{failure}: {path} isn't text in UTF-8") from error


def _parse(path: Path, text: str) -> Iterator[Line]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            (values,) = csv.reader([line.strip()], skipinitialspace=True, strict=True)
        except (csv.Error, ValueError) as error:
            raise wrong_line(path, number, f"it isn't comma-separated: {error}") from error
        kind, *rest = (value.strip() for value in values)
        if not all((kind, *rest)):
            raise wrong_line(path, number, "a value is empty")
        yield Line(number, kind, tuple(rest))


def wrong_line(path: Path, number: int, what: str) -> ConfigError:
    """The error of a line."""
    return ConfigError(f"failed to load authorization permissions: {path}, line {number}: {what}")
