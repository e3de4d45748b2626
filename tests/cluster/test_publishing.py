"""Publish, PublishAsync, PublishToSubject and plain NATS, against a real broker (reference: the original's API,
section 6, and its NATS page)."""

import asyncio
import uuid

import grpc
import nats
import pytest
from api_client import ApiClient, fails_with
from broker_process import BrokerProcess

from liftbridge.protocol.envelope import HEADER_BYTES, MAGIC, MessageType, envelope_header
from liftbridge.protocol.generated import api_pb2 as api

EARLIEST = api.StartPosition.EARLIEST


@pytest.fixture
async def nats_client(broker: BrokerProcess):
    client = await nats.connect(broker.nats_url)
    yield client
    await client.close()


@pytest.fixture
def subject(stream: str) -> str:
    return f"subject.{stream}"


@pytest.fixture
async def made(client: ApiClient, stream: str, subject: str) -> str:
    await client("CreateStream", name=stream, subject=subject)
    return stream


def envelope(**fields) -> bytes:
    return envelope_header(MessageType.PUBLISH) + api.Message(**fields).SerializeToString()


async def read_all(client: ApiClient, stream: str, **fields) -> list[api.Message]:
    return await client.messages(stream=stream, startPosition=EARLIEST, stopPosition=api.STOP_LATEST, **fields)


# --- Publish ----------------------------------------------------------------------------------------------------------


async def test_everything_of_a_message_comes_back(client: ApiClient, made: str, subject: str) -> None:
    headers = {"a": b"1", "empty": b"", "subject": b"forged"}
    response = await client(
        "Publish", stream=made, key=b"k", value=b"v", headers=headers, correlationId="c-1", ackPolicy=api.ALL
    )
    ack = response.ack
    assert (ack.stream, ack.partitionSubject, ack.msgSubject, ack.offset) == (made, subject, subject, 0)
    assert (ack.correlationId, ack.ackPolicy, ack.ackError) == ("c-1", api.ALL, api.Ack.OK)
    assert ack.ackInbox.startswith("liftbridge-default.ack.")
    assert 0 < ack.receptionTimestamp <= ack.commitTimestamp
    (message,) = await read_all(client, made)
    assert (message.offset, message.key, message.value, message.stream) == (0, b"k", b"v", made)
    assert (message.subject, message.replySubject, message.timestamp) == (subject, "", ack.receptionTimestamp)
    assert dict(message.headers) == {"a": b"1", "empty": b"", "subject": subject.encode(), "reply": b""}
    assert (message.ackInbox, message.correlationId, message.ackPolicy) == ("", "", 0)


async def test_without_a_deadline_the_ack_comes_all_the_same(client: ApiClient, made: str) -> None:
    assert (await client("Publish", stream=made, value=b"x", timeout=None)).ack.offset == 0


async def test_policy_none_stores_and_answers_without_an_ack(client: ApiClient, made: str) -> None:
    response = await client("Publish", stream=made, value=b"x", ackPolicy=api.NONE)
    assert not response.HasField("ack")
    assert len(await read_all(client, made)) == 1


async def test_an_ack_inbox_of_the_client_gets_the_ack_too(client: ApiClient, made: str, nats_client) -> None:
    inbox = nats_client.new_inbox()
    subscription = await nats_client.subscribe(inbox)
    await nats_client.flush()
    await client("Publish", stream=made, value=b"x", ackInbox=inbox, correlationId="mine")
    message = await subscription.next_msg(5)
    ack = api.Ack.FromString(message.data[HEADER_BYTES:])
    assert (ack.stream, ack.correlationId, ack.offset) == (made, "mine", 0)


@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        ({"stream": ""}, grpc.StatusCode.INVALID_ARGUMENT, "no stream provided"),
        ({"stream": "nowhere"}, grpc.StatusCode.NOT_FOUND, "no such stream: nowhere"),
        ({"partition": 1}, grpc.StatusCode.NOT_FOUND, "no such partition: 1"),
        ({"partition": -1}, grpc.StatusCode.NOT_FOUND, "no such partition: -1"),
        ({"value": bytes(1_100_000)}, grpc.StatusCode.INVALID_ARGUMENT, "message exceeds max replication size"),
    ],
)
async def test_what_cannot_be_published_is_refused(client: ApiClient, made: str, fields, code, text) -> None:
    with fails_with(code, text):
        await client("Publish", **{"stream": made, "value": b"x", **fields})
    assert (await client("Publish", stream=made, value=b"y")).ack.offset == 0, "nothing was stored before"


async def test_all_needs_the_minimum_of_replicas_in_sync(client: ApiClient, stream: str) -> None:
    await client("CreateStream", name=stream, subject="lonely", minIsr=api.NullableInt32(value=2))
    assert (await client("Publish", stream=stream, value=b"x")).ack.offset == 0
    with fails_with(grpc.StatusCode.UNAVAILABLE, "nothing was stored"):
        await client("Publish", stream=stream, value=b"y", ackPolicy=api.ALL)
    assert [message.value for message in await read_all(client, stream)] == [b"x"]


# --- PublishAsync -----------------------------------------------------------------------------------------------------


async def test_a_session_answers_each_request_in_order(client: ApiClient, made: str) -> None:
    session = client.publish_async()
    count = 3000

    async def write() -> None:
        for number in range(count):
            value = b"v" * (number % 7 * 50)
            await session.write(api.PublishRequest(stream=made, key=b"k", value=value, correlationId=str(number)))
        await session.done_writing()

    writing = asyncio.create_task(write())
    answers = [answer async for answer in session]
    await writing
    assert [answer.correlationId for answer in answers] == [str(number) for number in range(count)]
    assert [answer.ack.offset for answer in answers] == list(range(count))
    assert all(answer.ack.correlationId == answer.correlationId for answer in answers)
    stored = await read_all(client, made)
    assert [len(message.value) for message in stored] == [number % 7 * 50 for number in range(count)]
    assert {message.key for message in stored} == {b"k"}


async def test_errors_are_answers_and_the_session_goes_on(client: ApiClient, made: str) -> None:
    session = client.publish_async()
    bad = {
        "1": ({"stream": "nowhere"}, api.PublishAsyncError.NOT_FOUND, "no such stream: nowhere"),
        "2": ({"stream": ""}, api.PublishAsyncError.NOT_FOUND, "no such stream: "),
        "3": ({"partition": 9}, api.PublishAsyncError.NOT_FOUND, "no such partition: 9"),
        "4": ({"value": bytes(1_100_000)}, api.PublishAsyncError.BAD_REQUEST, "message exceeds max replication size"),
    }
    for id_, (fields, _, _) in bad.items():
        await session.write(api.PublishRequest(**{"stream": made, "value": b"x", "correlationId": id_, **fields}))
    await session.write(api.PublishRequest(stream=made, value=b"good", correlationId="5"))
    answers = {}
    for _ in range(5):
        answer = await session.read()
        answers[answer.correlationId] = answer
    for id_, (_, code, text) in bad.items():
        assert (answers[id_].asyncError.code, answers[id_].asyncError.message) == (code, text)
        assert answers[id_].HasField("ack"), "old clients look into it"
    assert answers["5"].ack.offset == 0
    assert not answers["5"].HasField("asyncError")
    session.cancel()


async def test_policy_none_gets_answers_only_for_errors(client: ApiClient, made: str) -> None:
    session = client.publish_async()
    for stream in (made, "nowhere"):
        await session.write(api.PublishRequest(stream=stream, value=b"x", correlationId=stream, ackPolicy=api.NONE))
    await session.done_writing()
    answers = [answer async for answer in session]
    assert [answer.correlationId for answer in answers] == ["nowhere"]
    assert len(await read_all(client, made)) == 1


# --- optimistic concurrency -------------------------------------------------------------------------------------------


@pytest.fixture
async def checked(client: ApiClient, stream: str) -> str:
    await client(
        "CreateStream",
        name=stream,
        subject=f"checked.{stream}",
        optimisticConcurrencyControl=api.NullableBool(value=True),
    )
    return stream


async def test_expected_offsets_are_checked_one_by_one(client: ApiClient, checked: str) -> None:
    session = client.publish_async()
    expected = [0, 0, 1, 5, -1, -2, 3]
    for number, offset in enumerate(expected):
        await session.write(
            api.PublishRequest(stream=checked, value=b"x", expectedOffset=offset, correlationId=str(number))
        )
    await session.done_writing()
    answers = {answer.correlationId: answer async for answer in session}
    outcome = [
        answers[str(number)].ack.offset if not answers[str(number)].HasField("asyncError") else "refused"
        for number in range(len(expected))
    ]
    assert outcome == [0, "refused", 1, "refused", 2, "refused", 3]
    assert answers["1"].asyncError.code == api.PublishAsyncError.INCORRECT_OFFSET


async def test_a_wrong_expected_offset_fails_the_call(client: ApiClient, checked: str) -> None:
    await client("Publish", stream=checked, value=b"x", expectedOffset=0)
    with fails_with(grpc.StatusCode.UNKNOWN, "incorrect expected offset"):
        await client("Publish", stream=checked, value=b"x", expectedOffset=0)
    with fails_with(grpc.StatusCode.INVALID_ARGUMENT, "must have AckPolicy set"):
        await client("Publish", stream=checked, value=b"x", expectedOffset=1, ackPolicy=api.NONE)


async def test_of_many_writers_who_expect_one_offset_one_wins(client: ApiClient, checked: str) -> None:
    async def attempt() -> bool:
        try:
            await client("Publish", stream=checked, value=b"x", expectedOffset=0)
        except grpc.aio.AioRpcError:
            return False
        return True

    assert sum(await asyncio.gather(*(attempt() for _ in range(20)))) == 1


# --- NATS -------------------------------------------------------------------------------------------------------------


async def test_plain_payloads_are_stored_as_they_are(client: ApiClient, made: str, subject: str, nats_client) -> None:
    payloads = [b"", b"x", b"hello" * 100, MAGIC, MAGIC + b"\0\xc8\0\0", MAGIC + b"\0\x0c\1\0" + b"bad!data", b"\0"]
    payloads += [b"same size"] * 50
    for payload in payloads:
        await nats_client.publish(subject, payload, reply="answer.here")
    messages = await client.messages(len(payloads), stream=made, startPosition=EARLIEST)
    assert [message.value for message in messages] == payloads
    assert {(message.subject, message.replySubject) for message in messages} == {(subject, "answer.here")}


async def test_an_envelope_has_key_headers_and_an_ack(client: ApiClient, made: str, subject: str, nats_client) -> None:
    inbox = nats_client.new_inbox()
    subscription = await nats_client.subscribe(inbox)
    await nats_client.publish(
        subject, envelope(key=b"k", value=b"v", headers={"h": b"1"}, ackInbox=inbox, correlationId="id")
    )
    reply = await subscription.next_msg(5)
    assert reply.data[:HEADER_BYTES] == envelope_header(MessageType.ACK)
    ack = api.Ack.FromString(reply.data[HEADER_BYTES:])
    assert (ack.stream, ack.offset, ack.correlationId, ack.ackInbox) == (made, 0, "id", inbox)
    (message,) = await read_all(client, made)
    assert (message.key, message.value, message.headers["h"]) == (b"k", b"v", b"1")


async def test_a_published_message_reaches_nats_subscribers_once_and_is_stored_once(
    client: ApiClient, made: str, subject: str, nats_client
) -> None:
    subscription = await nats_client.subscribe(subject)
    await nats_client.flush()
    await client("Publish", stream=made, key=b"k", value=b"v", correlationId="c")
    received = await subscription.next_msg(5)
    mirrored = api.Message.FromString(received.data[HEADER_BYTES:])
    assert (mirrored.key, mirrored.value, mirrored.correlationId) == (b"k", b"v", "c")
    await client("Publish", stream=made, value=b"last")
    assert [message.value for message in await read_all(client, made)] == [b"v", b"last"]


async def test_each_stream_on_a_subject_has_its_own_copy(client: ApiClient, stream: str, nats_client) -> None:
    names = [f"{stream}-{number}" for number in range(3)]
    for name in names[:2]:
        await client("CreateStream", name=name, subject="shared.here")
    await client("CreateStream", name=names[2], subject="shared.*")
    await client("Publish", stream=names[0], value=b"by grpc")
    await nats_client.publish("shared.here", b"by nats")
    for name in names:
        messages = await client.messages(2, stream=name, startPosition=EARLIEST)
        assert [message.value for message in messages] == [b"by grpc", b"by nats"]
        assert {message.subject for message in messages} == {"shared.here"}


async def test_partitions_listen_on_subjects_of_their_own(client: ApiClient, stream: str, nats_client) -> None:
    await client("CreateStream", name=stream, subject="parted", partitions=3)
    await nats_client.publish("parted.2", b"second")
    await client("Publish", stream=stream, partition=1, value=b"first")
    for partition, value in ((1, b"first"), (2, b"second")):
        (message,) = await client.messages(1, stream=stream, partition=partition, startPosition=EARLIEST)
        assert (message.value, message.partition) == (value, partition)
        assert message.subject == f"parted.{partition}"
    assert (await client("FetchPartitionMetadata", stream=stream)).metadata.newestOffset == -1


async def test_wildcard_streams_record_the_concrete_subject(client: ApiClient, stream: str, nats_client) -> None:
    await client("CreateStream", name=stream, subject="wild.>")
    for subject in ("wild.a", "wild.b.c"):
        await nats_client.publish(subject, subject.encode())
    messages = await client.messages(2, stream=stream, startPosition=EARLIEST)
    assert [(message.subject, message.value) for message in messages] == [
        ("wild.a", b"wild.a"),
        ("wild.b.c", b"wild.b.c"),
    ]


async def test_a_load_balance_group_shares_the_messages(client: ApiClient, stream: str, nats_client) -> None:
    names = [f"{stream}-a", f"{stream}-b", f"{stream}-all"]
    for name, group in zip(names, ("g", "g", ""), strict=True):
        await client("CreateStream", name=name, subject="balanced", group=group)
    for number in range(60):
        await nats_client.publish("balanced", b"%d" % number)
    assert len(await client.messages(60, stream=names[2], startPosition=EARLIEST)) == 60
    acks = [(await client("Publish", stream=names[0], value=b"grpc")).ack for _ in range(20)]
    assert {ack.stream for ack in acks} <= set(names), "NATS chooses the member, the original's rule"
    await client.messages(80, stream=names[2], startPosition=EARLIEST)
    newest = [(await client("FetchPartitionMetadata", stream=name)).metadata.newestOffset + 1 for name in names]
    while newest[0] + newest[1] < 80:
        newest = [(await client("FetchPartitionMetadata", stream=name)).metadata.newestOffset + 1 for name in names]
    assert newest[0] + newest[1] == 80
    assert newest[0] > 0
    assert newest[1] > 0
    assert newest[2] == 80


# --- PublishToSubject -------------------------------------------------------------------------------------------------


async def test_publish_to_subject_is_acked_by_who_listens(client: ApiClient, made: str, subject: str) -> None:
    response = await client("PublishToSubject", subject=subject, key=b"k", value=b"v", headers={"h": b"1"})
    assert (response.ack.stream, response.ack.offset) == (made, 0)
    (message,) = await read_all(client, made)
    assert (message.key, message.headers["h"]) == (b"k", b"1")


async def test_publish_to_a_subject_where_nobody_listens_times_out(client: ApiClient) -> None:
    with fails_with(grpc.StatusCode.DEADLINE_EXCEEDED, ""):
        await client("PublishToSubject", subject=f"nobody.{uuid.uuid4()}", value=b"v", timeout=0.3)


@pytest.mark.parametrize("subject", ["", "a b", "a..b", "a.*", ">"])
async def test_publish_to_a_bad_subject_is_refused(client: ApiClient, subject: str) -> None:
    with fails_with(grpc.StatusCode.INVALID_ARGUMENT, "Subject is invalid"):
        await client("PublishToSubject", subject=subject, value=b"v")


async def test_a_refusal_of_publish_to_subject_is_an_ack_with_an_error(client: ApiClient, checked: str) -> None:
    subject = f"checked.{checked}"
    assert (await client("PublishToSubject", subject=subject, value=b"v")).ack.ackError == api.Ack.OK
    refused = (await client("PublishToSubject", subject=subject, value=b"v")).ack
    assert refused.ackError == api.Ack.INCORRECT_OFFSET
