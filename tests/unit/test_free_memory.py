"""A server gives memory back that it doesn't use, which the C library alone would keep."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from liftbridge.free_memory import keep_buffers

#: A burst: buffers of 200 KiB, and what is still in use above them. Prints how far the process grew, and what stays.
_BURST = """
import asyncio
from contextlib import nullcontext
from liftbridge.free_memory import giving_back_free_memory, resident_bytes

async def main():
    async with {around}():
        await asyncio.sleep(0)
        with open("/proc/self/statm", "rb", buffering=0) as statm:
            before = resident_bytes(statm)
            buffers = [bytes(200_000) + b"x" for _ in range(200)]
            buffers, used = None, (grown := resident_bytes(statm)) and bytes(100_000)
            for _ in range(100):
                await asyncio.sleep(0.05)
                if resident_bytes(statm) - before < 4_000_000:
                    break
            print(grown - before, resident_bytes(statm) - before, len(used))

asyncio.run(main())
"""


def _burst(around: str) -> tuple[int, int]:
    """By how many bytes a process grew, and is larger a moment later. The process keeps something above what it frees."""
    done = subprocess.run(
        [sys.executable, "-c", _BURST.format(around=around)], capture_output=True, text=True, check=True, timeout=60
    )
    grown, kept, _ = map(int, done.stdout.split())
    return grown, kept


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_what_a_burst_needed_is_given_back_soon() -> None:
    grown, kept = _burst("giving_back_free_memory")
    assert grown > 30_000_000
    assert kept < 4_000_000


class _Libc(SimpleNamespace):
    """Writes down what glibc is told."""

    def __init__(self) -> None:
        super().__init__(told={}, malloc_trim=None)

    def mallopt(self, option: int, value: int) -> int:
        self.told[option] = value
        return 1


def test_buffers_are_kept_unless_the_operator_has_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    libc = _Libc()
    assert keep_buffers(libc)
    assert len(libc.told) == 2
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    libc = _Libc()
    assert keep_buffers(libc)
    assert libc.told == {}


def test_another_c_library_is_left_alone() -> None:
    assert not keep_buffers(SimpleNamespace(malloc_trim=None))
