"""Direct links between servers, on real sockets beside a real nats-server: they are used when they can be, and never missed."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from nats_process import NatsProcess
from nats_transports import nats_transport

from liftbridge.errors import PayloadTooLarge, TransportClosed
from liftbridge.interfaces.transport import Delivery
from liftbridge.testing.transport_suite import Collector
from liftbridge_transport_nats import incoming_link
from liftbridge_transport_nats.bulk import BulkConnection
from liftbridge_transport_nats.frames import (
    HELLO_BYTES,
    MAGIC,
    TOKEN_BYTES,
    WELCOME,
    Announcement,
    encode_announcement,
)
from liftbridge_transport_nats.links import DirectLinks
from liftbridge_transport_nats.transport import NatsTransport

#: There is no other way yet that all supported versions of pytest-asyncio have.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy")

Make = Callable[..., NatsTransport]
_TIMEOUT_S = 10.0


@pytest.fixture
def server() -> Iterator[NatsProcess]:
    process = NatsProcess()
    process.start()
    yield process
    process.stop()


@pytest.fixture
async def make(server: NatsProcess) -> AsyncIterator[Make]:
    made: list[NatsTransport] = []

    def create(server_id: str, **changes: Any) -> NatsTransport:
        transport = nats_transport(server.url, server_id, **changes)
        made.append(transport)
        return transport

    yield create
    for transport in made:
        await transport.stop()


class Ear:
    """A subscription of server "b", and who listens on NATS beside it."""

    def __init__(self) -> None:
        self.direct, self.over_nats = Collector(), Collector()


async def listen(b: NatsTransport, other: NatsTransport, subject: str = "to.b") -> Ear:
    ear = Ear()
    await b.subscribe_direct(subject, ear.direct)
    await other.subscribe(subject, ear.over_nats)
    return ear


async def until_direct(a: NatsTransport, subject: str = "to.b", *, there: bool = True) -> None:
    """Returns once what ``a`` publishes to the subject takes a link, or no longer."""
    async with asyncio.timeout(_TIMEOUT_S):
        while (a._links.find(subject) is not None) is not there:
            await asyncio.sleep(0.01)


async def until_hung_up(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionResetError):
        assert await asyncio.wait_for(reader.read(), _TIMEOUT_S) == b""


async def pair(make: Make, **changes: Any) -> tuple[NatsTransport, NatsTransport, Ear]:
    a, b = make("a", **changes), make("b", **changes)
    await a.start()
    await b.start()
    return a, b, await listen(b, a)


async def test_what_is_published_directly_does_not_pass_nats(make: Make) -> None:
    a, _b, ear = await pair(make)
    await until_direct(a)
    payloads = [b"%d" % i * (i % 19) for i in range(2000)]
    for start in range(0, len(payloads), 50):
        a.publish_direct("to.b", payloads[start : start + 50], reply="back.to.a")
    assert await ear.direct.wait_for(len(payloads)) == payloads
    assert {(subject, reply) for subject, reply, _ in ear.direct.messages} == {("to.b", "back.to.a")}
    await a.flush(timeout_s=_TIMEOUT_S)
    assert ear.over_nats.messages == []


async def test_what_everybody_may_hear_goes_over_nats(make: Make) -> None:
    a, _b, ear = await pair(make)
    await until_direct(a)
    a.publish("to.b", [b"x"])
    assert await ear.direct.wait_for(1) == await ear.over_nats.wait_for(1) == [b"x"]


async def test_a_subscription_to_all_below_a_subject_hears_on_the_link(make: Make) -> None:
    a, b = make("a"), make("b")
    await b.start()
    got = Collector()
    await b.subscribe_direct("answers.b.>", got)
    await a.start()
    await until_direct(a, "answers.b.from.a")
    a.publish_direct("answers.b.from.a", [b"1"])
    await got.wait_for(1)
    assert got.messages == [("answers.b.from.a", "", b"1")]
    assert a._links.find("answers.c.from.a") is None


async def test_before_there_is_a_link_messages_go_over_nats(make: Make) -> None:
    a, b = make("a"), make("b", links=False)
    await a.start()
    await b.start()
    ear = await listen(b, a)
    a.publish_direct("to.b", [b"x"])
    assert await ear.direct.wait_for(1) == [b"x"]
    assert a._links.find("to.b") is None


async def test_largest_messages_fit_and_larger_ones_are_refused(make: Make) -> None:
    a, _b, ear = await pair(make)
    await until_direct(a)
    largest = b"x" * a.max_payload_bytes
    a.publish_direct("to.b", [largest, b"", largest])
    with pytest.raises(PayloadTooLarge):
        a.publish_direct("to.b", [largest + b"y"])
    assert await ear.direct.wait_for(3) == [largest, b"", largest]
    assert ear.over_nats.messages == []


async def test_nothing_arrives_after_unsubscribe(make: Make) -> None:
    a, b = make("a"), make("b")
    await a.start()
    await b.start()
    left, stays = Collector(), Collector()
    subscription = await b.subscribe_direct("left", left)
    await b.subscribe_direct("stays", stays)
    await until_direct(a, "left")
    a.publish_direct("left", [b"1"])
    await left.wait_for(1)
    await subscription.unsubscribe()
    await subscription.unsubscribe()
    a.publish_direct("left", [b"2"])
    a.publish_direct("stays", [b"end"])
    await stays.wait_for(1)
    assert left.payloads == [b"1"]
    await until_direct(a, "left", there=False)


async def test_a_server_that_starts_again_is_found_again(make: Make) -> None:
    a, b, _ear = await pair(make)
    await until_direct(a)
    await b.stop()
    await until_direct(a, there=False)
    again = make("b")
    await again.start()
    ear = await listen(again, a)
    await until_direct(a)
    a.publish_direct("to.b", [b"again"])
    assert await ear.direct.wait_for(1) == [b"again"]
    assert ear.over_nats.messages == []


async def test_a_link_that_breaks_is_made_anew_and_messages_go_over_nats_meanwhile(make: Make) -> None:
    a, b, ear = await pair(make)
    await until_direct(a)
    for link in b._links.incoming:
        link.close()
    await until_direct(a, there=False)
    a.publish_direct("to.b", [b"meanwhile"])
    assert await ear.over_nats.wait_for(1) == await ear.direct.wait_for(1) == [b"meanwhile"]
    b._links.ask()
    await until_direct(a)
    a.publish_direct("to.b", [b"afterwards"])
    assert await ear.direct.wait_for(2) == [b"meanwhile", b"afterwards"]
    assert ear.over_nats.payloads == [b"meanwhile"]


async def test_links_outlive_nats(make: Make, server: NatsProcess) -> None:
    a, _b, ear = await pair(make)
    await until_direct(a)
    server.kill()
    a.publish_direct("to.b", [b"x"])
    assert await ear.direct.wait_for(1) == [b"x"]
    server.start()


async def test_a_server_that_takes_nothing_is_not_sent_to_for_ever(make: Make, server: NatsProcess) -> None:
    a = make("a", buffer_max_size=1024 * 1024)
    await a.start()
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        token = b"t" * 16
        announcement = Announcement("b", "127.0.0.1", deaf.getsockname()[1], token, {1: "to.b"})
        a._links.hear([_announced(announcement)])
        loop = asyncio.get_running_loop()
        connection, _ = await loop.run_in_executor(None, deaf.accept)
        with connection:
            hello = await loop.run_in_executor(None, connection.recv, HELLO_BYTES, socket.MSG_WAITALL)
            assert hello == MAGIC + token
            connection.sendall(WELCOME)
            await until_direct(a)
            with pytest.raises(TransportClosed, match=r"server b is slow.*buffer\.max\.size"):
                for _ in range(100):
                    a.publish_direct("to.b", [b"x" * 256 * 1024])


def _announced(announcement: Announcement) -> Delivery:
    return Delivery("test.links", "", [encode_announcement(announcement)])


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", MAGIC + b"?" * 16, b"\0" * HELLO_BYTES])
async def test_who_does_not_know_the_token_is_hung_up_on(
    said: bytes, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    a, _b, ear = await pair(make)
    await until_direct(a)
    reader, writer = await asyncio.open_connection(a._links._host, a._links._port)
    writer.write(said)
    await until_hung_up(reader)
    writer.close()
    assert "isn't a server of this cluster" in caplog.text
    a.publish_direct("to.b", [b"x"])
    assert await ear.direct.wait_for(1) == [b"x"]


async def test_nonsense_on_a_link_ends_that_link_only(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    a, b, ear = await pair(make)
    await until_direct(a)
    reader, writer = await asyncio.open_connection(b._links._host, b._links._port)
    writer.write(b._links.hello)
    assert await reader.readexactly(1) == WELCOME
    writer.write(b"\xff" * 64)
    await until_hung_up(reader)
    writer.close()
    assert "hanging up" in caplog.text
    a.publish_direct("to.b", [b"x"])
    assert await ear.direct.wait_for(1) == [b"x"]
    assert ear.over_nats.messages == []


async def test_a_server_that_cannot_be_reached_is_complained_of_once(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    a = make("a")
    await a.start()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    announcement = Announcement("b", "127.0.0.1", port, b"t" * 16, {1: "to.b"})
    for _ in range(2):
        a._links.hear([_announced(announcement)])
        async with asyncio.timeout(_TIMEOUT_S):
            while a._links._peers["b"].link is not None:
                await asyncio.sleep(0.01)
    assert [record.getMessage().split(" (")[0] for record in caplog.records if record.levelno == logging.WARNING] == [
        f"server b can't be reached directly at 127.0.0.1:{port}"
    ]
    assert a._links.find("to.b") is None


async def test_what_is_no_announcement_is_ignored(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    a, _b, ear = await pair(make)
    await until_direct(a)
    a.publish("test.links", [b"", b"{}", b"\xff"])
    a.publish_direct("to.b", [b"x"])
    await ear.direct.wait_for(1)
    await a.flush(timeout_s=_TIMEOUT_S)
    assert "not an announcement" in caplog.text


async def test_an_address_of_another_machine_itself_is_not_tried() -> None:
    """There it would be somebody else, who had better not hear the token."""
    links = DirectLinks("a", lambda _announcement: None, max_buffered_bytes=1024)
    try:
        await links.start("0.0.0.0")
        with socket.create_server(("127.0.0.1", 0)) as stranger:
            stranger.settimeout(0.2)
            links.hear([_announced(Announcement("b", "127.0.0.1", stranger.getsockname()[1], b"t" * 16, {}))])
            with pytest.raises(TimeoutError):
                await asyncio.get_running_loop().run_in_executor(None, stranger.accept)
    finally:
        await links.stop()


# --- the other end, played by the test --------------------------------------------------------------------------------


class Played:
    """Server "b", which takes links and says what the test says."""

    def __init__(self) -> None:
        self.token = b"t" * TOKEN_BYTES
        self.greeted: list[tuple[asyncio.StreamReader, bytes]] = []
        #: Who forgets a writer closes its connection, since Python 3.13.
        self.writers: list[asyncio.StreamWriter] = []
        self.arrived: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def start(self) -> None:
        self.server = await asyncio.start_server(lambda *streams: self.arrived.put_nowait(streams), "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    def announcement(self, token: bytes = b"", subscriptions: dict[int, str] | None = None) -> Delivery:
        return _announced(Announcement("b", "127.0.0.1", self.port, token or self.token, subscriptions or {1: "to.b"}))

    async def accept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.wait_for(self.arrived.get(), _TIMEOUT_S)
        self.writers.append(writer)
        hello = await asyncio.wait_for(reader.readexactly(HELLO_BYTES), _TIMEOUT_S)
        assert hello.startswith(MAGIC)
        self.greeted.append((reader, hello.removeprefix(MAGIC)))
        writer.write(WELCOME)
        return reader, writer


@pytest.fixture
async def played() -> AsyncIterator[Played]:
    b = Played()
    await b.start()
    yield b
    b.server.close()


async def test_stop_sends_what_is_buffered(make: Make, played: Played) -> None:
    a = make("a")
    await a.start()
    a._links.hear([played.announcement()])
    reader, _writer = await played.accept()
    await until_direct(a)
    payload = b"x" * 1024 * 1024
    for _ in range(6):
        a.publish_direct("to.b", [payload])
    stopping = asyncio.ensure_future(a.stop())
    received = await asyncio.wait_for(reader.read(), _TIMEOUT_S)
    assert received.count(b"x") == 6 * len(payload)
    await stopping


async def test_stop_does_not_wait_for_ever_for_who_reads_nothing(make: Make, played: Played) -> None:
    a = make("a")
    await a.start()
    a._links.hear([played.announcement()])
    await played.accept()
    await until_direct(a)
    for _ in range(7):
        a.publish_direct("to.b", [b"x" * 1024 * 1024])
    async with asyncio.timeout(_TIMEOUT_S):
        await a.stop()


@pytest.mark.parametrize("turns", range(5))
async def test_a_link_that_is_given_up_before_it_is_there_leaves_no_connection(
    turns: int, make: Make, played: Played
) -> None:
    """The server was started again, and what the earlier start announced arrived just before."""
    a = make("a")
    await a.start()
    again = b"n" * TOKEN_BYTES
    a._links.hear([played.announcement()])
    for _ in range(turns):
        await asyncio.sleep(0)
    a._links.hear([played.announcement(token=again)])
    await until_direct_after(a, played, again)
    for reader, token in played.greeted:
        if token != again:
            await until_hung_up(reader)


async def until_direct_after(a: NatsTransport, played: Played, token: bytes) -> None:
    while token not in [told for _, told in played.greeted]:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await played.accept()
    await until_direct(a)


async def test_a_server_that_starts_again_while_it_is_connected_to_is_not_complained_of(
    make: Make, played: Played, caplog: pytest.LogCaptureFixture
) -> None:
    a = make("a")
    await a.start()
    a._links.hear([played.announcement()])
    old, _ = await asyncio.wait_for(played.arrived.get(), _TIMEOUT_S)
    again = b"n" * TOKEN_BYTES
    a._links.hear([played.announcement(token=again)])
    await until_direct_after(a, played, again)
    await old.readexactly(HELLO_BYTES)
    await until_hung_up(old)
    assert "can't be reached" not in caplog.text


async def test_more_strangers_than_servers_are_hung_up_on(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(incoming_link, "_MAX_INCOMING", 3)
    _a, b, _ear = await pair(make)
    async with asyncio.timeout(_TIMEOUT_S):
        while len(b._links.incoming) < 1:
            await asyncio.sleep(0.01)
    strangers = [await asyncio.open_connection(b._links._host, b._links._port) for _ in range(6)]
    for reader, _ in strangers[2:]:
        await until_hung_up(reader)
    assert len(b._links.incoming) == 3
    for _, writer in strangers[:2]:
        writer.write(b"?" * HELLO_BYTES)
    for reader, writer in strangers:
        await until_hung_up(reader)
        writer.close()
    assert caplog.text.count("isn't a server of this cluster") == 1


async def test_stopping_while_a_link_opens_leaves_no_connection(make: Make, played: Played) -> None:
    a = make("a")
    await a.start()
    a._links.hear([played.announcement()])
    reader, _writer = await asyncio.wait_for(played.arrived.get(), _TIMEOUT_S)
    await reader.readexactly(HELLO_BYTES)
    await a.stop()
    await until_hung_up(reader)


@pytest.mark.parametrize("number", [-1, 1 << 32, 1 << 80])
async def test_a_number_that_no_frame_can_carry_is_no_announcement(
    number: int, make: Make, played: Played, caplog: pytest.LogCaptureFixture
) -> None:
    a = make("a")
    await a.start()
    a._links.hear([played.announcement(subscriptions={number: "to.b"})])
    assert "not an announcement" in caplog.text


async def test_announcements_do_not_wait_for_nats(make: Make, server: NatsProcess) -> None:
    """There would be one for every few seconds that it was away."""
    a = make("a")
    await a.start()
    server.kill()
    async with asyncio.timeout(_TIMEOUT_S):
        while a.connected:
            await asyncio.sleep(0.01)
    assert a._main is not None
    before = a._main.bulk.buffered_bytes
    for _ in range(3):
        a._links._announce_now()
    assert a._main.bulk.buffered_bytes == before
    server.start()


async def test_links_over_ipv6() -> None:
    heard = Collector()
    b_said: list[bytes] = []
    a, b = (DirectLinks(name, b_said.append, max_buffered_bytes=1 << 20) for name in "ab")
    try:
        await b.start("::1")
        await a.start("::1")
        b.add("to.b", heard)
        b._announce_now()
        a.hear([Delivery("test.links", "", b_said[-1:])])
        async with asyncio.timeout(_TIMEOUT_S):
            while (way := a.find("to.b")) is None:
                await asyncio.sleep(0.01)
        way.publish([b"x"], "")
        assert await heard.wait_for(1) == [b"x"]
    finally:
        await a.stop()
        await b.stop()


async def test_nats_that_is_away_for_a_moment_while_links_start(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links are never a condition for anything, so not for a start either."""
    round_trip, failures = BulkConnection.round_trip, [TransportClosed("there is no connection to NATS now")]

    async def fails_once(bulk: BulkConnection, timeout_s: float) -> None:
        if failures:
            raise failures.pop()
        await round_trip(bulk, timeout_s)

    monkeypatch.setattr(BulkConnection, "round_trip", fails_once)
    a, b, ear = await pair(make)
    await until_direct(a)
    a.publish_direct("to.b", [b"x"])
    assert await ear.direct.wait_for(1) == [b"x"]
    assert b.connected
