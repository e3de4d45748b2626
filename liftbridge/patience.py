"""Subscribing however long the transport is away, for what a server can't do without."""

import asyncio
import logging

from liftbridge.errors import TransportError
from liftbridge.interfaces.transport import DeliverySink, Subscription, Transport

logger = logging.getLogger(__name__)

_RETRY_S = 0.5


async def subscribe_patiently(
    transport: Transport,
    subject: str,
    sink: DeliverySink,
    *,
    queue: str = "",
    echo: bool = True,
    direct: bool = False,
) -> Subscription:
    """Like :meth:`Transport.subscribe`, or ``subscribe_direct``, again and again while the transport is away or too slow to
    answer. Raises only what trying again can't help: ValueError for a subject that can't be subscribed to."""
    told = ""
    while True:
        try:
            if direct:
                return await transport.subscribe_direct(subject, sink)
            return await transport.subscribe(subject, sink, queue=queue, echo=echo)
        except TransportError as error:
            if str(error) != told:
                told = str(error)
                logger.warning('subject "%s": can\'t subscribe yet, trying until it works: %s', subject, told)
            await asyncio.sleep(_RETRY_S)
