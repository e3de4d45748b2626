"""A clock that stands still until a test moves it."""


class VirtualClock:
    """A :class:`~liftbridge.clock.Clock`. Both kinds of time move together with ``advance``; ``step_wall`` moves only
    the wall clock, in either direction, as an operator or NTP would."""

    def __init__(self, *, time_ns: int = 1_700_000_000_000_000_000, monotonic_ns: int = 0) -> None:
        self._time_ns = time_ns
        self._monotonic_ns = monotonic_ns

    def time_ns(self) -> int:
        return self._time_ns

    def monotonic_ns(self) -> int:
        return self._monotonic_ns

    def advance(self, seconds: float) -> None:
        """Passes time. Raises ValueError below 0: monotonic time never goes back."""
        if seconds < 0:
            raise ValueError(f"time can't go back by {-seconds} s; use step_wall for the wall clock")
        passed_ns = round(seconds * 1e9)
        self._time_ns += passed_ns
        self._monotonic_ns += passed_ns

    def step_wall(self, seconds: float) -> None:
        """Sets the wall clock forward or back."""
        self._time_ns += round(seconds * 1e9)
