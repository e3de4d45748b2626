"""As much of HTTP/1.1 as a scrape and a health check need: one GET, one answer, and the connection ends. No IO."""

from dataclasses import dataclass, field
from http import HTTPStatus

PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered. ``body`` isn't sent to who asked for the head only."""

    status: HTTPStatus
    body: bytes
    content_type: str = PLAIN
    headers: tuple[tuple[str, str], ...] = field(default=())

    def head(self) -> bytes:
        """Everything above the body."""
        fields = [
            ("Content-Type", self.content_type),
            ("Content-Length", str(len(self.body))),
            ("Cache-Control", "no-store"),
            ("Connection", "close"),
            *self.headers,
        ]
        lines = [f"HTTP/1.1 {self.status.value} {self.status.phrase}", *(f"{name}: {value}" for name, value in fields)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


def saying(status: HTTPStatus, text: str, *headers: tuple[str, str]) -> Response:
    """A line for a person."""
    return Response(status, f"{text}\n".encode(), headers=headers)


@dataclass(frozen=True, slots=True)
class Request:
    """Which path is wanted, without what follows a question mark; ``wants_body`` is False for HEAD."""

    path: str
    wants_body: bool


def read_request(head: bytes) -> Request | Response:
    """What the bytes above the empty line ask for, or what to answer when they don't ask for anything. Headers are not
    looked at: nothing depends on them."""
    words = head.split(b"\r\n", 1)[0].split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1.") or not words[1].isascii():
        return saying(HTTPStatus.BAD_REQUEST, "This port speaks HTTP/1.1: GET /metrics")
    method, target = words[0], words[1].decode()
    if method not in (b"GET", b"HEAD"):
        return saying(HTTPStatus.METHOD_NOT_ALLOWED, "There is only GET and HEAD here", ("Allow", "GET, HEAD"))
    return Request(target.split("?", 1)[0], method == b"GET")
