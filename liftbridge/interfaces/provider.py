"""What a provider hook returns, and the generation of each seam."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Seam(StrEnum):
    """The kinds of provider; the value is what ``liftbridge plugins`` shows."""

    LOG_STORAGE = "log storage"
    INDEX_STORAGE = "index storage"
    STABLE_STORE = "stable store"
    CONSENSUS = "consensus"
    TRANSPORT = "transport"
    SUBJECT_ROUTER = "subject router"
    ENDPOINT = "endpoint"
    AUTHORIZER = "authorizer"


#: The generation of each seam that this kernel speaks. A breaking change of a seam's interface adds one; a provider
#: says which it was written for, and one of another generation is refused with a message that says what to install.
GENERATIONS: dict[Seam, int] = dict.fromkeys(Seam, 1)


@dataclass(frozen=True, slots=True)
class Provider:
    """One implementation that a plugin offers for one seam.

    ``create`` is called once at start with the context of its seam (:mod:`liftbridge.interfaces.context`) and returns
    the implementation; it must be cheap, do no IO, and raise :class:`liftbridge.errors.ConfigError` on settings that
    make no sense. ``capabilities`` names optional abilities, for people and for the kernel's checks.
    """

    name: str
    summary: str
    create: Callable[[Any], Any]
    generation: int = 1
    capabilities: frozenset[str] = field(default_factory=frozenset)
