"""What a leader knows of one other member, and how fast it may send to it."""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from liftbridge_raft_builtin.core.entries import Snapshot


class Pace(Enum):
    """How entries go to a member."""

    PROBE = "probe"  # looking for where the logs agree: one message, then wait
    REPLICATE = "replicate"  # they agree: a window of messages without waiting
    SNAPSHOT = "snapshot"  # what it needs is forgotten: one chunk, then wait


@dataclass(slots=True)
class Progress:
    """``match``: durable there and equal to ours; ``next``: what to send next; ``sent_commit``: what it last heard."""

    next: int
    match: int = 0
    pace: Pace = Pace.PROBE
    waiting: bool = False
    inflight: deque[int] = field(default_factory=deque)
    sent_commit: int = 0
    acked_round: int = 0
    active: bool = False
    snapshot: Snapshot = field(default_factory=Snapshot)
    snapshot_offset: int = 0
    heartbeats_since_chunk: int = 0

    def may_send(self, max_inflight_messages: int) -> bool:
        if self.pace is Pace.REPLICATE:
            return len(self.inflight) < max_inflight_messages
        return self.pace is Pace.PROBE and not self.waiting

    def sent(self, last_index: int) -> None:
        """Entries up to ``last_index`` are on their way."""
        if self.pace is Pace.PROBE:
            self.waiting = True
        elif last_index >= self.next:
            self.next = last_index + 1
            self.inflight.append(last_index)

    def accepted(self, index: int) -> None:
        self.match = max(self.match, index)
        self.next = max(self.next, index + 1)
        while self.inflight and self.inflight[0] <= index:
            self.inflight.popleft()
        if self.pace is Pace.PROBE or (self.pace is Pace.SNAPSHOT and index >= self.snapshot.index):
            self._set_pace(Pace.REPLICATE, self.match + 1)

    def rejected(self, index: int, agreement: int) -> None:
        """The member has no such entry at ``index``; the logs can agree at most up to ``agreement``."""
        late_reply = index <= self.match or (self.pace is Pace.PROBE and index != self.next - 1)
        if not late_reply:
            self._set_pace(Pace.PROBE, max(self.match, min(agreement, index - 1)) + 1)

    def send_snapshot(self, snapshot: Snapshot) -> None:
        self._set_pace(Pace.SNAPSHOT, snapshot.index + 1)
        self.snapshot = snapshot
        self.snapshot_offset = 0

    def _set_pace(self, pace: Pace, next_index: int) -> None:
        self.pace = pace
        self.next = next_index
        self.waiting = False
        self.inflight.clear()
        self.snapshot = Snapshot()
