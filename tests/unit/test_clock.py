"""Clocks: the machine's, and the one that a test moves by hand."""

import time

from liftbridge.clock import Clock, SystemClock
from liftbridge.testing.virtual_clock import VirtualClock


def test_system_clock_reads_both_kinds_of_time() -> None:
    clock = SystemClock()
    before, first = time.time_ns(), clock.monotonic_ns()
    assert before <= clock.time_ns() <= time.time_ns()
    assert first <= clock.monotonic_ns() <= time.monotonic_ns()


def test_virtual_clock_stands_still_until_it_is_moved() -> None:
    clock = VirtualClock()
    as_seen: Clock = clock
    wall, monotonic = as_seen.time_ns(), as_seen.monotonic_ns()
    assert (as_seen.time_ns(), as_seen.monotonic_ns()) == (wall, monotonic)
    clock.advance(1.5)
    assert as_seen.time_ns() - wall == 1_500_000_000
    assert as_seen.monotonic_ns() - monotonic == 1_500_000_000
