"""Checks of what clients send, before anything is proposed. The original crashes on much of what is refused here."""

from liftbridge.errors import InvalidRequest
from liftbridge.interfaces.routing import SubjectRouter
from liftbridge.metadata.config import StreamConfig
from liftbridge.metadata.model import ACTIVITY_STREAM, CURSORS_STREAM
from liftbridge.protocol.generated import api_pb2 as api

RESERVED_STREAMS = (ACTIVITY_STREAM, CURSORS_STREAM)

#: NATS subjects and file systems both have trouble with more.
MAX_NAME_BYTES = 255
#: More than any deployment known to us uses, and few enough that one request can't exhaust a server.
MAX_PARTITIONS = 4096
_MAX_INT64 = (1 << 63) - 1
#: Milliseconds that still fit nanoseconds of 64 bits.
_MAX_MS = _MAX_INT64 // 1_000_000
#: A segment's positions must fit; 2 GiB is also the original's limit.
_MAX_SEGMENT_BYTES = (1 << 31) - 1


def check_stream_name(name: str) -> None:
    """A name becomes part of NATS subjects, so it must be made of printable, non-empty tokens."""
    if not name:
        raise InvalidRequest("Name cannot be empty")
    problem = _token_problem(name)
    if problem:
        raise InvalidRequest(f"Name is invalid: {name[:64]!r} {problem}")
    if name in RESERVED_STREAMS:
        raise InvalidRequest("Stream is reserved")


def check_group(group: str) -> None:
    """A group is a NATS queue group."""
    problem = _token_problem(group) if group else None
    if problem:
        raise InvalidRequest(f"Group is invalid: {group[:64]!r} {problem}")


def _token_problem(text: str) -> str | None:
    if len(text.encode()) > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes"
    if any(character.isspace() or not character.isprintable() for character in text):
        return "contains white space or control characters"
    if "" in text.split("."):
        return "has an empty part between dots"
    return None


def check_subject(subject: str, router: SubjectRouter) -> None:
    """The router knows what a subject is."""
    problem = "it is empty" if not subject else router.validate(subject)
    if problem:
        raise InvalidRequest("Subject is invalid" if not subject else f"Subject is invalid: {problem}")
    if len(subject.encode()) > MAX_NAME_BYTES:
        raise InvalidRequest(f"Subject is invalid: it is longer than {MAX_NAME_BYTES} bytes")


def partition_count(request: api.CreateStreamRequest, router: SubjectRouter) -> int:
    """The number of partitions; 0 means 1. Each must have a subject that it can listen on."""
    count = request.partitions or 1
    if not 1 <= count <= MAX_PARTITIONS:
        raise InvalidRequest(f"Invalid partitions {request.partitions}: must be from 1 to {MAX_PARTITIONS}")
    problem = router.validate(router.partition_subject(request.subject, count - 1))
    if problem:
        raise InvalidRequest(f"Invalid partitions {count}: partition {count - 1} can't have a subject: {problem}")
    return count


def replication_factor(request: api.CreateStreamRequest, cluster_size: int) -> int:
    """The number of replicas; 0 means 1 and -1 means every server."""
    factor = request.replicationFactor or 1
    if factor == -1:
        factor = cluster_size
    if factor <= 0:
        raise InvalidRequest(f"Invalid replicationFactor {request.replicationFactor}")
    if factor > cluster_size:
        raise InvalidRequest(f"Invalid replicationFactor {factor}, cluster size {cluster_size}")
    return factor


def stream_config(request: api.CreateStreamRequest) -> StreamConfig:
    """The overrides, each within bounds."""

    def integer(field: str, maximum: int = _MAX_INT64, minimum: int = 0) -> int | None:
        if not request.HasField(field):
            return None
        value: int = getattr(request, field).value
        if not minimum <= value <= maximum:
            raise InvalidRequest(f"Invalid {field} {value}: must be from {minimum} to {maximum}")
        return value

    def flag(field: str) -> bool | None:
        return bool(getattr(request, field).value) if request.HasField(field) else None

    return StreamConfig(
        retention_max_bytes=integer("retentionMaxBytes"),
        retention_max_messages=integer("retentionMaxMessages"),
        retention_max_age_ms=integer("retentionMaxAge", _MAX_MS),
        cleaner_interval_ms=integer("cleanerInterval", _MAX_MS),
        segment_max_bytes=integer("segmentMaxBytes", _MAX_SEGMENT_BYTES),
        segment_max_age_ms=integer("segmentMaxAge", _MAX_MS),
        compact_enabled=flag("compactEnabled"),
        compact_max_workers=integer("compactMaxGoroutines", 1 << 20),
        auto_pause_time_ms=integer("autoPauseTime", _MAX_MS),
        auto_pause_disable_if_subscribers=flag("autoPauseDisableIfSubscribers"),
        min_isr=integer("minIsr", 1 << 20, -(1 << 31)),
        optimistic_concurrency_control=flag("optimisticConcurrencyControl"),
        encryption=flag("encryption"),
    )
