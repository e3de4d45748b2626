"""Which server coordinates which consumer group: the controller's decisions, without IO.

A coordinator that the cluster knows to be down, leaving or removed is replaced at once. One that the cluster thinks well of
and the members can't reach is replaced when most of them say so.
"""

from collections import Counter
from dataclasses import dataclass, field

from liftbridge.metadata.commands import ChangeCoordinators, CoordinatorChange
from liftbridge.metadata.groups import live
from liftbridge.metadata.model import GroupState
from liftbridge.metadata.state import MetadataState

#: Groups that change with one command.
_BATCH = 250


class ReportRefused(Exception):
    """The report doesn't count; the text says why."""


@dataclass(frozen=True, slots=True)
class CoordinatorReport:
    """A member can't reach the coordinator that its group has at this epoch."""

    group_id: str
    consumer_id: str
    coordinator: str
    epoch: int


@dataclass(slots=True)
class _Witnesses:
    """Who reported, as long as the group stays as it was then."""

    changed_index: int
    consumers: set[str] = field(default_factory=set)
    latest_ns: int = 0


class CoordinatorReports:
    """What members reported to one controller. Reports on a group count together while each comes within ``window_ns``
    of the one before."""

    def __init__(self, state: MetadataState, window_ns: int) -> None:
        self._state = state
        self._window_ns = window_ns
        self._witnesses: dict[str, _Witnesses] = {}

    def add(self, report: CoordinatorReport, now_ns: int) -> ChangeCoordinators | None:
        """What to propose, once more than half of the members reported; from then on they have to report anew. Raises
        ReportRefused."""
        self._forget_old(now_ns)
        group = self._checked(report)
        witnesses = self._witnesses.get(group.group_id)
        if witnesses is None or witnesses.changed_index != group.changed_index:
            witnesses = self._witnesses[group.group_id] = _Witnesses(group.changed_index)
        witnesses.consumers.add(report.consumer_id)
        witnesses.latest_ns = now_ns
        if len(witnesses.consumers) <= len(group.members) // 2:
            return None
        del self._witnesses[group.group_id]
        heir = _least_busy(self._state, _coordinated(self._state), but=group.coordinator)
        if not heir:
            raise ReportRefused("No group coordinator candidates")
        return ChangeCoordinators((CoordinatorChange(group.group_id, group.changed_index, heir),))

    def _checked(self, report: CoordinatorReport) -> GroupState:
        """The group, as the report has it."""
        group = self._state.groups.get(report.group_id)
        if group is None:
            raise ReportRefused(f"No such consumer group {report.group_id}")
        if (report.coordinator, report.epoch) != (group.coordinator, group.epoch):
            raise ReportRefused(
                f"Coordinator generation mismatch, current coordinator: {group.coordinator} epoch: {group.epoch}, "
                f"got coordinator: {report.coordinator} epoch: {report.epoch}"
            )
        if report.consumer_id not in group.members:
            raise ReportRefused(f"Consumer {report.consumer_id} is not a member of consumer group {report.group_id}")
        return group

    def _forget_old(self, now_ns: int) -> None:
        self._witnesses = {
            group_id: witnesses
            for group_id, witnesses in self._witnesses.items()
            if now_ns - witnesses.latest_ns <= self._window_ns
        }


def replacements(state: MetadataState) -> list[ChangeCoordinators]:
    """Live coordinators for the groups whose coordinator isn't: those with the fewest groups, one after the other."""
    coordinated = _coordinated(state)
    usable = live(state.servers)
    changes = []
    for group in state.groups.values():
        if group.coordinator not in usable and (heir := _least_busy(state, coordinated)):
            coordinated[heir] += 1
            changes.append(CoordinatorChange(group.group_id, group.changed_index, heir))
    return [ChangeCoordinators(tuple(changes[at : at + _BATCH])) for at in range(0, len(changes), _BATCH)]


def _coordinated(state: MetadataState) -> Counter[str]:
    return Counter(group.coordinator for group in state.groups.values())


def _least_busy(state: MetadataState, coordinated: Counter[str], but: str = "") -> str:
    candidates = [one for one in live(state.servers) if one != but]
    return min(candidates, key=lambda one: (coordinated[one], one), default="")
