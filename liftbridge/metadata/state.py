"""The metadata state machine: total, deterministic, without IO.

Every server applies the same commands in the same order and holds the same state. A command that can't be carried out
is refused as a result of ``apply``, never by raising, and preconditions are checked nowhere else. Nothing happens
here: a reconciler compares this state with what runs, and the controller decides what should change next.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from liftbridge.errors import ProtocolError
from liftbridge.interfaces.events import MetadataEvent, MetadataEventKind
from liftbridge.metadata.activity_outbox import ActivityOutbox
from liftbridge.metadata.commands import (
    ActivityPublished,
    ChangeCoordinators,
    ChangePartitions,
    ChangeServer,
    Command,
    CreateStream,
    DeleteStream,
    JoinGroup,
    LeaveGroup,
    PartitionChange,
    PausePartitions,
    RegisterServer,
    ResumePartitions,
    SetReadonly,
    decode_command,
)
from liftbridge.metadata.groups import ConsumerGroups
from liftbridge.metadata.model import (
    ACTIVITY_STREAM,
    Applied,
    GroupState,
    PartitionState,
    RefusalReason,
    Refused,
    ServerState,
    ServerStatus,
    StreamState,
)
from liftbridge.metadata.new_streams import new_stream
from liftbridge.metadata.partition_changes import changed, differences, restarted
from liftbridge.metadata.partition_flags import FlagCommand, with_flags
from liftbridge.metadata.snapshots import MetadataSnapshot, decode_snapshot, encode_snapshot

__all__ = [
    "Applied",
    "MetadataState",
    "PartitionState",
    "RefusalReason",
    "Refused",
    "ServerState",
    "ServerStatus",
    "StreamState",
]

#: Outcomes that are remembered. Whoever proposes again does so within seconds.
_REMEMBERED_OUTCOMES = 1024

_STATUS_EVENTS = {
    ServerStatus.LIVE: MetadataEventKind.SERVER_UP,
    ServerStatus.DOWN: MetadataEventKind.SERVER_DOWN,
    ServerStatus.DRAINING: MetadataEventKind.SERVER_DRAINING,
    ServerStatus.GONE: MetadataEventKind.SERVER_REMOVED,
}


class MetadataState:
    """See :class:`liftbridge.interfaces.consensus.StateMachine`.

    ``version`` grows with every change, for caches. Callbacks run inside ``apply`` and ``restore``, in the order of
    subscription, and must only take note.
    """

    def __init__(self) -> None:
        self._streams: dict[str, StreamState] = {}
        self._names: dict[int, str] = {}
        self._servers: dict[str, ServerState] = {}
        self._groups = ConsumerGroups(self._emit)
        self._outcomes: dict[str, Applied | Refused] = {}
        self._on_change: list[Callable[[], None]] = []
        self._on_applied: list[Callable[[], None]] = []
        self._on_event: list[Callable[[MetadataEvent], None]] = []
        #: What the activity stream is to get; empty while there is none.
        self.activity = ActivityOutbox()
        self.applied_index = 0
        self.version = 0

    @property
    def streams(self) -> Mapping[str, StreamState]:
        return MappingProxyType(self._streams)

    @property
    def servers(self) -> Mapping[str, ServerState]:
        return MappingProxyType(self._servers)

    @property
    def groups(self) -> Mapping[str, GroupState]:
        """Consumer groups."""
        return self._groups.by_id

    @property
    def groups_version(self) -> int:
        """Grows with every change of a consumer group."""
        return self._groups.version

    def stream_by_id(self, stream_id: int) -> StreamState | None:
        name = self._names.get(stream_id)
        return None if name is None else self._streams[name]

    def partition(self, stream_id: int, number: int) -> PartitionState | None:
        """None when there is none (any more)."""
        stream = self.stream_by_id(stream_id)
        return stream.partitions[number] if stream is not None and 0 <= number < len(stream.partitions) else None

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Calls back after every change; what changed is for the caller to find out."""
        self._on_change.append(callback)

    def subscribe_applied(self, callback: Callable[[], None]) -> None:
        """Calls back after every command, also one that changed nothing, and after every restore."""
        self._on_applied.append(callback)

    def subscribe_events(self, callback: Callable[[MetadataEvent], None]) -> None:
        """Calls back with each change that observers are told of, in order."""
        self._on_event.append(callback)

    # --- applying -----------------------------------------------------------------------------------------------------

    def apply(self, index: int, command: bytes) -> Applied | Refused:
        self.applied_index = index
        outcome = self._take(index, command)
        for callback in self._on_applied:
            callback()
        return outcome

    def _take(self, index: int, command: bytes) -> Applied | Refused:
        try:
            decoded, request_id = decode_command(command)
        except ProtocolError as error:
            return Refused(RefusalReason.UNKNOWN_COMMAND, str(error))
        if request_id in self._outcomes:
            return self._outcomes[request_id]
        outcome = self._apply(index, decoded)
        if request_id:
            self._remember(request_id, outcome)
        if isinstance(outcome, Applied) and (any(outcome.accepted) or not outcome.accepted):
            self._changed()
        return outcome

    def _remember(self, request_id: str, outcome: Applied | Refused) -> None:
        self._outcomes[request_id] = outcome
        if len(self._outcomes) > _REMEMBERED_OUTCOMES:
            del self._outcomes[next(iter(self._outcomes))]

    def _apply(self, index: int, command: Command) -> Applied | Refused:
        match command:
            case RegisterServer():
                return self._register_server(index, command)
            case CreateStream():
                return self._create_stream(index, command)
            case DeleteStream():
                return self._delete_stream(index, command)
            case ChangePartitions():
                return self._change_partitions(index, command)
            case PausePartitions() | ResumePartitions() | SetReadonly():
                return self._change_flags(index, command)
            case ChangeServer():
                return self._change_server(index, command)
            case ActivityPublished():
                self.activity.published(command.up_to_index)
                return Applied(index)
            case JoinGroup():
                return self._groups.join(index, command, self._streams, self._servers)
            case LeaveGroup():
                return self._groups.leave(index, command, self._streams)
            case ChangeCoordinators():
                return self._groups.change_coordinators(index, command, self._servers)

    # --- servers ------------------------------------------------------------------------------------------------------

    def _register_server(self, index: int, command: RegisterServer) -> Applied | Refused:
        known = self._servers.get(command.server_id)
        if known is not None and known.status is ServerStatus.GONE:
            return Refused(
                RefusalReason.SERVER_REMOVED,
                f"server {command.server_id} was removed from the cluster; start it with another server ID and an empty "
                "data directory",
            )
        self._servers[command.server_id] = ServerState(
            command.server_id, command.host, command.port, command.incarnation
        )
        if known is None or known.incarnation != command.incarnation:
            self._restart(index, command.server_id, unclean=command.unclean)
            self._tell(index, MetadataEventKind.SERVER_UP, server=command.server_id)
        return Applied(index)

    def _restart(self, index: int, server_id: str, *, unclean: bool) -> None:
        for name, stream in list(self._streams.items()):
            if any(server_id in one.replicas for one in stream.partitions):
                partitions = [restarted(one, server_id, unclean=unclean, index=index) for one in stream.partitions]
                self._replace_partitions(index, name, partitions)

    def _change_server(self, index: int, command: ChangeServer) -> Applied | Refused:
        server = self._servers.get(command.server_id)
        if server is None:
            return Refused(RefusalReason.NO_SUCH_SERVER, f"there is no server {command.server_id}")
        if command.incarnation not in ("", server.incarnation):
            return Refused(RefusalReason.OTHER_START, f"server {command.server_id} was started again")
        if server.status is ServerStatus.GONE:
            return Refused(RefusalReason.SERVER_REMOVED, f"server {command.server_id} was removed")
        if command.status is ServerStatus.GONE and (held := self._replicas_on(command.server_id)):
            return Refused(RefusalReason.STILL_IN_USE, f"server {command.server_id} still holds {held} partitions")
        if command.status is not server.status:
            self._servers[command.server_id] = replace(server, status=command.status)
            self._tell(index, _STATUS_EVENTS[command.status], server=command.server_id)
        return Applied(index)

    def _replicas_on(self, server_id: str) -> int:
        return sum(server_id in one.replicas for stream in self._streams.values() for one in stream.partitions)

    # --- streams ------------------------------------------------------------------------------------------------------

    def _create_stream(self, index: int, command: CreateStream) -> Applied | Refused:
        if command.name in self._streams:
            return Refused(RefusalReason.STREAM_EXISTS, "stream already exists")
        stream = new_stream(command, self._servers, index)
        if isinstance(stream, Refused):
            return stream
        self._names[index] = command.name
        self._streams[command.name] = stream
        everything = range(len(command.placements))
        self._tell(index, MetadataEventKind.STREAM_CREATED, stream=command.name, partitions=everything)
        return Applied(index)

    def _delete_stream(self, index: int, command: DeleteStream) -> Applied | Refused:
        stream = self._streams.pop(command.name, None)
        if stream is None:
            return Refused(RefusalReason.NO_SUCH_STREAM, "stream does not exist")
        del self._names[stream.stream_id]
        if command.name == ACTIVITY_STREAM:
            self.activity.clear()
        self._groups.stream_deleted(index, command.name, self._streams)
        everything = range(len(stream.partitions))
        self._tell(index, MetadataEventKind.STREAM_DELETED, stream=command.name, partitions=everything)
        return Applied(index)

    # --- partitions ---------------------------------------------------------------------------------------------------

    def _change_partitions(self, index: int, command: ChangePartitions) -> Applied:
        by_stream: dict[int, list[tuple[int, PartitionChange]]] = defaultdict(list)
        for place, change in enumerate(command.changes):
            by_stream[change.stream_id].append((place, change))
        accepted = [False] * len(command.changes)
        for stream_id, changes in by_stream.items():
            self._change_stream(index, stream_id, changes, accepted)
        return Applied(index, tuple(accepted))

    def _change_stream(
        self, index: int, stream_id: int, changes: list[tuple[int, PartitionChange]], accepted: list[bool]
    ) -> None:
        stream = self.stream_by_id(stream_id)
        if stream is None:
            return
        partitions = list(stream.partitions)
        for place, change in changes:
            if change.partition < len(partitions):
                after = changed(partitions[change.partition], change, self._servers, index)
                if after is not None:
                    partitions[change.partition] = after
                    accepted[place] = True
        self._replace_partitions(index, stream.name, partitions)

    def _replace_partitions(self, index: int, name: str, partitions: list[PartitionState]) -> None:
        """Puts them in place and tells of what is different."""
        before = self._streams[name].partitions
        if before == tuple(partitions):
            return
        self._streams[name] = replace(self._streams[name], partitions=tuple(partitions))
        for kind, numbers in differences(before, partitions):
            self._tell(index, kind, stream=name, partitions=numbers)

    def _change_flags(self, index: int, command: FlagCommand) -> Applied | Refused:
        outcome = with_flags(self._streams.get(command.stream), command, index)
        if isinstance(outcome, Refused):
            return outcome
        if outcome is None:
            return Applied(index, (False,))
        self._streams[command.stream], event = outcome
        self._emit(event)
        return Applied(index)

    # --- telling ------------------------------------------------------------------------------------------------------

    def _tell(
        self, index: int, kind: MetadataEventKind, *, stream: str = "", partitions: Iterable[int] = (), server: str = ""
    ) -> None:
        self._emit(MetadataEvent(index, kind, stream, tuple(partitions), server))

    def _emit(self, event: MetadataEvent) -> None:
        if ACTIVITY_STREAM in self._streams:
            self.activity.record(event)
        for callback in self._on_event:
            callback(event)

    def _changed(self) -> None:
        self.version += 1
        for callback in self._on_change:
            callback()

    # --- snapshots ----------------------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        return encode_snapshot(
            MetadataSnapshot(
                self._servers, self._streams, self.applied_index, self._outcomes, self.groups, self.activity
            )
        )

    def restore(self, data: bytes) -> None:
        snapshot = decode_snapshot(data)
        self._servers = dict(snapshot.servers)
        self._streams = dict(snapshot.streams)
        self._names = {stream.stream_id: name for name, stream in self._streams.items()}
        self._groups.restore(snapshot.groups)
        self._outcomes = dict(snapshot.outcomes)
        self.activity = snapshot.activity
        self.applied_index = snapshot.applied_index
        self._changed()
        for callback in self._on_applied:
            callback()
