"""Absurd values in every call of the API: each gets the status that says what is wrong, and the broker goes on."""

import asyncio
import json
import re
import urllib.request
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import nats
import pytest
from api_client import ApiClient
from broker_process import BrokerProcess, free_port
from nats_process import NatsProcess

from liftbridge.protocol.envelope import MessageType, envelope_header
from liftbridge.protocol.generated import api_pb2 as api

INT32_MAX, INT64_MAX = (1 << 31) - 1, (1 << 63) - 1
INT32_MIN, INT64_MIN = -(1 << 31), -(1 << 63)
UINT64_MAX = (1 << 64) - 1
#: Far more than any limit, and less than a gRPC message may be.
ENDLESS = "x" * 70_000
INJECTED = "a\r\nPUB x 1\r\ny"
#: White space, control characters, a text that is drawn from right to left, a lone dot and empty parts.
ODD_NAMES = (" ", "a b", "a\tb", "a\nb", "a\0b", "\u202e", ".", "a..b", ".a", "a.", "x" * 256, ENDLESS)
ODD_SUBJECTS = (*ODD_NAMES, ">.a", "a.>.b", INJECTED)

CODE = grpc.StatusCode
OK = None


class Row(NamedTuple):
    """What is sent, and what comes back: ``code`` None for success."""

    method: str
    fields: dict[str, Any]
    code: grpc.StatusCode | None
    says: str = ""


def row(method: str, code: grpc.StatusCode | None, says: str = "", **fields: Any) -> Row:
    return Row(method, fields, code, says)


def creating(code: grpc.StatusCode | None, says: str = "", **fields: Any) -> Row:
    return Row("CreateStream", {"name": "new", "subject": "new", **fields}, code, says)


def create_rows() -> Iterable[Row]:
    bad = CODE.INVALID_ARGUMENT
    yield creating(bad, "Name cannot be empty", name="")
    for name in ODD_NAMES:
        yield creating(bad, "Name is invalid", name=name)
    for name in ("__cursors", "__activity"):
        yield creating(bad, "Stream is reserved", name=name)
    yield creating(CODE.ALREADY_EXISTS, "stream already exists", name="there")
    yield creating(bad, "Subject is invalid", subject="")
    for subject in ODD_SUBJECTS:
        yield creating(bad, "Subject is invalid", subject=subject)
    for group in ODD_NAMES:
        yield creating(bad, "Group is invalid", group=group)
    for count in (-1, INT32_MIN, 4097, INT32_MAX):
        yield creating(bad, f"Invalid partitions {count}", partitions=count)
    for count in (-2, INT32_MIN, 2, INT32_MAX):
        yield creating(bad, f"Invalid replicationFactor {count}", replicationFactor=count)
    for field in ("retentionMaxBytes", "retentionMaxMessages"):
        for value in (-1, INT64_MIN):
            yield creating(bad, f"Invalid {field} {value}", **{field: api.NullableInt64(value=value)})
    for field in ("retentionMaxAge", "cleanerInterval", "segmentMaxAge", "segmentMaxBytes", "autoPauseTime"):
        for value in (-1, INT64_MIN, INT64_MAX):
            yield creating(bad, f"Invalid {field} {value}", **{field: api.NullableInt64(value=value)})
    for value in (-1, INT32_MIN, INT32_MAX):
        limited = api.NullableInt32(value=value)
        yield creating(bad, f"Invalid compactMaxGoroutines {value}", compactMaxGoroutines=limited)
    yield creating(bad, f"Invalid minIsr {INT32_MAX}", minIsr=api.NullableInt32(value=INT32_MAX))
    yield creating(CODE.FAILED_PRECONDITION, "has no encryption key", encryption=api.NullableBool(value=True))


def stream_rows() -> Iterable[Row]:
    absent = {"DeleteStream": "stream does not exist", "PauseStream": "stream not found"}
    absent["SetStreamReadonly"] = "stream not found"
    for method, says in absent.items():
        for name in ("", "absent", *ODD_NAMES):
            yield row(method, CODE.NOT_FOUND, says, name=name)
        for name in ("__cursors", "__activity"):
            yield row(method, CODE.INVALID_ARGUMENT, "Stream is reserved", name=name)
    for method in ("PauseStream", "SetStreamReadonly"):
        for number in (-1, 1, INT32_MIN, INT32_MAX):
            yield row(method, CODE.NOT_FOUND, "partition does not exist", name="there", partitions=[0, number])
    yield row("SetStreamReadonly", OK, name="there", partitions=[0] * 10_000, readonly=False)


def subscribe_rows() -> Iterable[Row]:
    def to(code: grpc.StatusCode | None, says: str = "", **fields: Any) -> Row:
        return Row("Subscribe", {"stream": "there", "stopPosition": api.STOP_LATEST, **fields}, code, says)

    for name in ("", "absent", *ODD_NAMES):
        yield to(CODE.NOT_FOUND, "No such partition", stream=name)
    for number in (-1, 1, INT32_MIN, INT32_MAX):
        yield to(CODE.NOT_FOUND, "No such partition", partition=number)
    for position in (5, -1, INT32_MIN, INT32_MAX):
        yield to(CODE.INVALID_ARGUMENT, f"Unknown StartPosition {position}", startPosition=position)
        yield to(CODE.INVALID_ARGUMENT, f"Unknown StopPosition {position}", stopPosition=position)
    end = CODE.RESOURCE_EXHAUSTED
    for offset in (INT64_MIN, -1):
        yield to(end, "Stop offset reached", startPosition=api.OFFSET, startOffset=offset)
    yield to(CODE.INVALID_ARGUMENT, "Stop offset is before start", startPosition=api.OFFSET, startOffset=INT64_MAX)
    for time_ns in (INT64_MIN, -1, 0):
        yield to(end, "Stop offset reached", startPosition=api.TIMESTAMP, startTimestamp=time_ns)
        before = {"stopPosition": api.STOP_TIMESTAMP, "stopTimestamp": time_ns, "startPosition": api.EARLIEST}
        yield to(CODE.INTERNAL, "timestamp is before the beginning of the log", **before)
    yield to(CODE.INVALID_ARGUMENT, "before start", startPosition=api.TIMESTAMP, startTimestamp=INT64_MAX)
    last = {"stopPosition": api.STOP_TIMESTAMP, "stopTimestamp": INT64_MAX, "startPosition": api.EARLIEST}
    yield to(end, "Stop offset reached", **last)
    for offset in (INT64_MIN, -2):
        fields = {"stopPosition": api.STOP_OFFSET, "stopOffset": offset, "startPosition": api.EARLIEST}
        yield to(CODE.INVALID_ARGUMENT, "Stop offset is before start offset", **fields)
    yield to(
        CODE.INVALID_ARGUMENT,
        "Stop offset is after start offset of a reverse subscription",
        reverse=True,
        startPosition=api.EARLIEST,
        stopPosition=api.STOP_OFFSET,
        stopOffset=INT64_MAX,
    )
    yield to(CODE.INVALID_ARGUMENT, "Consumer id cannot be empty", consumer=api.Consumer(groupId="g"))
    for group in ("absent", "a\0b", ENDLESS):  # as in the original, groups that nobody joined fence nobody
        consumer = api.Consumer(groupId=group, consumerId="c", groupEpoch=UINT64_MAX)
        yield to(end, "Stop offset reached", startPosition=api.EARLIEST, consumer=consumer)


def metadata_rows() -> Iterable[Row]:
    yield row("FetchMetadata", OK, streams=["absent", "", *ODD_NAMES], groups=["absent", "", *ODD_NAMES])
    yield row("FetchMetadata", OK, streams=["there"] * 10_000)
    for name in ("", "absent", *ODD_NAMES):
        yield row("FetchPartitionMetadata", CODE.NOT_FOUND, "partition not found", stream=name)
    for number in (-1, 1, INT32_MIN, INT32_MAX):
        yield row("FetchPartitionMetadata", CODE.NOT_FOUND, "partition not found", stream="there", partition=number)


def publish_fields() -> Iterable[tuple[grpc.StatusCode | None, str, dict[str, Any]]]:
    """For Publish and PublishAsync."""
    bad, absent = CODE.INVALID_ARGUMENT, CODE.NOT_FOUND
    for name in ("absent", *ODD_NAMES):
        yield absent, "no such stream", {"stream": name}
    for number in (-1, 1, INT32_MIN, INT32_MAX):
        yield absent, f"no such partition: {number}", {"partition": number}
    for policy in (3, 7, -1, INT32_MIN, INT32_MAX):
        yield bad, f"Invalid ackPolicy {policy}", {"ackPolicy": policy}
    for length in (1 << 20, 3 << 20):
        yield bad, "message exceeds max replication size", {"value": bytes(length)}
    yield bad, "must have AckPolicy set", {"stream": "careful", "ackPolicy": api.NONE}
    for offset in (INT64_MIN, -2, 1, INT64_MAX):
        yield CODE.UNKNOWN, "incorrect expected offset", {"stream": "careful", "expectedOffset": offset}
    yield OK, "", {"key": b"\0" * 100_000, "headers": {"": b"", "subject": b"v", "h" * 40_000: b"v"}}
    yield OK, "", {"value": b"", "expectedOffset": INT64_MIN, "correlationId": "c" * 100_000}


def inbox_fields() -> Iterable[dict[str, Any]]:
    """What no ack could be published to."""
    for inbox in (*ODD_NAMES, INJECTED, ">", "a.*", "*"):
        if len(inbox) != 256:
            yield {"ackInbox": inbox}


def publish_rows() -> Iterable[Row]:
    yield row("Publish", CODE.INVALID_ARGUMENT, "no stream provided")
    yield row("PublishAsync", CODE.NOT_FOUND, "no such stream")
    for code, says, fields in publish_fields():
        yield Row("Publish", {"stream": "there", "value": b"x", **fields}, code, says)
        yield Row("PublishAsync", {"stream": "there", "value": b"x", **fields}, code, says)
    for fields in inbox_fields():
        yield row("Publish", CODE.INVALID_ARGUMENT, "ackInbox is invalid", stream="there", **fields)
        yield row("PublishToSubject", CODE.INVALID_ARGUMENT, "ackInbox is invalid", subject="there", **fields)
        yield row("PublishAsync", OK, stream="there", value=b"x", **fields)  # acks come with the session, not there
    for subject in ("", *ODD_SUBJECTS, ">", "a.*"):
        if len(subject) != 256:
            yield row("PublishToSubject", CODE.INVALID_ARGUMENT, "Subject is invalid", subject=subject, value=b"x")
    for policy in (3, -1, INT32_MAX):
        yield row("PublishToSubject", CODE.INVALID_ARGUMENT, "Invalid ackPolicy", subject="there", ackPolicy=policy)
    too_large = {"subject": "there", "value": bytes(1 << 20)}
    yield row("PublishToSubject", CODE.INVALID_ARGUMENT, "message exceeds max replication size", **too_large)


def cursor_rows() -> Iterable[Row]:
    for method in ("SetCursor", "FetchCursor"):
        bad = CODE.INVALID_ARGUMENT
        yield row(method, bad, "No stream provided", cursorId="c")
        yield row(method, bad, "No cursorId provided", stream="s")
        yield row(method, bad, "Invalid stream: it is longer than 255 bytes", stream=ENDLESS, cursorId="c")
        yield row(method, bad, "Invalid cursorId: it is longer than 1024 bytes", stream="s", cursorId=ENDLESS)
        for number in (-1, INT32_MIN):
            yield row(method, bad, f"Invalid partition {number}", stream="s", cursorId="c", partition=number)
        yield row(method, OK, stream="no\nsuch", cursorId="c\0,\n", partition=INT32_MAX)
    for offset in (-2, INT64_MIN):
        yield row("SetCursor", bad, f"Invalid offset {offset}", stream="s", cursorId="c", offset=offset)
    yield row("SetCursor", OK, stream="s", cursorId="c", offset=INT64_MAX)


def group_rows() -> Iterable[Row]:
    bad, absent = CODE.INVALID_ARGUMENT, CODE.NOT_FOUND
    rest = {"JoinConsumerGroup": {"streams": ["there"]}, "ReportConsumerGroupCoordinator": {"coordinator": "x"}}
    for method in ("JoinConsumerGroup", "LeaveConsumerGroup", "FetchConsumerGroupAssignments", *rest):
        more = rest.get(method, {})
        yield row(method, bad, "No groupId provided", consumerId="c", **more)
        yield row(method, bad, "No consumerId provided", groupId="g", **more)
        yield row(method, bad, "Invalid groupId: it is longer", groupId=ENDLESS, consumerId="c", **more)
        yield row(method, bad, "Invalid consumerId: it is longer", groupId="g", consumerId=ENDLESS, **more)
    joining = {"groupId": "g", "consumerId": "c"}
    yield row("JoinConsumerGroup", bad, "No streams provided", **joining)
    yield row("JoinConsumerGroup", bad, "Invalid streams: 10000 are more", **joining, streams=["there"] * 10_000)
    for name in ("", "absent", ENDLESS):
        yield row("JoinConsumerGroup", CODE.FAILED_PRECONDITION, "stream does not exist", **joining, streams=[name])
    for group in ("absent", "g\0"):
        unknown = {"groupId": group, "consumerId": "c"}
        yield row("LeaveConsumerGroup", absent, "consumer group does not exist", **unknown)
        fetching = {**unknown, "epoch": UINT64_MAX}
        yield row("FetchConsumerGroupAssignments", absent, "consumer group does not exist", **fetching)
        reporting = {**fetching, "coordinator": ENDLESS}
        yield row("ReportConsumerGroupCoordinator", CODE.FAILED_PRECONDITION, "No such consumer group", **reporting)
    yield row("ReportConsumerGroupCoordinator", bad, "No coordinator provided", groupId="g", consumerId="c")


ROWS = [
    *create_rows(),
    *stream_rows(),
    *subscribe_rows(),
    *metadata_rows(),
    *publish_rows(),
    *cursor_rows(),
    *group_rows(),
]


@pytest.fixture
def monitor() -> str:
    """Where nats-server tells about itself."""
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
async def broker(tmp_path: Path, monitor: str) -> AsyncIterator[BrokerProcess]:
    nats_server = NatsProcess("-m", monitor.partition(":")[2])
    nats_server.start()
    broker = BrokerProcess(tmp_path / "data", "--set", "cursors.stream.partitions=1", nats_url=nats_server.url)
    broker.start()
    async with ApiClient(broker.address) as client:
        await client("CreateStream", name="there", subject="there")
        await client("Publish", stream="there", value=b"first")
        careful = api.NullableBool(value=True)
        await client("CreateStream", name="careful", subject="careful", optimisticConcurrencyControl=careful)
    yield broker
    broker.kill()
    nats_server.stop()


async def answer(client: ApiClient, row: Row) -> tuple[grpc.StatusCode | None, str]:
    """The status and its text; an error in a publish session as the status that Publish has for it."""
    try:
        async with asyncio.timeout(10):
            if row.method == "Subscribe":
                call = client.subscribe(**row.fields)
                while await call.read() is not grpc.aio.EOF:
                    pass
            elif row.method == "PublishAsync":
                return await answer_in_session(client, row)
            else:
                await client(row.method, **row.fields)
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    return OK, ""


_ASYNC_CODES = {
    api.PublishAsyncError.BAD_REQUEST: CODE.INVALID_ARGUMENT,
    api.PublishAsyncError.NOT_FOUND: CODE.NOT_FOUND,
    api.PublishAsyncError.INCORRECT_OFFSET: CODE.UNKNOWN,
}


async def answer_in_session(client: ApiClient, row: Row) -> tuple[grpc.StatusCode | None, str]:
    """The session goes on: a good message is acked after the bad one."""
    session = client.publish_async()
    await session.write(api.PublishRequest(**{"correlationId": "bad", **row.fields}))
    first = await session.read()
    await session.write(api.PublishRequest(stream="there", value=b"good", correlationId="good"))
    second = await session.read()
    session.cancel()
    assert second.HasField("ack"), f"the session is of no use after {row.method}: {second}"
    if not first.HasField("asyncError"):
        return OK, ""
    return _ASYNC_CODES[first.asyncError.code], first.asyncError.message


def test_every_call_of_the_api_has_its_bad_input() -> None:
    assert {one.method for one in ROWS} == set(api.DESCRIPTOR.services_by_name["API"].methods_by_name)


@pytest.mark.timeout(180)
async def test_bad_input_gets_a_typed_status_and_hurts_nobody(broker: BrokerProcess) -> None:
    wrong = []
    async with ApiClient(broker.address) as client:
        for one in ROWS:
            code, says = await answer(client, one)
            if code is not one.code or one.says not in says or len(says) > 1024:
                wrong.append(
                    f"{one.method}({str(one.fields)[:150]}): {code} {says[:200]!r}, not {one.code} {one.says!r}"
                )
        assert not wrong, "\n".join(wrong)
        ack = (await client("Publish", stream="there", value=b"last")).ack
        values = [
            one.value
            async for one in client.iterate(stream="there", startPosition=api.EARLIEST, stopPosition=api.STOP_LATEST)
        ]
        assert len(values) == ack.offset + 1
        assert (values[0], values[-1]) == (b"first", b"last")
    assert broker.stop() == 0
    assert "Traceback" not in broker.log()
    assert re.findall(r"level=(?:error|fatal).*", broker.log()) == []
    broker.start()


async def test_garbage_over_nats_is_kept_or_refused_and_hurts_nobody(broker: BrokerProcess, monitor: str) -> None:
    """On a stream's subject whatever isn't an envelope is a message; on the broker's own subjects it is nothing."""
    header = envelope_header(MessageType.PUBLISH)
    garbage = [
        b"",
        b"\0",
        header,
        header[:3],
        header + b"\xff" * 50,
        header[:-1] + b"\xff",
        b"\xb9\x0e\x43\xb4" + b"\xff" * 8,
    ]
    inboxes = ["a b", ">", "", "x" * 5000, INJECTED]
    async with await nats.connect(broker.nats_url) as client:
        for payload in garbage:
            await client.publish("there", payload)
        for inbox in inboxes:
            message = api.Message(value=b"asks for an ack", ackInbox=inbox, ackPolicy=api.LEADER)
            await client.publish("there", header + message.SerializeToString())
        subjects = [one for one in await asyncio.to_thread(subscriptions, monitor) if one.startswith("liftbridge-")]
        assert len(subjects) > 5, await asyncio.to_thread(subscriptions, monitor)
        for subject in subjects:
            for payload in garbage:
                await client.publish(subject, payload, reply="there.answers")
        await client.flush()
        async with ApiClient(broker.address) as api_client:
            ack = (await api_client("Publish", stream="there", value=b"last", ackPolicy=api.ALL)).ack
            stored = await api_client.messages(stream="there", startPosition=api.EARLIEST, stopPosition=api.STOP_LATEST)
    assert stored[-1].value == b"last"
    assert len(stored) == ack.offset + 1
    assert sum(one.value == b"asks for an ack" for one in stored) == len(inboxes)
    assert "Traceback" not in broker.log()


def subscriptions(monitor: str) -> list[str]:
    """What anybody listens on, as nats-server tells; parts with wildcards filled in."""
    with urllib.request.urlopen(f"http://{monitor}/connz?subs=1", timeout=5) as response:
        connections = json.load(response)["connections"]
    patterns = {subject for one in connections for subject in one.get("subscriptions_list", [])}
    return sorted(one.replace("*", "any").replace(">", "any") for one in patterns)
