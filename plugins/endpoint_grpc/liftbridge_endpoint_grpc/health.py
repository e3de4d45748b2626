"""``grpc.health.v1.Health``: whether this server serves. Its two messages are a string and an enum, so they are read
and written here by hand."""

import asyncio

from liftbridge.broker.api import CallContext
from liftbridge.errors import NotFound, ProtocolError, Status
from liftbridge.protocol.varint import decode_varint
from liftbridge_endpoint_grpc.calls import SingleRequestCall, StreamWriter
from liftbridge_endpoint_grpc.framing import MessageReader, frame_message

_SERVICES = ("", "proto.API")
_SERVICE_TAG = 0x0A
_SERVING, _NOT_SERVING, _SERVICE_UNKNOWN = 1, 2, 3


class Health:
    """What health checks say, and who watches."""

    def __init__(self) -> None:
        self._serving = False
        self._changed = asyncio.Event()

    def set_serving(self, serving: bool) -> None:
        if serving != self._serving:
            self._serving = serving
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    def status_of(self, service: str) -> int | None:
        """None for a service that isn't here."""
        if service not in _SERVICES:
            return None
        return _SERVING if self._serving else _NOT_SERVING

    async def wait_for_change(self) -> None:
        await self._changed.wait()


class HealthCall(SingleRequestCall):
    """Check answers once; Watch answers at every change."""

    def __init__(
        self, health: Health, watch: bool, writer: StreamWriter, context: CallContext, reader: MessageReader
    ) -> None:
        super().__init__(writer, context, reader)
        self._health = health
        self._watch = watch

    def shut_down(self) -> None:
        if self._watch:
            self.end(Status.UNAVAILABLE, "the server is shutting down")
            self.on_reset()

    async def answer(self) -> None:
        service = _parse_service(self.take_message())
        if not self._watch:
            self._check(service)
            return
        await self.bounded(self._tell_changes(service))

    async def _tell_changes(self, service: str) -> None:
        while not self.ended:
            status = self._health.status_of(service)
            self.send(_response(_SERVICE_UNKNOWN if status is None else status))
            await self._health.wait_for_change()

    def _check(self, service: str) -> None:
        status = self._health.status_of(service)
        if status is None:
            raise NotFound("unknown service")
        self.send(_response(status))
        self.end()


def _response(status: int) -> bytes:
    return frame_message(bytes((0x08, status)))


def _parse_service(message: bytes) -> str:
    if not message:
        return ""
    if message[0] != _SERVICE_TAG:
        raise ProtocolError("not a HealthCheckRequest")
    length, start = decode_varint(message, 1, len(message))
    return message[start : start + length].decode(errors="replace")
