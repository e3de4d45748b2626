"""Resuming partitions because somebody wants them, until they are resumed."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from liftbridge.errors import LiftbridgeError, NotFound
from liftbridge.metadata.state import MetadataState
from liftbridge.partition.partition import PartitionKey
from liftbridge.tasks import end_tasks

logger = logging.getLogger(__name__)

_TIMEOUT_S = 5.0
_RETRY_S = 0.5


class Controller(Protocol):
    """Proposes."""

    async def resume(self, stream: str, partitions: Sequence[int], *, timeout_s: float) -> None: ...


class Resumer:
    """Asks the metadata group, once at a time for each partition. All methods run on the event loop."""

    def __init__(self, state: MetadataState, controller: Controller) -> None:
        self._state = state
        self._controller = controller
        self._tasks: dict[PartitionKey, asyncio.Task[None]] = {}

    def needs(self, key: PartitionKey) -> bool:
        """Whether the partition, or another one that a message to it resumes, is paused."""
        stream = self._state.stream_by_id(key.stream_id)
        if stream is None or not 0 <= key.partition < len(stream.partitions):
            return False
        return stream.partitions[key.partition].paused or (
            stream.resume_all and any(one.paused for one in stream.partitions)
        )

    def request(self, key: PartitionKey) -> None:
        """Sees to it that the partition is resumed. Cheap when that is being done, or it isn't paused."""
        if key not in self._tasks and self.needs(key):
            task = self._tasks[key] = asyncio.get_running_loop().create_task(self._resume(key))
            task.add_done_callback(lambda _: self._tasks.pop(key, None))

    async def resume(self, key: PartitionKey) -> None:
        """Returns once the partition is resumed in metadata, as far as this server knows. Raises what the metadata group
        answers."""
        if self.needs(key):
            await self._controller.resume(key.stream, (key.partition,), timeout_s=_TIMEOUT_S)

    async def _resume(self, key: PartitionKey) -> None:
        """Messages wait for it, so it is tried as long as it takes."""
        while self.needs(key):
            try:
                await self.resume(key)
            except NotFound:
                return
            except LiftbridgeError as error:
                logger.warning("%s can't be resumed yet, and messages wait for it: %s", key, error)
                await asyncio.sleep(_RETRY_S)

    async def stop(self) -> None:
        """Gives up. Idempotent."""
        await end_tasks(self._tasks.values())
