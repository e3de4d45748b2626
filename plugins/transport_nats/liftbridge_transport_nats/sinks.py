"""Handing messages over to sinks."""

import logging

from liftbridge.interfaces.transport import Delivery, DeliverySink

logger = logging.getLogger(__name__)


def hand_over(sink: DeliverySink, deliveries: list[Delivery]) -> None:
    """A sink must not raise; if one does, the others still get theirs and the connection lives on."""
    try:
        sink(deliveries)
    except Exception:
        lost = sum(len(delivery.payloads) for delivery in deliveries)
        logger.exception('%d messages on "%s" and after it are lost: their sink failed', lost, deliveries[0].subject)
