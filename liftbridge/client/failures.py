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
_BROKEN = ("RST_STREAM", "GOAWAY", "Connection reset", "Stream removed", "Broken pipe")
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


def status_error(code: grpc.StatusCode, text: str, address: str) -> RequestError:
    """What a status of the server at ``address`` is."""
    text = text or code.name
    if code is grpc.StatusCode.UNKNOWN and text == INCORRECT_OFFSET:
        return IncorrectOffset(text)
    if code is grpc.StatusCode.INTERNAL and any(sign in text for sign in _BROKEN):
        return Unavailable(f"{address}: {text}")
    kind = _CLASSES.get(code, UnknownError)
    return kind(f"{address}: {text}" if kind is Unavailable else text)


def async_error_of(error: api.PublishAsyncError) -> RequestError:
    """What a publish session says of one message."""
    return _ASYNC_CLASSES.get(error.code, UnknownError)(error.message)
