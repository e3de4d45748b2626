"""What a client says of a call that failed."""

import grpc
import pytest

from liftbridge.client.failures import error_of
from liftbridge.errors import DeadlineExceeded, InvalidRequest, RequestError, ResourceExhausted, Unavailable

_Code = grpc.StatusCode
_IN_TIME = "no answer from host:1 in time; what it was asked for may be done nevertheless"


@pytest.mark.parametrize(
    ("code", "details", "kind", "said"),
    [
        (_Code.DEADLINE_EXCEEDED, "Deadline Exceeded", DeadlineExceeded, _IN_TIME),
        (_Code.DEADLINE_EXCEEDED, "Stream removed (Deadline Exceeded)", DeadlineExceeded, _IN_TIME),
        (_Code.UNKNOWN, "Stream removed (Deadline Exceeded)", DeadlineExceeded, _IN_TIME),
        (
            _Code.UNAVAILABLE,
            "Stream removed (recvmsg:Connection reset by peer (104))",
            Unavailable,
            "host:1: recvmsg:Connection reset by peer (104)",
        ),
        (
            _Code.RESOURCE_EXHAUSTED,
            "grpc: received message larger than max (6000043 vs. 4194304)",
            InvalidRequest,
            "host:1 reads no request that large: grpc: received message larger than max (6000043 vs. 4194304)",
        ),
        (_Code.RESOURCE_EXHAUSTED, "End of readonly partition", ResourceExhausted, "End of readonly partition"),
    ],
)
def test_a_status_is_an_error_that_says_what_happened(
    code: grpc.StatusCode, details: str, kind: type[RequestError], said: str
) -> None:
    no_metadata = grpc.aio.Metadata()
    error = error_of(grpc.aio.AioRpcError(code, no_metadata, no_metadata, details), "host:1")
    assert (type(error), str(error)) == (kind, said)
