"""A server that knows its clients by their certificates and lets each do what a policy says, as its clients see it."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from api_client import ApiClient, fails_with
from broker_process import BrokerProcess
from cluster_processes import eventually
from grpc_health.v1 import health_pb2
from secure_broker import SecureBroker

from liftbridge.client import Client, StartAt, Tls
from liftbridge.errors import PermissionDenied, Unavailable
from liftbridge.protocol.generated import api_pb2 as api

Code = grpc.StatusCode

_POLICY = """\
p, alice, *, FetchMetadata
p, alice, orders, CreateStream
p, alice, orders, Publish
p, alice, orders, Subscribe
p, alice, orders, FetchPartitionMetadata
p, alice, orders, SetCursor
p, alice, orders, FetchCursor
p, alice, bills, CreateStream
p, alice, bills, DeleteStream
p, alice, bills, Subscribe
p, alice, bills, FetchPartitionMetadata
p, alice, workers, JoinConsumerGroup
p, alice, workers, FetchConsumerGroupAssignments
p, alice, workers, LeaveConsumerGroup
p, alice, __activity, Subscribe
p, bob, *, FetchMetadata
p, carol, *, FetchMetadata
p, carol, orders, Subscribe
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    broker = SecureBroker(tmp_path_factory.mktemp("secure"), _POLICY)
    broker.start()
    try:
        yield broker
    finally:
        assert broker.process.stop() == 0


@pytest.fixture
async def alice(server: SecureBroker) -> AsyncIterator[ApiClient]:
    """With both streams there."""
    async with server.client("alice") as client:
        for stream in ("orders", "bills"):
            with contextlib.suppress(grpc.aio.AioRpcError):
                await client("CreateStream", name=stream, subject=stream)
        yield client


def denied(method: str, resource: str) -> Any:
    text = f"The client is not authorized to call {method} on resource {resource}"
    return fails_with(Code.PERMISSION_DENIED, text)


# --- calls ------------------------------------------------------------------------------------------------------------

_CALLS = [
    ("CreateStream", {"name": "x", "subject": "x"}, "x"),
    ("CreateStream", {"name": "x", "subject": "not valid"}, "x"),
    ("DeleteStream", {"name": "orders"}, "orders"),
    ("DeleteStream", {"name": "nowhere"}, "nowhere"),
    ("PauseStream", {"name": "orders"}, "orders"),
    ("SetStreamReadonly", {"name": "orders", "readonly": True}, "orders"),
    ("FetchPartitionMetadata", {"stream": "orders"}, "orders"),
    ("Publish", {"stream": "orders", "value": b"x"}, "orders"),
    ("Publish", {"stream": "nowhere"}, "nowhere"),
    ("PublishToSubject", {"subject": "orders", "value": b"x"}, "orders"),
    ("SetCursor", {"stream": "orders", "cursorId": "c", "offset": 1}, "orders"),
    ("FetchCursor", {"stream": "orders", "cursorId": "c"}, "orders"),
    ("JoinConsumerGroup", {"groupId": "workers", "consumerId": "c", "streams": ["orders"]}, "workers"),
    ("LeaveConsumerGroup", {"groupId": "workers", "consumerId": "c"}, "workers"),
    ("FetchConsumerGroupAssignments", {"groupId": "workers", "consumerId": "c"}, "workers"),
    ("ReportConsumerGroupCoordinator", {"groupId": "workers", "consumerId": "c", "coordinator": "x"}, "workers"),
]


@pytest.mark.parametrize(
    ("method", "fields", "resource"), _CALLS, ids=lambda value: value if isinstance(value, str) else ""
)
async def test_who_has_no_rule_is_refused_whether_the_resource_exists_or_not(
    server: SecureBroker, alice: ApiClient, method: str, fields: dict[str, Any], resource: str
) -> None:
    async with server.client("bob") as bob:
        with denied(method, resource):
            await bob(method, **fields)


async def test_metadata_needs_a_rule_for_the_cluster_and_health_needs_none(server: SecureBroker) -> None:
    async with server.client("eve") as eve:
        with denied("FetchMetadata", "*"):
            await eve("FetchMetadata")
        check = eve.channel.unary_unary(
            "/grpc.health.v1.Health/Check", response_deserializer=health_pb2.HealthCheckResponse.FromString
        )
        assert (await check(b"")).status == health_pb2.HealthCheckResponse.SERVING


async def test_a_client_without_a_certificate_cannot_even_connect(server: SecureBroker) -> None:
    credentials = grpc.ssl_channel_credentials(server.authority.cert.read_bytes())
    async with ApiClient(server.process.address, credentials) as nobody:
        with fails_with(Code.UNAVAILABLE, ""):
            await nobody("FetchMetadata")
    assert "Traceback" not in server.process.log()


async def test_what_a_rule_allows_is_done(server: SecureBroker, alice: ApiClient) -> None:
    assert {one.name for one in (await alice("FetchMetadata")).streamMetadata} >= {"orders", "bills"}
    ack = (await alice("Publish", stream="orders", value=b"allowed")).ack
    (message,) = await alice.messages(1, stream="orders", startPosition=api.OFFSET, startOffset=ack.offset)
    assert message.value == b"allowed"
    with denied("PauseStream", "orders"):
        await alice("PauseStream", name="orders")
    with denied("Subscribe", "nowhere"):
        await alice.messages(1, stream="nowhere")


async def test_messages_of_a_session_that_are_refused_are_not_stored(server: SecureBroker, alice: ApiClient) -> None:
    before = (await alice("FetchPartitionMetadata", stream="bills")).metadata.newestOffset
    session = alice.publish_async()
    for number, stream in enumerate(("orders", "bills", "bills", "orders")):
        await session.write(api.PublishRequest(stream=stream, value=b"x", correlationId=str(number)))
    answers = [await session.read() for _ in range(4)]
    outcomes = {one.correlationId: one.asyncError.message for one in answers}
    refused = "The client is not authorized to call Publish on resource bills"
    assert outcomes == {"0": "", "1": refused, "2": refused, "3": ""}
    codes = {one.asyncError.code for one in answers if one.HasField("asyncError")}
    assert codes == {api.PublishAsyncError.PERMISSION_DENIED}
    await session.done_writing()
    assert (await alice("FetchPartitionMetadata", stream="bills")).metadata.newestOffset == before


async def test_cursors_and_events_need_no_rule_for_the_streams_that_hold_them(
    server: SecureBroker, alice: ApiClient
) -> None:
    await alice("SetCursor", stream="orders", cursorId="c", offset=7)
    assert (await alice("FetchCursor", stream="orders", cursorId="c")).offset == 7
    (first,) = await alice.messages(1, stream="__activity", startPosition=api.EARLIEST)
    event = api.ActivityStreamEvent.FromString(first.value)
    assert event.createStreamOp.stream == "__activity"
    with denied("Publish", "__cursors"):
        await alice("Publish", stream="__cursors", value=b"forged")


# --- the Python client and the command line ---------------------------------------------------------------------------


async def test_the_python_client_shows_its_certificate_in_every_call(server: SecureBroker, alice: ApiClient) -> None:
    address = [server.process.address]
    async with Client(address, tls=server.tls("alice")) as client:
        ack = await client.publish("orders", b"one")
        assert ack is not None
        async with client.publisher("orders") as publisher:
            await (await publisher.publish(b"two"))
        with pytest.raises(PermissionDenied, match="not authorized to call Publish on resource bills"):
            async with client.publisher("bills") as publisher:
                await (await publisher.publish(b"x"))
        async with client.subscribe("orders", start=StartAt.offset(ack.offset)) as messages:
            assert [(await anext(messages)).value for _ in range(2)] == [b"one", b"two"]
    async with Client(address, tls=server.tls("bob")) as client:
        with pytest.raises(PermissionDenied, match="Subscribe on resource orders"):
            async with client.subscribe("orders", start=StartAt.earliest()) as messages:
                await anext(messages)
    async with Client(address, tls=server.tls("eve")) as client:
        with pytest.raises(PermissionDenied, match="FetchMetadata"):
            await client.fetch_metadata()
    with pytest.raises(Unavailable):
        async with Client(address, tls=Tls(ca=server.authority.cert), timeout_s=1):
            pass


async def test_reading_what_is_new_takes_the_rules_that_it_takes_with_the_originals_clients(
    server: SecureBroker, alice: ApiClient
) -> None:
    async with (
        Client([server.process.address], tls=server.tls("carol")) as client,
        client.subscribe("orders") as messages,
    ):
        await alice("Publish", stream="orders", value=b"new")
        assert (await anext(messages)).value == b"new"


async def test_a_consumer_of_a_group_takes_the_rules_that_the_page_names(
    server: SecureBroker, alice: ApiClient
) -> None:
    of_the_group = ("Join{}", "Leave{}", "Fetch{}Assignments", "Report{}Coordinator")
    rules = [f"p, dave, readers, {call.format('ConsumerGroup')}" for call in of_the_group]
    rules += [f"p, dave, orders, {call}" for call in ("Subscribe", "SetCursor", "FetchCursor")]
    try:
        await server.reload("\n".join([*rules, "p, dave, *, FetchMetadata", _POLICY]))
        newest = (await alice("Publish", stream="orders", value=b"for the group")).ack.offset
        async with Client([server.process.address], tls=server.tls("dave")) as client, asyncio.timeout(30):
            start = StartAt.offset(newest)
            async with client.consumer("readers", ["orders"], start=start) as consumer:
                assert (await anext(consumer)).value == b"for the group"
                await consumer.commit()
            with pytest.raises(PermissionDenied, match="JoinConsumerGroup on resource writers"):
                async with client.consumer("writers", ["orders"]):
                    pass
    finally:
        await server.reload(_POLICY)


def test_the_command_line_shows_a_certificate(server: SecureBroker) -> None:
    server.cli("alice", "stream", "create", "orders", "--subject", "orders")
    done = server.cli("alice", "publish", "orders", "by hand")
    assert (done.returncode, done.stderr) == (0, "")
    done = server.cli("bob", "publish", "orders", "by hand")
    assert done.returncode == 1
    assert "The client is not authorized to call Publish on resource orders" in done.stderr
    assert "Traceback" not in done.stderr


# --- changing the policy ----------------------------------------------------------------------------------------------


async def test_a_changed_policy_holds_after_a_signal_also_for_calls_that_run(
    server: SecureBroker, alice: ApiClient
) -> None:
    session, subscription = alice.publish_async(), alice.subscribe(stream="orders")
    assert await subscription.read() == api.Message()

    async def code_of(correlation_id: str) -> int:
        await session.write(api.PublishRequest(stream="orders", value=b"x", correlationId=correlation_id))
        return int((await session.read()).asyncError.code)

    try:
        assert await code_of("1") == 0
        assert (await subscription.read()).value == b"x"
        log = await server.reload("p, bob, orders, Publish\n")
        assert 'level=info msg="Reloaded authorization permissions successfully"' in log
        assert await code_of("2") == api.PublishAsyncError.PERMISSION_DENIED
        with denied("Publish", "orders"):
            await alice("Publish", stream="orders", value=b"x")
        async with server.client("bob") as bob:
            await bob("Publish", stream="orders", value=b"by bob")
        with denied("Subscribe", "orders"):
            await subscription.read()
    finally:
        await server.reload(_POLICY)
    assert await code_of("3") == 0


async def test_a_policy_with_a_mistake_changes_nothing_and_is_told_of(server: SecureBroker, alice: ApiClient) -> None:
    try:
        log = await server.reload("p, eve, orders, Publish\np, eve, orders\n")
    finally:
        again = await server.reload(_POLICY)
    assert "level=error msg=\"Authorization permissions are as before, because they can't be reloaded: " in log
    assert "policy.csv, line 2: a rule is written as: p, client, resource, method" in log
    await alice("Publish", stream="orders", value=b"x")
    async with server.client("eve") as eve:
        with denied("Publish", "orders"):
            await eve("Publish", stream="orders", value=b"x")
    assert "Reloaded" in again


async def test_the_server_that_a_client_is_connected_to_asks_its_own_policy(tmp_path: Path) -> None:
    """What it passes on to the partition's leader was allowed."""
    first = SecureBroker(tmp_path / "first", _POLICY)
    first.start()
    second = SecureBroker(tmp_path / "second", "p, alice, *, FetchMetadata\n", beside=first)
    try:
        second.start()
        async with first.client("alice") as alice:
            await alice("CreateStream", name="orders", subject="orders", partitions=2)
            (stream,) = (await alice("FetchMetadata", streams=["orders"])).streamMetadata
            assert {one.leader for one in stream.partitions.values()} == {"broker", "another"}
            session = alice.publish_async()
            for partition in (0, 1):
                published = await alice("Publish", stream="orders", partition=partition, value=b"one")
                assert published.ack.offset == 0
                request = api.PublishRequest(stream="orders", partition=partition, value=b"two", correlationId="2")
                await session.write(request)
                assert (await session.read()).ack.offset == 1
        async with ApiClient(second.process.address, first.tls("alice").channel_credentials()) as alice:
            for partition in (0, 1):
                with denied("Publish", "orders"):
                    await alice("Publish", stream="orders", partition=partition, value=b"three")
    finally:
        second.process.kill()
        first.process.kill()


def test_without_authorization_the_signal_ends_nothing(new_broker: BrokerProcess) -> None:
    new_broker.start()
    os.kill(new_broker.pid, signal.SIGHUP)
    eventually(lambda: "There is nothing to reload: authorization is off" in new_broker.log())
    os.kill(new_broker.pid, signal.SIGHUP)
    eventually(lambda: new_broker.log().count("There is nothing to reload: authorization is off") == 2)
    new_broker.wait_until_serving()
    assert new_broker.stop() == 0


def test_a_signal_during_the_start_ends_nothing_either(tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path / "data")
    broker.launch()
    try:
        eventually(lambda: "Liftbridge Version" in broker.log(), timeout_s=30)
        os.kill(broker.pid, signal.SIGHUP)
        broker.wait_until_serving()
        eventually(lambda: "There is nothing to reload" in broker.log())
    finally:
        assert broker.stop() == 0
