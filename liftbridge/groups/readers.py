"""Who reads which partition for which group: one at a time, and only who it is assigned to.

The leader of a partition knows the groups from metadata, so what was true before a failover is true after it. Groups that
metadata doesn't know are names that clients chose to take turns with, as the original lets them: the higher epoch wins.
"""

from dataclasses import dataclass
from typing import Protocol

from liftbridge.errors import FailedPrecondition
from liftbridge.metadata.state import MetadataState
from liftbridge.partition.partition import PartitionKey


class Displaceable(Protocol):
    """A running subscription."""

    def displace(self) -> None:
        """Ends it without an error."""


@dataclass(frozen=True, slots=True)
class GroupReader:
    """A consumer that wants a partition for its group, and the epoch by which it thinks it is its own."""

    key: PartitionKey
    group_id: str
    consumer_id: str
    epoch: int


@dataclass(slots=True)
class _Attached:
    """``is_member``: of a group that metadata knew at the time."""

    reader: GroupReader
    subscription: Displaceable
    is_member: bool


class GroupReaders:
    """Those on one server. Looks again whenever a group changes, before anything else happens on the event loop."""

    def __init__(self, state: MetadataState) -> None:
        self._state = state
        self._attached: dict[tuple[PartitionKey, str], _Attached] = {}
        self._groups_version = state.groups_version
        state.subscribe(self._look)

    def attach(self, reader: GroupReader, subscription: Displaceable) -> None:
        """Makes ``subscription`` the group's only one on the partition, and ends the one before. Raises
        FailedPrecondition, and changes nothing, when the partition isn't the consumer's. This server must know the
        latest metadata."""
        place = (reader.key, reader.group_id)
        current = self._attached.get(place)
        group = self._state.groups.get(reader.group_id)
        if group is not None:
            allowed = reader.epoch == group.epoch and self._is_assigned(reader)
        else:
            allowed = current is None or current.reader.epoch <= reader.epoch
        if not allowed:
            raise FailedPrecondition("Consumer is not currently assigned this partition")
        if current is not None:
            current.subscription.displace()
        self._attached[place] = _Attached(reader, subscription, is_member=group is not None)

    def detach(self, reader: GroupReader, subscription: Displaceable) -> None:
        """The subscription ended, whoever ended it."""
        current = self._attached.get((reader.key, reader.group_id))
        if current is not None and current.subscription is subscription:
            del self._attached[reader.key, reader.group_id]

    def _is_assigned(self, reader: GroupReader) -> bool:
        group = self._state.groups.get(reader.group_id)
        return group is not None and group.assigns(reader.consumer_id, reader.key.stream, reader.key.partition)

    def _look(self) -> None:
        """Ends what isn't its reader's any more. A later epoch alone ends nothing: nobody else got the partition."""
        if self._state.groups_version == self._groups_version:
            return
        self._groups_version = self._state.groups_version
        for place, attached in list(self._attached.items()):
            is_known = attached.reader.group_id in self._state.groups
            if (is_known or attached.is_member) and not self._is_assigned(attached.reader):
                del self._attached[place]
                attached.subscription.displace()
