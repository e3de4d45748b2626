"""Which subjects may be put into a command: anything else would end the connection, or smuggle in another command."""

import re
from functools import lru_cache

_WORD = r"[^\s.\x00-\x1f\x7f]+"
_LITERAL_TOKEN = rf"(?![*>](?:\.|\Z)){_WORD}"
_TOKEN = rf"(?!>\.){_WORD}"
_LITERAL = re.compile(rf"{_LITERAL_TOKEN}(?:\.{_LITERAL_TOKEN})*")
_PATTERN = re.compile(rf"{_TOKEN}(?:\.{_TOKEN})*")
_QUEUE = re.compile(r"[^\s\x00-\x1f\x7f]*")
#: A command line has two subjects at most, and nats-server ends connections that send more than 4096 bytes of it.
_MAX_BYTES = 1024


def check_literal(subject: str) -> None:
    """Raises ValueError unless ``subject`` can be published to."""
    if not _LITERAL.fullmatch(subject):
        raise ValueError(f"can't publish to {subject!r}: it has white space, an empty part between dots, or a wildcard")
    _check_length(subject)


def check_pattern(subject: str, queue: str) -> None:
    """Raises ValueError unless ``subject`` and ``queue`` can be subscribed to."""
    if not _PATTERN.fullmatch(subject):
        raise ValueError(
            f"can't subscribe to {subject!r}: it has white space, an empty part between dots, or a > before the end"
        )
    if not _QUEUE.fullmatch(queue):
        raise ValueError(f"can't subscribe in group {queue!r}: it has white space")
    _check_length(subject)
    _check_length(queue)


def _check_length(name: str) -> None:
    if len(name.encode()) > _MAX_BYTES:
        raise ValueError(f"{name[:64]!r}... is longer than {_MAX_BYTES} bytes, which a NATS server would not take")


@lru_cache(maxsize=4096)
def publish_command(subject: str, reply: str) -> bytes:
    """The PUB command up to the length. Raises ValueError for subjects that can't be published to."""
    check_literal(subject)
    if not reply:
        return f"PUB {subject} ".encode()
    check_literal(reply)
    return f"PUB {subject} {reply} ".encode()
