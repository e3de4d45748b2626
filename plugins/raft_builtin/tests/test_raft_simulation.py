"""Whole groups under random faults, each run replayable by its seed; and broken rules, which the runs must notice."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from raft_simulation import Sabotage, Simulation

from liftbridge_raft_builtin.core import Message, RaftCore
from liftbridge_raft_builtin.core.leadership import Leadership
from liftbridge_raft_builtin.core.messages import AppendRequest, VoteRequest

STEPS = 1500


def run(seed: int, core_class: type[RaftCore] = RaftCore, sabotage: Sabotage | None = None) -> Simulation:
    """Every other group changes its members as it goes."""
    voters, spares = [(3, 0), (3, 2), (5, 0), (4, 1)][seed % 4]
    simulation = Simulation(seed, voters=voters, spares=spares, core_class=core_class, sabotage=sabotage)
    try:
        simulation.run(STEPS)
    except Exception as error:
        error.add_note(f"seed {seed}")
        raise
    return simulation


def test_groups_under_faults_keep_what_raft_promises() -> None:
    runs = [run(seed) for seed in range(600)]
    # The runs would show nothing if nothing happened in them.
    assert sum(len(one.history.leaders) for one in runs) > 600
    assert sum(one.history.commit for one in runs) > 6000
    assert sum(len(one.history.reads) for one in runs) > 600
    assert sum(one.snapshots_installed for one in runs) > 20


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_groups_under_faults_keep_what_raft_promises() -> None:
    for seed in range(1000, 11000):
        run(seed)


def test_a_seed_replays_the_same_run() -> None:
    one, other = run(7), run(7)
    assert one.history.committed == other.history.committed
    assert one.history.leaders == other.history.leaders


# --- mutations --------------------------------------------------------------------------------------------------------


class VotesTwiceInATerm(RaftCore):
    def may_vote_for(self, request: VoteRequest) -> bool:
        return self.log.is_up_to_date(request.last_index, request.last_term) and request.term >= self.term


class VotesForShorterLogs(RaftCore):
    def may_vote_for(self, request: VoteRequest) -> bool:
        return super().may_vote_for(replace(request, last_index=1 << 30, last_term=1 << 30))


class TakesEntriesWithoutComparing(RaftCore):
    def step(self, message: Message) -> None:
        if isinstance(message, AppendRequest):
            own_term = self.log.term_at(message.prev_index)
            message = message if own_term is None else replace(message, prev_term=own_term)
        super().step(message)


def leading_by(leadership_class: type[Leadership]) -> type[RaftCore]:
    class Core(RaftCore):
        def start_leadership(self) -> Leadership:
            return leadership_class(self.server_id, self.term, self.log, self._settings, self._send)

    return Core


class CommitsEntriesOfOldTermsByCount(Leadership):
    def may_commit(self, index: int) -> bool:
        return True


class CountsItsOwnEntriesBeforeTheyAreDurable(Leadership):
    def _durable_index(self, server_id: str) -> int:
        return self._log.last_index if server_id == self._server_id else super()._durable_index(server_id)


class ReadsWithoutAsking(Leadership):
    def _confirmed_round(self) -> int:
        return self.reads.round


class ChangesMembersManyAtATime(Leadership):
    @property
    def may_change_membership(self) -> bool:
        return self._server_id in self._log.membership.voters


def is_noticed(run_seed: Callable[[int], object], seeds: int) -> bool:
    for seed in range(seeds):
        try:
            run_seed(seed)
        except Exception:  # noqa: BLE001 - whatever breaks, it was noticed
            return True
    return False


@pytest.mark.parametrize(
    "core_class",
    [
        VotesTwiceInATerm,
        VotesForShorterLogs,
        TakesEntriesWithoutComparing,
        leading_by(CommitsEntriesOfOldTermsByCount),
        leading_by(CountsItsOwnEntriesBeforeTheyAreDurable),
        leading_by(ReadsWithoutAsking),
        leading_by(ChangesMembersManyAtATime),
    ],
)
def test_a_broken_rule_is_noticed(core_class: type[RaftCore]) -> None:
    assert is_noticed(lambda seed: run(seed, core_class), 3000)


@pytest.mark.parametrize("sabotage", [Sabotage(forgets_votes=True), Sabotage(sends_before_persisting=True)])
def test_a_broken_promise_of_the_driver_is_noticed(sabotage: Sabotage) -> None:
    assert is_noticed(lambda seed: run(seed, sabotage=sabotage), 3000)
