"""What the C library does with memory that this process freed.

By itself glibc gives the end of its heap back whenever a large buffer there is freed, and gets it again for the next one,
which costs more than what is done with it; and what lies below something that lives on it keeps for good. So a server keeps
its buffers, and gives back what has gathered when it has time. Where there is no glibc, nothing is done. Decision page 32 has
the measurements.
"""

import asyncio
import ctypes
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, BinaryIO

#: Numbers of glibc's.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: Free bytes at the end of the heap that stay there.
_KEPT_BYTES = 4 * 1024 * 1024
#: From which size on buffers don't come from the heap: the largest that glibc takes.
_OWN_MAPPING_BYTES = 32 * 1024 * 1024
_LOOK_EVERY_S = 1.0
#: Who uses less CPU between two looks has nothing better to do; and for how long others may keep what they freed.
_QUIET_S = 0.2
_LONGEST_S = 30.0
_WORTH_IT_BYTES = 2 * 1024 * 1024


@asynccontextmanager
async def giving_back_free_memory() -> AsyncIterator[None]:
    """Until it is left: gives back when the process has grown by 2 MiB since it did so last and does little for a second, or
    has done much for half a minute."""
    libc = ctypes.CDLL(None)
    if not keep_buffers(libc):
        yield
        return
    with _open_statm() as statm:
        task = asyncio.create_task(_give_back_regularly(libc, statm))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def keep_buffers(libc: Any) -> bool:
    """Whether there is a glibc, which now keeps buffers, unless the operator has settings of their own (``MALLOC_...``)."""
    if not hasattr(libc, "mallopt") or not hasattr(libc, "malloc_trim"):
        return False
    if not any(name.startswith("MALLOC_") for name in os.environ):
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_M_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)
    return True


def _open_statm() -> BinaryIO:
    """Stays open, because descriptors may run out."""
    return open("/proc/self/statm", "rb", buffering=0)


async def _give_back_regularly(libc: Any, statm: BinaryIO) -> None:
    libc.malloc_trim(0)  # what starting left
    smallest_bytes, last_s = resident_bytes(statm), time.monotonic()
    while True:
        used_s = time.process_time()
        await asyncio.sleep(_LOOK_EVERY_S)
        is_quiet = time.process_time() - used_s < _QUIET_S
        resident = resident_bytes(statm)
        smallest_bytes = min(smallest_bytes, resident)
        if resident > smallest_bytes + _WORTH_IT_BYTES and (is_quiet or time.monotonic() - last_s > _LONGEST_S):
            libc.malloc_trim(0)
            smallest_bytes, last_s = resident_bytes(statm), time.monotonic()


def resident_bytes(statm: BinaryIO) -> int:
    """The memory of the process whose ``statm`` this is."""
    statm.seek(0)
    return int(statm.read(128).split()[1]) * os.sysconf("SC_PAGE_SIZE")
