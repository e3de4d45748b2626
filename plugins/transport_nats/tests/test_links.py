"""Direct links between servers, on real sockets beside a real nats-server: they are used when they can be, and never missed."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from nats_process import NatsProcess

from liftbridge.errors import PayloadTooLarge, TransportClosed
from liftbridge.interfaces.transport import Delivery
from liftbridge.testing.transport_suite import Collector
from liftbridge_transport_nats.frames import HELLO_BYTES, MAGIC, WELCOME, Announcement, encode_announcement
from liftbridge_transport_nats.links import DirectLinks
from liftbridge_transport_nats.plugin import liftbridge_add_settings
from liftbridge_transport_nats.transport import NatsTransport

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
        settings = {setting.name: setting.default for setting in liftbridge_add_settings()}
        settings["transport.nats.servers"] = (server.url,)
        settings["transport.nats.reconnect.wait"] = 0.02
        settings |= {f"transport.nats.{name.replace('_', '.')}": value for name, value in changes.items()}
        transport = NatsTransport(settings, namespace="test", server_id=server_id)
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
