"""How settings are declared: the kernel's own and every plugin's, by the same words."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class SettingKind(StrEnum):
    """What a setting's text means and what it becomes.

    ======== ============================== ====================
    kind     written as                     becomes
    ======== ============================== ====================
    STRING   text                           str
    INTEGER  digits                         int
    BOOLEAN  true, false, yes, no, on, off  bool
    DURATION number with unit: 500ms, 7d    float, seconds
    SIZE     number with unit: 64KiB, 1MB   int, bytes
    LIST     values separated by commas     tuple of str
    PATH     text                           pathlib.Path
    ======== ============================== ====================
    """

    STRING = "string"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    DURATION = "duration"
    SIZE = "size"
    LIST = "list"
    PATH = "path"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. ``name`` is its full dotted name (``transport.nats.servers``); ``default`` is already converted.

    ``check`` gets the converted value and returns what is wrong with it, as the end of a sentence, or None.
    ``aliases`` are names under which it is accepted too (the original's keys).
    """

    name: str
    kind: SettingKind
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    check: Callable[[Any], str | None] | None = None
    aliases: tuple[str, ...] = ()
