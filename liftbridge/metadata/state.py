"""The metadata state machine: total, deterministic, without IO.

Every server applies the same commands in the same order and holds the same state. A command that can't be carried out
is refused as a result of ``apply``, never by raising, and preconditions are checked nowhere else. Nothing happens
here: a reconciler compares this state with what runs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from types import MappingProxyType

from liftbridge.errors import ProtocolError
from liftbridge.interfaces.events import MetadataEvent, MetadataEventKind
from liftbridge.metadata.commands import Command, CreateStream, DeleteStream, RegisterServer, decode_command
from liftbridge.metadata.config import StreamConfig
from liftbridge.protocol.generated import internal_pb2 as internal


class RefusalReason(Enum):
    """Why a command changed nothing."""

    STREAM_EXISTS = auto()
    NO_SUCH_STREAM = auto()
    BAD_PLACEMENT = auto()
    UNKNOWN_COMMAND = auto()


@dataclass(frozen=True, slots=True)
class Refused:
    """The command at this index changed nothing."""

    reason: RefusalReason
    message: str


@dataclass(frozen=True, slots=True)
class Applied:
    """The command at ``index`` took effect."""

    index: int


@dataclass(frozen=True, slots=True)
class ServerState:
    """A server and its present start."""

    server_id: str
    host: str
    port: int
    incarnation: str


@dataclass(frozen=True, slots=True)
class PartitionState:
    """One partition. Epochs are consensus indexes: of the last leader change, and of the last change of any kind."""

    replicas: tuple[str, ...]
    isr: tuple[str, ...]
    leader: str
    leader_epoch: int
    partition_epoch: int
    paused: bool = False
    readonly: bool = False


@dataclass(frozen=True, slots=True)
class StreamState:
    """One stream. ``stream_id`` is the index of its creation; a partition's ID is its place in ``partitions``."""

    stream_id: int
    name: str
    subject: str
    group: str
    config: StreamConfig
    creation_timestamp_ns: int
    partitions: tuple[PartitionState, ...]


class MetadataState:
    """See :class:`liftbridge.interfaces.consensus.StateMachine`.

    ``version`` grows with every change, for caches. Callbacks run inside ``apply`` and ``restore``, in the order of
    subscription, and must only take note.
    """

    def __init__(self) -> None:
        self._streams: dict[str, StreamState] = {}
        self._servers: dict[str, ServerState] = {}
        self._on_change: list[Callable[[], None]] = []
        self._on_event: list[Callable[[MetadataEvent], None]] = []
        self.applied_index = 0
        self.version = 0

    @property
    def streams(self) -> Mapping[str, StreamState]:
        return MappingProxyType(self._streams)

    @property
    def servers(self) -> Mapping[str, ServerState]:
        return MappingProxyType(self._servers)

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Calls back after every change; what changed is for the caller to find out."""
        self._on_change.append(callback)

    def subscribe_events(self, callback: Callable[[MetadataEvent], None]) -> None:
        """Calls back with each change that observers are told of, in order."""
        self._on_event.append(callback)

    # --- applying -----------------------------------------------------------------------------------------------------

    def apply(self, index: int, command: bytes) -> Applied | Refused:
        self.applied_index = index
        try:
            decoded = decode_command(command)
        except ProtocolError as error:
            return Refused(RefusalReason.UNKNOWN_COMMAND, str(error))
        result = self._apply(index, decoded)
        if isinstance(result, Applied):
            self._changed()
        return result

    def _apply(self, index: int, command: Command) -> Applied | Refused:
        match command:
            case RegisterServer():
                return self._register_server(index, command)
            case CreateStream():
                return self._create_stream(index, command)
            case DeleteStream():
                return self._delete_stream(index, command)

    def _register_server(self, index: int, command: RegisterServer) -> Applied:
        """A new incarnation begins a new leader epoch wherever the server leads, because what it wrote last before it
        stopped may not be what it holds now."""
        known = self._servers.get(command.server_id)
        self._servers[command.server_id] = ServerState(
            command.server_id, command.host, command.port, command.incarnation
        )
        if known is None or known.incarnation != command.incarnation:
            for name, stream in self._streams.items():
                self._streams[name] = _with_new_epochs(stream, command.server_id, index)
        return Applied(index)

    def _create_stream(self, index: int, command: CreateStream) -> Applied | Refused:
        if command.name in self._streams:
            return Refused(RefusalReason.STREAM_EXISTS, "stream already exists")
        if not command.placements:
            return Refused(RefusalReason.BAD_PLACEMENT, "no partitions provided")
        for placement in command.placements:
            if placement.leader not in placement.replicas or len(set(placement.replicas)) != len(placement.replicas):
                return Refused(
                    RefusalReason.BAD_PLACEMENT,
                    f"leader {placement.leader!r} and replicas {placement.replicas} don't fit together",
                )
        self._streams[command.name] = StreamState(
            stream_id=index,
            name=command.name,
            subject=command.subject,
            group=command.group,
            config=command.config,
            creation_timestamp_ns=command.creation_timestamp_ns,
            partitions=tuple(
                PartitionState(placement.replicas, placement.replicas, placement.leader, index, index)
                for placement in command.placements
            ),
        )
        self._tell(index, MetadataEventKind.STREAM_CREATED, self._streams[command.name])
        return Applied(index)

    def _delete_stream(self, index: int, command: DeleteStream) -> Applied | Refused:
        stream = self._streams.pop(command.name, None)
        if stream is None:
            return Refused(RefusalReason.NO_SUCH_STREAM, "stream does not exist")
        self._tell(index, MetadataEventKind.STREAM_DELETED, stream)
        return Applied(index)

    def _tell(self, index: int, kind: MetadataEventKind, stream: StreamState) -> None:
        event = MetadataEvent(index, kind, stream.name, tuple(range(len(stream.partitions))))
        for callback in self._on_event:
            callback(event)

    def _changed(self) -> None:
        self.version += 1
        for callback in self._on_change:
            callback()

    # --- snapshots ----------------------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        return internal.MetadataSnapshot(
            servers=[
                internal.Server(server_id=one.server_id, host=one.host, port=one.port, incarnation=one.incarnation)
                for _, one in sorted(self._servers.items())
            ],
            streams=[_stream_to_proto(one) for _, one in sorted(self._streams.items())],
        ).SerializeToString(deterministic=True)

    def restore(self, data: bytes) -> None:
        snapshot = internal.MetadataSnapshot.FromString(data)
        self._servers = {
            one.server_id: ServerState(one.server_id, one.host, one.port, one.incarnation) for one in snapshot.servers
        }
        self._streams = {one.name: _stream_from_proto(one) for one in snapshot.streams}
        self._changed()


def _with_new_epochs(stream: StreamState, leader: str, index: int) -> StreamState:
    partitions = tuple(
        replace(one, leader_epoch=index, partition_epoch=index) if one.leader == leader else one
        for one in stream.partitions
    )
    return replace(stream, partitions=partitions)


def _stream_to_proto(stream: StreamState) -> internal.Stream:
    return internal.Stream(
        stream_id=stream.stream_id,
        name=stream.name,
        subject=stream.subject,
        group=stream.group,
        config=stream.config.to_proto(),
        creation_timestamp_ns=stream.creation_timestamp_ns,
        partitions=[
            internal.Partition(
                replicas=one.replicas,
                isr=one.isr,
                leader=one.leader,
                leader_epoch=one.leader_epoch,
                partition_epoch=one.partition_epoch,
                paused=one.paused,
                readonly=one.readonly,
            )
            for one in stream.partitions
        ],
    )


def _stream_from_proto(message: internal.Stream) -> StreamState:
    return StreamState(
        stream_id=message.stream_id,
        name=message.name,
        subject=message.subject,
        group=message.group,
        config=StreamConfig.from_proto(message.config),
        creation_timestamp_ns=message.creation_timestamp_ns,
        partitions=tuple(
            PartitionState(
                tuple(one.replicas),
                tuple(one.isr),
                one.leader,
                one.leader_epoch,
                one.partition_epoch,
                one.paused,
                one.readonly,
            )
            for one in message.partitions
        ),
    )
