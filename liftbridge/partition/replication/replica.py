"""What the rules of replication see of a partition on this server."""

from typing import Protocol

from liftbridge.errors import StorageError
from liftbridge.interfaces.log import PartitionLog


class Replica(Protocol):
    """One partition's records on this server. ``high_watermark`` is exclusive and survives changes of role."""

    log: PartitionLog
    high_watermark: int
    #: The encoded batch that was appended last, and its base offset; (-1, b"") when unknown.
    last_body: tuple[int, bytes]

    @property
    def key(self) -> object:
        """Which partition of which stream, as text for people."""

    def advance_high_watermark(self, offset: int) -> None:
        """Commits everything below ``offset``; never goes back."""

    def retract_high_watermark(self, offset: int) -> None:
        """Takes back what was thought to be committed. Only for proof by the leader that it isn't."""

    #: The disk refused the last append, and isn't known to have room again.
    cannot_store: bool

    def append_failed(self, error: StorageError, size_bytes: int) -> bool:
        """Takes note that so many bytes were not stored; True if that is news."""

    def check_room(self) -> bool:
        """Whether the disk takes records now, as far as the storage can say."""

    def wake_readers(self) -> None:
        """Makes whoever waits for a change look again."""
