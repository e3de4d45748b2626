"""Which server coordinates a group, as the controller decides."""

import pytest
from metadata_states import NoPolicy, States

from liftbridge.cluster.control import ControllerCore, ControlSettings
from liftbridge.cluster.coordinators import CoordinatorReport, CoordinatorReports, ReportRefused, replacements
from liftbridge.metadata.commands import ChangeCoordinators, CoordinatorChange, JoinGroup
from liftbridge.metadata.model import ServerStatus

_SECOND_NS = 1_000_000_000
_WINDOW_NS = 15 * _SECOND_NS


@pytest.fixture
def states() -> States:
    """Three servers, and group ``g`` with members ``m0`` to ``m3``, coordinated by ``a``."""
    states = States()
    states.register("a", "b", "c")
    states.create("s", "abc")
    for number in range(4):
        states.apply(JoinGroup("g", f"m{number}", ("s",)))
    return states


def report(states: States, member: str, *, coordinator: str = "a", epoch: int | None = None) -> CoordinatorReport:
    return CoordinatorReport("g", member, coordinator, states.state.groups["g"].epoch if epoch is None else epoch)


@pytest.mark.parametrize(("members", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3)])
def test_more_than_half_of_the_members_must_report(members: int, needed: int) -> None:
    states = States()
    states.register("a", "b", "c")
    states.create("s", "abc")
    for number in range(members):
        states.apply(JoinGroup("g", f"m{number}", ("s",)))
    reports = CoordinatorReports(states.state, _WINDOW_NS)
    for number in range(needed - 1):
        for _ in range(3):
            assert reports.add(report(states, f"m{number}"), 0) is None
    change = reports.add(report(states, f"m{needed - 1}"), 0)
    known = states.state.groups["g"].changed_index
    assert change == ChangeCoordinators((CoordinatorChange("g", known, "b"),))


def test_reports_that_come_too_far_apart_do_not_add_up(states: States) -> None:
    reports = CoordinatorReports(states.state, _WINDOW_NS)
    assert reports.add(report(states, "m0"), 0) is None
    assert reports.add(report(states, "m1"), _WINDOW_NS) is None
    assert reports.add(report(states, "m2"), 2 * _WINDOW_NS + 1) is None
    assert reports.add(report(states, "m3"), 3 * _WINDOW_NS) is None
    assert reports.add(report(states, "m0"), 3 * _WINDOW_NS) is not None


def test_witnesses_count_for_one_change_only(states: States) -> None:
    reports = CoordinatorReports(states.state, _WINDOW_NS)
    for member in ("m0", "m1"):
        reports.add(report(states, member), 0)
    assert reports.add(report(states, "m2"), 0) is not None
    assert reports.add(report(states, "m3"), 0) is None, "all begin anew"
    states.apply(JoinGroup("g", "m4", ("s",)))
    for member in ("m0", "m1"):
        assert reports.add(report(states, member), 0) is None, "of the epoch before"


def test_report_that_is_wrong_is_refused_with_the_text_of_the_original(states: States) -> None:
    reports = CoordinatorReports(states.state, _WINDOW_NS)
    epoch = states.state.groups["g"].epoch
    for wrong, text in [
        (CoordinatorReport("h", "m0", "a", epoch), "No such consumer group h"),
        (
            report(states, "m0", coordinator="b"),
            f"current coordinator: a epoch: {epoch}, got coordinator: b epoch: {epoch}",
        ),
        (report(states, "m0", epoch=1), f"current coordinator: a epoch: {epoch}, got coordinator: a epoch: 1"),
        (report(states, "x"), "Consumer x is not a member of consumer group g"),
    ]:
        with pytest.raises(ReportRefused, match=text):
            reports.add(wrong, 0)


def test_without_another_live_server_there_is_no_candidate(states: States) -> None:
    states.set_status("b", ServerStatus.DOWN)
    states.set_status("c", ServerStatus.DRAINING)
    reports = CoordinatorReports(states.state, _WINDOW_NS)
    for member in ("m0", "m1"):
        reports.add(report(states, member), 0)
    with pytest.raises(ReportRefused, match="No group coordinator candidates"):
        reports.add(report(states, "m2"), 0)


@pytest.mark.parametrize("status", [ServerStatus.DOWN, ServerStatus.DRAINING])
def test_groups_of_a_server_that_goes_are_spread_over_the_live_ones(states: States, status: ServerStatus) -> None:
    for number in range(8):
        states.apply(JoinGroup(f"g{number}", "m", ("s",)))
    assert replacements(states.state) == []
    states.set_status("a", status)
    (command,) = replacements(states.state)
    assert {change.group_id for change in command.changes} == {"g", "g2", "g5"}
    states.apply(command)
    coordinated = [group.coordinator for group in states.state.groups.values()]
    assert sorted(map(coordinated.count, "abc")) == [0, 4, 5]
    assert replacements(states.state) == []


def test_controller_replaces_coordinators_with_the_same_look_that_elects_leaders(states: States) -> None:
    core = ControllerCore("b", states.state, NoPolicy(), ControlSettings())
    core.heartbeat("c", "c-1", 0)
    states.set_status("a", ServerStatus.DOWN)
    coordinators, elections = core.plan(0)
    assert isinstance(coordinators, ChangeCoordinators)
    states.apply(coordinators)
    states.apply(elections)
    assert states.state.groups["g"].coordinator == "b"
    assert core.plan(0) == []
