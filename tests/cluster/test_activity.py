"""The activity stream on real brokers: each event once, in order, whoever dies meanwhile."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc
import pytest
from api_client import ApiClient
from broker_process import BrokerProcess
from cluster_processes import SEED, ClusterProcesses, eventually

from liftbridge.protocol.generated import api_pb2 as api

ACTIVITY = ("--set", "activity.stream.enabled=true")


async def read_events(client: ApiClient, count: int) -> list[api.ActivityStreamEvent]:
    """The first so many."""
    messages = await client.messages(count, stream="__activity", startPosition=api.StartPosition.EARLIEST)
    assert [message.offset for message in messages] == list(range(count))
    assert all(not message.key for message in messages)
    return [api.ActivityStreamEvent.FromString(message.value) for message in messages]


def created(events: Sequence[api.ActivityStreamEvent]) -> list[str]:
    return [event.createStreamOp.stream for event in events if event.op == api.CREATE_STREAM]


def assert_increasing(events: Sequence[api.ActivityStreamEvent]) -> None:
    ids = [event.id for event in events]
    assert ids == sorted(set(ids))


@pytest.fixture
def activity_broker(tmp_path: Path) -> BrokerProcess:
    return BrokerProcess(tmp_path / "data", *ACTIVITY)


async def test_events_tell_what_happened_beginning_with_the_stream_itself(activity_broker: BrokerProcess) -> None:
    activity_broker.start()
    try:
        async with ApiClient(activity_broker.address) as client:
            await client("CreateStream", name="s", subject="s", partitions=3)
            await client("DeleteStream", name="s")
            first, second, third = await read_events(client, 3)
        assert_increasing([first, second, third])
        assert first == api.ActivityStreamEvent(
            id=first.id, op=api.CREATE_STREAM, createStreamOp=api.CreateStreamOp(stream="__activity", partitions=[0])
        )
        assert second == api.ActivityStreamEvent(
            id=second.id, op=api.CREATE_STREAM, createStreamOp=api.CreateStreamOp(stream="s", partitions=[0, 1, 2])
        )
        assert third == api.ActivityStreamEvent(
            id=third.id, op=api.DELETE_STREAM, deleteStreamOp=api.DeleteStreamOp(stream="s")
        )
    finally:
        activity_broker.kill()


async def test_every_kind_of_event_is_told(activity_broker: BrokerProcess) -> None:
    activity_broker.start()
    try:
        async with ApiClient(activity_broker.address) as client:
            await client("CreateStream", name="s", subject="s", partitions=2)
            await client("PauseStream", name="s", partitions=[1], resumeAll=True)
            await client("Publish", stream="s", partition=1, value=b"x")
            await client("SetStreamReadonly", name="s", readonly=True)
            await client("JoinConsumerGroup", groupId="g", consumerId="c", streams=["s"])
            await client("LeaveConsumerGroup", groupId="g", consumerId="c")
            events = await read_events(client, 7)
        assert_increasing(events)
        for event in events:
            event.id = 0
        assert events[2:] == [
            api.ActivityStreamEvent(
                op=api.PAUSE_STREAM, pauseStreamOp=api.PauseStreamOp(stream="s", partitions=[1], resumeAll=True)
            ),
            api.ActivityStreamEvent(
                op=api.RESUME_STREAM, resumeStreamOp=api.ResumeStreamOp(stream="s", partitions=[1])
            ),
            api.ActivityStreamEvent(
                op=api.SET_STREAM_READONLY,
                setStreamReadonlyOp=api.SetStreamReadonlyOp(stream="s", partitions=[0, 1], readonly=True),
            ),
            api.ActivityStreamEvent(
                op=api.JOIN_CONSUMER_GROUP,
                joinConsumerGroupOp=api.JoinConsumerGroupOp(groupId="g", consumerId="c", streams=["s"]),
            ),
            api.ActivityStreamEvent(
                op=api.LEAVE_CONSUMER_GROUP,
                leaveConsumerGroupOp=api.LeaveConsumerGroupOp(groupId="g", consumerId="c"),
            ),
        ]
    finally:
        activity_broker.kill()


async def test_a_member_that_expired_is_told_from_one_that_left(activity_broker: BrokerProcess) -> None:
    activity_broker.arguments += ["--set", "groups.consumer.timeout=500ms"]
    activity_broker.start()
    try:
        async with ApiClient(activity_broker.address) as client:
            await client("CreateStream", name="s", subject="s")
            await client("JoinConsumerGroup", groupId="g", consumerId="c", streams=["s"])
            *_, expired = await read_events(client, 4)
    finally:
        activity_broker.kill()
    assert expired.leaveConsumerGroupOp == api.LeaveConsumerGroupOp(groupId="g", consumerId="c", expired=True)


@pytest.mark.parametrize("policy", ["none", "leader", "all"])
async def test_kills_and_restarts_neither_lose_nor_repeat_an_event(activity_broker: BrokerProcess, policy: str) -> None:
    activity_broker.arguments += ["--set", f"activity.stream.publish.ack.policy={policy}"]
    activity_broker.arguments += ["--set", "clustering.raft.snapshot.threshold=20"]
    names = [f"s{number}" for number in range(60)]
    try:
        for start in range(0, len(names), 20):
            activity_broker.start()
            async with ApiClient(activity_broker.address) as client:
                for name in names[start : start + 20]:
                    await client("CreateStream", name=name, subject=name)
                if start == 20:
                    await client("Publish", stream="__activity", value=b"\xff no event")
            activity_broker.kill() if start % 40 == 0 else activity_broker.stop()
        activity_broker.start()
        async with ApiClient(activity_broker.address) as client:
            await client("CreateStream", name="last", subject="last")
            messages = await client.messages(
                len(names) + 3, stream="__activity", startPosition=api.StartPosition.EARLIEST
            )
        events = [api.ActivityStreamEvent.FromString(one.value) for one in messages if one.value[0] != 0xFF]
        assert_increasing(events)
        assert created(events) == ["__activity", *names, "last"]
    finally:
        activity_broker.kill()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterProcesses]:
    cluster = ClusterProcesses(tmp_path)
    for server_id in "abc":
        more = ("--set", "clustering.raft.snapshot.threshold=20", "--set", "clustering.min.insync.replicas=2")
        cluster.add(server_id, *ACTIVITY, *more, bootstrap=SEED if server_id == "a" else ())
    cluster.start(*"abc")
    yield cluster
    cluster.kill()


def leads_metadata(cluster: ClusterProcesses) -> str:
    """Who said last that it became the metadata leader."""
    became = "Server became metadata leader"
    last = {
        server_id: max((line for line in server.log().splitlines() if became in line), default="")
        for server_id, server in cluster.servers.items()
    }
    return max(last, key=lambda server_id: last[server_id])


async def test_no_event_is_lost_or_twice_while_leaders_die(cluster: ClusterProcesses) -> None:
    """Of the metadata group, and of the stream itself."""
    acked: list[str] = []

    def create_some(count: int) -> None:
        for _ in range(count):
            name = f"s{len(acked)}"

            def is_created(name: str = name) -> bool:
                try:
                    cluster.call(cluster.running()[0].server_id, "CreateStream", name=name, subject=name)
                except grpc.RpcError as error:
                    return error.code() is grpc.StatusCode.ALREADY_EXISTS  # by the attempt before
                return True

            eventually(is_created)
            acked.append(name)

    create_some(10)
    victims: list[Callable[[], str]] = [
        lambda: leads_metadata(cluster),
        lambda: str(cluster.partition(cluster.running()[0].server_id, "__activity").leader),
    ]
    for choose in victims:
        victim = eventually(choose)
        cluster.servers[victim].kill()
        create_some(10)
        cluster.start(victim)
        create_some(10)
    leader = eventually(lambda: str(cluster.partition("a", "__activity").leader))
    async with ApiClient(cluster.servers[leader].address) as client:
        events = await read_events(client, len(acked) + 1)
    assert_increasing(events)
    assert created(events) == ["__activity", *acked]
