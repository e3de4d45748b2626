"""A server gives memory back that it doesn't use, which the C library alone would keep."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from liftbridge.free_memory import keep_buffers

#: A server that has a burst when it starts: buffers of 100 KB, and what is still in use above them. Prints how far the process
#: grew, and what stays.
_BURST = """
import asyncio, os, signal
from liftbridge import running
from liftbridge.free_memory import resident_bytes

class Server:
    def __init__(self, settings, plugins):
        self.failed = asyncio.get_running_loop().create_future()

    async def start(self):
        self.statm = open("/proc/self/statm", "rb", buffering=0)
        self.before = resident_bytes(self.statm)
        buffers = [bytes(100_000) + b"x" for _ in range(400)]
        self.grown = resident_bytes(self.statm)
        self.in_use = buffers[-1]
        self.watching = asyncio.create_task(self.watch())

    async def watch(self):
        for _ in range(100):
            await asyncio.sleep(0.05)
            if resident_bytes(self.statm) - self.before < 4_000_000:
                break
        print(self.grown - self.before, resident_bytes(self.statm) - self.before)
        os.kill(os.getpid(), signal.SIGTERM)

    async def drain(self): ...
    async def stop(self): ...

running.Server = Server
running.run({}, None)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_what_a_burst_needed_is_given_back_while_a_server_runs() -> None:
    done = subprocess.run([sys.executable, "-c", _BURST], capture_output=True, text=True, check=True, timeout=60)
    grown, kept = map(int, done.stdout.split())
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
