"""What is proposed to the metadata group, as typed commands, and their bytes."""

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from liftbridge.errors import ProtocolError
from liftbridge.metadata.config import StreamConfig
from liftbridge.metadata.model import ServerStatus
from liftbridge.protocol.generated import internal_pb2 as internal


@dataclass(frozen=True, slots=True)
class RegisterServer:
    """A server started: where clients reach it, and a name for this start. ``unclean``: its logs may hold less than they
    did, because its machine went down without a clean stop of the server."""

    server_id: str
    host: str
    port: int
    incarnation: str
    unclean: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one partition lives. The leader is one of the replicas."""

    replicas: tuple[str, ...]
    leader: str


@dataclass(frozen=True, slots=True)
class CreateStream:
    """A new stream with a partition for each placement."""

    name: str
    subject: str
    group: str
    config: StreamConfig
    creation_timestamp_ns: int
    placements: tuple[Placement, ...]


@dataclass(frozen=True, slots=True)
class DeleteStream:
    """The stream and its data go."""

    name: str


@dataclass(frozen=True, slots=True)
class PartitionChange:
    """What is to change of one partition, if ``partition_epoch`` is still its epoch.

    ``leader`` None leaves the leader; anything else begins a new leader epoch, "" one without a leader, and so do other
    ``replicas``. ``isr`` or ``replicas`` empty: they stay. ``unclean``: the leader becomes the whole ISR, whatever it lacks.
    """

    stream_id: int
    partition: int
    partition_epoch: int
    leader: str | None = None
    isr: tuple[str, ...] = ()
    replicas: tuple[str, ...] = ()
    unclean: bool = False


@dataclass(frozen=True, slots=True)
class ChangePartitions:
    """Several changes at once; each is accepted, or stale, on its own."""

    changes: tuple[PartitionChange, ...]


@dataclass(frozen=True, slots=True)
class PausePartitions:
    """The partitions, or with none named all of the stream, give their resources back. ``timestamp_ns`` is the proposer's
    time. With ``leader_epochs``, one for each partition, only those are paused that still have them, and the stream's
    ``resume_all`` stays: that is a pause for idleness."""

    stream: str
    partitions: tuple[int, ...]
    resume_all: bool
    timestamp_ns: int
    leader_epochs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ResumePartitions:
    """The partitions work again; all of the stream's, if none is named or the latest pause said so."""

    stream: str
    partitions: tuple[int, ...]
    timestamp_ns: int


@dataclass(frozen=True, slots=True)
class SetReadonly:
    """The partitions, or with none named all of the stream, take messages or take none."""

    stream: str
    partitions: tuple[int, ...]
    readonly: bool
    timestamp_ns: int


@dataclass(frozen=True, slots=True)
class ChangeServer:
    """A server's new status. With ``incarnation``, only for that start of it."""

    server_id: str
    status: ServerStatus
    incarnation: str = ""


@dataclass(frozen=True, slots=True)
class ActivityPublished:
    """The activity stream has every event up to this index."""

    up_to_index: int


@dataclass(frozen=True, slots=True)
class JoinGroup:
    """A consumer joins a group, which is made if there is none."""

    group_id: str
    consumer_id: str
    streams: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LeaveGroup:
    """A consumer leaves a group; the last one takes it with it. ``expired``: because nothing was heard of it, since it
    joined at ``joined_index``, by the coordinator that was chosen at ``coordinator_index``."""

    group_id: str
    consumer_id: str
    expired: bool = False
    joined_index: int = 0
    coordinator_index: int = 0


@dataclass(frozen=True, slots=True)
class CoordinatorChange:
    """Another coordinator for a group, if it last changed at ``changed_index``."""

    group_id: str
    changed_index: int
    coordinator: str


@dataclass(frozen=True, slots=True)
class ChangeCoordinators:
    """Several changes at once; each is accepted, or stale, on its own."""

    changes: tuple[CoordinatorChange, ...]


Command = (
    RegisterServer
    | CreateStream
    | DeleteStream
    | ChangePartitions
    | PausePartitions
    | ResumePartitions
    | SetReadonly
    | ChangeServer
    | ActivityPublished
    | JoinGroup
    | LeaveGroup
    | ChangeCoordinators
)


def encode_command(command: Command, request_id: str = "") -> bytes:
    """The bytes that are proposed; the same for equal arguments. Proposed again with the same ``request_id``, a command
    takes no effect and has its first outcome."""
    message = _to_proto(command)
    message.request_id = request_id
    return message.SerializeToString(deterministic=True)


def decode_command(data: bytes) -> tuple[Command, str]:
    """The command and its request ID. Raises ProtocolError for bytes that no version of this server proposed."""
    try:
        message = internal.Command.FromString(data)
    except DecodeError as error:
        raise ProtocolError(f"not a metadata command: {error}") from None
    return _from_proto(message), message.request_id


def _to_proto(command: Command) -> internal.Command:
    match command:
        case RegisterServer():
            return internal.Command(
                register_server=internal.RegisterServer(
                    server_id=command.server_id,
                    host=command.host,
                    port=command.port,
                    incarnation=command.incarnation,
                    unclean=command.unclean,
                )
            )
        case CreateStream():
            return internal.Command(
                create_stream=internal.CreateStream(
                    name=command.name,
                    subject=command.subject,
                    group=command.group,
                    config=command.config.to_proto(),
                    creation_timestamp_ns=command.creation_timestamp_ns,
                    placements=[
                        internal.Placement(replicas=one.replicas, leader=one.leader) for one in command.placements
                    ],
                )
            )
        case DeleteStream():
            return internal.Command(delete_stream=internal.DeleteStream(name=command.name))
        case ChangePartitions():
            changes = [_change_to_proto(one) for one in command.changes]
            return internal.Command(change_partitions=internal.ChangePartitions(changes=changes))
        case PausePartitions():
            return internal.Command(
                pause_partitions=internal.PausePartitions(
                    stream=command.stream,
                    partitions=command.partitions,
                    resume_all=command.resume_all,
                    timestamp_ns=command.timestamp_ns,
                    leader_epochs=command.leader_epochs,
                )
            )
        case ResumePartitions():
            return internal.Command(
                resume_partitions=internal.ResumePartitions(
                    stream=command.stream, partitions=command.partitions, timestamp_ns=command.timestamp_ns
                )
            )
        case SetReadonly():
            return internal.Command(
                set_readonly=internal.SetReadonly(
                    stream=command.stream,
                    partitions=command.partitions,
                    readonly=command.readonly,
                    timestamp_ns=command.timestamp_ns,
                )
            )
        case ChangeServer():
            return internal.Command(
                change_server=internal.ChangeServer(
                    server_id=command.server_id,
                    incarnation=command.incarnation,
                    status=internal.ServerStatus.Name(command.status),
                )
            )
        case ActivityPublished():
            return internal.Command(activity_published=internal.ActivityPublished(up_to_index=command.up_to_index))
        case JoinGroup():
            return internal.Command(
                join_group=internal.JoinGroup(
                    group_id=command.group_id, consumer_id=command.consumer_id, streams=command.streams
                )
            )
        case LeaveGroup():
            return internal.Command(
                leave_group=internal.LeaveGroup(
                    group_id=command.group_id,
                    consumer_id=command.consumer_id,
                    expired=command.expired,
                    joined_index=command.joined_index,
                    coordinator_index=command.coordinator_index,
                )
            )
        case ChangeCoordinators():
            return internal.Command(
                change_coordinators=internal.ChangeCoordinators(
                    changes=[
                        internal.CoordinatorChange(
                            group_id=one.group_id, changed_index=one.changed_index, coordinator=one.coordinator
                        )
                        for one in command.changes
                    ]
                )
            )


def _change_to_proto(change: PartitionChange) -> internal.PartitionChange:
    return internal.PartitionChange(
        stream_id=change.stream_id,
        partition=change.partition,
        partition_epoch=change.partition_epoch,
        leader=change.leader,
        isr=change.isr,
        replicas=change.replicas,
        unclean=change.unclean,
    )


def _from_proto(message: internal.Command) -> Command:
    match message.WhichOneof("command"):
        case "register_server":
            server = message.register_server
            return RegisterServer(server.server_id, server.host, server.port, server.incarnation, server.unclean)
        case "create_stream":
            stream = message.create_stream
            return CreateStream(
                name=stream.name,
                subject=stream.subject,
                group=stream.group,
                config=StreamConfig.from_proto(stream.config),
                creation_timestamp_ns=stream.creation_timestamp_ns,
                placements=tuple(Placement(tuple(one.replicas), one.leader) for one in stream.placements),
            )
        case "delete_stream":
            return DeleteStream(message.delete_stream.name)
        case "change_partitions":
            return ChangePartitions(tuple(_change_from_proto(one) for one in message.change_partitions.changes))
        case "pause_partitions":
            pause = message.pause_partitions
            return PausePartitions(
                pause.stream,
                tuple(pause.partitions),
                pause.resume_all,
                pause.timestamp_ns,
                tuple(pause.leader_epochs),
            )
        case "resume_partitions":
            resume = message.resume_partitions
            return ResumePartitions(resume.stream, tuple(resume.partitions), resume.timestamp_ns)
        case "set_readonly":
            flag = message.set_readonly
            return SetReadonly(flag.stream, tuple(flag.partitions), flag.readonly, flag.timestamp_ns)
        case "change_server":
            change = message.change_server
            return ChangeServer(change.server_id, _status(change.status), change.incarnation)
        case "activity_published":
            return ActivityPublished(message.activity_published.up_to_index)
        case "join_group":
            join = message.join_group
            return JoinGroup(join.group_id, join.consumer_id, tuple(join.streams))
        case "leave_group":
            leave = message.leave_group
            return LeaveGroup(
                leave.group_id, leave.consumer_id, leave.expired, leave.joined_index, leave.coordinator_index
            )
        case "change_coordinators":
            changes = message.change_coordinators.changes
            return ChangeCoordinators(
                tuple(CoordinatorChange(one.group_id, one.changed_index, one.coordinator) for one in changes)
            )
    raise ProtocolError("a metadata command of a kind that this version doesn't know")


def _change_from_proto(message: internal.PartitionChange) -> PartitionChange:
    return PartitionChange(
        stream_id=message.stream_id,
        partition=message.partition,
        partition_epoch=message.partition_epoch,
        leader=message.leader if message.HasField("leader") else None,
        isr=tuple(message.isr),
        replicas=tuple(message.replicas),
        unclean=message.unclean,
    )


def _status(number: int) -> ServerStatus:
    try:
        return ServerStatus(number)
    except ValueError:
        raise ProtocolError(f"a server status {number} that this version doesn't know") from None
