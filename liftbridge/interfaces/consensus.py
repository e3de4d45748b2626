"""The seam of consensus: replicates metadata commands into a state machine and names the metadata leader."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


class StateMachine(Protocol):
    """What consensus drives. Total and deterministic: no IO, no clock, no randomness, and no command ever raises."""

    def apply(self, index: int, command: bytes) -> object:
        """Applies the committed command at ``index`` and returns its result; a refusal is a result too."""

    def snapshot(self) -> bytes:
        """The whole state, as of the last applied command."""

    def restore(self, data: bytes) -> None:
        """Replaces the whole state."""


@dataclass(frozen=True, slots=True)
class ConsensusStatus:
    """A picture of the group as this server sees it. ``leader`` is a server ID, empty when unknown."""

    server_id: str
    leader: str
    term: int
    commit_index: int
    applied_index: int
    last_index: int
    voters: tuple[str, ...]
    learners: tuple[str, ...]

    @property
    def is_leader(self) -> bool:
        return self.leader == self.server_id


class Consensus(ABC):
    """One member of the metadata group. All methods run on the event loop.

    Methods that are for the leader only raise :class:`~liftbridge.errors.NotLeader` on any other member, with the leader's ID
    if it is known, and :class:`~liftbridge.errors.ProposalTimeout` when the time is up: what was asked for may still happen.
    """

    @abstractmethod
    async def is_stored(self) -> bool:
        """Before the start: whether this server has been in a group, and so needs no other way into one."""

    @abstractmethod
    async def start(self, state_machine: StateMachine, *, bootstrap: Sequence[str] = (), group: str = "") -> None:
        """Restores what is stored, replays it into ``state_machine`` and takes part from then on.

        ``bootstrap`` is the first set of voters, used only when nothing is stored; empty means: wait to be added.
        ``group`` names the group (letters, digits, ``-`` and ``_``): members of groups of different names never hear of
        each other. Raises StorageError when what is stored belongs to another group.
        """

    @abstractmethod
    async def propose(self, command: bytes, *, timeout_s: float) -> object:
        """Returns what ``apply`` returned, once the command is committed and applied here. Leader only.

        After :class:`~liftbridge.errors.NotLeader`, :class:`~liftbridge.errors.ProposalDropped` and
        :class:`~liftbridge.errors.PayloadTooLarge` (more than can be sent to other members) it isn't committed and never will
        be; after :class:`~liftbridge.errors.ProposalTimeout` it may be.
        """

    @abstractmethod
    async def barrier(self, *, timeout_s: float) -> int:
        """Returns the applied index once everything committed before the call is applied here and this server is
        sure to lead. Leader only; raises NotLeader also when leadership is lost meanwhile."""

    @abstractmethod
    def on_leader_change(self, callback: Callable[[ConsensusStatus], None]) -> None:
        """Calls back, on the event loop, each time this server sees another leader (or none, or itself)."""

    @abstractmethod
    def status(self) -> ConsensusStatus:
        """Local, immediate, possibly stale."""

    @abstractmethod
    async def add_voter(self, server_id: str, *, timeout_s: float) -> None:
        """Adds a server as a learner and makes it a voter once it has caught up. Leader only; nothing for a voter. After
        ProposalTimeout it may stay a learner."""

    @abstractmethod
    async def add_learner(self, server_id: str, *, timeout_s: float) -> None:
        """Adds a server that follows without a vote. Leader only."""

    @abstractmethod
    async def remove_member(self, server_id: str, *, timeout_s: float) -> None:
        """Takes a voter or a learner out of the group. Leader only, and that may be itself: then another one takes over.
        Raises :class:`~liftbridge.errors.ConsensusError` for the last voter."""

    @abstractmethod
    async def transfer_leadership(self, server_id: str, *, timeout_s: float) -> None:
        """Hands leadership to a voter and returns when that leads; nothing for the leader itself. Leader only. Raises
        :class:`~liftbridge.errors.ConsensusError` for a server that is no voter, and
        :class:`~liftbridge.errors.ProposalDropped` when it didn't take over and this member still leads."""

    @abstractmethod
    async def stop(self) -> None:
        """Stops taking part. Pending proposals end with ProposalTimeout. Idempotent."""
