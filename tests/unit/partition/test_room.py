"""Who notices that there is no room, and that there is room again."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, cast

import pytest

from liftbridge.errors import DiskFull, LogClosed
from liftbridge.interfaces.log import LogId, LogSettings
from liftbridge.partition import room
from liftbridge.partition.local import LocalPartition
from liftbridge.partition.partition import Partition, PartitionKey
from liftbridge.partition.room import RoomWatch
from liftbridge.partition.troubles import Trouble, TroubleKind, Troubles
from liftbridge.testing.memory_log import MemoryLog

PATIENCE_S = 20.0


@dataclass
class Disk:
    """Of three partitions, two of which are led here."""

    troubles: Troubles
    partitions: list[Partition]
    full: bool = False
    checks: int = 0

    def refused(self) -> list[int]:
        return sorted(one.log_id.partition for one in self.troubles)

    async def until(self, refused: list[int]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.refused() != refused:
                await asyncio.sleep(0.01)


@pytest.fixture
async def disk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Disk]:
    monkeypatch.setattr(room, "_CHECK_S", 0.01)
    disk = Disk(Troubles(), [])

    class Log(MemoryLog):
        def check_room(self, size_bytes: int) -> None:
            disk.checks += 1
            if disk.full:
                raise DiskFull("no room")

    for number in range(3):
        key = PartitionKey("s", number, 1)
        disk.partitions.append(Partition(key, Log({}, key.log_id, LogSettings()), "s", disk.troubles))
    locals_ = [
        LocalPartition(cast(Any, None), one, leader=cast(Any, object()) if one.key.partition < 2 else None)
        for one in disk.partitions
    ]
    watch = asyncio.create_task(RoomWatch(cast(Any, locals_), disk.troubles).run())
    yield disk
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


async def test_what_one_leader_meets_the_others_are_asked_about(disk: Disk) -> None:
    disk.full = True
    disk.partitions[0].append_failed(DiskFull("no room"), 10)
    await disk.until([0, 1])
    disk.full = False
    await disk.until([])
    assert not disk.partitions[0].cannot_store


async def test_a_follower_without_room_is_asked_about_until_there_is_some(disk: Disk) -> None:
    disk.full = True
    disk.partitions[2].append_failed(DiskFull("no room"), 10)
    await disk.until([0, 1, 2])
    disk.full = False
    await disk.until([])


async def test_nothing_is_asked_while_all_is_well_or_what_is_wrong_has_nothing_to_do_with_room(disk: Disk) -> None:
    disk.troubles.add(Trouble(LogId(1, 2), TroubleKind.CANNOT_OPEN, "damaged"))
    await asyncio.sleep(0.1)
    assert disk.checks == 0


def test_the_first_failure_is_news_and_a_closed_log_says_nothing_of_the_disk() -> None:
    troubles = Troubles()
    partition = Partition(PartitionKey("s", 0, 1), MemoryLog({}, LogId(1, 0), LogSettings()), "s", troubles)
    assert partition.append_failed(LogClosed("paused"), 10)
    assert (partition.cannot_store, list(troubles)) == (False, [])
    assert partition.append_failed(DiskFull("no room"), 10)
    assert not partition.append_failed(DiskFull("no room"), 10)
    assert list(troubles) == [Trouble(LogId(1, 0), TroubleKind.CANNOT_STORE, "no room")]
    assert partition.check_room()
    assert list(troubles) == []


def test_as_much_room_is_asked_for_as_was_missing() -> None:
    asked: list[int] = []

    class Log(MemoryLog):
        def check_room(self, size_bytes: int) -> None:
            asked.append(size_bytes)

    partition = Partition(PartitionKey("s", 0, 1), Log({}, LogId(1, 0), LogSettings()), "s")
    partition.append_failed(DiskFull("no room"), 3_000_000)
    assert partition.check_room()
    assert partition.check_room()
    assert asked == [3_000_000, 256 * 1024]
