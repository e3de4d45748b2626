"""What streams are, said simply: the model that servers are compared with, whatever is done to them.

A message is at its offset, or in doubt: a publisher that got no answer, or one that only says what the leader had, knows
that the message is there once or not at all. A look at a partition that has come to rest ends all doubt.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple


class Mismatch(AssertionError):
    """The server says something else than the model."""


class Removed(Enum):
    """Whether compaction took a message: on every replica, on some at most, or nowhere."""

    NO = auto()
    MAYBE = auto()
    YES = auto()


class Found(NamedTuple):
    """A message as a reader got it."""

    offset: int
    key: bytes
    value: bytes


class Pass(NamedTuple):
    """What one replica's compaction could work on: sealed segments end at ``sealed_end``, and what is below ``upto`` is
    committed."""

    sealed_end: int
    upto: int


@dataclass
class Message:
    """``offset`` is where it is, or was said to be; None when nobody said so. Values occur only once."""

    key: bytes
    value: bytes
    offset: int | None = None
    removed: Removed = Removed.NO


@dataclass
class PartitionModel:
    """``log`` is what is stored for certain, ``in_doubt`` what may be, in the order in which it was sent. ``vanished`` was in
    doubt until a compaction that may have taken it; a replica that wasn't compacted may still have it."""

    paused: bool = False
    readonly: bool = False
    ever_paused: bool = False
    ever_readonly: bool = False
    log: dict[int, Message] = field(default_factory=dict)
    in_doubt: list[Message] = field(default_factory=list)
    vanished: dict[bytes, Message] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """The offset behind all that is certain."""
        return max(self.log, default=-1) + 1

    # --- publishing ---------------------------------------------------------------------------------------------------

    def store(self, message: Message, offset: int) -> None:
        """It is there for certain. Only what is in doubt can have taken offsets meanwhile."""
        if not self.end <= offset <= self.end + len(self.in_doubt):
            raise Mismatch(f"{message.value!r} is at {offset}: {self.end} is next, and {self.in_doubt} may be there")
        self.in_doubt = [one for one in self.in_doubt if one.offset is None or one.offset < offset]
        message.offset = offset
        self.log[offset] = message

    def doubt(self, message: Message, offset: int | None = None) -> None:
        """It is there, at ``offset`` if that is known, or nowhere."""
        if offset is not None and offset < self.end:
            raise Mismatch(f"{message.value!r} is at {offset}, where {self.log.get(offset)} is")
        message.offset = offset
        self.in_doubt.append(message)

    # --- reading ------------------------------------------------------------------------------------------------------

    def settle(self, found: Sequence[Found], passes: Sequence[Pass] = (), *, everywhere: bool = False) -> None:
        """``found`` is the whole partition, at rest: what isn't there of what was in doubt never will be. Replicas compacted
        it just before, ``everywhere`` if it was at rest by then and all of them did."""
        doubtful = {one.value: one for one in self.in_doubt}
        self.in_doubt = []
        for one in found:
            message = doubtful.pop(one.value, None)
            if message is None or one.offset in self.log:
                continue
            if message.offset not in (None, one.offset):
                raise Mismatch(f"{one} was acked at {message.offset}")
            message.offset = one.offset
            self.log[one.offset] = message
        if passes:
            self.vanished |= {value: message for value, message in doubtful.items() if message.key}
        self._compact(passes, everywhere=everywhere)
        self.check(found, 0, self.end)

    def check(self, found: Sequence[Found], start: int, stop: int, *, reverse: bool = False) -> None:
        """``found`` is what a reader got of the offsets from ``start`` to below ``stop``."""
        offsets = [one.offset for one in found]
        if offsets != sorted(set(offsets), reverse=reverse):
            raise Mismatch(f"read out of order, or twice: {offsets}")
        for one in found:
            message = self.log.get(one.offset) or self.vanished.get(one.value)
            if message is None or (message.key, message.value) != (one.key, one.value):
                raise Mismatch(f"read {one}, where {message} was published")
            if message.removed is Removed.YES:
                raise Mismatch(f"read {one}, which compaction removed")
            if not start <= one.offset < stop:
                raise Mismatch(f"read {one}, and asked for {start} to {stop}")
        missing = {one.offset for one in self._kept() if one.offset is not None and start <= one.offset < stop}
        if missing - set(offsets):
            raise Mismatch(f"not read: {[self.log[offset] for offset in sorted(missing - set(offsets))]}")

    def _kept(self) -> Iterator[Message]:
        """What must be there."""
        return (one for one in self.log.values() if one.removed is Removed.NO)

    # --- compaction ---------------------------------------------------------------------------------------------------

    def _compact(self, passes: Sequence[Pass], *, everywhere: bool) -> None:
        """What has a later message of its key goes from sealed segments. When that one isn't in a sealed segment itself, a
        pass may think that there is nothing to do."""
        sealed_everywhere = min((one.sealed_end for one in passes), default=0) if everywhere else 0
        sealed_anywhere = max((one.sealed_end for one in passes), default=0)
        committed = max((one.upto for one in passes), default=0)
        for offset, next_offset in self._superseded():
            message = self.log[offset]
            if next_offset < sealed_everywhere:
                message.removed = Removed.YES
            elif offset < sealed_anywhere and next_offset < committed and message.removed is Removed.NO:
                message.removed = Removed.MAYBE

    def _superseded(self) -> Iterator[tuple[int, int]]:
        """Offsets of messages, and of the next ones of their keys."""
        later: dict[bytes, int] = {}
        for offset in sorted(self.log, reverse=True):
            key = self.log[offset].key
            if key and key in later:
                yield offset, later[key]
            later[key] = offset


@dataclass(frozen=True)
class StreamConfig:
    """What a stream is created with."""

    partitions: int
    replicas: int
    compacted: bool
    checks_offsets: bool
    segment_bytes: int


@dataclass
class StreamModel:
    """One stream, from its creation to its deletion; another one of the same name is another stream."""

    name: str
    config: StreamConfig
    partitions: list[PartitionModel]
    resume_all: bool = False

    @classmethod
    def new(cls, name: str, config: StreamConfig) -> "StreamModel":
        return cls(name, config, [PartitionModel() for _ in range(config.partitions)])

    def named(self, numbers: Iterable[int]) -> list[PartitionModel]:
        """No partitions named means all of them."""
        return [self.partitions[number] for number in sorted(set(numbers))] or self.partitions

    @property
    def any_paused(self) -> bool:
        return any(one.paused for one in self.partitions)

    def pause(self, numbers: Iterable[int], *, resume_all: bool) -> None:
        for one in self.named(numbers):
            one.paused = one.ever_paused = True
        self.resume_all = resume_all

    def resume(self, number: int) -> None:
        """Somebody wants to publish to the partition, or to read it."""
        for one in self.partitions if self.resume_all else [self.partitions[number]]:
            one.paused = False
        self.resume_all = self.resume_all and self.any_paused

    def set_readonly(self, numbers: Iterable[int], *, readonly: bool) -> None:
        for one in self.named(numbers):
            one.ever_readonly = one.ever_readonly or one.readonly != readonly
            one.readonly = readonly
