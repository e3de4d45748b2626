"""Disks that fail: a stand-in for the module ``os`` in the one module of a storage that does IO.

Use it with pytest's ``monkeypatch``: ``monkeypatch.setattr(files_module, "os", FaultyOs(crash_at=3))``.
"""

import os
from collections.abc import Callable
from typing import Any

#: The calls that change what is on the disk, or promise something about it.
CHANGING_CALLS = frozenset(
    ("pwrite", "write", "writev", "pwritev", "ftruncate", "fsync", "fdatasync", "rename", "replace", "unlink", "rmdir",
     "mkdir")
)  # fmt: skip


class Crash(BaseException):
    """The process ended here. Not an Exception, so that no handler of errors sees it; what a ``finally`` does
    afterwards to the disk has no effect, because every later call raises this too."""


class FaultyOs:
    """Counts the changing calls from 0.

    With ``crash_at``, that call and all later ones raise :class:`Crash`; a write does half of its work first. With
    ``fail_at``, that one call raises ``OSError(error)``; a write does half of its work first.
    """

    def __init__(self, *, crash_at: int | None = None, fail_at: int | None = None, error: int = 0) -> None:
        self.calls: list[str] = []
        self._crash_at = crash_at
        self._fail_at = fail_at
        self._error = error

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CHANGING_CALLS:
            return real

        def call(*arguments: Any, **options: Any) -> Any:
            return self._call(name, real, arguments, options)

        return call

    def _call(self, name: str, real: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        number = len(self.calls)
        self.calls.append(name)
        if self._crash_at is not None and number >= self._crash_at:
            if number == self._crash_at:
                _do_half(name, arguments)
            raise Crash(f"at call {number}, {name}")
        if number == self._fail_at:
            _do_half(name, arguments)
            raise OSError(self._error, os.strerror(self._error))
        return real(*arguments, **options)


def _do_half(name: str, arguments: tuple[Any, ...]) -> None:
    if name == "pwrite":
        descriptor, data, position = arguments
        os.pwrite(descriptor, data[: len(data) // 2], position)
    elif name == "write":
        descriptor, data = arguments
        os.write(descriptor, data[: len(data) // 2])
