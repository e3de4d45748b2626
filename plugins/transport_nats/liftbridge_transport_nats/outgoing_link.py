"""The sending end of a direct link: a connection to another server."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import cast

from liftbridge.errors import TransportClosed
from liftbridge_transport_nats.frames import MAGIC, WELCOME, Announcement, encode_frames
from liftbridge_transport_nats.silence import notice_silence

logger = logging.getLogger(__name__)

#: How long stopping waits for the other server to take what was sent to it.
_FINISH_TIMEOUT_S = 2.0


class OutgoingLink(asyncio.Protocol):
    """``changed`` is called when it is up, ``lost`` when it is gone, whether it was up or not."""

    def __init__(
        self,
        server: Announcement,
        *,
        max_buffered_bytes: int,
        changed: Callable[[], None],
        lost: Callable[["OutgoingLink"], None],
    ) -> None:
        self.up = False
        self.given_up = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._server = server
        self._max_buffered_bytes = max_buffered_bytes
        self._changed = changed
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self.given_up:
            self._transport.abort()
            return
        notice_silence(transport.get_extra_info("socket"))
        self._transport.write(MAGIC + self._server.token)

    def data_received(self, data: bytes) -> None:
        if data != WELCOME or self.up or self.opened.done():
            self.close()
            return
        self.up = True
        self.opened.set_result(None)
        self._changed()

    def connection_lost(self, error: Exception | None) -> None:
        if self.up:
            logger.info("the direct link to server %s is lost: %s", self._server.server_id, error or "closed")
        elif not self.opened.done():
            self.opened.set_exception(error or ConnectionResetError("it hung up"))
            self.opened.exception()  # whoever waits hears of it; nobody else has to
        self.up, self._transport = False, None
        self._gone.set()
        self._lost(self)

    def send(self, data: bytes) -> None:
        """Sends at once; the link must be up. Raises TransportClosed when too much waits for the other server already."""
        assert self._transport is not None
        waiting_bytes = self._transport.get_write_buffer_size()
        if waiting_bytes + len(data) > self._max_buffered_bytes:
            raise TransportClosed(
                f"server {self._server.server_id} is slow, and {waiting_bytes} bytes wait for it already "
                "(transport.nats.buffer.max.size)"
            )
        self._transport.write(data)

    def close(self) -> None:
        """At once, whether it is there already or not."""
        self.up, self.given_up = False, True
        if self._transport is not None:
            self._transport.abort()

    async def finish(self) -> None:
        """Closes it once the other server has taken what was sent, or doesn't."""
        if self._transport is not None:
            self.up = False
            self._transport.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FINISH_TIMEOUT_S):
                    await self._gone.wait()
        self.close()


class Way:
    """How messages to one subject get to the server that listens."""

    __slots__ = ("_link", "_number", "_subject")

    def __init__(self, link: OutgoingLink, number: int, subject: str) -> None:
        self._link = link
        self._number = number
        self._subject = subject

    def publish(self, payloads: Sequence[bytes], reply: str) -> None:
        """Sends them at once. Raises TransportClosed when too much waits for the other server already."""
        self._link.send(encode_frames(self._number, self._subject, reply, payloads))
