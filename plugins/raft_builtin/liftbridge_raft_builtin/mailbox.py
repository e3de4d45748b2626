"""How members reach each other: one subject for each, one encoded message a payload.

The group's name is a part of the subject, so members of different groups don't hear each other.
"""

import logging
from collections.abc import Callable, Sequence

from liftbridge.errors import ProtocolError, TransportError
from liftbridge.interfaces.transport import Delivery, Subscription, Transport
from liftbridge_raft_builtin.core import Message
from liftbridge_raft_builtin.core.codec import decode_message, encode_message

logger = logging.getLogger(__name__)

#: Room for what surrounds the payload of one entry or one chunk in a message.
OVERHEAD_BYTES = 4096


class Mailbox:
    """Sends and receives for one member. What can't be sent is dropped, as any message may be: Raft sends again."""

    def __init__(self, transport: Transport, namespace: str, server_id: str) -> None:
        self._transport = transport
        self._prefix = f"{namespace}.raft.builtin."
        self._group = ""
        self._server_id = server_id
        self._subscription: Subscription | None = None

    @property
    def max_data_bytes(self) -> int:
        """The largest entry or chunk that a message can carry."""
        return self._transport.max_payload_bytes - OVERHEAD_BYTES

    async def open(self, take: Callable[[Message], None], group: str) -> None:
        """From now on ``take`` gets every message to this member; it must not raise."""
        self._group = group

        def receive(deliveries: list[Delivery]) -> None:
            for delivery in deliveries:
                for payload in delivery.payloads:
                    self._take_payload(payload, take)

        self._subscription = await self._transport.subscribe(self._subject(self._server_id), receive)

    def _subject(self, server_id: str) -> str:
        return f"{self._prefix}{self._group}.{server_id}" if self._group else self._prefix + server_id

    def _take_payload(self, payload: bytes, take: Callable[[Message], None]) -> None:
        try:
            message = decode_message(payload)
        except ProtocolError as error:
            logger.warning("A message of %d bytes to the metadata group was ignored: %s", len(payload), error)
            return
        if message.to == self._server_id:
            take(message)

    def send(self, messages: Sequence[Message]) -> None:
        payloads: dict[str, list[bytes]] = {}
        for message in messages:
            payloads.setdefault(message.to, []).append(encode_message(message))
        for server_id, batch in payloads.items():
            try:
                self._transport.publish(self._subject(server_id), batch)
            except (TransportError, ValueError) as error:  # ValueError: an ID that makes no subject
                logger.debug("%d messages to %s were dropped: %s", len(batch), server_id, error)

    async def close(self) -> None:
        if self._subscription is not None:
            await self._subscription.unsubscribe()
            self._subscription = None
