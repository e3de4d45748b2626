"""Request handlers on subjects of the transport."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from liftbridge.errors import TransportError
from liftbridge.interfaces.transport import Delivery, Subscription, Transport
from liftbridge.patience import subscribe_patiently
from liftbridge.tasks import end_tasks

logger = logging.getLogger(__name__)

#: Takes a request, returns the reply; None stays silent.
Handler = Callable[[bytes], Awaitable[bytes | None]]

#: Requests of one subject in work at a time. More are dropped; whoever asked asks again.
_MAX_RUNNING = 1024
_GRACE_S = 0.1


class Answering:
    """Answers what arrives on one subject, each request in a task of its own. ``farewell`` is the answer to what is still
    in work when it stops; None leaves that without one."""

    def __init__(self, transport: Transport, subject: str, handler: Handler, *, farewell: bytes | None = None) -> None:
        self._transport = transport
        self._subject = subject
        self._handler = handler
        self._farewell = farewell
        self._subscription: Subscription | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._subscription = await subscribe_patiently(self._transport, self._subject, self._take)

    async def stop(self) -> None:
        """Takes no more requests, and gives up those in work that don't end by themselves at once."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.unsubscribe()
        if self._running:
            await asyncio.wait(self._running, timeout=_GRACE_S)
        await end_tasks(self._running)

    def _take(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            for payload in delivery.payloads:
                if len(self._running) < _MAX_RUNNING:
                    task = asyncio.create_task(self._answer(delivery.reply, payload))
                    self._running.add(task)
                    task.add_done_callback(self._running.discard)

    async def _answer(self, reply_subject: str, payload: bytes) -> None:
        try:
            reply = await self._handler(payload)
        except asyncio.CancelledError:
            self._reply(reply_subject, self._farewell)
            raise
        except Exception:
            logger.exception("a request on %s failed", self._subject)
            return
        self._reply(reply_subject, reply)

    def _reply(self, reply_subject: str, reply: bytes | None) -> None:
        if reply is None or not reply_subject:
            return
        try:
            self._transport.publish(reply_subject, [reply])
        except (TransportError, ValueError) as error:
            logger.debug("a reply on %s was dropped: %s", self._subject, error)
