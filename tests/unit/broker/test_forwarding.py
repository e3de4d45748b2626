"""Lanes to partitions that other servers lead: order is kept, nothing is sent twice that may be stored, all is answered."""

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
from liftbridge.protocol.forwarding import Answer, Chunk, RefusedMessage, decode_chunk, encode_answer
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.publish_requests import RequestParser
from liftbridge.protocol.record_batch import RECORD_PREFIX
from liftbridge.testing.virtual_clock import VirtualClock

TARGET = Target(AckTarget("s", "s"), "s", None, RemoteLeader("b", 7, 3), False, (), False)


class Wire:
    """The transport's sending side: what was published, as chunks."""

    max_payload_bytes = 1024 * 1024

    def __init__(self) -> None:
        self.chunks: list[tuple[str, Chunk]] = []
        self.away = False

    def publish_direct(self, subject: str, payloads: Sequence[bytes], **_: Any) -> None:
        if self.away:
            raise TransportClosed("away")
        self.chunks += [(subject, decode_chunk(payload)) for payload in payloads]


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
        return [(subject, _ids(chunk), chunk.starts) for subject, chunk in chunks]

    def answer(self, chunk: Chunk, *, taken: bool = True, refused: tuple[RefusedMessage, ...] = ()) -> None:
        answer = Answer(chunk.lane, chunk.attempt, chunk.sequence, taken, b"", refused)
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
    world.answer(second, taken=False)
    world.answer(third, taken=False)
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
