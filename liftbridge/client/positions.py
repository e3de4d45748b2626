"""Where a subscription starts and stops."""

from dataclasses import dataclass
from datetime import datetime

from liftbridge.errors import InvalidRequest
from liftbridge.protocol.generated import api_pb2 as api


def _nanoseconds(moment: datetime | int) -> int:
    if isinstance(moment, int):
        return moment
    if moment.tzinfo is None:
        raise InvalidRequest(f"{moment} has no time zone: say which one is meant, as in datetime.now(UTC)")
    return int(moment.timestamp() * 1_000_000) * 1_000


@dataclass(frozen=True, slots=True)
class StartAt:
    """Made by one of its class methods."""

    position: "api.StartPosition"
    start_offset: int = 0
    start_timestamp_ns: int = 0

    @classmethod
    def new(cls) -> "StartAt":
        """What is published from now on."""
        return cls(api.StartPosition.NEW_ONLY)

    @classmethod
    def earliest(cls) -> "StartAt":
        """The first message that is kept."""
        return cls(api.StartPosition.EARLIEST)

    @classmethod
    def latest(cls) -> "StartAt":
        """The last message, and what follows."""
        return cls(api.StartPosition.LATEST)

    @classmethod
    def offset(cls, offset: int) -> "StartAt":
        """This offset, or the next one that is kept. Beyond the end it is the next message, whatever its offset. Raises
        InvalidRequest for a negative one."""
        if offset < 0:
            raise InvalidRequest(f"there is no offset {offset}")
        return cls(api.StartPosition.OFFSET, start_offset=offset)

    @classmethod
    def timestamp(cls, moment: datetime | int) -> "StartAt":
        """The first message of that moment (aware, or nanoseconds since 1970) or later."""
        return cls(api.StartPosition.TIMESTAMP, start_timestamp_ns=_nanoseconds(moment))


@dataclass(frozen=True, slots=True)
class StopAt:
    """Made by one of its class methods. Without one, a subscription goes on."""

    position: "api.StopPosition"
    stop_offset: int = 0
    stop_timestamp_ns: int = 0

    @classmethod
    def never(cls) -> "StopAt":
        """It waits for what comes."""
        return cls(api.StopPosition.STOP_ON_CANCEL)

    @classmethod
    def offset(cls, offset: int) -> "StopAt":
        """After this offset; one that isn't there yet is waited for. Raises InvalidRequest for a negative one."""
        if offset < 0:
            raise InvalidRequest(f"there is no offset {offset}")
        return cls(api.StopPosition.STOP_OFFSET, stop_offset=offset)

    @classmethod
    def latest(cls) -> "StopAt":
        """After what is the last message when the subscription begins; at once when there is none."""
        return cls(api.StopPosition.STOP_LATEST)

    @classmethod
    def timestamp(cls, moment: datetime | int) -> "StopAt":
        """After the last message of that moment or before."""
        return cls(api.StopPosition.STOP_TIMESTAMP, stop_timestamp_ns=_nanoseconds(moment))
