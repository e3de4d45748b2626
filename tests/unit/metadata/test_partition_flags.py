"""Pause, resume and readonly in metadata: against a model, in any order, and through snapshots."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st
from metadata_states import States

from liftbridge.interfaces.events import MetadataEvent, MetadataEventKind
from liftbridge.metadata.commands import DeleteStream, PausePartitions, ResumePartitions, SetReadonly
from liftbridge.metadata.model import Applied, EventTimes, RefusalReason, Refused, ServerStatus
from liftbridge.metadata.partition_flags import FlagCommand
from liftbridge.metadata.state import MetadataState

PARTITIONS = 3


def cluster() -> tuple[States, int]:
    states = States()
    states.register("a", "b", "c")
    return states, states.create("orders", "abc", "bca", "cab")


def pause(*partitions: int, resume_all: bool = False, at: int = 1) -> PausePartitions:
    return PausePartitions("orders", partitions, resume_all, at)


def resume(*partitions: int, at: int = 1) -> ResumePartitions:
    return ResumePartitions("orders", partitions, at)


def readonly(flag: bool, *partitions: int, at: int = 1) -> SetReadonly:
    return SetReadonly("orders", partitions, flag, at)


@dataclass
class Model:
    """What the flags should be, in the plainest words."""

    paused: set[int] = field(default_factory=set)
    readonly: set[int] = field(default_factory=set)
    resume_all: bool = False
    pause_times: dict[int, list[int]] = field(default_factory=lambda: {n: [] for n in range(PARTITIONS)})
    readonly_times: dict[int, list[int]] = field(default_factory=lambda: {n: [] for n in range(PARTITIONS)})

    def take(self, command: FlagCommand) -> None:
        named = set(command.partitions) or set(range(PARTITIONS))
        match command:
            case PausePartitions():
                fresh = named - self.paused
                if fresh or self.paused:
                    self.resume_all = command.resume_all
                self.paused |= fresh
                self._note(self.pause_times, fresh, command.timestamp_ns)
            case ResumePartitions():
                woken = self.paused if self.resume_all else self.paused & named
                self._note(self.pause_times, woken, command.timestamp_ns)
                self.paused = self.paused - woken
                self.resume_all = self.resume_all and bool(self.paused)
            case SetReadonly():
                other = {n for n in named if (n in self.readonly) != command.readonly}
                self._note(self.readonly_times, other, command.timestamp_ns)
                self.readonly = self.readonly | other if command.readonly else self.readonly - other

    def _note(self, times: dict[int, list[int]], partitions: set[int], now_ns: int) -> None:
        for number in partitions:
            times[number].append(now_ns)


numbers = st.lists(st.integers(0, PARTITIONS - 1), max_size=4).map(tuple)
times = st.integers(1, 50)
commands = st.one_of(
    st.builds(PausePartitions, st.just("orders"), numbers, st.booleans(), times),
    st.builds(ResumePartitions, st.just("orders"), numbers, times),
    st.builds(SetReadonly, st.just("orders"), numbers, st.booleans(), times),
)


def times_of(noted: list[int]) -> EventTimes:
    return EventTimes(noted[0], max(noted)) if noted else EventTimes()


@given(st.lists(st.one_of(commands, st.just("restore")), max_size=30))
def test_flags_are_what_the_model_says_whatever_the_order_and_however_often_restored(
    steps: list[FlagCommand | str],
) -> None:
    states, _ = cluster()
    model = Model()
    for step in steps:
        if isinstance(step, str):
            copy = MetadataState()
            copy.restore(states.state.snapshot())
            assert copy.snapshot() == states.state.snapshot()
            states.state = copy
        else:
            states.apply(step)
            model.take(step)
        stream = states.state.streams["orders"]
        partitions = stream.partitions
        assert {n for n in range(PARTITIONS) if partitions[n].paused} == model.paused
        assert {n for n in range(PARTITIONS) if partitions[n].readonly} == model.readonly
        assert stream.resume_all == model.resume_all
        for number, partition in enumerate(partitions):
            assert partition.pause_times == times_of(model.pause_times[number])
            assert partition.readonly_times == times_of(model.readonly_times[number])
            assert partition.isr == partition.replicas
            assert partition.leader == partition.replicas[0]


def test_what_there_is_not_is_refused_in_the_originals_words() -> None:
    states, _ = cluster()
    for command, reason, text in [
        (PausePartitions("nothing", (), False, 1), RefusalReason.NO_SUCH_STREAM, "stream not found"),
        (PausePartitions("nothing", (0,), False, 1), RefusalReason.NO_SUCH_STREAM, "stream does not exist"),
        (pause(0, 3), RefusalReason.NO_SUCH_PARTITION, "partition does not exist"),
        (pause(-1), RefusalReason.NO_SUCH_PARTITION, "partition does not exist"),
        (SetReadonly("nothing", (), True, 1), RefusalReason.NO_SUCH_STREAM, "stream not found"),
        (SetReadonly("nothing", (1,), True, 1), RefusalReason.NO_SUCH_STREAM, "stream does not exist"),
        (readonly(True, 7), RefusalReason.NO_SUCH_PARTITION, "partition does not exist"),
    ]:
        assert states.apply(command) == Refused(reason, text)
    assert not any(one.paused or one.readonly for one in states.state.streams["orders"].partitions)


def test_a_request_for_another_isr_from_before_the_pause_is_stale() -> None:
    states, stream_id = cluster()
    epoch = states.partition(stream_id).partition_epoch
    states.apply(pause())
    assert not states.change(stream_id, epoch=epoch, isr="a")
    assert states.partition(stream_id).isr == ("a", "b", "c")


def test_a_resume_begins_a_leader_epoch_and_a_pause_does_not() -> None:
    states, stream_id = cluster()
    before = states.partition(stream_id)
    states.apply(pause(0))
    assert states.partition(stream_id).leader_epoch == before.leader_epoch
    states.apply(resume(0))
    after = states.partition(stream_id)
    assert after.leader_epoch > before.leader_epoch
    assert after.leader == "a"


def test_a_paused_partition_gets_another_leader_and_stays_paused_and_readonly() -> None:
    states, stream_id = cluster()
    states.apply(pause(0))
    states.apply(readonly(True, 0))
    states.set_status("a", ServerStatus.DOWN)
    assert states.change(stream_id, leader="b", isr="bc")
    partition = states.partition(stream_id)
    assert (partition.leader, partition.paused, partition.readonly) == ("b", True, True)
    states.register("a", start=2, unclean=True)
    assert states.partition(stream_id).paused


def test_a_pause_for_idleness_holds_only_for_the_leader_epoch_that_was_idle_and_leaves_resume_all() -> None:
    states, stream_id = cluster()
    states.apply(pause(2, resume_all=True))
    idle = [states.partition(stream_id, number).leader_epoch for number in (0, 1)]
    assert states.change(stream_id, 1, leader="a")
    states.apply(PausePartitions("orders", (0, 1), False, 5, tuple(idle)))
    assert [one.paused for one in states.state.streams["orders"].partitions] == [True, False, True]
    assert states.state.streams["orders"].resume_all
    states.apply(DeleteStream("orders"))
    states.create("orders", "abc")
    states.apply(PausePartitions("orders", (0,), False, 5, (idle[0],)))
    assert not states.state.streams["orders"].partitions[0].paused


def test_observers_hear_what_changed_once() -> None:
    states, _ = cluster()
    heard: list[MetadataEvent] = []
    states.state.subscribe_events(heard.append)
    states.apply(pause(1, resume_all=True))
    states.apply(pause(1, resume_all=True))
    states.apply(readonly(True))
    states.apply(readonly(True, 0))
    states.apply(pause(0, 1, resume_all=True))
    states.apply(resume(1))
    states.apply(resume(1))
    states.apply(readonly(False, 2))
    assert [(one.kind, one.partitions, one.resume_all, one.readonly) for one in heard] == [
        (MetadataEventKind.PAUSED, (1,), True, False),
        (MetadataEventKind.READONLY_CHANGED, (0, 1, 2), False, True),
        (MetadataEventKind.PAUSED, (0,), True, False),
        (MetadataEventKind.RESUMED, (0, 1), False, False),
        (MetadataEventKind.READONLY_CHANGED, (2,), False, False),
    ]
    assert all(one.stream == "orders" for one in heard)


def test_what_changes_nothing_is_accepted_and_wakes_nobody() -> None:
    states, _ = cluster()
    states.apply(pause())
    changes: list[int] = []
    states.state.subscribe(lambda: changes.append(1))
    outcome = states.apply(pause())
    assert isinstance(outcome, Applied)
    assert not changes
