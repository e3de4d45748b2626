"""What waits to be appended, and who hears of the outcome."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from liftbridge.partition.refusal import Refusal

#: Values of proto.AckPolicy.
ACK_LEADER, ACK_ALL, ACK_NONE = 0, 1, 2

#: The expected offset that means "no check".
ANY_OFFSET = -1


class AckSink(Protocol):
    """Hears what became of a run: exactly one of these is called for each record of it, once."""

    def stored(self, run: "PendingRun", base_offset: int, reception_ns: int, commit_ns: int) -> None:
        """The records have consecutive offsets from ``base_offset``, as durably as the stream's mode says."""

    def refused(self, run: "PendingRun", refusal: Refusal) -> None:
        """No record of the run was stored (or, for OUTCOME_UNKNOWN, nobody knows)."""


class Mirror(Protocol):
    """Lets the other subscribers of the subject have messages that were appended here without a detour over NATS."""

    def publish(self, runs: "Sequence[PendingRun]") -> None:
        """Called after each append with the runs in it that have this mirror, in order."""


@dataclass(slots=True)
class PendingRun:
    """Records that came together from one publisher, in order, and go to one partition.

    ``items`` are the publisher's fields of each record; ``lead`` stands before every one of them. ``item_bytes`` and
    ``correlation_id_bytes`` are lengths that all share, None when they differ. ``messages`` are the whole
    ``Message``s for the mirror, which puts ``mirror_tail`` behind each; empty when they came from NATS in the first place.
    """

    items: Sequence[bytes]
    item_bytes: int | None
    subject: str
    reply: str = ""
    lead: bytes = b""
    ack_policy: int = ACK_NONE
    expected_offset: int = ANY_OFFSET
    acks: AckSink | None = None
    correlation_ids: Sequence[bytes] = ()
    correlation_id_bytes: int | None = 0
    mirror: Mirror | None = None
    mirror_tail: bytes = b""
    messages: Sequence[bytes] = ()

    @property
    def wants_ack(self) -> bool:
        return self.acks is not None and self.ack_policy != ACK_NONE

    def size_bytes(self) -> int:
        """Bytes of all items, as a measure of what waits."""
        if self.item_bytes is not None:
            return (self.item_bytes + len(self.lead)) * len(self.items)
        return sum(map(len, self.items)) + len(self.lead) * len(self.items)

    def part(self, start: int, stop: int) -> "PendingRun":
        """The same run with only records ``[start, stop)``."""
        if start == 0 and stop >= len(self.items):
            return self
        return PendingRun(
            items=self.items[start:stop],
            item_bytes=self.item_bytes,
            subject=self.subject,
            reply=self.reply,
            lead=self.lead,
            ack_policy=self.ack_policy,
            expected_offset=self.expected_offset,
            acks=self.acks,
            correlation_ids=self.correlation_ids[start:stop],
            correlation_id_bytes=self.correlation_id_bytes,
            mirror=self.mirror,
            mirror_tail=self.mirror_tail,
            messages=self.messages[start:stop],
        )
