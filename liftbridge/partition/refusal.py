"""Why a message was not stored, in words that every way of publishing can translate."""

from dataclasses import dataclass
from enum import Enum, auto


class RefusalKind(Enum):
    """The reasons. All but ``OUTCOME_UNKNOWN`` are definite: the message was not stored."""

    BAD_REQUEST = auto()
    NO_SUCH_PARTITION = auto()
    NOT_ALLOWED = auto()
    READONLY = auto()
    TOO_LARGE = auto()
    INCORRECT_OFFSET = auto()
    TOO_FEW_REPLICAS = auto()
    OVERLOADED = auto()
    STORAGE = auto()
    NOT_LEADER = auto()
    OUTCOME_UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the publisher is told."""

    kind: RefusalKind
    message: str
