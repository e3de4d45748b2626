"""Chunks of other servers' lanes: each is taken once and in order, however often it comes, and answered until that is heard."""

from collections.abc import Sequence
from typing import Any, cast

import pytest

from liftbridge.broker import forwarded_lane
from liftbridge.broker.forwarded import ForwardServer
from liftbridge.broker.targets import AckTarget, Target
from liftbridge.interfaces.transport import Delivery
from liftbridge.partition.pending import ACK_ALL, ACK_NONE, AckSink, PendingRun
from liftbridge.partition.refusal import Refusal, RefusalKind
from liftbridge.protocol.forwarding import (
    Answer,
    Chunk,
    Question,
    Verdict,
    decode_answer,
    encode_chunk,
    encode_question,
)
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.publish_requests import PublishRun
from liftbridge.protocol.record_batch import RECORD_PREFIX
from liftbridge.testing.virtual_clock import VirtualClock

EPOCH = 3


class Leader:
    """The partition's, if there is one here: its epoch, all that anybody knows of it here."""

    def __init__(self, leader_epoch: int) -> None:
        self.leader_epoch = leader_epoch


class Local:
    def __init__(self) -> None:
        self.leader: Leader | None = Leader(EPOCH)


class Targets:
    def __init__(self) -> None:
        self.local = Local()
        self.refusal: Refusal | None = None

    def find_by_id(self, *_: int) -> Target | Refusal:
        local = cast(Any, self.local)
        return self.refusal or Target(AckTarget("s", "s"), "s", local, None, False, (), False)

    def leader_epoch_here(self, *_: int) -> int | None:
        return None if self.local.leader is None else self.local.leader.leader_epoch


class Wire:
    """The transport's sending side."""

    def __init__(self) -> None:
        self.max_payload_bytes = 1024 * 1024
        self.answers: list[Answer] = []

    def publish_direct(self, subject: str, payloads: Sequence[bytes], **_: Any) -> None:
        assert subject == "answers"
        self.answers += [decode_answer(payload) for payload in payloads]


class Partition:
    """In the place of ``Publishing``: what was submitted, and whose acks are to come."""

    def __init__(self) -> None:
        self.transport, self.targets = Wire(), Targets()
        self.taken: list[str] = []
        self.open: dict[str, tuple[AckSink, PendingRun]] = {}
        self._acks: AckSink | None = None

    def lane(self, local: Any, subject: str, acks: AckSink, *_: Any) -> "Partition":
        del local, subject
        self._acks = acks
        return self

    def submit(self, run: PublishRun) -> None:
        assert self._acks is not None
        ids = [id_.decode() for id_ in run.correlation_ids]
        self.taken += ids
        self.open[ids[0]] = (
            self._acks,
            PendingRun(
                items=run.fields,
                item_bytes=run.field_bytes,
                subject="s",
                ack_policy=run.ack_policy,
                correlation_ids=run.correlation_ids,
                correlation_id_bytes=run.correlation_id_bytes,
            ),
        )


class World:
    """A leader, and one lane of another server."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.partition = Partition()
        self.restart()

    def restart(self) -> None:
        """A new life of the leader's process, which knows nothing."""
        self.server = ForwardServer(cast(Any, self.partition), self.clock, namespace="n", server_id="b")

    def lead(self, epoch: int | None) -> None:
        self.partition.targets.local.leader = None if epoch is None else Leader(epoch)

    def send(self, sequence: int, *, lowest: int = 1, attempt: int = 1, lane: int = 1, policy: int = ACK_ALL) -> None:
        """The chunk of that sequence, with one message, whose ID is the sequence."""
        request = api.PublishRequest(stream="s", value=b"x", correlationId=str(sequence), ackPolicy=policy)
        data = request.SerializeToString()
        requests = RECORD_PREFIX.pack(0, len(data)) + data
        chunk = Chunk(lane, attempt, sequence, lowest, 7, 0, EPOCH, "inbox", requests)
        self._deliver(encode_chunk(chunk))

    def ask(self, *awaited: tuple[int, int], attempt: int = 1, lane: int = 1) -> list[tuple[Verdict, int]]:
        """Returns what is answered."""
        self.heard()
        self._deliver(encode_question(Question(lane, attempt, 7, 0, EPOCH, awaited)))
        return self.heard()

    def _deliver(self, data: bytes) -> None:
        self.server._receive([Delivery("n.publish.b", "answers", [data])])

    def ack(self, *sequences: int) -> None:
        for sequence in sequences:
            acks, run = self.partition.open.pop(str(sequence))
            acks.stored(run, 100 + sequence, 1, 2)

    def heard(self) -> list[tuple[Verdict, int]]:
        """What was answered since the last call."""
        answers, self.partition.transport.answers = self.partition.transport.answers, []
        self.last = answers
        return [(one.verdict, one.sequence) for one in answers]

    @property
    def taken(self) -> list[str]:
        return self.partition.taken


@pytest.fixture
async def world() -> World:
    return World()


DONE, EXPECTED, NOT_TAKEN = Verdict.DONE, Verdict.EXPECTED, Verdict.NOT_TAKEN
FORGOTTEN, STRANGE = Verdict.FORGOTTEN, Verdict.STRANGE


async def test_a_chunk_is_taken_once_however_often_it_comes(world: World) -> None:
    for sequence in (1, 1, 2, 1, 2):
        world.send(sequence)
    assert world.taken == ["1", "2"]
    assert world.heard() == [], "its answer comes when it is there"
    world.ack(1, 2)
    assert world.heard() == [(DONE, 1), (DONE, 2)]


async def test_a_chunk_that_comes_again_is_answered_as_before(world: World) -> None:
    world.send(1)
    world.ack(1)
    world.heard()
    first = world.last
    world.send(1)
    assert world.heard() == [(DONE, 1)]
    assert world.last == first
    assert world.taken == ["1"]


async def test_what_stands_behind_a_gap_waits_and_the_sender_hears_of_it_once(world: World) -> None:
    for sequence in (1, 3, 4, 5):
        world.send(sequence)
    assert world.taken == ["1"]
    assert world.heard() == [(EXPECTED, 2)]
    for sequence in (2, 3, 5):
        world.send(sequence)
    assert world.taken == ["1", "2", "3"]
    assert world.heard() == [(EXPECTED, 4)]


async def test_the_first_chunk_may_be_the_one_that_is_lost(world: World) -> None:
    world.send(2)
    assert world.heard() == [(EXPECTED, 1)]
    assert world.taken == []


async def test_the_sender_is_told_all_that_it_asks(world: World) -> None:
    for sequence in (1, 2, 3, 4):
        world.send(sequence)
    world.ack(1, 2, 4)
    world.heard()
    assert world.ask((2, 7)) == [(DONE, 2), (DONE, 4), (EXPECTED, 5)]
    assert world.ask((3, 4)) == [(EXPECTED, 5)], "the answer to 4 has arrived, and that to 3 is to come"
    world.ack(3)
    assert world.heard() == [(DONE, 3)]


async def test_a_question_about_an_attempt_of_which_nothing_came(world: World) -> None:
    assert world.ask((1, 3)) == [(EXPECTED, 1)]
    world.send(1)
    world.send(2)
    assert world.taken == ["1", "2"]


async def test_a_chunk_that_the_sender_gave_up_is_left_out_and_not_taken_any_more(world: World) -> None:
    world.send(1)
    world.send(3, lowest=3)
    world.send(2)
    assert world.taken == ["1", "3"]
    assert world.heard() == []


async def test_answers_are_kept_until_the_sender_has_them(world: World) -> None:
    world.send(1)
    world.send(2)
    world.ack(1, 2)
    world.send(3, lowest=2)
    (lane,) = world.server._lanes.values()
    assert list(lane.answers) == [2, 3]
    world.heard()
    world.send(1)
    assert world.heard() == [], "a late copy, for whose answer nobody waits"
    world.send(4, lowest=4)
    assert list(lane.answers) == [4]
    assert lane.kept_bytes == 0


async def test_answers_behind_one_that_takes_long_are_kept_up_to_a_bound(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarded_lane, "_KEPT_BYTES", 1000)
    for sequence in range(1, 101):
        world.send(sequence)
    world.ack(*range(2, 101))
    (lane,) = world.server._lanes.values()
    assert sum(len(kept or b"") for kept in lane.answers.values()) == lane.kept_bytes <= 1000
    assert world.ask((1, 3)) == [(FORGOTTEN, 2), (EXPECTED, 101)]
    assert world.ask((100, 101)) == [(DONE, 100), (EXPECTED, 101)]
    world.ack(1)
    assert world.heard() == [(DONE, 1)]


async def test_messages_that_want_no_ack_are_answered_too(world: World) -> None:
    world.send(1, policy=ACK_NONE)
    world.ack(1)
    assert world.ask((1, 2)) == [(DONE, 1), (EXPECTED, 2)]
    assert world.last[0].responses == b""


async def test_an_answer_too_large_for_the_transport_is_said_to_be_lost(world: World) -> None:
    world.send(1)
    world.partition.transport.max_payload_bytes = 60
    world.ack(1)
    assert world.heard() == [(FORGOTTEN, 1)]
    assert world.ask((1, 2)) == [(FORGOTTEN, 1), (EXPECTED, 2)]


async def test_what_was_not_taken_is_not_taken_when_it_comes_again_and_nothing_behind_it_is(world: World) -> None:
    world.send(1)
    world.lead(None)
    world.send(3)
    assert world.heard() == [(NOT_TAKEN, 2)]
    world.lead(EPOCH)
    world.send(2)
    assert world.ask((1, 4)) == [(NOT_TAKEN, 2)]
    assert world.taken == ["1"]
    world.send(4, lowest=4, attempt=2)
    assert world.taken == ["1", "4"]


async def test_copies_from_before_the_sender_began_anew_are_ignored(world: World) -> None:
    world.send(1)
    world.send(2, attempt=2, lowest=2)
    world.heard()
    world.send(2)
    world.send(3)
    assert world.ask((1, 3)) == []
    assert world.taken == ["1", "2"]


async def test_acks_of_an_attempt_before_dont_become_answers_of_this_one(world: World) -> None:
    world.send(1)
    before = world.partition.open.pop("1")
    world.send(1, attempt=2)
    acks, run = before
    acks.stored(run, 101, 1, 2)
    assert world.ask((1, 2), attempt=2) == [(EXPECTED, 2)]


async def test_who_doesnt_lead_in_that_epoch_takes_nothing_of_an_attempt_though_it_leads_later(world: World) -> None:
    world.lead(EPOCH - 1)
    world.send(1)
    assert world.heard() == [(STRANGE, 1)]
    world.lead(EPOCH)
    world.send(1)
    world.send(2)
    assert world.heard() == [(STRANGE, 1), (STRANGE, 2)]
    assert world.ask((1, 3)) == [(STRANGE, 2)]
    assert world.taken == []


async def test_a_restarted_leader_says_at_once_that_it_knows_nothing_of_what_it_took(world: World) -> None:
    world.send(1)
    world.restart()
    world.lead(EPOCH + 1)
    assert world.ask((1, 2)) == [(STRANGE, 1)]
    world.send(1)
    assert world.heard() == [(STRANGE, 1)]
    assert world.taken == ["1"]


async def test_a_restarted_leader_of_a_readonly_partition_doesnt_say_that_nothing_was_stored(world: World) -> None:
    world.send(1)
    world.restart()
    world.lead(EPOCH + 1)
    world.partition.targets.refusal = Refusal(RefusalKind.READONLY, "readonly")
    world.send(1)
    assert world.heard() == [(STRANGE, 1)]


async def test_a_readonly_partition_refuses_what_comes_the_first_time_and_again(world: World) -> None:
    world.partition.targets.refusal = Refusal(RefusalKind.READONLY, "readonly")
    world.send(1)
    world.send(1)
    assert world.heard() == [(DONE, 1), (DONE, 1)]
    assert [one.refused[0].kind for one in world.last] == ["READONLY", "READONLY"]
    assert world.taken == []


async def test_a_lane_that_was_quiet_is_forgotten_and_its_chunks_are_not_taken_for_new_ones(world: World) -> None:
    world.send(1, attempt=5)
    world.ack(1)
    world.heard()
    world.clock.advance(121)
    world.server._sweep()
    assert world.server._lanes == {}
    world.send(1, attempt=5)
    world.send(2, attempt=5, lowest=2)
    assert world.heard() == [(STRANGE, 1), (STRANGE, 2)]
    world.send(1, attempt=4, lane=2)
    assert world.heard() == [(STRANGE, 1)], "older than what was forgotten: it may have been, too"
    world.send(2, attempt=6, lowest=2)
    assert world.taken == ["1", "2"]


async def test_a_lane_is_kept_as_long_as_its_answers_are_to_come(world: World) -> None:
    world.send(1)
    world.clock.advance(1000)
    world.server._sweep()
    world.ack(1)
    assert world.heard() == [(DONE, 1)]
    assert world.ask((1, 2)) == [(DONE, 1), (EXPECTED, 2)]


async def test_answers_to_a_sender_that_is_gone_are_kept_for_seconds(world: World) -> None:
    world.send(1)
    world.ack(1)
    world.clock.advance(15)
    world.server._sweep()
    assert world.ask((1, 2)) == [(DONE, 1), (EXPECTED, 2)]
    world.clock.advance(21)
    world.server._sweep()
    assert world.ask((1, 2)) == [(FORGOTTEN, 1), (EXPECTED, 2)]
