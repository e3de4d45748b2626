"""Counting votes."""

from dataclasses import dataclass, field

from liftbridge_raft_builtin.core.membership import Membership


@dataclass(slots=True)
class Campaign:
    """One election, or with ``pre`` the question whether one could be won. ``term`` is the one that would begin."""

    term: int
    pre: bool
    votes: dict[str, bool] = field(default_factory=dict)

    def record(self, voter: str, granted: bool) -> None:
        """The first answer of a voter counts."""
        self.votes.setdefault(voter, granted)

    def is_won(self, membership: Membership) -> bool:
        return self._count(membership, granted=True) >= membership.majority

    def is_lost(self, membership: Membership) -> bool:
        return self._count(membership, granted=False) > len(membership.voters) - membership.majority

    def _count(self, membership: Membership, *, granted: bool) -> int:
        return sum(self.votes.get(voter) is granted for voter in membership.voters)
