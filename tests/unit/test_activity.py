"""The publisher of events on a partition in memory that refuses, loses its leader, or holds what is no event."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from metadata_states import States

from liftbridge.activity import ActivityPublisher, ActivitySettings, last_event_id
from liftbridge.clock import SystemClock
from liftbridge.errors import DiskFull, Unavailable
from liftbridge.interfaces.log import LogSettings
from liftbridge.metadata.commands import ActivityPublished
from liftbridge.metadata.known_servers import KnownServers
from liftbridge.metadata.model import ACTIVITY_STREAM
from liftbridge.partition.assignment import Assignment, RetentionSettings
from liftbridge.partition.leader import LeaderSettings
from liftbridge.partition.manager import PartitionManager
from liftbridge.partition.outcome import Outcome
from liftbridge.partition.partition import Partition, PartitionKey
from liftbridge.partition.pending import ACK_LEADER, PendingRun
from liftbridge.partition.reading import read_forward
from liftbridge.partition.replication.exchange import ExchangeLimits, ReplicationExchange
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.record_batch import RECORD_PREFIX_BYTES, iter_records
from liftbridge.protocol.record_encoding import encode_value
from liftbridge.testing.memory_log import MemoryLogStorage
from liftbridge.testing.memory_transport import MemoryNetwork, MemoryTransport

QUICK = ActivitySettings(publish_timeout_s=0.05, first_backoff_s=0.01, longest_backoff_s=0.02)


class NoController:
    async def change_isr(self, *arguments: object, **options: object) -> bool:
        return False

    async def suspect_leader(self, *arguments: object, **options: object) -> bool:
        return False


class Broker:
    """One server that leads the activity stream, as far as it goes here."""

    def __init__(self) -> None:
        self.states = States()
        self.states.register("a")
        self.stream_id = self.states.create(ACTIVITY_STREAM, "a")
        transport = MemoryTransport(MemoryNetwork(), "a")
        servers = KnownServers(self.states.state)
        exchange = ReplicationExchange(
            transport,
            SystemClock(),
            NoController(),
            servers,
            namespace="test",
            server_id="a",
            incarnation="a-1",
            limits=ExchangeLimits(),
        )
        self.transport = transport
        self.partitions = PartitionManager(
            MemoryLogStorage(), transport, SystemClock(), exchange, servers, server_id="a"
        )
        self.epoch = 1
        self.forgets: Callable[[], bool] = lambda: True
        self.forgotten: list[int] = []

    async def lead(self, *, leads: bool = True, min_isr: int = 1) -> None:
        """A new leader epoch begins."""
        self.epoch += 1
        await self.partitions.reconcile(
            [
                Assignment(
                    key=PartitionKey(ACTIVITY_STREAM, 0, self.stream_id),
                    base_subject="activity",
                    subject="activity",
                    group="",
                    replicas=("a",),
                    isr=("a",),
                    leader="a" if leads else "",
                    leader_epoch=self.epoch,
                    partition_epoch=self.epoch,
                    leads=leads,
                    leader_settings=LeaderSettings(min_isr=min_isr),
                    log_settings=LogSettings(),
                    retention=RetentionSettings(0, 0, 0, 1),
                )
            ]
        )

    async def forget(self, up_to_index: int, timeout_s: float) -> None:
        if not self.forgets():
            raise Unavailable("no metadata leader")
        self.states.apply(ActivityPublished(up_to_index))
        self.forgotten.append(up_to_index)

    def create(self, count: int) -> list[int]:
        return [self.states.create(f"s{self.states.state.applied_index}", "a") for _ in range(count)]

    @property
    def partition(self) -> Partition:
        local = self.partitions.get(ACTIVITY_STREAM, 0)
        assert local is not None
        assert local.partition is not None
        return local.partition

    async def publish(self, value: bytes) -> None:
        """Somebody else does."""
        local = self.partitions.get(ACTIVITY_STREAM, 0)
        assert local is not None
        assert local.leader is not None
        outcome, field = Outcome(), encode_value(value)
        local.leader.submit(PendingRun([field], len(field), "x", acks=outcome, correlation_ids=(b"",)))
        assert await outcome.future is None

    def ids(self) -> list[int]:
        """Of the events in the log."""
        return [api.ActivityStreamEvent.FromString(value).id for value in self.values() if value != b"no event"]

    def values(self) -> list[bytes]:
        end, found, offset = self.partition.high_watermark, list[bytes](), 0
        while offset < end:
            framed, offset = read_forward(self.partition, offset, end, 1 << 20)
            for record in iter_records(framed):
                message = api.Message.FromString(framed[record.start + RECORD_PREFIX_BYTES : record.end])
                found.append(message.value)
        return found

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    broker = Broker()
    await broker.transport.start()
    yield broker
    await broker.partitions.close()
    await broker.transport.stop()


@contextlib.asynccontextmanager
async def publishing(broker: Broker, settings: ActivitySettings = QUICK) -> AsyncIterator[None]:
    publisher = ActivityPublisher(broker.states.state, broker.partitions, settings, forget=broker.forget)
    task = asyncio.create_task(publisher.run())
    yield
    assert not task.done(), task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_events_of_before_and_after_it_leads_are_published_in_order_and_then_forgotten(broker: Broker) -> None:
    expected = [broker.stream_id, *broker.create(600)]
    async with publishing(broker):
        await broker.lead()
        await broker.until(lambda: broker.ids() == expected)
        expected += broker.create(3)
        await broker.until(lambda: broker.ids() == expected)
        await broker.until(lambda: broker.forgotten[-1:] == [expected[-1]])
    assert len(broker.states.state.activity) == 0


async def test_a_new_leader_epoch_goes_on_behind_the_last_event_in_the_log(broker: Broker) -> None:
    """Though nobody could be told that anything is published, and others publish too."""
    broker.forgets = lambda: False
    expected = [broker.stream_id]

    def has_all() -> bool:
        return broker.ids() == expected

    async with publishing(broker):
        for _ in range(4):
            await broker.lead()
            expected.extend(broker.create(2))
            await broker.until(has_all)
            await broker.publish(b"no event")
            await broker.lead(leads=False)
            expected.extend(broker.create(1))
        await broker.lead()
        await broker.until(has_all)
    assert broker.forgotten == []


async def test_what_is_refused_is_published_later_and_before_what_comes_behind(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await broker.lead()
    append, refusals = broker.partition.log.append, 3

    def full(*arguments: object, **options: object) -> None:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise DiskFull("no room")
        append(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(broker.partition.log, "append", full)
    expected = [broker.stream_id, *broker.create(2)]
    async with publishing(broker):
        await broker.until(lambda: refusals <= 1)
        expected += broker.create(2)
        await broker.until(lambda: broker.ids() == expected)


async def test_with_too_few_replicas_events_wait_and_with_a_lesser_policy_they_dont(broker: Broker) -> None:
    await broker.lead(min_isr=2)
    async with publishing(broker):
        await asyncio.sleep(0.05)
        assert broker.partition.log.end_offset == 0
    async with publishing(broker, replace(QUICK, ack_policy=ACK_LEADER)):
        await broker.until(lambda: broker.partition.log.end_offset == 1)


async def test_what_is_no_event_or_not_committed_yet_says_nothing_about_the_last_one(broker: Broker) -> None:
    await broker.lead()
    assert last_event_id(broker.partition, 100) == 0
    await broker.publish(api.ActivityStreamEvent(id=7).SerializeToString())
    for value in (b"", b"\xff\xff", b"text", api.ActivityStreamEvent(id=101).SerializeToString()):
        await broker.publish(value)
    assert last_event_id(broker.partition, 100) == 7
