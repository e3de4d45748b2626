"""Partitions that come and go, beside a disk that is slow or refuses."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator

import pytest
from metadata_states import States
from partition_managers import assignment, partition_manager

from liftbridge.errors import StorageError
from liftbridge.interfaces.log import LogId, LogSettings, PartitionLog
from liftbridge.metadata.known_servers import KnownServers
from liftbridge.partition.manager import PartitionManager
from liftbridge.partition.roles import Role, Roles
from liftbridge.tasks import end_tasks
from liftbridge.testing.memory_log import MemoryLogStorage
from liftbridge.testing.memory_transport import MemoryNetwork, MemoryTransport


class StubbornStorage(MemoryLogStorage):
    """Opening takes until ``go_on`` is set; what is in ``kept`` can't be removed while it is there."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.kept: set[LogId] = set()

    def open(self, log_id: LogId, settings: LogSettings) -> PartitionLog:
        self.begun.set()
        assert self.go_on.wait(10)
        return super().open(log_id, settings)

    def remove(self, log_id: LogId) -> None:
        if log_id in self.kept:
            raise StorageError("the disk refuses")
        super().remove(log_id)


@pytest.fixture
def storage() -> StubbornStorage:
    return StubbornStorage()


@pytest.fixture
async def partitions(storage: StubbornStorage) -> AsyncIterator[PartitionManager]:
    transport = MemoryTransport(MemoryNetwork(), "a")
    await transport.start()
    manager = partition_manager(storage, transport, KnownServers(States().state))
    yield manager
    storage.go_on.set()
    await manager.close()
    await transport.stop()


async def test_the_event_loop_goes_on_while_a_log_is_opened(
    partitions: PartitionManager, storage: StubbornStorage
) -> None:
    storage.go_on.clear()
    reconciling = asyncio.ensure_future(partitions.reconcile([assignment("s", 1)]))
    async with asyncio.timeout(10):
        while not storage.begun.is_set():
            await asyncio.sleep(0)
    local = partitions.get("s", 0)
    assert local is not None
    assert (local.partition, local.is_leader) == (None, False)
    storage.go_on.set()
    await reconciling
    assert local.is_leader


async def test_one_change_waits_for_the_other(partitions: PartitionManager, storage: StubbornStorage) -> None:
    """A partition that is deleted while its log is opened is gone, and so is its log."""
    storage.go_on.clear()
    opening = asyncio.ensure_future(partitions.reconcile([assignment("s", 1)], 1))
    deleting = asyncio.ensure_future(partitions.reconcile([], 2))
    await asyncio.sleep(0)
    storage.go_on.set()
    await asyncio.gather(opening, deleting)
    assert partitions.get("s", 0) is None
    assert storage.list_logs() == []


async def test_a_log_that_cannot_be_removed_is_reported_and_holds_up_nothing(
    partitions: PartitionManager, storage: StubbornStorage, caplog: pytest.LogCaptureFixture
) -> None:
    for stream_id in (1, 2):
        storage.open(LogId(stream_id, 0), LogSettings()).close()
    storage.kept.add(LogId(1, 0))
    with caplog.at_level(logging.ERROR):
        await partitions.remove_orphans()
    assert storage.list_logs() == [LogId(1, 0)]
    assert "stream 1, partition 0 was deleted, and its log is still there: the disk refuses" in caplog.text
    await partitions.reconcile([assignment("s", 3)])
    local = partitions.get("s", 0)
    assert local is not None
    assert local.is_leader
    storage.kept.clear()
    await partitions.remove_orphans()
    assert storage.list_logs() == [LogId(3, 0)]


async def test_a_deletion_that_has_begun_is_finished_when_the_server_stops(
    partitions: PartitionManager, storage: StubbornStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, finishing, go_on = Roles.finish, asyncio.Event(), asyncio.Event()

    async def finish_slowly(roles: Roles, role: Role) -> None:
        finishing.set()
        await go_on.wait()
        await finish(roles, role)

    monkeypatch.setattr(Roles, "finish", finish_slowly)
    await partitions.reconcile([assignment("s", 1)])
    deleting = asyncio.ensure_future(partitions.reconcile([]))
    await finishing.wait()
    await end_tasks([deleting])
    assert storage.list_logs() == [LogId(1, 0)]
    go_on.set()
    await partitions.close()
    assert storage.list_logs() == []
