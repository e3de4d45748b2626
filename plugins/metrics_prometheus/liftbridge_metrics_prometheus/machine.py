"""What the operating system says of the process and of the disk. It may take its time over it, or never answer."""

import asyncio
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from prometheus_client import ProcessCollector, generate_latest

from liftbridge_metrics_prometheus.metrics import Disk

#: A disk that doesn't answer is left out after this time.
_PATIENCE_S = 1.0


class MachineFigures(NamedTuple):
    """``process_text`` is rendered already; empty where there is no /proc."""

    process_text: bytes = b""
    disk: Disk | None = None


class Machine:
    """Asks in a thread of its own, with one question at a time: one that isn't answered holds up nothing else."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._process = ProcessCollector(registry=None)
        self._executor = ThreadPoolExecutor(1, "liftbridge-metrics")
        self._asking: Future[MachineFigures] | None = None

    async def figures(self) -> MachineFigures:
        """As of now; nothing at all while there is no answer."""
        if self._asking is None or self._asking.done():
            self._asking = self._executor.submit(self._ask)
        waiting = asyncio.wrap_future(self._asking)
        done, _ = await asyncio.wait((waiting,), timeout=_PATIENCE_S)
        return waiting.result() if done else MachineFigures()

    def _ask(self) -> MachineFigures:
        return MachineFigures(generate_latest(self._process), disk_of(self._data_dir))

    def close(self) -> None:
        """Asks nothing more."""
        self._executor.shutdown(wait=False)


def disk_of(path: Path) -> Disk | None:
    """None when the disk doesn't say."""
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return Disk(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)
