"""Time, as something that is handed in.

No kernel module calls :mod:`time` itself: it asks the clock it was given, so that a test can hand in one that it
moves by hand. Wall-clock time stamps records; monotonic time measures time-outs, and the two are never mixed.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Reads the two kinds of time. Safe to call from any thread; never blocks."""

    def time_ns(self) -> int:
        """Wall-clock time, nanoseconds since the Unix epoch. May step in either direction."""

    def monotonic_ns(self) -> int:
        """Nanoseconds since an arbitrary moment. Never goes back; only differences mean anything."""


class SystemClock:
    """The clock of this machine."""

    def time_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()
