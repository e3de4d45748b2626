"""Whole groups under random faults, each run replayable by its seed; and broken rules, which the runs must notice."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from raft_simulation import Sabotage, Simulation, Violation

from liftbridge_raft_builtin.core import Message, RaftCore, Role
from liftbridge_raft_builtin.core.leadership import Leadership
from liftbridge_raft_builtin.core.messages import AppendRequest, TimeoutNow, VoteRequest

STEPS = 2500


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
    runs = [run(seed) for seed in range(400)]
    # The runs would show nothing if nothing happened in them.
    assert sum(len(one.history.leaders) for one in runs) > 400
    assert sum(one.history.commit for one in runs) > 4000
    assert sum(len(one.history.reads) for one in runs) > 400
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
        leading_by(ReadsWithoutAsking),
        leading_by(ChangesMembersManyAtATime),
    ],
)
def test_a_broken_rule_is_noticed(core_class: type[RaftCore]) -> None:
    assert is_noticed(lambda seed: run(seed, core_class), 3000)


def test_telling_before_persisting_is_noticed() -> None:
    assert is_noticed(lambda seed: run(seed, sabotage=Sabotage(sends_before_persisting=True)), 3000)


# --- histories too rare for chance --------------------------------------------------------------------------------------


def campaign(simulation: Simulation, candidate: str, voters: set[str], *, times: int = 1) -> None:
    """Lets a server ask for votes, that many terms in a row, and only these voters hear of the last one and answer."""
    server = simulation.servers[candidate]
    for _ in range(times):
        server.core.step(TimeoutNow(sender="", to=candidate, term=server.core.term))
    simulation.network.clear()
    work_off(simulation, candidate)
    term = server.core.term
    simulation.deliver_where(lambda message: message.to in voters and message.term == term)
    work_off(simulation, *voters)
    simulation.deliver_where(lambda message: message.to == candidate)


def work_off(simulation: Simulation, *server_ids: str) -> None:
    for server_id in sorted(server_ids):
        while simulation.work(simulation.servers[server_id]):
            simulation.history.check(simulation.servers[server_id])


def exchange(simulation: Simulation, one: str, others: set[str], wanted: Callable[[Message], bool]) -> None:
    """The wanted messages there, and the answers back."""
    work_off(simulation, one)
    simulation.deliver_where(lambda message: message.to in others and wanted(message))
    work_off(simulation, *others)
    simulation.deliver_where(lambda message: message.to == one)


def two_candidates_and_a_voter_that_restarts(sabotage: Sabotage) -> None:
    simulation = Simulation(0, sabotage=sabotage)
    simulation.loss = 0
    campaign(simulation, "s0", {"s2"})
    assert simulation.servers["s0"].core.role is Role.LEADER
    simulation.crash_now("s2")
    simulation.restart(simulation.servers["s2"])
    campaign(simulation, "s1", {"s2"})


def test_a_voter_that_restarts_keeps_its_vote() -> None:
    two_candidates_and_a_voter_that_restarts(Sabotage())


def test_a_forgotten_vote_is_noticed() -> None:
    with pytest.raises(Violation, match="election safety"):
        two_candidates_and_a_voter_that_restarts(Sabotage(forgets_votes=True))


def an_old_entry_on_a_majority(core_class: type[RaftCore]) -> Simulation:
    """Figure 8 of the Raft paper: an entry of an old term reaches a majority, and yet another one wins its place."""
    simulation = Simulation(0, voters=5, core_class=core_class)
    servers = simulation.servers
    campaign(simulation, "s0", {"s1", "s2"})
    exchange(simulation, "s0", {"s1"}, lambda message: True)  # s0 and s1 have entry 2 of term 2
    simulation.crash_now("s0")
    campaign(simulation, "s4", {"s2", "s3"}, times=2)
    assert servers["s4"].core.role is Role.LEADER
    work_off(simulation, "s4")  # s4 alone has entry 2 of term 3
    simulation.crash_now("s4")
    simulation.restart(servers["s0"])
    campaign(simulation, "s0", {"s1", "s2"}, times=2)
    assert servers["s0"].core.role is Role.LEADER
    for _ in range(6):  # entry 2 of term 2 reaches s2 too, but entry 3 of this term nobody
        servers["s0"].core.tick()
        exchange(simulation, "s0", {"s1", "s2"}, lambda message: not has_entry(message, 3))
    assert [servers[one].core.log.term_at(2) for one in ("s0", "s1", "s2")] == [2, 2, 2]
    assert [servers[one].core.log.last_index for one in ("s0", "s1", "s2")] == [3, 2, 2]
    simulation.history.check(servers["s0"])
    simulation.crash_now("s0")
    simulation.restart(servers["s4"])
    campaign(simulation, "s4", {"s2", "s3"}, times=3)
    assert servers["s4"].core.role is Role.LEADER
    return simulation


def has_entry(message: Message, index: int) -> bool:
    return isinstance(message, AppendRequest) and any(entry.index == index for entry in message.entries)


def test_an_old_entry_is_not_committed_by_counting_who_has_it() -> None:
    simulation = an_old_entry_on_a_majority(RaftCore)
    assert 2 not in simulation.history.committed
    simulation.heal()


def test_committing_an_old_entry_by_count_is_noticed() -> None:
    with pytest.raises(Violation, match="leader completeness"):
        an_old_entry_on_a_majority(leading_by(CommitsEntriesOfOldTermsByCount))
