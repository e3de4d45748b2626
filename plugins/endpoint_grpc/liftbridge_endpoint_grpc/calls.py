"""Calls: one HTTP/2 stream each, joined to one call of the broker.

A call hears of its stream by ``on_data``, ``on_end``, ``on_reset`` and ``on_drained``, and answers through its
:class:`StreamWriter`. Nothing here blocks or is done once a message.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from google.protobuf.message import DecodeError

from liftbridge.broker.api import PUBLISH_TIMEOUT_S, BrokerApi, CallContext, PublishSession, UnaryHandler
from liftbridge.errors import DeadlineExceeded, InternalError, LiftbridgeError, ProtocolError, Status
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge_endpoint_grpc.framing import EMPTY_MESSAGE, PREFIX_BYTES, MessageReader, frame_message
from liftbridge_endpoint_grpc.status import OK_TRAILERS, RESPONSE_HEADERS, trailers, trailers_only

logger = logging.getLogger(__name__)

#: Bytes of answers that may wait for a client before it isn't read any more.
_MAX_WAITING_BYTES = 1024 * 1024
#: Credit is given back in steps, much smaller than a stream's window.
_CREDIT_STEP_BYTES = 64 * 1024
#: What one read from a subscription asks for.
_READ_BYTES = 256 * 1024


class StreamWriter(Protocol):
    """The sending half of one stream."""

    def send_headers(self, block: bytes, *, end_stream: bool = False) -> None: ...
    def send_data(self, data: bytes) -> None: ...
    def send_response(self, headers: bytes, data: bytes, trailers: bytes) -> None: ...
    def waiting_bytes(self) -> int: ...
    def give_credit(self, flow_bytes: int) -> None: ...


class Call:
    """What all calls share: the reader, the answer's end, and the deadline."""

    def __init__(self, writer: StreamWriter, context: CallContext, reader: MessageReader) -> None:
        self.writer = writer
        self.context = context
        self.reader = reader
        self.ended = False
        self._headers_sent = False

    def on_data(self, data: bytes, flow_bytes: int) -> None:
        """Bytes of the request. Give the credit back when done with them."""

    def on_end(self) -> None:
        """The request is complete."""

    def on_reset(self) -> None:
        """The client is gone."""
        self.ended = True

    def on_drained(self) -> None:
        """The client read what waited for it."""

    def shut_down(self) -> None:
        """The server is stopping: end soon."""

    def send(self, framed: bytes) -> None:
        """Sends framed messages, after the headers if they are still to be sent."""
        if self.ended:
            return
        self.send_headers()
        self.writer.send_data(framed)

    def send_headers(self) -> None:
        if not self._headers_sent:
            self._headers_sent = True
            self.writer.send_headers(RESPONSE_HEADERS)

    def end(self, status: Status = Status.OK, message: str = "") -> None:
        """Ends the call; later answers are dropped."""
        if self.ended:
            return
        self.ended = True
        if self._headers_sent:
            self.writer.send_headers(trailers(status, message), end_stream=True)
        else:
            self.writer.send_headers(trailers_only(status, message), end_stream=True)

    def fail(self, error: BaseException) -> None:
        """Ends the call with what went wrong."""
        self.end(*outcome_of(error))

    async def bounded(self, work: Awaitable[Any]) -> Any:
        """Awaits ``work``, at most until the call's deadline."""
        deadline_ns = self.context.deadline_ns
        if deadline_ns is None:
            return await work
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(_loop_time(deadline_ns, loop)):
                return await work
        except TimeoutError:
            raise DeadlineExceeded("context deadline exceeded") from None


def outcome_of(error: BaseException) -> tuple[Status, str]:
    """What a client hears of an error; one that isn't ours is a bug, and logged."""
    if isinstance(error, LiftbridgeError):
        return error.status, str(error)
    logger.error("api: internal error", exc_info=error)
    return Status.INTERNAL, f"internal error: {type(error).__name__}"


def _loop_time(deadline_ns: int, loop: asyncio.AbstractEventLoop) -> float:
    """A moment of the monotonic clock in the loop's own time, which counts from a moment of its choice."""
    return loop.time() + (deadline_ns - time.monotonic_ns()) / 1e9


class SingleRequestCall(Call):
    """A call whose client sends one message. It runs, as a task, once that message is complete."""

    def __init__(self, writer: StreamWriter, context: CallContext, reader: MessageReader) -> None:
        super().__init__(writer, context, reader)
        self._framed = b""
        self._task: asyncio.Task[None] | None = None

    def on_data(self, data: bytes, flow_bytes: int) -> None:
        if self.ended:
            return
        self.writer.give_credit(flow_bytes)
        try:
            framed = self.reader.feed(data)
            if framed and self._framed:
                raise _not_one_message()
            self._framed = self._framed or framed
        except LiftbridgeError as error:
            self.fail(error)

    def on_end(self) -> None:
        if not self.ended:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def on_reset(self) -> None:
        super().on_reset()
        if self._task is not None:
            self._task.cancel()

    def take_message(self) -> bytes:
        """The request's bytes."""
        length = len(self._framed) - PREFIX_BYTES
        if length < 0 or self.reader.unfinished or int.from_bytes(self._framed[1:PREFIX_BYTES], "big") != length:
            raise _not_one_message()
        return self._framed[PREFIX_BYTES:]

    async def _run(self) -> None:
        try:
            await self.answer()
        except Exception as error:  # noqa: BLE001  (the boundary: whatever it is, the client gets an answer)
            self.fail(error)

    async def answer(self) -> None:
        """Answers the request; what it raises ends the call."""
        raise NotImplementedError


def _not_one_message() -> InternalError:
    return InternalError("grpc: this call takes exactly one message")


class UnaryCall(SingleRequestCall):
    """One request, one response."""

    def __init__(
        self,
        request_type: Any,
        handler: UnaryHandler,
        writer: StreamWriter,
        context: CallContext,
        reader: MessageReader,
    ) -> None:
        super().__init__(writer, context, reader)
        self._request_type = request_type
        self._handler = handler

    async def answer(self) -> None:
        response = await self.bounded(self._handler(self.parse(), self.context))
        if not self.ended:
            self.ended = True
            self.writer.send_response(RESPONSE_HEADERS, frame_message(response.SerializeToString()), OK_TRAILERS)

    def parse(self) -> Any:
        """The request."""
        try:
            return self._request_type.FromString(self.take_message())
        except DecodeError as error:
            raise InternalError(f"grpc: error unmarshalling request: {error}") from None


class SinglePublishCall(SingleRequestCall):
    """Publish: one message, and its ack, without a task."""

    def __init__(self, broker: BrokerApi, writer: StreamWriter, context: CallContext, reader: MessageReader) -> None:
        super().__init__(writer, context, reader)
        self._broker = broker
        self._deadline: asyncio.TimerHandle | None = None

    def on_end(self) -> None:
        if self.ended:
            return
        loop = asyncio.get_running_loop()
        deadline_ns = self.context.deadline_ns
        when = loop.time() + PUBLISH_TIMEOUT_S if deadline_ns is None else _loop_time(deadline_ns, loop)
        self._deadline = loop.call_at(when, self._expire)
        try:
            self._task = self._broker.publish(self.take_message(), self.context, self)
        except ProtocolError as error:
            self.fail(InternalError(f"grpc: error unmarshalling request: {error}"))
        except Exception as error:  # noqa: BLE001  (the boundary: whatever it is, the client gets an answer)
            self.fail(error)

    def succeed(self, response: bytes) -> None:
        """The broker's answer."""
        if not self.ended:
            self._settle()
            self.ended = True
            self.writer.send_response(RESPONSE_HEADERS, frame_message(response), OK_TRAILERS)

    def end(self, status: Status = Status.OK, message: str = "") -> None:
        self._settle()
        super().end(status, message)

    def on_reset(self) -> None:
        self._settle()
        super().on_reset()

    def _expire(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self.fail(DeadlineExceeded("context deadline exceeded; the message may be stored"))

    def _settle(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class PublishCall(Call):
    """PublishAsync: chunks in, chunks of answers out. Reading stops while the session or the client can't follow."""

    def __init__(self, broker: BrokerApi, writer: StreamWriter, context: CallContext, reader: MessageReader) -> None:
        super().__init__(writer, context, reader)
        self._held_credit_bytes = 0
        self._session_ready = True
        self._task: asyncio.Task[None] | None = None
        self._session: PublishSession = broker.publish_session(context, self)
        self._deadline: asyncio.TimerHandle | None = None
        if context.deadline_ns is not None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_at(_loop_time(context.deadline_ns, loop), self._expire)
        self.send_headers()

    def on_data(self, data: bytes, flow_bytes: int) -> None:
        if self.ended:
            return
        try:
            framed = self.reader.feed(data)
            if framed and not self._session.publish(framed):
                self._session_ready = False
        except ProtocolError as error:
            self._abort(InternalError(f"grpc: error unmarshalling request: {error}"))
        except Exception as error:  # noqa: BLE001  (the boundary: whatever it is, the client gets an answer)
            self._abort(error)
        self._held_credit_bytes += flow_bytes
        if self._held_credit_bytes >= _CREDIT_STEP_BYTES:
            self._give_credit()

    def resume(self) -> None:
        """The session takes more again."""
        self._session_ready = True
        self._give_credit()

    def on_drained(self) -> None:
        self._give_credit()

    def _expire(self) -> None:
        self._abort(DeadlineExceeded("context deadline exceeded"))

    def _give_credit(self) -> None:
        if self._session_ready and self.writer.waiting_bytes() < _MAX_WAITING_BYTES:
            held, self._held_credit_bytes = self._held_credit_bytes, 0
            self.writer.give_credit(held)

    def on_end(self) -> None:
        if self.reader.unfinished:
            self._abort(InternalError("grpc: the request stream ends inside a message"))
        self._finish(Status.OK, "")

    def shut_down(self) -> None:
        self._finish(Status.UNAVAILABLE, "the server is shutting down")

    def _finish(self, status: Status, message: str) -> None:
        if self._task is None and not self.ended:
            self._task = asyncio.get_running_loop().create_task(self._finish_session(status, message))

    async def _finish_session(self, status: Status, message: str) -> None:
        try:
            await self._session.finish()
            self.end(status, message)
        except Exception as error:  # noqa: BLE001  (the boundary: whatever it is, the client gets an answer)
            self._abort(error)

    def on_reset(self) -> None:
        super().on_reset()
        self._session.abort()
        for pending in (self._task, self._deadline):
            if pending is not None:
                pending.cancel()

    def end(self, status: Status = Status.OK, message: str = "") -> None:
        super().end(status, message)
        if self._deadline is not None:
            self._deadline.cancel()

    def _abort(self, error: Exception) -> None:
        self.fail(error)
        self._session.abort()
        if self._task is not None:
            self._task.cancel()


class SubscribeCall(UnaryCall):
    """Subscribe: one request, then chunks of messages at the pace of the client's window."""

    def __init__(self, broker: BrokerApi, writer: StreamWriter, context: CallContext, reader: MessageReader) -> None:
        super().__init__(api.SubscribeRequest, broker.subscribe, writer, context, reader)
        self._drained = asyncio.Event()

    def on_drained(self) -> None:
        self._drained.set()

    async def answer(self) -> None:
        subscription = await self.bounded(self._handler(self.parse(), self.context))
        try:
            self.send(EMPTY_MESSAGE)
            await self.bounded(self._pump(subscription.read))
            self.end()
        finally:
            subscription.close()

    async def _pump(self, read: Callable[[int], Awaitable[bytes]]) -> None:
        """Sends until the subscription ends; holds no more than one chunk that the client has no window for."""
        while framed := await read(_READ_BYTES):
            self.send(framed)
            self._drained.clear()
            while self.writer.waiting_bytes() >= _READ_BYTES // 4 and not self.ended:
                await self._drained.wait()
                self._drained.clear()
