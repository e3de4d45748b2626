"""What keeps partitions on this server from being what they should be, until it is over: for the controller and for people."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from liftbridge.interfaces.log import LogId


class TroubleKind(IntEnum):
    """The numbers are those that servers tell each other."""

    CANNOT_OPEN = 0
    CANNOT_STORE = 1


@dataclass(frozen=True, slots=True)
class Trouble:
    """With one partition; ``text`` is what the storage said."""

    log_id: LogId
    kind: TroubleKind
    text: str


class Troubles:
    """Of one server, at most one for each partition. All methods run on the event loop."""

    def __init__(self) -> None:
        self._by_log: dict[LogId, Trouble] = {}
        self._callbacks: list[Callable[[], None]] = []
        #: Grows with each change.
        self.version = 0

    def __iter__(self) -> Iterator[Trouble]:
        return iter(self._by_log.values())

    def get(self, log_id: LogId) -> Trouble | None:
        return self._by_log.get(log_id)

    def add(self, trouble: Trouble) -> None:
        """In the place of what was there for that partition."""
        if self._by_log.get(trouble.log_id) != trouble:
            self._by_log[trouble.log_id] = trouble
            self._tell()

    def remove(self, log_id: LogId) -> None:
        """It is over, or the partition is gone."""
        if self._by_log.pop(log_id, None) is not None:
            self._tell()

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Calls back after each change; the callback only takes note."""
        self._callbacks.append(callback)

    def _tell(self) -> None:
        self.version += 1
        for callback in self._callbacks:
            callback()
