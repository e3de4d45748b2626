"""What became of a run that this server publishes itself, for one who waits."""

import asyncio

from liftbridge.partition.pending import PendingRun
from liftbridge.partition.refusal import Refusal


class Outcome:
    """An :class:`~liftbridge.partition.pending.AckSink`. ``future`` gets None once the run is stored, or the refusal."""

    def __init__(self) -> None:
        self.future: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()

    def stored(self, run: PendingRun, base_offset: int, reception_ns: int, commit_ns: int) -> None:
        del run, base_offset, reception_ns, commit_ns
        self._resolve(None)

    def refused(self, run: PendingRun, refusal: Refusal) -> None:
        del run
        self._resolve(refusal)

    def _resolve(self, refusal: Refusal | None) -> None:
        if not self.future.done():
            self.future.set_result(refusal)
