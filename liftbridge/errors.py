"""Every error class of Liftbridge. This docstring is the tree.

::

    LiftbridgeError
    ├── ConfigError                    a setting, flag or file of the operator's is wrong
    ├── PluginError                    a plugin can't be used
    │   ├── PluginNotFound             nothing installed has the name that the config asks for
    │   ├── DuplicateProvider          two distributions offer the same name
    │   └── IncompatiblePlugin         other generation, unknown hook, or a provider of the wrong shape
    ├── StorageError                   the disk said no, or what it holds is wrong
    │   ├── LogDamaged                 bytes on disk fail their checksum; that partition is quarantined
    │   ├── KeyMissing                 what is on disk is encrypted with a key that isn't here
    │   ├── LogClosed                  the log was closed (paused, or this server left the role)
    │   ├── LogDeleted                 the stream was deleted
    │   ├── DiskFull                   refused before or at the write; nothing was stored
    │   └── OffsetOutOfRange           below the start or above the end of the log
    ├── ConsensusError
    │   ├── NotLeader                  another server leads; carries its ID when known
    │   ├── ProposalDropped            not committed and never will be: safe to retry
    │   └── ProposalTimeout            outcome unknown: it may still commit
    ├── TransportError
    │   ├── TransportClosed            no connection, or the buffer for one is full
    │   ├── NoResponders               nobody listens on the subject
    │   ├── RequestTimeout             no reply in time
    │   └── PayloadTooLarge            larger than the transport carries
    ├── ProtocolError                  bytes that don't decode; never the end of a server
    └── RequestError                   what a client gets: a status and a text
        ├── InvalidRequest             INVALID_ARGUMENT
        ├── NotFound                   NOT_FOUND
        ├── AlreadyExists              ALREADY_EXISTS
        ├── FailedPrecondition         FAILED_PRECONDITION
        ├── ResourceExhausted          RESOURCE_EXHAUSTED
        ├── PermissionDenied           PERMISSION_DENIED
        ├── Unimplemented              UNIMPLEMENTED
        ├── Unavailable                UNAVAILABLE (retriable)
        ├── DeadlineExceeded           DEADLINE_EXCEEDED, outcome unknown
        ├── UnknownError               UNKNOWN, where the original answers so
        └── InternalError              INTERNAL

Every class says by ``status`` how a client hears of it and by ``retriable`` whether the same call may succeed later.
A definite error of a publish means "not stored"; only :class:`DeadlineExceeded`, :class:`ProposalTimeout` and
:class:`Unavailable` leave the outcome open.
"""

from enum import IntEnum


class Status(IntEnum):
    """How a call ended; names and numbers are those of gRPC, which every client of the API knows."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class LiftbridgeError(Exception):
    """The root: catching it catches everything that Liftbridge raises on purpose."""

    status: Status = Status.INTERNAL
    retriable: bool = False


class ConfigError(LiftbridgeError):
    """A setting, a flag or a file of the operator's is wrong; the text names it and says what would be right."""

    status = Status.INVALID_ARGUMENT


class PluginError(LiftbridgeError):
    """A plugin can't be used; the text names the plugin and the distribution it came from."""

    status = Status.FAILED_PRECONDITION


class PluginNotFound(PluginError):
    """Nothing installed offers the provider that the config asks for; the text lists what is."""


class DuplicateProvider(PluginError):
    """Two installed distributions offer a provider of the same kind and name."""


class IncompatiblePlugin(PluginError):
    """The plugin was written for another generation of the seam, names a hook that doesn't exist, or has the wrong shape."""


class StorageError(LiftbridgeError):
    """The disk refused, or what it holds is wrong."""


class LogDamaged(StorageError):
    """Stored bytes fail their checksum. Only this partition is affected; nothing was changed on disk."""

    status = Status.DATA_LOSS


class KeyMissing(StorageError):
    """What is stored is encrypted with a key that this server doesn't have. Only that partition is affected, and nothing is
    lost: with the key it works again."""

    status = Status.FAILED_PRECONDITION


class LogClosed(StorageError):
    """The log was closed, because the partition was paused or this server left the role."""

    status = Status.FAILED_PRECONDITION


class LogDeleted(StorageError):
    """The log is gone, because its stream was deleted."""

    status = Status.NOT_FOUND


class DiskFull(StorageError):
    """The disk has no room (or its reserve was reached): nothing was stored. Succeeds again once there is room."""

    status = Status.RESOURCE_EXHAUSTED
    retriable = True


class OffsetOutOfRange(StorageError):
    """The offset is below the start or above the end of the log."""

    status = Status.OUT_OF_RANGE


class ConsensusError(LiftbridgeError):
    """The metadata group couldn't do what was asked."""

    status = Status.UNAVAILABLE
    retriable = True


class NotLeader(ConsensusError):
    """Another server leads the metadata group. ``leader`` is its server ID, empty when unknown."""

    def __init__(self, leader: str = "") -> None:
        super().__init__(f"not the metadata leader; {leader} is" if leader else "no known metadata leader")
        self.leader = leader


class ProposalDropped(ConsensusError):
    """The proposal was not committed and never will be, so proposing it again is safe."""


class ProposalTimeout(ConsensusError):
    """No answer in time. The proposal may still commit: read the state before trying again."""

    status = Status.DEADLINE_EXCEEDED
    retriable = False


class TransportError(LiftbridgeError):
    """Messages between servers, or to and from NATS, couldn't be carried."""

    status = Status.UNAVAILABLE
    retriable = True


class TransportClosed(TransportError):
    """There is no connection now, and the buffer that bridges the gap is full or was not allowed."""


class NoResponders(TransportError):
    """Nobody listens on the subject of a request."""


class RequestTimeout(TransportError):
    """No reply to a request in time. It may have been carried out."""


class PayloadTooLarge(TransportError):
    """The payload is larger than the transport carries."""

    status = Status.INVALID_ARGUMENT
    retriable = False


class ProtocolError(LiftbridgeError):
    """Bytes that don't decode as what they claim to be."""

    status = Status.INVALID_ARGUMENT


class RequestError(LiftbridgeError):
    """What a client is told: the status of its class and the text it was made with."""


class InvalidRequest(RequestError):
    status = Status.INVALID_ARGUMENT


class NotFound(RequestError):
    status = Status.NOT_FOUND


class AlreadyExists(RequestError):
    status = Status.ALREADY_EXISTS


class FailedPrecondition(RequestError):
    status = Status.FAILED_PRECONDITION


class ResourceExhausted(RequestError):
    status = Status.RESOURCE_EXHAUSTED


class PermissionDenied(RequestError):
    status = Status.PERMISSION_DENIED


class Unimplemented(RequestError):
    status = Status.UNIMPLEMENTED


class Unavailable(RequestError):
    status = Status.UNAVAILABLE
    retriable = True


class DeadlineExceeded(RequestError):
    status = Status.DEADLINE_EXCEEDED


class UnknownError(RequestError):
    status = Status.UNKNOWN


class InternalError(RequestError):
    status = Status.INTERNAL
