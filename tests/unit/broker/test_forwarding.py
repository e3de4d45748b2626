"""Lanes to partitions that other servers lead: order is kept, what may be stored goes to nobody but who may have stored it,
all is answered."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from liftbridge.broker.forwarding import MAX_LANE_BYTES, Forwarder, ForwardLane
from liftbridge.broker.targets import AckTarget, RemoteLeader, Target
from liftbridge.errors import TransportClosed
from liftbridge.interfaces.transport import Delivery
from liftbridge.partition.partition import PartitionKey
from liftbridge.partition.refusal import Refusal, RefusalKind
from liftbridge.protocol.forwarding import (
    Answer,
    Chunk,
    Question,
    RefusedMessage,
    Verdict,
    decode_to_leader,
    encode_answer,
)
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.publish_requests import RequestParser
from liftbridge.protocol.record_batch import RECORD_PREFIX
from liftbridge.testing.virtual_clock import VirtualClock

TARGET = Target(AckTarget("s", "s"), "s", None, RemoteLeader("b", 7, 3), False, (), False)


class Wire:
    """The transport's sending side: what was published, as chunks and questions."""

    max_payload_bytes = 1024 * 1024

    def __init__(self) -> None:
        self.chunks: list[tuple[str, Chunk]] = []
        self.questions: list[tuple[str, Question]] = []
        self.away = False

    def publish_direct(self, subject: str, payloads: Sequence[bytes], **_: Any) -> None:
        if self.away:
            raise TransportClosed("away")
        for message in map(decode_to_leader, payloads):
            if isinstance(message, Chunk):
                self.chunks.append((subject, message))
            else:
                self.questions.append((subject, message))


class Targets:
    """One partition's."""

    def __init__(self) -> None:
        self.now: Target | Refusal = TARGET

    def find(self, *_: Any) -> Target | Refusal:
        return self.now


class Outcomes:
    """What a publisher heard."""

    def __init__(self) -> None:
        self.stored_count = 0
        self.refusals: list[tuple[bytes, RefusalKind]] = []

    def stored(self, responses: bytes, count: int) -> None:
        del responses
        self.stored_count += count

    def refused(self, correlation_ids: Sequence[bytes], refusal: Refusal) -> None:
        self.refusals += [(id_, refusal.kind) for id_ in correlation_ids]


class World:
    """A lane and everything around it."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.resumed: list[PartitionKey] = []
        self.wire, self.targets, self.outcomes = Wire(), Targets(), Outcomes()
        self.forwarder = Forwarder(
            self.wire,  # type: ignore[arg-type]
            self.targets,  # type: ignore[arg-type]
            self.clock,
            namespace="n",
            server_id="a",
            incarnation="i",
            resume=self.resumed.append,
        )
        self.rooms = 0
        self.attempt = 0
        self.lane: ForwardLane = self.forwarder.open_lane("s", 0, self._has_room)

    def _has_room(self) -> None:
        self.rooms += 1

    def submit(self, *ids: str, value: bytes = b"x") -> None:
        requests = [api.PublishRequest(stream="s", value=value, correlationId=id_).SerializeToString() for id_ in ids]
        framed = b"".join(RECORD_PREFIX.pack(0, len(one)) + one for one in requests)
        (run,) = RequestParser().parse(framed)
        self.lane.submit(framed, run, "inbox", self.outcomes)

    def sent(self) -> list[tuple[str, list[str], bool]]:
        """Where each chunk since the last call went, whose messages are in it, and whether an attempt begins with it."""
        chunks, self.wire.chunks = self.wire.chunks, []
        self.last = [chunk for _, chunk in chunks]
        return [(subject, _ids(chunk), self._starts(chunk)) for subject, chunk in chunks]

    def _starts(self, chunk: Chunk) -> bool:
        before, self.attempt = self.attempt, chunk.attempt
        return before != chunk.attempt

    def asked(self) -> list[tuple[str, tuple[tuple[int, int], ...]]]:
        """Who was asked since the last call, and about what."""
        questions, self.wire.questions = self.wire.questions, []
        return [(subject, question.awaited) for subject, question in questions]

    def answer(self, chunk: Chunk, *, refused: tuple[RefusedMessage, ...] = ()) -> None:
        self._hear(Answer(chunk.lane, chunk.attempt, chunk.sequence, Verdict.DONE, b"", refused))

    def say(self, verdict: Verdict, about: Chunk, sequence: int | None = None) -> None:
        """The leader says it of the chunk's sequence, or another one, in the chunk's attempt."""
        self._hear(Answer(about.lane, about.attempt, about.sequence if sequence is None else sequence, verdict))

    def _hear(self, answer: Answer) -> None:
        self.forwarder._receive([Delivery(self.forwarder.answer_subject, "", [encode_answer(answer)])])

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.lane.tick(self.clock.monotonic_ns())


def _ids(chunk: Chunk) -> list[str]:
    return [id_.decode() for run in RequestParser().parse(chunk.requests) for id_ in run.correlation_ids]


@pytest.fixture
async def world() -> World:
    return World()


async def test_chunks_go_to_the_leader_at_once_and_their_answers_come_back(world: World) -> None:
    world.submit("1", "2")
    world.submit("3")
    assert world.sent() == [("n.publish.b", ["1", "2"], True), ("n.publish.b", ["3"], False)]
    for chunk in world.last:
        world.answer(chunk)
    assert world.outcomes.stored_count == 3
    assert not world.lane.busy


async def test_what_was_not_taken_is_sent_again_in_order_under_a_new_attempt(world: World) -> None:
    for id_ in ("1", "2", "3"):
        world.submit(id_)
    world.sent()
    first, second, third = world.last
    world.answer(first)
    world.say(Verdict.NOT_TAKEN, second)
    world.say(Verdict.NOT_TAKEN, third, second.sequence)
    world.submit("4")
    assert world.sent() == []
    world.pass_time(0.1)
    assert world.sent() == [
        ("n.publish.b", ["2"], True),
        ("n.publish.b", ["3"], False),
        ("n.publish.b", ["4"], False),
    ]
    world.answer(second)  # of the attempt before: nobody waits for it
    assert world.outcomes.stored_count == 1


async def test_nothing_goes_to_a_new_leader_before_the_old_one_answered(world: World) -> None:
    world.submit("1")
    world.sent()
    (first,) = world.last
    world.targets.now = replace(TARGET, leader=RemoteLeader("c", 7, 4))
    world.submit("2")
    assert world.sent() == []
    world.answer(first)
    assert world.sent() == [("n.publish.c", ["2"], True)]


async def test_answers_that_a_former_leader_doesnt_give_in_time_are_unknown_and_nothing_is_repeated(
    world: World,
) -> None:
    world.submit("1")
    world.sent()
    world.targets.now = replace(TARGET, leader=RemoteLeader("c", 7, 4))
    world.submit("2")
    world.pass_time(0.1)
    world.pass_time(1.1)
    assert world.outcomes.refusals == [(b"1", RefusalKind.OUTCOME_UNKNOWN)]
    assert world.sent() == [("n.publish.c", ["2"], True)]


async def test_silence_of_the_leader_is_an_unknown_outcome(world: World) -> None:
    world.submit("1")
    world.pass_time(11)
    assert world.outcomes.refusals == [(b"1", RefusalKind.OUTCOME_UNKNOWN)]


async def test_the_leader_is_asked_about_what_it_doesnt_answer_more_and_more_rarely(world: World) -> None:
    for id_ in ("1", "2", "3"):
        world.submit(id_)
    world.sent()
    world.answer(world.last[1])
    first = world.last[0].sequence
    moments = []
    for moment in range(1, 60):
        world.pass_time(0.05)
        if asked := world.asked():
            moments.append(round(moment * 0.05, 2))
            assert asked == [("n.publish.b", ((first, first + 1), (first + 2, first + 3)))]
    assert moments == [0.55, 1.55, 2.55]
    assert world.sent() == [], "a question is small; only what the leader misses is sent again"


async def test_a_leader_that_answers_slowly_one_after_the_other_is_left_alone(world: World) -> None:
    for id_ in range(20):
        world.submit(str(id_))
    world.sent()
    for chunk in world.last:
        for _ in range(8):
            world.pass_time(0.05)
        world.answer(chunk)
    assert world.asked() == []
    assert world.outcomes.stored_count == 20


async def test_what_the_leader_misses_is_sent_again_as_it_was_before_anything_new(world: World) -> None:
    for id_ in ("1", "2", "3"):
        world.submit(id_)
    world.sent()
    before = world.last
    world.say(Verdict.EXPECTED, before[1])
    assert [ids for _, ids, starts in world.sent() if not starts] == [["2"], ["3"]]
    assert [(one.attempt, one.sequence) for one in world.last] == [(one.attempt, one.sequence) for one in before[1:]]
    world.submit("4")
    assert world.sent() == [("n.publish.b", ["4"], False)]
    assert {one.lowest for one in world.last} == {before[0].sequence}


async def test_a_leader_that_says_twice_what_it_misses_gets_it_once_until_there_is_reason_to_think_it_is_lost_again(
    world: World,
) -> None:
    world.submit("1")
    world.submit("2")
    world.sent()
    first = world.last[0]
    for _ in range(3):
        world.say(Verdict.EXPECTED, first)
    assert [ids for _, ids, _ in world.sent()] == [["1"], ["2"]]
    world.pass_time(0.6)
    world.say(Verdict.EXPECTED, first)
    assert [ids for _, ids, _ in world.sent()] == [["1"], ["2"]]


async def test_a_chunk_that_the_leader_holds_may_wait_for_its_replicas_as_long_as_it_says_so(world: World) -> None:
    world.submit("1")
    world.sent()
    (chunk,) = world.last
    for _ in range(60):
        world.pass_time(0.5)
        if world.asked():
            world.say(Verdict.EXPECTED, chunk, chunk.sequence + 1)
    assert world.outcomes.refusals == []
    world.answer(chunk)
    assert world.outcomes.stored_count == 1
    assert world.sent() == []


async def test_a_leader_that_held_a_chunk_and_falls_silent_is_given_up(world: World) -> None:
    world.submit("1")
    world.sent()
    world.pass_time(8)
    world.say(Verdict.EXPECTED, world.last[0], world.last[0].sequence + 1)
    world.pass_time(8)
    assert world.outcomes.refusals == []
    world.pass_time(3)
    assert world.outcomes.refusals == [(b"1", RefusalKind.OUTCOME_UNKNOWN)]


async def test_a_chunk_that_was_given_up_is_named_no_longer_so_that_the_leader_goes_on_without_it(world: World) -> None:
    world.submit("1")
    world.pass_time(9)
    world.submit("2")
    world.pass_time(2)
    world.sent()
    first, second = world.last
    world.say(Verdict.EXPECTED, first)
    assert [ids for _, ids, _ in world.sent()] == [["2"]]
    (again,) = world.last
    assert (again.sequence, again.lowest) == (second.sequence, second.sequence)


async def test_only_copies_that_a_strange_server_didnt_take_are_sent_again(world: World) -> None:
    world.submit("1")
    world.submit("2")
    world.sent()
    first, second = world.last
    world.say(Verdict.STRANGE, first)
    world.say(Verdict.STRANGE, second)
    world.pass_time(0.1)
    assert world.sent() == [("n.publish.b", ["1"], True), ("n.publish.b", ["2"], False)]
    assert world.outcomes.refusals == []


@pytest.mark.parametrize("sent_again", [True, False], ids=["sent again", "asked about"])
async def test_what_a_strange_server_may_have_taken_in_a_former_life_is_unknown_at_once(
    world: World, sent_again: bool
) -> None:
    world.submit("1")
    world.submit("2")
    world.sent()
    first, second = world.last
    if sent_again:
        world.say(Verdict.EXPECTED, first)
    else:
        world.pass_time(0.05)
        world.pass_time(0.6)
    world.submit("3")
    world.sent()
    (third,) = world.last[-1:]
    world.say(Verdict.STRANGE, second)
    assert world.outcomes.refusals == [(b"1", RefusalKind.OUTCOME_UNKNOWN), (b"2", RefusalKind.OUTCOME_UNKNOWN)]
    world.say(Verdict.STRANGE, third)
    world.pass_time(0.1)
    assert world.sent() == [("n.publish.b", ["3"], True)]


async def test_a_strange_servers_word_about_a_chunk_that_was_given_up_concerns_no_other(world: World) -> None:
    world.submit("1")
    world.sent()
    (first,) = world.last
    world.lane._doubt(0, first.sequence, "given up before anybody could be asked")
    world.submit("2")
    world.sent()
    world.say(Verdict.STRANGE, first)
    world.pass_time(0.1)
    assert world.sent() == []


async def test_an_answer_that_the_leader_forgot_is_an_unknown_outcome_and_nothing_else_is(world: World) -> None:
    world.submit("1")
    world.submit("2")
    world.sent()
    world.say(Verdict.FORGOTTEN, world.last[0])
    world.answer(world.last[1])
    assert world.outcomes.refusals == [(b"1", RefusalKind.OUTCOME_UNKNOWN)]
    assert world.outcomes.stored_count == 1


async def test_attempts_of_all_lanes_are_numbered_in_the_order_of_their_beginnings(world: World) -> None:
    other = world.forwarder.open_lane("s", 0, lambda: None)
    world.submit("1")
    world.sent()
    (mine,) = world.last
    world.lane, lane = other, world.lane
    world.submit("2")
    world.lane = lane
    world.say(Verdict.NOT_TAKEN, mine)
    world.pass_time(0.1)
    attempts = [chunk.attempt for _, chunk in world.wire.chunks]
    assert mine.attempt < attempts[0] < attempts[1]


async def test_messages_that_nobody_takes_are_refused_for_certain(world: World) -> None:
    world.targets.now = replace(TARGET, leader=None)
    world.submit("1")
    world.pass_time(4)
    assert world.outcomes.refusals == []
    world.pass_time(2)
    assert world.outcomes.refusals == [(b"1", RefusalKind.NOT_LEADER)]
    assert world.sent() == []


async def test_deleted_stream_refuses_what_waits(world: World) -> None:
    world.targets.now = replace(TARGET, leader=None)
    world.submit("1")
    world.targets.now = Refusal(RefusalKind.NO_SUCH_PARTITION, "gone")
    world.pass_time(0.1)
    assert world.outcomes.refusals == [(b"1", RefusalKind.NO_SUCH_PARTITION)]


async def test_chunks_wait_while_the_transport_is_away(world: World) -> None:
    world.wire.away = True
    world.submit("1")
    world.submit("2")
    world.wire.away = False
    world.pass_time(0.1)
    assert world.sent() == [("n.publish.b", ["1"], True), ("n.publish.b", ["2"], False)]


async def test_refusals_of_the_leader_reach_their_messages(world: World) -> None:
    world.submit("1", "2", "3")
    world.sent()
    world.answer(world.last[0], refused=(RefusedMessage(b"2", "INCORRECT_OFFSET", "incorrect expected offset"),))
    assert world.outcomes.refusals == [(b"2", RefusalKind.INCORRECT_OFFSET)]
    assert world.outcomes.stored_count == 2


async def test_publisher_is_held_back_until_half_of_what_is_on_the_way_was_answered(world: World) -> None:
    while not world.lane.full:
        world.submit("1", value=bytes(200_000))
    world.sent()
    for chunk in world.last[:-3]:
        world.answer(chunk)
    assert (world.lane.full, world.rooms) == (True, 0)
    for chunk in world.last[-3:]:
        world.answer(chunk)
    assert (world.lane.full, world.rooms) == (False, 1)
    assert MAX_LANE_BYTES > 0


async def test_requests_too_large_for_one_message_are_divided_between_requests(world: World) -> None:
    world.submit(*(str(number) for number in range(10)), value=bytes(300_000))
    pieces = world.sent()
    assert [id_ for _, ids, _ in pieces for id_ in ids] == [str(number) for number in range(10)]
    assert len(pieces) > 1


async def test_small_requests_are_divided_so_that_the_acks_of_each_chunk_fit_one_message(world: World) -> None:
    ids = [f"{number:04}" for number in range(5000)]
    world.submit(*ids, value=b"")
    pieces = world.sent()
    assert [id_ for _, some, _ in pieces for id_ in some] == ids
    assert max(len(some) for _, some, _ in pieces) * 512 <= world.wire.max_payload_bytes


async def test_a_message_that_fits_no_chunk_is_refused_at_once_and_the_others_go(world: World) -> None:
    world.submit("1")
    world.submit("2", value=b"x" * world.wire.max_payload_bytes)
    world.submit("3")
    assert world.outcomes.refusals == [(b"2", RefusalKind.TOO_LARGE)]
    assert [ids for _, ids, _ in world.sent()] == [["1"], ["3"]]


async def test_stopping_answers_everything(world: World) -> None:
    world.submit("1")
    world.targets.now = replace(TARGET, leader=None)
    world.submit("2")
    await world.forwarder.stop()
    assert world.outcomes.refusals == [(b"1", RefusalKind.OUTCOME_UNKNOWN), (b"2", RefusalKind.NOT_LEADER)]


async def test_a_paused_partition_is_asked_to_resume_and_chunks_wait_for_it_in_order(world: World) -> None:
    key = PartitionKey("s", 0, 7)
    world.targets.now = replace(TARGET, leader=None, paused=key)
    world.submit("1")
    world.submit("2")
    assert set(world.resumed) == {key}
    assert world.sent() == []
    world.targets.now = TARGET
    world.forwarder.look_again()
    assert world.sent() == [("n.publish.b", ["1"], True), ("n.publish.b", ["2"], False)]
