"""Events that the activity stream is to get: kept with the metadata from their commit until they are published.

So no event is lost, whoever leads the metadata group or the activity stream by then, and however much of the consensus
log has given way to a snapshot. The outbox holds what was committed since the stream exists, in the order of commit.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from liftbridge.interfaces.events import MetadataEvent, MetadataEventKind
from liftbridge.protocol.generated import api_pb2 as api

#: More are kept only when nothing can be published for long; then the oldest give way. The same on all servers.
MAX_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class ActivityEntry:
    """One event: where it stands in the consensus log, and its ActivityStreamEvent, encoded."""

    index: int
    event: bytes


class ActivityOutbox:
    """Part of the metadata state machine. ``lost`` counts the entries that gave way unpublished."""

    def __init__(self, entries: Iterable[ActivityEntry] = (), lost: int = 0) -> None:
        self._entries = deque(entries)
        self.lost = lost

    def __iter__(self) -> Iterator[ActivityEntry]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def after(self, index: int, limit: int) -> list[ActivityEntry]:
        """The first ``limit`` entries behind ``index``, in order."""
        found = []
        for entry in self._entries:
            if entry.index > index:
                found.append(entry)
                if len(found) == limit:
                    break
        return found

    def record(self, event: MetadataEvent) -> None:
        """Adds the event if the activity stream tells of its kind."""
        message = activity_event(event)
        if message is None:
            return
        if len(self._entries) >= MAX_ENTRIES:
            self._entries.popleft()
            self.lost += 1
        self._entries.append(ActivityEntry(event.index, message.SerializeToString(deterministic=True)))

    def published(self, up_to_index: int) -> None:
        """Everything up to this index is in the stream."""
        while self._entries and self._entries[0].index <= up_to_index:
            self._entries.popleft()

    def clear(self) -> None:
        """There is no activity stream any more."""
        self._entries.clear()
        self.lost = 0


def activity_event(event: MetadataEvent) -> api.ActivityStreamEvent | None:
    """As clients read it; None for kinds that the activity stream says nothing of."""
    message = api.ActivityStreamEvent(id=event.index)
    match event.kind:
        case MetadataEventKind.STREAM_CREATED:
            message.op = api.CREATE_STREAM
            message.createStreamOp.stream = event.stream
            message.createStreamOp.partitions.extend(event.partitions)
        case MetadataEventKind.STREAM_DELETED:
            message.op = api.DELETE_STREAM
            message.deleteStreamOp.stream = event.stream
        case MetadataEventKind.PAUSED:
            message.op = api.PAUSE_STREAM
            message.pauseStreamOp.stream = event.stream
            message.pauseStreamOp.partitions.extend(event.partitions)
            message.pauseStreamOp.resumeAll = event.resume_all
        case MetadataEventKind.RESUMED:
            message.op = api.RESUME_STREAM
            message.resumeStreamOp.stream = event.stream
            message.resumeStreamOp.partitions.extend(event.partitions)
        case MetadataEventKind.READONLY_CHANGED:
            message.op = api.SET_STREAM_READONLY
            message.setStreamReadonlyOp.stream = event.stream
            message.setStreamReadonlyOp.partitions.extend(event.partitions)
            message.setStreamReadonlyOp.readonly = event.readonly
        case MetadataEventKind.CONSUMER_JOINED:
            message.op = api.JOIN_CONSUMER_GROUP
            message.joinConsumerGroupOp.groupId = event.group
            message.joinConsumerGroupOp.consumerId = event.consumer
            message.joinConsumerGroupOp.streams.extend(event.streams)
        case MetadataEventKind.CONSUMER_LEFT:
            message.op = api.LEAVE_CONSUMER_GROUP
            message.leaveConsumerGroupOp.groupId = event.group
            message.leaveConsumerGroupOp.consumerId = event.consumer
            message.leaveConsumerGroupOp.expired = event.expired
        case _:
            return None
    return message
