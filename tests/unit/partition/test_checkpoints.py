"""Which logs are asked for a checkpoint, and what becomes of their errors."""

import logging
from collections.abc import AsyncIterator

import pytest
from metadata_states import States
from partition_managers import assignment, partition_manager

from liftbridge.errors import LogDeleted, StorageError
from liftbridge.interfaces.log import LogId, LogSettings, PartitionLog
from liftbridge.metadata.known_servers import KnownServers
from liftbridge.partition.checkpoints import Checkpoints
from liftbridge.partition.manager import PartitionManager
from liftbridge.testing.batches import make_batch
from liftbridge.testing.memory_log import MemoryLog, MemoryLogStorage
from liftbridge.testing.memory_transport import MemoryNetwork, MemoryTransport


class NotedLog(MemoryLog):
    error: StorageError | None = None
    checkpoints = 0

    def checkpoint(self) -> None:
        self.checkpoints += 1
        if self.error is not None:
            raise self.error


class NotedStorage(MemoryLogStorage):
    def open(self, log_id: LogId, settings: LogSettings) -> PartitionLog:
        return NotedLog({}, log_id, settings)


@pytest.fixture
async def partitions() -> AsyncIterator[PartitionManager]:
    transport = MemoryTransport(MemoryNetwork(), "a")
    await transport.start()
    manager = partition_manager(NotedStorage(), transport, KnownServers(States().state))
    await manager.reconcile([assignment("s", 1), assignment("t", 2)])
    yield manager
    await manager.close()
    await transport.stop()


def log_of(partitions: PartitionManager, stream: str) -> NotedLog:
    local = partitions.get(stream, 0)
    assert local is not None
    assert local.partition is not None
    assert isinstance(local.partition.log, NotedLog)
    return local.partition.log


async def test_only_logs_that_grew_since_the_last_look_are_asked(partitions: PartitionManager) -> None:
    checkpoints = Checkpoints(partitions)
    s, t = log_of(partitions, "s"), log_of(partitions, "t")
    s.append([make_batch(0)])
    await checkpoints.look()
    await checkpoints.look()
    assert (s.checkpoints, t.checkpoints) == (1, 0)
    t.append([make_batch(0)])
    await checkpoints.look()
    assert (s.checkpoints, t.checkpoints) == (1, 1)


@pytest.mark.parametrize(("error", "reported"), [(StorageError("disk gone"), True), (LogDeleted("deleted"), False)])
async def test_an_error_of_one_log_leaves_the_others_theirs(
    partitions: PartitionManager, caplog: pytest.LogCaptureFixture, error: StorageError, reported: bool
) -> None:
    s, t = log_of(partitions, "s"), log_of(partitions, "t")
    s.error = error
    for log in (s, t):
        log.append([make_batch(0)])
    with caplog.at_level(logging.ERROR):
        await Checkpoints(partitions).look()
    assert t.checkpoints == 1
    assert ("no checkpoint: disk gone" in caplog.text) == reported
