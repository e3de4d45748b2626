"""The outbox: what was committed since the activity stream exists and isn't published, in order, whatever happens."""

from hypothesis import given
from hypothesis import strategies as st
from metadata_states import States

from liftbridge.interfaces.events import MetadataEvent, MetadataEventKind
from liftbridge.metadata import activity_outbox
from liftbridge.metadata.activity_outbox import ActivityOutbox, activity_event
from liftbridge.metadata.commands import ActivityPublished, DeleteStream
from liftbridge.metadata.model import ACTIVITY_STREAM, Applied
from liftbridge.metadata.state import MetadataState
from liftbridge.protocol.generated import api_pb2 as api


def waiting(states: States) -> list[api.ActivityStreamEvent]:
    return [api.ActivityStreamEvent.FromString(entry.event) for entry in states.state.activity]


def test_first_event_is_the_creation_of_the_stream_itself() -> None:
    states = States()
    states.register("a")
    states.create("before", "a")
    assert waiting(states) == []
    index = states.create(ACTIVITY_STREAM, "a")
    assert waiting(states) == [
        api.ActivityStreamEvent(
            id=index, op=api.CREATE_STREAM, createStreamOp=api.CreateStreamOp(stream=ACTIVITY_STREAM, partitions=[0])
        )
    ]


def test_changes_that_clients_need_not_know_are_no_events() -> None:
    kinds = [MetadataEventKind.LEADER_ELECTED, MetadataEventKind.ISR_CHANGED, MetadataEventKind.SERVER_DOWN]
    assert [activity_event(MetadataEvent(1, kind, "s", (0,))) for kind in kinds] == [None] * 3


def test_nothing_is_kept_when_the_activity_stream_is_gone() -> None:
    states = States()
    states.register("a")
    states.create(ACTIVITY_STREAM, "a")
    states.apply(DeleteStream(ACTIVITY_STREAM))
    states.create("s", "a")
    assert waiting(states) == []


def test_the_oldest_give_way_and_are_counted() -> None:
    outbox = ActivityOutbox()
    for index in range(1, activity_outbox.MAX_ENTRIES + 6):
        outbox.record(MetadataEvent(index, MetadataEventKind.STREAM_DELETED, "s"))
    assert (len(outbox), outbox.lost) == (activity_outbox.MAX_ENTRIES, 5)
    assert outbox.after(0, 1)[0].index == 6


@given(st.lists(st.sampled_from(["create", "delete", "publish", "publish later", "snapshot"]), max_size=60))
def test_a_publisher_of_what_waits_gets_every_event_once_whatever_the_order(steps: list[str]) -> None:
    states = States()
    states.register("a")
    expected = [states.create(ACTIVITY_STREAM, "a")]
    published: list[int] = []
    streams: list[str] = []
    for number, step in enumerate(steps):
        if step == "create":
            streams.append(f"s{number}")
            expected.append(states.create(streams[-1], "a"))
        elif step == "delete" and streams:
            applied = states.apply(DeleteStream(streams.pop()))
            assert isinstance(applied, Applied)
            expected.append(applied.index)
        elif step.startswith("publish"):
            last = published[-1] if published else 0
            published += [entry.index for entry in states.state.activity.after(last, 2)]
            if step == "publish" and published:
                states.apply(ActivityPublished(published[-1]))
        elif step == "snapshot":
            restored = MetadataState()
            restored.restore(states.state.snapshot())
            assert restored.snapshot() == states.state.snapshot()
            states.state = restored
    last = published[-1] if published else 0
    published += [entry.index for entry in states.state.activity.after(last, 1000)]
    assert published == expected
