"""How long a call may take."""

from liftbridge.broker.api import CallContext
from liftbridge.clock import Clock

#: For calls without a deadline.
DEFAULT_TIMEOUT_S = 5.0


def remaining_s(call: CallContext, clock: Clock) -> float:
    """Until the client's deadline."""
    if call.deadline_ns is None:
        return DEFAULT_TIMEOUT_S
    return max(0.0, (call.deadline_ns - clock.monotonic_ns()) / 1e9)
