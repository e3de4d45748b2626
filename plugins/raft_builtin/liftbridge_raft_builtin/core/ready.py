"""What the core is built from, and the work it hands out."""

from dataclasses import dataclass, field

from liftbridge_raft_builtin.core.entries import Entry, HardState, Snapshot
from liftbridge_raft_builtin.core.messages import Message


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """Times in ticks. An election begins after ``election_ticks`` to twice that without a leader."""

    heartbeat_ticks: int = 3
    election_ticks: int = 12
    max_message_bytes: int = 256 * 1024
    max_inflight_messages: int = 16
    max_apply_entries: int = 1024


@dataclass(frozen=True, slots=True)
class StoredState:
    """What survived the last stop. Entries may begin at or before the snapshot's index; they have no gaps."""

    hard_state: HardState = field(default_factory=HardState)
    snapshot: Snapshot = field(default_factory=Snapshot)
    entries: tuple[Entry, ...] = ()

    @property
    def is_empty(self) -> bool:
        return self == StoredState()


@dataclass(frozen=True, slots=True)
class Ready:
    """Work for the driver, to be done in this order and then reported with ``advance``:

    1. make ``snapshot``, ``hard_state`` and ``entries`` durable, in one write. A snapshot replaces the whole log;
       entries replace everything stored from the first one's index on.
    2. restore the state machine from ``snapshot``;
    3. send ``messages``;
    4. apply ``committed``;
    5. answer ``reads``: (token, index), each when that index is applied.
    """

    snapshot: Snapshot | None = None
    hard_state: HardState | None = None
    entries: tuple[Entry, ...] = ()
    messages: tuple[Message, ...] = ()
    committed: tuple[Entry, ...] = ()
    reads: tuple[tuple[int, int], ...] = ()

    @property
    def must_persist(self) -> bool:
        return self.snapshot is not None or self.hard_state is not None or bool(self.entries)
