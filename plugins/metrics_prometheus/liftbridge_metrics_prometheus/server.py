"""Sockets: the endpoint, and one short conversation for each connection."""

import asyncio
import logging
import os
from http import HTTPStatus

from liftbridge.errors import ConfigError
from liftbridge.interfaces.endpoint import Endpoint
from liftbridge_metrics_prometheus.exposition import CONTENT_TYPE
from liftbridge_metrics_prometheus.http1 import Request, Response, read_request, saying
from liftbridge_metrics_prometheus.scraping import Scrapes

logger = logging.getLogger(__name__)

#: Connections at once; more are told to come again.
_MAX_CONNECTIONS = 128
_MAX_HEAD_BYTES = 8 * 1024
#: For the whole request to arrive, and for the whole answer to leave.
_REQUEST_TIMEOUT_S = 5.0
_ANSWER_TIMEOUT_S = 10.0
#: For the other side to close, and how much more of it is read meanwhile, in pieces of the size below.
_GOODBYE_S = 1.0
_GOODBYE_READS = 16
#: So much of an answer waits in a connection's own buffer, at most.
_WRITE_BYTES = 64 * 1024
_PATHS = "There is /metrics for Prometheus, /healthz (it runs) and /readyz (it serves clients)"
_TOO_MANY = saying(HTTPStatus.SERVICE_UNAVAILABLE, "Too many connections; try again", ("Retry-After", "1"))
_TOO_LONG = saying(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"A request has {_MAX_HEAD_BYTES} bytes at most")
_TOO_SLOW = saying(HTTPStatus.REQUEST_TIMEOUT, f"The request didn't arrive within {_REQUEST_TIMEOUT_S:g} s")
_OUR_FAULT = saying(HTTPStatus.INTERNAL_SERVER_ERROR, "The scrape failed; the server's log says why")


class PrometheusEndpoint(Endpoint):
    """See :class:`liftbridge.interfaces.endpoint.Endpoint`; for operators."""

    def __init__(self, scrapes: Scrapes, host: str, port: int) -> None:
        """``host`` is "" for every address of the machine."""
        self._scrapes = scrapes
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self._conversations: set[asyncio.Task[None]] = set()
        #: Those that wait for a request.
        self._listening: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        try:
            self._server = await asyncio.start_server(
                self._converse, self._host or None, self._port, limit=_MAX_HEAD_BYTES, backlog=_MAX_CONNECTIONS
            )
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise ConfigError(
                f"can't listen on {self._host}:{self._port} for metrics: {reason}. Choose another address with "
                "endpoint.prometheus.listen"
            ) from error
        logger.info("Metrics on http://%s:%d/metrics", self._host or "*", self.port)

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1]) if self._server is not None else self._port

    @property
    def conversations(self) -> int:
        """Connections that are open."""
        return len(self._conversations)

    def set_serving(self, serving: bool) -> None:
        self._scrapes.serving = serving

    async def stop(self, *, grace_s: float) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for task in self._listening:
            task.cancel()
        if self._conversations:
            await asyncio.wait(self._conversations, timeout=grace_s)
        for task in self._conversations:
            task.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)
        await self._scrapes.close()

    # --- one connection -----------------------------------------------------------------------------------------------

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._conversations.add(task)
        try:
            await _send(writer, *await self._ask_and_answer(task, reader))
            await _hang_up(reader, writer)
        except (OSError, EOFError, TimeoutError) as error:
            logger.debug("whoever asked went away or doesn't read: %s", error)
        finally:
            self._conversations.discard(task)
            writer.transport.abort()

    async def _ask_and_answer(self, task: "asyncio.Task[None]", reader: asyncio.StreamReader) -> tuple[Response, bool]:
        """What is to be sent, and whether with its body."""
        if len(self._conversations) > _MAX_CONNECTIONS:
            return _TOO_MANY, True
        self._listening.add(task)
        try:
            request = await _read(reader)
        finally:
            self._listening.discard(task)
        if isinstance(request, Response):
            return request, True
        return await self._answer_to(request.path), request.wants_body

    async def _answer_to(self, path: str) -> Response:
        match path:
            case "/metrics":
                return await self._scraped()
            case "/healthz":
                return saying(HTTPStatus.OK, "ok")
            case "/readyz" if self._scrapes.serving:
                return saying(HTTPStatus.OK, "ok")
            case "/readyz":
                return saying(HTTPStatus.SERVICE_UNAVAILABLE, "not serving clients")
        return saying(HTTPStatus.NOT_FOUND, _PATHS)

    async def _scraped(self) -> Response:
        try:
            return Response(HTTPStatus.OK, await self._scrapes.text(), CONTENT_TYPE)
        except Exception:  # noqa: BLE001  (the boundary: whatever it is, it is logged already, and Prometheus gets an answer)
            return _OUR_FAULT


async def _read(reader: asyncio.StreamReader) -> Request | Response:
    """The request, or what to answer in its place. Raises EOFError when there won't be one."""
    try:
        async with asyncio.timeout(_REQUEST_TIMEOUT_S):
            return read_request(await reader.readuntil(b"\r\n\r\n"))
    except asyncio.LimitOverrunError:
        return _TOO_LONG
    except TimeoutError:
        return _TOO_SLOW


async def _send(writer: asyncio.StreamWriter, response: Response, with_body: bool) -> None:
    """Returns when the system has it all, which takes as long as the other side takes to read. Raises TimeoutError."""
    writer.transport.set_write_buffer_limits(high=0)
    body = memoryview(response.body if with_body else b"")
    async with asyncio.timeout(_ANSWER_TIMEOUT_S):
        writer.write(response.head())
        for start in range(0, len(body), _WRITE_BYTES):
            writer.write(body[start : start + _WRITE_BYTES])
            await writer.drain()
        await writer.drain()


async def _hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Lets the other side close first: were something of it unread, the system would take the answer back."""
    writer.write_eof()
    async with asyncio.timeout(_GOODBYE_S):
        for _ in range(_GOODBYE_READS):
            if not await reader.read(_WRITE_BYTES):
                return
