"""Where encryption keys come from: the environment, a file, or a command's output.

The content is either one raw key of 16 or 32 bytes, as the original has it, or text with a key on each line, as hex or
base64, ``hex:...`` or ``base64:...``; lines that are empty or begin with ``#`` don't count. The first key is the current one.
"""

import base64
import binascii
import os
import shlex
import subprocess
from pathlib import Path

from liftbridge.errors import ConfigError
from liftbridge.interfaces.keys import KEY_BYTES, KeyRing

#: The original's; without a key, a server does without encryption.
_USUAL_VARIABLE = "LIFTBRIDGE_ENCRYPTION_KEY"
_COMMAND_S = 30.0


def load_keys(source: str) -> KeyRing | None:
    """The keys of ``env:NAME``, ``file:PATH`` or ``command:PROGRAM ARGUMENTS``; None when the usual variable isn't set. Raises
    ConfigError, which never shows a key."""
    kind, _, name = source.partition(":")
    if kind == "env" and name:
        value = os.environb.get(os.fsencode(name))
        if not value and name != _USUAL_VARIABLE:
            raise ConfigError(f"encryption.keys: the environment variable {name} isn't set")
        return parse_keys(value, f"the environment variable {name}") if value else None
    if kind == "file" and name:
        return parse_keys(_read(Path(name).expanduser()), f"the file {name}")
    if kind == "command" and name:
        return parse_keys(_run(name), f"the output of {shlex.split(name)[0]}")
    raise ConfigError(
        f'encryption.keys = "{source}": must be env:NAME, file:PATH or command:PROGRAM ARGUMENTS, the place of the keys'
    )


def parse_keys(content: bytes, where: str) -> KeyRing:
    """``where`` is for the errors."""
    if len(content) in KEY_BYTES and not content.startswith((b"hex:", b"base64:")):
        return KeyRing((content,))
    lines = (line.strip() for line in content.splitlines())
    keys = tuple(_parse(line, where) for line in lines if line and not line.startswith(b"#"))
    if not keys:
        raise ConfigError(f"encryption.keys: there is no key in {where}")
    return KeyRing(keys)


def _parse(line: bytes, where: str) -> bytes:
    kind, _, text = line.partition(b":")
    try:
        if kind == b"hex":
            key = bytes.fromhex(text.decode())
        elif kind == b"base64":
            key = base64.b64decode(text, validate=True)
        else:
            raise ConfigError(
                f"encryption.keys: {where} holds neither one raw key of 16 or 32 bytes nor lines of hex:... or base64:..."
            )
    except (ValueError, binascii.Error) as error:
        raise ConfigError(f"encryption.keys: a line of {where} is no valid {kind.decode()}") from error
    if len(key) not in KEY_BYTES:
        raise ConfigError(f"encryption.keys: a key in {where} has {len(key)} bytes; it must have 16 or 32")
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"encryption.keys: can't read {path}: {error.strerror}") from error


def _run(command: str) -> bytes:
    """Its output is the keys, and what it says otherwise is for the operator."""
    try:
        done = subprocess.run(shlex.split(command), stdout=subprocess.PIPE, timeout=_COMMAND_S, check=False)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"encryption.keys: can't run {command.split(maxsplit=1)[0]}: {_reason(error)}") from error
    if done.returncode:
        raise ConfigError(f"encryption.keys: {command.split(maxsplit=1)[0]} ended with exit code {done.returncode}")
    return done.stdout


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
