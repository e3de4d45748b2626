"""What the controller decides, on a clock that the test moves."""

from collections import Counter

import pytest
from metadata_states import NoPolicy, States

from liftbridge.cluster.control import ControllerCore, ControlSettings, Suspicion
from liftbridge.cluster.operations import burden
from liftbridge.interfaces.log import LogId
from liftbridge.metadata.commands import (
    ChangePartitions,
    ChangeServer,
    Command,
    PartitionChange,
    PausePartitions,
    ResumePartitions,
)
from liftbridge.metadata.model import ServerStatus
from liftbridge.partition.troubles import Trouble, TroubleKind

SECOND_NS = 1_000_000_000
SETTINGS = ControlSettings(session_timeout_s=1.0, suspicion_window_s=5.0, rebalance_interval_s=0)


class Controlled:
    """A controller on server a, with everybody else's heartbeats in the test's hands."""

    def __init__(self, settings: ControlSettings = SETTINGS, policy: object = None) -> None:
        self.states = States()
        self.states.register("a", "b", "c")
        self.core = ControllerCore("a", self.states.state, policy or NoPolicy(), settings)  # type: ignore[arg-type]
        self.now_ns = 0
        self.settle()

    def beat(self, *server_ids: str) -> None:
        for server_id in server_ids:
            server = self.states.state.servers[server_id]
            self.core.heartbeat(server_id, server.incarnation, self.now_ns)

    def pass_time(self, seconds: float, *alive: str) -> None:
        """Step by step, with heartbeats of those that are alive; what is planned is carried out."""
        for _ in range(round(seconds / 0.1)):
            self.now_ns += SECOND_NS // 10
            self.beat(*alive)
            self.settle()

    def settle(self) -> list[Command]:
        """Carries out what is planned until nothing is; returns all of it."""
        done: list[Command] = []
        for _ in range(100):
            commands = self.core.plan(self.now_ns)
            if not commands:
                return done
            for command in commands:
                self.states.apply(command)
            done += commands
        raise AssertionError(f"the controller finds no rest: {done[-3:]}")

    def status(self, server_id: str) -> ServerStatus:
        return self.states.state.servers[server_id].status

    def suspect(self, stream: int, reporter: str, *, epoch: int | None = None, start: int = 1) -> str:
        epoch = self.states.partition(stream).leader_epoch if epoch is None else epoch
        return self.core.suspect(Suspicion(stream, 0, epoch, reporter, f"{reporter}-{start}"), self.now_ns)


def cannot_store(stream: int, number: int) -> Trouble:
    return Trouble(LogId(stream, number), TroubleKind.CANNOT_STORE, "no room")


@pytest.fixture
def controlled() -> Controlled:
    return Controlled()


# --- sessions ---------------------------------------------------------------------------------------------------------


def test_who_beats_stays_live_and_who_is_silent_for_a_time_out_is_down(controlled: Controlled) -> None:
    controlled.pass_time(5, "b", "c")
    assert {controlled.status(one) for one in "abc"} == {ServerStatus.LIVE}
    controlled.pass_time(0.9, "b")
    assert controlled.status("c") is ServerStatus.LIVE
    controlled.pass_time(0.3, "b")
    assert controlled.status("c") is ServerStatus.DOWN
    assert controlled.status("b") is ServerStatus.LIVE


def test_a_new_controller_gives_everybody_a_whole_time_out(controlled: Controlled) -> None:
    controlled.now_ns = 1000 * SECOND_NS
    core = ControllerCore("a", controlled.states.state, NoPolicy(), SETTINGS)  # type: ignore[arg-type]
    for tenth in range(11):
        assert core.plan(controlled.now_ns + tenth * SECOND_NS // 10) == []
    later = core.plan(controlled.now_ns + SECOND_NS + 1)
    assert {command.server_id for command in later if isinstance(command, ChangeServer)} == {"b", "c"}


def test_a_controller_that_was_frozen_does_not_take_the_others_for_dead(controlled: Controlled) -> None:
    controlled.pass_time(3, "b", "c")
    controlled.now_ns += 5 * SECOND_NS
    assert controlled.settle() == []
    controlled.pass_time(0.9, "b")
    assert controlled.settle() == []
    controlled.pass_time(0.3, "b")
    assert controlled.status("c") is ServerStatus.DOWN


def test_a_controller_that_was_cut_off_begins_to_count_anew(controlled: Controlled) -> None:
    controlled.pass_time(0.9)
    controlled.core.forget_silence()
    controlled.pass_time(0.9)
    assert controlled.status("c") is ServerStatus.LIVE


def test_a_server_that_has_just_started_gets_a_whole_time_out(controlled: Controlled) -> None:
    controlled.pass_time(3, "b", "c")
    controlled.states.register("c", start=2)
    controlled.pass_time(0.9, "b")
    assert controlled.status("c") is ServerStatus.LIVE


def test_heartbeats_of_an_earlier_start_count_for_nothing(controlled: Controlled) -> None:
    controlled.states.register("c", start=2)
    assert not controlled.core.heartbeat("c", "c-1", controlled.now_ns)
    assert not controlled.core.heartbeat("stranger", "x", controlled.now_ns)
    assert controlled.core.heartbeat("c", "c-2", controlled.now_ns)


def test_a_server_that_was_down_is_live_again_when_it_beats(controlled: Controlled) -> None:
    controlled.pass_time(2, "b")
    assert controlled.status("c") is ServerStatus.DOWN
    controlled.pass_time(0.1, "b", "c")
    assert controlled.status("c") is ServerStatus.LIVE


def test_a_server_that_said_goodbye_is_not_brought_back_by_its_last_heartbeat(controlled: Controlled) -> None:
    controlled.pass_time(1, "b", "c")
    controlled.states.set_status("c", ServerStatus.DOWN)
    controlled.pass_time(2, "b")
    assert controlled.status("c") is ServerStatus.DOWN


def test_the_controller_is_alive_itself_even_if_it_was_taken_for_dead(controlled: Controlled) -> None:
    controlled.states.set_status("a", ServerStatus.DOWN)
    controlled.settle()
    assert controlled.status("a") is ServerStatus.LIVE


def test_nothing_is_planned_while_nothing_changes(controlled: Controlled) -> None:
    controlled.states.create("s", "abc", "bca")
    assert controlled.settle() == []


def test_who_is_quiet_is_worth_a_question_and_who_is_gone_is_down_at_once(controlled: Controlled) -> None:
    controlled.pass_time(2, "b", "c")
    assert controlled.core.quiet(controlled.now_ns) == []
    controlled.pass_time(0.6, "b")
    assert controlled.core.quiet(controlled.now_ns) == [("c", "c-1")]
    controlled.core.gone("c", "an earlier start")
    controlled.settle()
    assert controlled.status("c") is ServerStatus.LIVE
    controlled.core.gone("c", "c-1")
    controlled.settle()
    assert controlled.status("c") is ServerStatus.DOWN
    assert controlled.core.quiet(controlled.now_ns) == []
    controlled.pass_time(0.1, "b", "c")
    assert controlled.status("c") is ServerStatus.LIVE


# --- elections --------------------------------------------------------------------------------------------------------


def test_the_live_isr_member_that_leads_least_takes_over(controlled: Controlled) -> None:
    for name in ("b1", "b2"):
        controlled.states.create(name, "bac")
    stream = controlled.states.create("s", "cab")
    controlled.pass_time(2, "b")
    partition = controlled.states.partition(stream)
    assert partition.leader == "a"
    assert partition.isr == ("c", "a", "b"), "who is dead leaves the ISR when the new leader says so"


def test_nobody_outside_the_isr_is_elected(controlled: Controlled) -> None:
    stream = controlled.states.create("s", "cab")
    controlled.states.change(stream, isr="c")
    controlled.pass_time(2, "b")
    assert controlled.states.partition(stream).leader == ""
    controlled.pass_time(0.2, "b", "c")
    assert controlled.states.partition(stream).leader == "c"


def test_a_thousand_partitions_fail_over_with_a_handful_of_commands(controlled: Controlled) -> None:
    stream = controlled.states.create("s", *["cab"] * 1000)
    controlled.pass_time(0.9, "b")
    controlled.now_ns += SECOND_NS // 5
    controlled.beat("b")
    commands = controlled.settle()
    assert len(commands) == 5
    partitions = [controlled.states.partition(stream, number) for number in range(1000)]
    assert Counter(one.leader for one in partitions) == {"a": 500, "b": 500}


def test_an_unclean_restart_of_a_leader_leads_to_an_election(controlled: Controlled) -> None:
    stream = controlled.states.create("s", "bac")
    controlled.states.register("b", start=2, unclean=True)
    controlled.settle()
    assert controlled.states.partition(stream).leader in "ac"


def test_a_plugin_chooses_the_new_leader_and_nonsense_of_it_does_no_harm() -> None:
    class Policy(NoPolicy):
        answer = "b"

        def choose_leader(self, *_: object) -> str:  # type: ignore[override]
            return self.answer

    policy = Policy()
    controlled = Controlled(policy=policy)
    stream = controlled.states.create("s", "cab")
    other = controlled.states.create("t", "bac")
    controlled.pass_time(2, "b")
    assert controlled.states.partition(stream).leader == "b"
    policy.answer = "nobody"
    controlled.pass_time(2)
    assert controlled.states.partition(stream).leader == controlled.states.partition(other).leader == "a"


# --- suspicions -------------------------------------------------------------------------------------------------------


def test_a_leader_that_all_its_followers_suspect_is_replaced(controlled: Controlled) -> None:
    stream = controlled.states.create("s", "bac")
    assert controlled.suspect(stream, "c") == ""
    assert controlled.settle() == [], "one of two is no majority"
    assert controlled.suspect(stream, "a") == ""
    controlled.settle()
    partition = controlled.states.partition(stream)
    assert partition.leader in "ac"
    assert controlled.settle() == [], "the reports died with the epoch"


def test_the_only_live_follower_is_enough(controlled: Controlled) -> None:
    stream = controlled.states.create("s", "bac")
    controlled.pass_time(2, "b")
    assert controlled.suspect(stream, "a") == ""
    controlled.settle()
    assert controlled.states.partition(stream).leader == "a"


def test_reports_far_apart_do_not_add_up(controlled: Controlled) -> None:
    stream = controlled.states.create("s", "bac")
    controlled.suspect(stream, "c")
    controlled.pass_time(6, "b", "c")
    controlled.suspect(stream, "a")
    assert controlled.settle() == []
    assert controlled.states.partition(stream).leader == "b"


def test_the_same_reporter_counts_once(controlled: Controlled) -> None:
    stream = controlled.states.create("s", "bac")
    for _ in range(5):
        controlled.suspect(stream, "c")
    assert controlled.settle() == []


def test_only_followers_in_the_isr_of_the_present_epoch_may_report(controlled: Controlled) -> None:
    stream = controlled.states.create("s", "bac")
    old_epoch = controlled.states.partition(stream).leader_epoch
    assert "no follower" in controlled.suspect(stream, "b")
    assert "no follower" in controlled.suspect(stream, "x")
    assert "started again" in controlled.suspect(stream, "c", start=7)
    controlled.states.change(stream, leader="b")
    assert "stale" in controlled.suspect(stream, "c", epoch=old_epoch)
    controlled.states.change(stream, isr="ba")
    assert "no follower" in controlled.suspect(stream, "c")


def test_a_suspected_leader_leads_on_when_nobody_could_take_over(controlled: Controlled) -> None:
    stream = controlled.states.create("s", "bc")
    controlled.suspect(stream, "c")
    controlled.states.set_status("c", ServerStatus.DOWN)
    controlled.settle()
    assert controlled.states.partition(stream).leader == "b"


# --- draining and evening out -----------------------------------------------------------------------------------------


def test_a_draining_server_hands_over_in_batches_and_leaves_the_isrs(controlled: Controlled) -> None:
    stream = controlled.states.create("s", *["bac"] * 60, *["abc"] * 60)
    controlled.states.set_status("b", ServerStatus.DRAINING)
    commands = controlled.settle()
    assert [len(one.changes) for one in commands if isinstance(one, ChangePartitions)] == [50, 50, 20]
    partitions = [controlled.states.partition(stream, number) for number in range(120)]
    assert all(one.leader in "ac" and set(one.isr) == {"a", "c"} for one in partitions)


def test_a_draining_server_stays_in_the_isr_of_what_is_paused(controlled: Controlled) -> None:
    """Nothing is written there that it could miss, and nobody could take it in again before the resume."""
    stream = controlled.states.create("s", "ab", "ba")
    controlled.states.apply(PausePartitions("s", (), resume_all=False, timestamp_ns=1))
    controlled.states.set_status("b", ServerStatus.DRAINING)
    controlled.settle()
    partitions = [controlled.states.partition(stream, number) for number in range(2)]
    assert [one.leader for one in partitions] == ["a", "a"]
    assert [set(one.isr) for one in partitions] == [{"a", "b"}] * 2
    assert burden(controlled.states.state, "b") == 0
    controlled.states.apply(ResumePartitions("s", (), timestamp_ns=2))
    controlled.settle()
    assert [controlled.states.partition(stream, number).isr for number in range(2)] == [("a",)] * 2


def test_a_draining_server_keeps_what_nobody_else_can_take(controlled: Controlled) -> None:
    stream = controlled.states.create("s", "b", "bc")
    controlled.pass_time(2, "b")
    controlled.states.set_status("b", ServerStatus.DRAINING)
    controlled.settle()
    assert [controlled.states.partition(stream, number).leader for number in range(2)] == ["b", "b"]


def test_a_draining_server_is_not_elected(controlled: Controlled) -> None:
    stream = controlled.states.create("s", "cb")
    controlled.states.set_status("b", ServerStatus.DRAINING)
    controlled.settle()
    controlled.pass_time(2, "b")
    assert controlled.states.partition(stream).leader == ""


def test_who_can_store_nothing_hands_its_lead_to_who_can_and_leaves_the_isr(controlled: Controlled) -> None:
    stream = controlled.states.create("s", "abc", "abc")
    controlled.core.note_troubles("a", [cannot_store(stream, 0)])
    controlled.core.note_troubles("b", [cannot_store(stream, 0)])
    (command,) = controlled.settle()
    assert isinstance(command, ChangePartitions)
    partition = controlled.states.partition(stream, 0)
    assert (partition.leader, set(partition.isr)) == ("c", {"b", "c"})
    assert controlled.states.partition(stream, 1).leader == "a", "there it can"


def test_it_leads_on_where_nobody_else_can_store_or_nothing_is_stored(controlled: Controlled) -> None:
    stream = controlled.states.create("s", "ab", "a", "ab", "ab")
    controlled.states.apply(PausePartitions("s", (2,), resume_all=False, timestamp_ns=1))
    controlled.core.note_troubles("a", [cannot_store(stream, number) for number in range(3)])
    controlled.core.note_troubles("b", [cannot_store(stream, 0)])
    assert controlled.settle() == []
    controlled.core.note_troubles("b", [])
    controlled.settle()
    assert [controlled.states.partition(stream, number).leader for number in range(4)] == ["b", "a", "a", "a"]


def test_who_cannot_open_or_store_gets_no_lead_while_others_can() -> None:
    controlled = Controlled(ControlSettings(rebalance_interval_s=1))
    stream = controlled.states.create("s", *["abc"] * 6)
    controlled.core.note_troubles("b", [cannot_store(stream, number) for number in range(6)])
    controlled.pass_time(10, "b", "c")
    led = Counter(controlled.states.partition(stream, number).leader for number in range(6))
    assert led == {"a": 3, "c": 3}
    controlled.pass_time(3, "b")
    led = Counter(controlled.states.partition(stream, number).leader for number in range(6))
    assert led == {"a": 6}
    controlled.states.set_status("a", ServerStatus.DRAINING)
    controlled.settle()
    led = Counter(controlled.states.partition(stream, number).leader for number in range(6))
    assert led == {"b": 6}, "who serves readers is better than nobody"


def test_leaderships_are_evened_out_after_a_calm_while() -> None:
    controlled = Controlled(ControlSettings(rebalance_interval_s=10, drain_batch=4))
    stream = controlled.states.create("s", *["abc"] * 12)
    controlled.pass_time(9, "b", "c")
    assert {controlled.states.partition(stream, number).leader for number in range(12)} == {"a"}
    controlled.pass_time(2, "b", "c")
    led = Counter(controlled.states.partition(stream, number).leader for number in range(12))
    assert led["a"] == 8
    controlled.pass_time(40, "b", "c")
    led = Counter(controlled.states.partition(stream, number).leader for number in range(12))
    assert led == {"a": 4, "b": 4, "c": 4}
    epochs = [controlled.states.partition(stream, number).leader_epoch for number in range(12)]
    controlled.pass_time(40, "b", "c")
    assert epochs == [controlled.states.partition(stream, number).leader_epoch for number in range(12)]


def test_a_partition_that_lacks_a_replica_gets_one_when_it_is_calm() -> None:
    controlled = Controlled(ControlSettings(rebalance_interval_s=10, drain_batch=1))
    stream = controlled.states.create("s", "abc", "bca")
    for number in range(2):
        controlled.states.change(stream, number, replicas="ab", isr="ab")
    controlled.states.register("d")
    controlled.states.set_status("c", ServerStatus.GONE)
    controlled.pass_time(11, "b", "d")
    assert [len(controlled.states.partition(stream, number).replicas) for number in range(2)] == [3, 2]
    controlled.pass_time(11, "b", "d")
    for number in range(2):
        partition = controlled.states.partition(stream, number)
        assert set(partition.replicas) == {"a", "b", "d"}
        assert set(partition.isr) == {"a", "b"}, "it comes in when it has caught up"


def test_only_taking_the_lead_from_who_could_go_on_is_planned(controlled: Controlled) -> None:
    stream = controlled.states.create("s", "bac")
    controlled.pass_time(0.5, "b", "c")

    def change() -> PartitionChange:
        return PartitionChange(stream, 0, controlled.states.partition(stream).partition_epoch, leader="c")

    assert controlled.core.is_planned(change())
    controlled.states.apply(ChangeServer("b", ServerStatus.DOWN))
    assert not controlled.core.is_planned(change())
