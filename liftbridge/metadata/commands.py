"""What is proposed to the metadata group, as typed commands, and their bytes."""

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from liftbridge.errors import ProtocolError
from liftbridge.metadata.config import StreamConfig
from liftbridge.protocol.generated import internal_pb2 as internal


@dataclass(frozen=True, slots=True)
class RegisterServer:
    """A server started: where clients reach it, and a name for this start."""

    server_id: str
    host: str
    port: int
    incarnation: str


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


Command = RegisterServer | CreateStream | DeleteStream


def encode_command(command: Command) -> bytes:
    """The bytes that are proposed; the same for equal commands."""
    return _to_proto(command).SerializeToString(deterministic=True)


def _to_proto(command: Command) -> internal.Command:
    match command:
        case RegisterServer():
            return internal.Command(
                register_server=internal.RegisterServer(
                    server_id=command.server_id,
                    host=command.host,
                    port=command.port,
                    incarnation=command.incarnation,
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


def decode_command(data: bytes) -> Command:
    """Raises ProtocolError for bytes that no version of this server proposed."""
    try:
        message = internal.Command.FromString(data)
    except DecodeError as error:
        raise ProtocolError(f"not a metadata command: {error}") from None
    match message.WhichOneof("command"):
        case "register_server":
            server = message.register_server
            return RegisterServer(server.server_id, server.host, server.port, server.incarnation)
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
    raise ProtocolError("a metadata command of a kind that this version doesn't know")
