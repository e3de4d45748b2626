"""What a gRPC status, or an error of a publish session, is as an exception."""

import grpc

from liftbridge.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InternalError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RequestError,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
    UnknownError,
)
from liftbridge.protocol.generated import api_pb2 as api

INCORRECT_OFFSET = "incorrect expected offset"


class IncorrectOffset(FailedPrecondition):
    """The message was not stored: another one has the offset that it was expected to get."""


class PartitionPaused(FailedPrecondition):
    """The partition was paused; publishing to it, or subscribing with ``resume``, resumes it."""


_CLASSES: dict[grpc.StatusCode, type[RequestError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNAUTHENTICATED: PermissionDenied,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.INTERNAL: InternalError,
}
#: How grpcio says that a connection broke in the middle of a call, beside UNAVAILABLE.
_BROKEN = ("RST_STREAM", "GOAWAY", "Connection reset", "Stream removed", "Broken pipe", "recvmsg", "sendmsg")
#: What it may put around the reason.
_WRAPPING = "Stream removed ("
#: What a server's gRPC says of a request that it didn't read.
_TOO_LARGE = "message larger than max"
_ASYNC_CLASSES: "dict[api.PublishAsyncError.Code, type[RequestError]]" = {
    api.PublishAsyncError.BAD_REQUEST: InvalidRequest,
    api.PublishAsyncError.NOT_FOUND: NotFound,
    api.PublishAsyncError.INTERNAL: InternalError,
    api.PublishAsyncError.READONLY: FailedPrecondition,
    api.PublishAsyncError.INCORRECT_OFFSET: IncorrectOffset,
    api.PublishAsyncError.ENCRYPTION_FAILED: InternalError,
    api.PublishAsyncError.PERMISSION_DENIED: PermissionDenied,
}


def error_of(error: grpc.aio.AioRpcError, address: str) -> RequestError:
    """The error of a call to the server at ``address``."""
    return status_error(error.code(), error.details() or "", address)


def status_error(code: grpc.StatusCode, details: str, address: str) -> RequestError:
    """What a status of the server at ``address`` is."""
    text = _without_wrapping(details or code.name)
    if text.lower().startswith(("deadline exceeded", "deadline_exceeded")):
        return DeadlineExceeded(f"no answer from {address} in time; what it was asked for may be done nevertheless")
    if code is grpc.StatusCode.UNKNOWN and text == INCORRECT_OFFSET:
        return IncorrectOffset(text)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in text:
        return InvalidRequest(f"{address} reads no request that large: {text}")
    if code is grpc.StatusCode.INTERNAL and any(sign in text for sign in _BROKEN):
        return Unavailable(f"{address}: {text}")
    kind = _CLASSES.get(code, UnknownError)
    return kind(f"{address}: {text}" if kind is Unavailable else text)


def _without_wrapping(details: str) -> str:
    """grpcio calls a call a stream, which here is something else, and nobody should read that one was removed."""
    return details.removeprefix(_WRAPPING).removesuffix(")") if details.startswith(_WRAPPING) else details


def async_error_of(error: api.PublishAsyncError) -> RequestError:
    """What a publish session says of one message."""
    return _ASYNC_CLASSES.get(error.code, UnknownError)(error.message)
