"""How gRPC says things in headers: outcomes, time-outs, requests."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote

from liftbridge.errors import Status
from liftbridge_endpoint_grpc.http2.headers import Header, encode_headers

#: What a message may hold as it is; everything else is percent-encoded.
_SAFE = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"
_MAX_MESSAGE_CHARACTERS = 4096
_TIMEOUT_UNITS_NS = {
    "H": 3_600_000_000_000,
    "M": 60_000_000_000,
    "S": 1_000_000_000,
    "m": 1_000_000,
    "u": 1_000,
    "n": 1,
}

#: ``:status: 200`` by its number in the static table, then the content type.
RESPONSE_HEADERS = b"\x88" + encode_headers([("content-type", "application/grpc")])
OK_TRAILERS = encode_headers([("grpc-status", "0")])


def trailers(status: Status, message: str, *extra: tuple[str, str]) -> bytes:
    """The end of a call whose response headers were sent."""
    if status is Status.OK and not extra:
        return OK_TRAILERS
    text = quote(message[:_MAX_MESSAGE_CHARACTERS], safe=_SAFE)
    return encode_headers([("grpc-status", str(int(status))), ("grpc-message", text), *extra])


def trailers_only(status: Status, message: str, *extra: tuple[str, str]) -> bytes:
    """The end of a call that sent nothing before."""
    return RESPONSE_HEADERS + trailers(status, message, *extra)


@dataclass(frozen=True, slots=True)
class CallHeaders:
    """What the headers of a call say. ``timeout_ns`` is None without a deadline."""

    path: str
    encoding: str
    timeout_ns: int | None
    metadata: Mapping[str, str]


def parse_call(headers: list[Header]) -> CallHeaders | None:
    """None when the request isn't gRPC. Raises ValueError for a time-out that is none."""
    values = dict(headers)
    content_type = values.get(b"content-type", b"")
    if values[b":method"] != b"POST" or not content_type.startswith(b"application/grpc"):
        return None
    if content_type[16:17] not in (b"", b";", b"+"):
        return None
    timeout = values.get(b"grpc-timeout")
    return CallHeaders(
        path=values[b":path"].decode("latin-1"),
        encoding=values.get(b"grpc-encoding", b"identity").decode("latin-1"),
        timeout_ns=None if timeout is None else parse_timeout(timeout.decode("latin-1")),
        metadata=Metadata(headers),
    )


class Metadata(Mapping[str, str]):
    """A call's own headers, decoded when somebody asks for them: few handlers do."""

    def __init__(self, headers: Sequence[Header]) -> None:
        self._headers = headers

    @cached_property
    def _decoded(self) -> dict[str, str]:
        return {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in self._headers
            if not name.startswith((b":", b"grpc-"))
        }

    def __getitem__(self, name: str) -> str:
        return self._decoded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._decoded)

    def __len__(self) -> int:
        return len(self._decoded)


def parse_timeout(text: str) -> int:
    """``100m`` and the like, as nanoseconds."""
    digits, unit = text[:-1], text[-1:]
    if unit not in _TIMEOUT_UNITS_NS or not digits.isascii() or not digits.isdigit() or len(digits) > 8:
        raise ValueError(f"malformed grpc-timeout {text!r}")
    return int(digits) * _TIMEOUT_UNITS_NS[unit]
