"""Consumer groups on one real broker: what each call answers, who expires, and who may read a partition."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from api_client import ApiClient, fails_with
from broker_process import BrokerProcess

from liftbridge.protocol.generated import api_pb2 as api

Code = grpc.StatusCode
TIMEOUT_S = 1.0
NOT_ASSIGNED = "Consumer is not currently assigned this partition"


@pytest.fixture(scope="module")
def impatient_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    process = BrokerProcess(
        tmp_path_factory.mktemp("groups") / "data",
        *("--set", f"groups.consumer.timeout={TIMEOUT_S:g}s"),
    )
    process.start()
    yield process
    process.stop()


@pytest.fixture
async def impatient(impatient_broker: BrokerProcess) -> AsyncIterator[ApiClient]:
    """A client of a broker that removes silent members soon."""
    async with ApiClient(impatient_broker.address) as client:
        yield client


@pytest.fixture
async def group(client: ApiClient, stream: str) -> str:
    """A group's name, which is also that of a stream with four partitions."""
    await client("CreateStream", name=stream, subject=stream, partitions=4)
    return stream


async def join(client: ApiClient, group: str, consumer: str, *streams: str) -> api.JoinConsumerGroupResponse:
    return await client("JoinConsumerGroup", groupId=group, consumerId=consumer, streams=streams or [group])


async def leave(client: ApiClient, group: str, consumer: str) -> None:
    await client("LeaveConsumerGroup", groupId=group, consumerId=consumer)


async def group_metadata(client: ApiClient, group: str) -> api.ConsumerGroupMetadata:
    (metadata,) = (await client("FetchMetadata", groups=[group])).groupMetadata
    return metadata


async def assigned(client: ApiClient, group: str, consumer: str, epoch: int | None = None) -> dict[str, list[int]]:
    if epoch is None:
        epoch = (await group_metadata(client, group)).epoch
    response = await client("FetchConsumerGroupAssignments", groupId=group, consumerId=consumer, epoch=epoch)
    assert response.epoch == epoch
    return {one.stream: list(one.partitions) for one in response.assignments}


def subscribe(client: ApiClient, group: str, consumer: str, epoch: int, partition: int = 0) -> Any:
    return client.subscribe(
        stream=group,
        partition=partition,
        startPosition=api.StartPosition.EARLIEST,
        consumer=api.Consumer(groupId=group, consumerId=consumer, groupEpoch=epoch),
    )


# --- what the calls answer --------------------------------------------------------------------------------------------


async def test_first_member_gets_everything_at_epoch_0(client: ApiClient, group: str) -> None:
    joined = await join(client, group, "c1")
    assert joined == api.JoinConsumerGroupResponse(
        coordinator="broker", epoch=0, consumerTimeout=15_000_000_000, coordinatorTimeout=15_000_000_000
    )
    assert await assigned(client, group, "c1", 0) == {group: [0, 1, 2, 3]}
    assert await group_metadata(client, group) == api.ConsumerGroupMetadata(
        groupId=group, coordinator="broker", epoch=0
    )


async def test_members_share_and_inherit(client: ApiClient, group: str) -> None:
    await join(client, group, "c1")
    second = await join(client, group, "c2")
    assert second.epoch > 0
    one, two = [await assigned(client, group, consumer, second.epoch) for consumer in ("c1", "c2")]
    assert sorted(one[group] + two[group]) == [0, 1, 2, 3]
    assert len(one[group]) == len(two[group]) == 2
    await leave(client, group, "c1")
    assert await assigned(client, group, "c2") == {group: [0, 1, 2, 3]}
    await leave(client, group, "c2")
    assert (await group_metadata(client, group)).error == api.ConsumerGroupMetadata.UNKNOWN_GROUP
    assert (await join(client, group, "c3")).epoch == 0


async def test_deleting_a_stream_changes_the_epoch(client: ApiClient, group: str) -> None:
    other = f"{group}-other"
    await client("CreateStream", name=other, subject=other)
    await join(client, group, "c1", group, other)
    await client("DeleteStream", name=other)
    assert await assigned(client, group, "c1") == {group: [0, 1, 2, 3]}
    assert (await group_metadata(client, group)).epoch > 0


_REFUSED = [
    ("Join", {"groupId": ""}, Code.INVALID_ARGUMENT, "No groupId provided"),
    ("Join", {"consumerId": ""}, Code.INVALID_ARGUMENT, "No consumerId provided"),
    ("Join", {"streams": []}, Code.INVALID_ARGUMENT, "No streams provided"),
    ("Join", {"streams": ["s"] * 1001}, Code.INVALID_ARGUMENT, "1001 are more than 1000"),
    ("Join", {"groupId": "x" * 256}, Code.INVALID_ARGUMENT, "Invalid groupId: it is longer than 255 bytes"),
    ("Join", {"consumerId": "é" * 200}, Code.INVALID_ARGUMENT, "Invalid consumerId: it is longer than 255 bytes"),
    ("Join", {"consumerId": "c2", "streams": ["nowhere"]}, Code.FAILED_PRECONDITION, "stream does not exist"),
    ("Join", {}, Code.FAILED_PRECONDITION, "consumer is already a member of the consumer group"),
    ("Leave", {"groupId": ""}, Code.INVALID_ARGUMENT, "No groupId provided"),
    ("Leave", {"consumerId": ""}, Code.INVALID_ARGUMENT, "No consumerId provided"),
    ("Leave", {"groupId": "nobody"}, Code.NOT_FOUND, "consumer group does not exist"),
    ("Leave", {"consumerId": "c9"}, Code.FAILED_PRECONDITION, "consumer is not a member of the consumer group"),
    ("Fetch", {"groupId": ""}, Code.INVALID_ARGUMENT, "No groupId provided"),
    ("Fetch", {"consumerId": ""}, Code.INVALID_ARGUMENT, "No consumerId provided"),
    ("Fetch", {"groupId": "nobody", "epoch": 7}, Code.NOT_FOUND, "consumer group does not exist"),
    (
        "Fetch",
        {"consumerId": "c9", "epoch": 1 << 63},
        Code.FAILED_PRECONDITION,
        "client-provided group epoch differs from broker group epoch",
    ),
    ("Fetch", {"consumerId": "c9"}, Code.FAILED_PRECONDITION, "consumer is not a member of the consumer group"),
    ("Report", {"consumerId": ""}, Code.INVALID_ARGUMENT, "No consumerId provided"),
    ("Report", {"coordinator": ""}, Code.INVALID_ARGUMENT, "No coordinator provided"),
    ("Report", {"groupId": "nobody"}, Code.FAILED_PRECONDITION, "No such consumer group nobody"),
    (
        "Report",
        {"coordinator": "x", "epoch": 3},
        Code.FAILED_PRECONDITION,
        "Coordinator generation mismatch, current coordinator: broker epoch: 0, got coordinator: x epoch: 3",
    ),
    ("Report", {"consumerId": "c9"}, Code.FAILED_PRECONDITION, "Consumer c9 is not a member of consumer group"),
    ("Report", {}, Code.FAILED_PRECONDITION, "No group coordinator candidates"),
]
_METHODS = {
    "Join": "JoinConsumerGroup",
    "Leave": "LeaveConsumerGroup",
    "Fetch": "FetchConsumerGroupAssignments",
    "Report": "ReportConsumerGroupCoordinator",
}


async def test_refusals_have_the_texts_of_the_original(client: ApiClient, group: str) -> None:
    await join(client, group, "c1")
    for call, other, code, text in _REFUSED:
        fields: dict[str, Any] = {"groupId": group, "consumerId": "c1"}
        fields |= {"Join": {"streams": [group]}, "Report": {"coordinator": "broker"}}.get(call, {})
        with fails_with(code, text):
            await client(_METHODS[call], **(fields | other))


async def test_several_reports_are_needed_of_several_members(client: ApiClient, group: str) -> None:
    await join(client, group, "c1")
    epoch = (await join(client, group, "c2")).epoch
    report = {"groupId": group, "coordinator": "broker", "epoch": epoch}
    await client("ReportConsumerGroupCoordinator", consumerId="c1", **report)
    await client("ReportConsumerGroupCoordinator", consumerId="c1", **report)
    with fails_with(Code.FAILED_PRECONDITION, "No group coordinator candidates"):
        await client("ReportConsumerGroupCoordinator", consumerId="c2", **report)


# --- expiry -----------------------------------------------------------------------------------------------------------


async def test_silent_member_expires_and_the_others_get_its_partitions(impatient: ApiClient, stream: str) -> None:
    await impatient("CreateStream", name=stream, subject=stream, partitions=4)
    await join(impatient, stream, "alive")
    epoch = (await join(impatient, stream, "silent")).epoch
    began = time.monotonic()
    while (await group_metadata(impatient, stream)).epoch == epoch:
        await assigned(impatient, stream, "alive", epoch)
        assert time.monotonic() - began < TIMEOUT_S + 3
        await asyncio.sleep(0.1)
    assert time.monotonic() - began > TIMEOUT_S - 0.1
    assert await assigned(impatient, stream, "alive") == {stream: [0, 1, 2, 3]}
    with fails_with(Code.FAILED_PRECONDITION, "consumer is not a member"):
        await assigned(impatient, stream, "silent")


async def test_member_that_never_learns_an_epoch_expires_though_it_calls(impatient: ApiClient, stream: str) -> None:
    await impatient("CreateStream", name=stream, subject=stream)
    await join(impatient, stream, "stubborn")
    await join(impatient, stream, "other")
    began = time.monotonic()
    while (await group_metadata(impatient, stream)).error == api.ConsumerGroupMetadata.OK:
        with fails_with(Code.FAILED_PRECONDITION, ""):
            await assigned(impatient, stream, "stubborn", 0)
            raise AssertionError("an old epoch was accepted")
        assert time.monotonic() - began < TIMEOUT_S + 3
        await asyncio.sleep(0.1)


# --- who may read -----------------------------------------------------------------------------------------------------


async def test_only_the_assigned_member_with_the_present_epoch_may_read(client: ApiClient, group: str) -> None:
    await join(client, group, "c1")
    epoch = (await join(client, group, "c2")).epoch
    (mine, *_), (other, *_) = [(await assigned(client, group, one))[group] for one in ("c1", "c2")]
    for consumer, wrong_epoch, partition in [
        ("c1", 0, mine),
        ("c1", epoch + 1, mine),
        ("c1", epoch, other),
        ("stranger", epoch, mine),
    ]:
        with fails_with(Code.FAILED_PRECONDITION, NOT_ASSIGNED):
            await subscribe(client, group, consumer, wrong_epoch, partition).read()
    call = subscribe(client, group, "c1", epoch, mine)
    assert await call.read() == api.Message()
    call.cancel()


async def test_running_subscription_ends_when_the_partition_goes_to_somebody_else(
    client: ApiClient, group: str
) -> None:
    await join(client, group, "c1")
    running = {number: subscribe(client, group, "c1", 0, number) for number in range(4)}
    for call in running.values():
        assert await call.read() == api.Message()
    epoch = (await join(client, group, "c2")).epoch
    for number in (await assigned(client, group, "c2", epoch))[group]:
        assert await asyncio.wait_for(running[number].read(), 5) is grpc.aio.EOF
        assert await running[number].code() is Code.OK
    (kept, *_) = (await assigned(client, group, "c1", epoch))[group]
    await client("Publish", stream=group, partition=kept, value=b"still mine", ackPolicy=api.AckPolicy.ALL)
    assert (await asyncio.wait_for(running[kept].read(), 5)).value == b"still mine"
    again = subscribe(client, group, "c1", epoch, kept)
    assert await again.read() == api.Message()
    assert await asyncio.wait_for(running[kept].read(), 5) is grpc.aio.EOF, "one subscription a group and partition"
    await leave(client, group, "c1")
    await leave(client, group, "c2")
    assert (await asyncio.wait_for(again.read(), 5)).value == b"still mine"
    assert await asyncio.wait_for(again.read(), 5) is grpc.aio.EOF


async def test_a_group_that_nobody_joined_takes_turns_by_epoch(client: ApiClient, group: str) -> None:
    first = subscribe(client, group, "c1", 5)
    assert await first.read() == api.Message()
    with fails_with(Code.FAILED_PRECONDITION, NOT_ASSIGNED):
        await subscribe(client, group, "c2", 4).read()
    second = subscribe(client, group, "c2", 5)
    assert await second.read() == api.Message()
    assert await asyncio.wait_for(first.read(), 5) is grpc.aio.EOF
    await join(client, group, "member")
    assert await asyncio.wait_for(second.read(), 5) is grpc.aio.EOF, "the group is known from now on"


# --- restarts ---------------------------------------------------------------------------------------------------------


async def test_group_survives_a_kill_and_its_members_get_a_whole_timeout_again(new_broker: BrokerProcess) -> None:
    new_broker.arguments += ["--set", "groups.consumer.timeout=2s"]
    new_broker.start()
    async with ApiClient(new_broker.address) as client:
        await client("CreateStream", name="s", subject="s", partitions=2)
        await join(client, "g", "c1", "s")
        await join(client, "g", "c2", "s")
        before = await group_metadata(client, "g")
    new_broker.kill()
    await asyncio.sleep(1.5)
    new_broker.start()
    began = time.monotonic()
    async with ApiClient(new_broker.address) as client:
        assert await group_metadata(client, "g") == before
        while (await group_metadata(client, "g")).error == api.ConsumerGroupMetadata.OK:
            await asyncio.sleep(0.05)
            assert time.monotonic() - began < 6
    assert time.monotonic() - began > 1.5, "expired as if the broker had been listening"
