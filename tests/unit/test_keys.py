"""Encryption keys from wherever an operator keeps them."""

from pathlib import Path

import pytest

from liftbridge.errors import ConfigError
from liftbridge.interfaces.keys import KeyRing, key_id
from liftbridge.keys import load_keys, parse_keys

KEY = bytes(range(32))
OLD = b"o" * 16


def test_a_raw_key_is_taken_as_it_is() -> None:
    assert parse_keys(OLD, "x").keys == (OLD,)
    assert parse_keys(KEY, "x").keys == (KEY,)


def test_lines_of_hex_and_base64_make_a_ring_whose_first_key_is_the_current_one() -> None:
    content = b"# new\nhex:" + KEY.hex().encode() + b"\n\n  base64:b29vb29vb29vb29vb29vbw==\n"
    ring = parse_keys(content, "x")
    assert ring == KeyRing((KEY, OLD))
    assert ring.current == KEY
    assert ring.find(key_id(OLD)) == OLD
    assert ring.find(b"absent!!") is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no key in x"),
        (b"# nothing\n", "no key in x"),
        (b"secret", "neither one raw key"),
        (b"hex:zz", "no valid hex"),
        (b"base64:!", "no valid base64"),
        (b"hex:00ff", "has 2 bytes"),
        (b"s" * 24, "neither one raw key"),
    ],
)
def test_what_is_no_key_is_refused_without_being_shown(content: bytes, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        parse_keys(content, "x")
    assert len(content) < 6 or content.decode() not in str(refused.value)


def test_keys_come_from_the_environment_a_file_or_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "o" * 16)
    assert load_keys("env:A_KEY") == KeyRing((OLD,))
    monkeypatch.delenv("LIFTBRIDGE_ENCRYPTION_KEY", raising=False)
    assert load_keys("env:LIFTBRIDGE_ENCRYPTION_KEY") is None
    path = tmp_path / "keys"
    path.write_text(f"hex:{KEY.hex()}\n")
    assert load_keys(f"file:{path}") == KeyRing((KEY,))
    assert load_keys(f"command:cat '{path}'") == KeyRing((KEY,))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("file:/absent/keys", "can't read /absent/keys"),
        ("env:ABSENT", "the environment variable ABSENT isn't set"),
        ("command:absent-program", "can't run absent-program: No such file or directory$"),
        ("command:/absent/program", "can't run"),
        ("command:false", "exit code 1"),
        ("vault", "env:NAME, file:PATH or command"),
        ("env:", "env:NAME, file:PATH or command"),
    ],
)
def test_a_source_that_gives_nothing_is_an_error_that_says_why(source: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_keys(source)


def test_a_ring_never_shows_its_keys() -> None:
    assert "6f6f6f6f6f6f" not in repr(KeyRing((OLD,)))
    assert key_id(OLD).hex() in repr(KeyRing((OLD,)))
