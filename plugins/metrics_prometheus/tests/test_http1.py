"""Requests as bytes, good and bad."""

from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liftbridge_metrics_prometheus.http1 import Request, Response, read_request, saying


@pytest.mark.parametrize(
    ("head", "request_"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", Request("/metrics", True)),
        (b"GET /metrics?name[]=up HTTP/1.0\r\n\r\n", Request("/metrics", True)),
        (b"HEAD /readyz HTTP/1.1\r\n\r\n", Request("/readyz", False)),
        (b"GET * HTTP/1.1\r\n\r\n", Request("*", True)),
    ],
)
def test_a_request_is_a_path_and_whether_its_body_is_wanted(head: bytes, request_: Request) -> None:
    assert read_request(head) == request_


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
        (b"get /metrics HTTP/1.1\r\n\r\n", 405),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET  /metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET /metrics HTTP/2.0\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\n", 400),
        ("GET /ü HTTP/1.1\r\n\r\n".encode(), 400),
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_gets_an_answer_that_says_what_is(head: bytes, status: int) -> None:
    response = read_request(head)
    assert isinstance(response, Response)
    assert response.status == status
    assert response.body.endswith(b"\n")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_an_answer(head: bytes) -> None:
    assert isinstance(read_request(head), Request | Response)


def test_a_response_says_how_long_it_is_and_that_the_connection_ends() -> None:
    head = saying(HTTPStatus.METHOD_NOT_ALLOWED, "no", ("Allow", "GET")).head()
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 405 Method Not Allowed"
    assert {"Content-Length: 3", "Connection: close", "Allow: GET"} <= set(lines)
    assert head.endswith(b"\r\n\r\n")
