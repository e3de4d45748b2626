"""The rules of Raft, as a function of what goes in: ticks, messages and proposals go in, :class:`Ready` work comes out.

Deterministic: no IO, no clock, no tasks; the only randomness is the callable handed in for election time-outs. One
module for each idea; ``raft.RaftCore`` puts them together. Persisting, sending and applying belong to the driver.
"""

from liftbridge_raft_builtin.core.entries import Entry, EntryKind, HardState, Snapshot
from liftbridge_raft_builtin.core.errors import SafetyViolated
from liftbridge_raft_builtin.core.membership import Membership
from liftbridge_raft_builtin.core.messages import Message
from liftbridge_raft_builtin.core.raft import RaftCore, Role
from liftbridge_raft_builtin.core.ready import CoreSettings, Ready, StoredState

__all__ = [
    "CoreSettings",
    "Entry",
    "EntryKind",
    "HardState",
    "Membership",
    "Message",
    "RaftCore",
    "Ready",
    "Role",
    "SafetyViolated",
    "Snapshot",
    "StoredState",
]
