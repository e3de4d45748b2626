"""Who is overdue, with times that a test decides."""

import pytest
from metadata_states import States

from liftbridge.groups.sessions import MemberSessions
from liftbridge.metadata.commands import ChangeCoordinators, CoordinatorChange, JoinGroup, LeaveGroup

_SECOND_NS = 1_000_000_000


class Watched(States):
    """Groups of two servers, as the sessions of server ``a`` with a time-out of 15 s see them. Times are in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.register("a", "b")
        self.create("s", "ab", "ab")
        self.sessions = MemberSessions("a", 15 * _SECOND_NS)

    def join(self, consumer: str, at: float) -> None:
        self.apply(JoinGroup("g", consumer, ("s",)))
        self.follow(at)

    def leave(self, consumer: str, at: float) -> None:
        self.apply(LeaveGroup("g", consumer))
        self.follow(at)

    def move(self, coordinator: str, at: float) -> None:
        changed = self.state.groups["g"].changed_index
        self.apply(ChangeCoordinators((CoordinatorChange("g", changed, coordinator),)))
        self.follow(at)

    def follow(self, at: float) -> None:
        self.sessions.follow(self.state.groups, int(at * _SECOND_NS))

    def hear(self, consumer: str, at: float, *, epoch: int | None = None) -> None:
        known = self.state.groups["g"].epoch if epoch is None else epoch
        self.sessions.heard("g", consumer, known, int(at * _SECOND_NS))

    def overdue(self, at: float) -> list[str]:
        return [one.consumer_id for one in self.sessions.overdue(int(at * _SECOND_NS))]


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_member_is_overdue_after_the_timeout_and_not_before(watched: Watched) -> None:
    watched.join("c1", at=0)
    watched.hear("c1", at=10)
    assert watched.overdue(at=25) == []
    assert watched.overdue(at=25.1) == ["c1"]
    watched.hear("c1", at=25.2)
    assert watched.overdue(at=30) == []


def test_changes_of_the_group_give_nobody_more_time(watched: Watched) -> None:
    watched.join("c1", at=0)
    watched.join("c2", at=14)
    assert watched.overdue(at=16) == ["c1"]


def test_call_with_an_epoch_that_is_over_counts_as_of_when_it_ended(watched: Watched) -> None:
    watched.join("c1", at=0)
    watched.join("c2", at=10)
    watched.hear("c1", at=16, epoch=0)
    assert "c1" not in watched.overdue(at=24.9)
    watched.hear("c1", at=24, epoch=0)
    assert "c1" in watched.overdue(at=25.1)


def test_member_lives_through_changes_that_come_faster_than_it_learns_of_them(watched: Watched) -> None:
    watched.join("c1", at=0)
    epoch = 0
    for second in range(2, 100, 2):
        watched.join(f"other{second}", at=second)
        watched.hear("c1", at=second + 1, epoch=epoch)
        epoch = watched.state.groups["g"].epoch
        assert "c1" not in watched.overdue(at=second + 1)


def test_epoch_that_never_was_or_is_long_over_counts_nothing(watched: Watched) -> None:
    watched.join("c1", at=0)
    watched.join("c2", at=1)
    watched.hear("c1", at=10, epoch=12345)
    watched.join("c3", at=20)
    watched.hear("c1", at=21, epoch=0)
    assert "c1" in watched.overdue(at=21)


def test_a_server_that_becomes_coordinator_gives_everybody_a_whole_timeout(watched: Watched) -> None:
    watched.join("c1", at=0)
    watched.move("b", at=5)
    assert not watched.sessions
    assert watched.overdue(at=100) == []
    watched.move("a", at=100)
    assert watched.overdue(at=115) == []
    assert watched.overdue(at=115.1) == ["c1"]


def test_changes_that_arrive_together_in_a_snapshot_count_like_one_by_one(watched: Watched) -> None:
    watched.join("c1", at=0)
    watched.join("c2", at=0)
    changed = watched.state.groups["g"].changed_index
    watched.apply(LeaveGroup("g", "c1"))
    watched.apply(JoinGroup("g", "c1", ("s",)))
    watched.follow(at=14)
    assert watched.state.groups["g"].changed_index > changed
    assert watched.overdue(at=16) == ["c2"], "c1 is another member since it joined again"
    for server in "ba":
        now = watched.state.groups["g"].changed_index
        watched.apply(ChangeCoordinators((CoordinatorChange("g", now, server),)))
    watched.follow(at=16)
    assert watched.overdue(at=30) == [], "this server was chosen anew"


def test_who_left_and_who_is_unknown_is_not_watched(watched: Watched) -> None:
    watched.join("c1", at=0)
    watched.join("c2", at=0)
    watched.leave("c1", at=1)
    watched.hear("c1", at=2)
    watched.hear("stranger", at=2)
    watched.sessions.heard("nowhere", "c1", 0, 2 * _SECOND_NS)
    assert watched.overdue(at=100) == ["c2"]


def test_after_standing_still_everybody_gets_a_whole_timeout(watched: Watched) -> None:
    watched.join("c1", at=0)
    watched.sessions.start_afresh(60 * _SECOND_NS)
    assert watched.overdue(at=75) == []


def test_overdue_member_is_removed_by_what_is_proposed(watched: Watched) -> None:
    watched.join("c1", at=0)
    watched.join("c2", at=0)
    for command in watched.sessions.overdue(16 * _SECOND_NS):
        watched.apply(command)
    assert "g" not in watched.state.groups
