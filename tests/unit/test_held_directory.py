"""A directory has one holder."""

import os
from pathlib import Path

import pytest

from liftbridge.errors import StorageError
from liftbridge.held_directory import HeldDirectory


def test_a_held_directory_is_refused_to_others_until_it_is_let_go(tmp_path: Path) -> None:
    one, other = HeldDirectory(tmp_path / "new" / "data"), HeldDirectory(tmp_path / "new" / "data")
    assert one.hold()
    assert not one.hold()
    with pytest.raises(StorageError, match=r"data is in use by another server; give each server a data directory"):
        other.hold()
    one.let_go()
    one.let_go()
    assert other.hold()
    other.let_go()


def test_locks_of_different_names_do_not_meet(tmp_path: Path) -> None:
    one, other = HeldDirectory(tmp_path), HeldDirectory(tmp_path, lock_name="other")
    assert one.hold()
    assert other.hold()
    one.let_go()
    other.let_go()


def test_what_the_system_refuses_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        HeldDirectory(tmp_path / "file" / "data").hold()
    monkeypatch.setattr(os, "fsync", _refuse)
    held = HeldDirectory(tmp_path / "data")
    with pytest.raises(OSError, match="no"):
        held.hold()
    monkeypatch.undo()
    other = HeldDirectory(tmp_path / "data")
    assert other.hold()
    other.let_go()


def _refuse(_: int) -> None:
    raise OSError("no")
