"""Who takes part in the group: voters decide, learners only follow."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Membership:
    """One configuration of the group; both tuples sorted and disjoint."""

    voters: tuple[str, ...] = ()
    learners: tuple[str, ...] = ()

    @staticmethod
    def of(voters: Iterable[str], learners: Iterable[str] = ()) -> "Membership":
        voting = frozenset(voters)
        return Membership(tuple(sorted(voting)), tuple(sorted(frozenset(learners) - voting)))

    @property
    def members(self) -> tuple[str, ...]:
        return self.voters + self.learners

    @property
    def majority(self) -> int:
        """How many voters decide. One even without voters, so that nobody decides alone."""
        return len(self.voters) // 2 + 1

    def is_sole_voter(self, server_id: str) -> bool:
        return self.voters == (server_id,)

    def with_learner(self, server_id: str) -> "Membership":
        return Membership.of(self.voters, (*self.learners, server_id))

    def with_voter(self, server_id: str) -> "Membership":
        return Membership.of((*self.voters, server_id), self.learners)

    def without(self, server_id: str) -> "Membership":
        return Membership.of(
            (voter for voter in self.voters if voter != server_id),
            (learner for learner in self.learners if learner != server_id),
        )

    def agreed(self, value_of: Callable[[str], int]) -> int:
        """The largest value that a majority of the voters has reached; 0 without voters."""
        if not self.voters:
            return 0
        return sorted(map(value_of, self.voters), reverse=True)[self.majority - 1]
