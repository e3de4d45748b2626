"""What waits for a leader: kept in order, bounded, and always answered."""

from liftbridge.partition.leader import LeaderSettings
from liftbridge.partition.partition import PartitionKey
from liftbridge.partition.pending import PendingRun
from liftbridge.partition.refusal import Refusal, RefusalKind
from liftbridge.partition.waiting_room import WaitingRoom

KEY = PartitionKey("orders", 3, 7)


class Publisher:
    def __init__(self) -> None:
        self.refusals: list[tuple[object, RefusalKind]] = []

    def run(self, value: bytes) -> PendingRun:
        return PendingRun(items=[value], item_bytes=len(value), subject="orders", acks=self)

    def stored(self, run: PendingRun, base_offset: int, reception_ns: int, commit_ns: int) -> None:
        raise AssertionError("nothing is stored here")

    def refused(self, run: PendingRun, refusal: Refusal) -> None:
        self.refusals.append((run.items[0], refusal.kind))


class Leader:
    settings = LeaderSettings()
    overloaded = stepped_down = False

    def __init__(self) -> None:
        self.taken: list[object] = []

    def submit(self, run: PendingRun) -> None:
        self.taken.append(run.items[0])


def new_room(woken: list[PartitionKey], *, readonly: bool = False) -> WaitingRoom:
    return WaitingRoom(KEY, LeaderSettings(), readonly=readonly, wake=woken.append)


def test_runs_wait_in_order_wake_the_partition_and_go_to_the_leader_once() -> None:
    woken: list[PartitionKey] = []
    room, publisher, leader = new_room(woken), Publisher(), Leader()
    for value in (b"1", b"2", b"3"):
        room.submit(publisher.run(value))
    assert set(woken) == {KEY}
    room.hand_over(leader)
    room.hand_over(leader)
    assert leader.taken == [b"1", b"2", b"3"]
    room.close("gone")
    assert not publisher.refusals


def test_what_is_too_much_is_refused_and_the_rest_still_handed_over() -> None:
    room, publisher, leader = new_room([]), Publisher(), Leader()
    count = 40
    for number in range(count):
        room.submit(publisher.run(bytes([number]) + bytes(1024 * 1024)))
    assert room.overloaded
    assert {kind for _, kind in publisher.refusals} == {RefusalKind.OVERLOADED}
    room.hand_over(leader)
    assert len(leader.taken) + len(publisher.refusals) == count
    assert 8 <= len(leader.taken) <= 9
    assert not room.overloaded


def test_a_readonly_partition_is_not_woken() -> None:
    woken: list[PartitionKey] = []
    room, publisher = new_room(woken, readonly=True), Publisher()
    room.submit(publisher.run(b"1"))
    assert publisher.refusals == [(b"1", RefusalKind.READONLY)]
    assert not woken


def test_who_waits_when_the_room_is_closed_and_who_comes_later_hears_that_nothing_was_stored() -> None:
    room, publisher = new_room([]), Publisher()
    room.submit(publisher.run(b"1"))
    room.close("this server leads no longer")
    room.submit(publisher.run(b"2"))
    assert room.stepped_down
    assert publisher.refusals == [(b"1", RefusalKind.NOT_LEADER), (b"2", RefusalKind.NOT_LEADER)]
