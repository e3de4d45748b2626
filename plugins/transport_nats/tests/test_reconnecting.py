"""What happens when NATS goes away, comes back, is slow, says no, or says nonsense: on a real nats-server."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats_process import NatsProcess, TcpProxy, write_config
from nats_transports import nats_transport

from liftbridge.errors import NoResponders, PayloadTooLarge, TransportClosed, TransportError
from liftbridge.testing.transport_suite import Collector
from liftbridge_transport_nats import transport as transport_module
from liftbridge_transport_nats.transport import NatsTransport

#: There is no other way yet that all supported versions of pytest-asyncio have.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy")

Make = Callable[..., NatsTransport]


@pytest.fixture
def server() -> Iterator[NatsProcess]:
    process = NatsProcess()
    process.start()
    yield process
    process.stop()


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[NatsTransport] = []

    def create(url: str, server_id: str = "a", **changes: Any) -> NatsTransport:
        transport = nats_transport(url, server_id, **changes)
        made.append(transport)
        return transport

    yield create
    for transport in made:
        await transport.stop()


class Changes:
    """Connection changes, and waiting for them."""

    def __init__(self, transport: NatsTransport) -> None:
        self.seen: list[bool] = []
        self._event = asyncio.Event()
        transport.on_connection_change(self._changed)

    def _changed(self, connected: bool) -> None:
        self.seen.append(connected)
        self._event.set()

    async def wait_for(self, connected: bool) -> None:
        async with asyncio.timeout(10):
            while not self.seen or self.seen[-1] is not connected:
                self._event.clear()
                await self._event.wait()


async def test_subscriptions_of_every_kind_live_on_when_nats_is_killed_and_comes_back(
    server: NatsProcess, make: Make
) -> None:
    a, b = make(server.url, "a"), make(server.url, "b")
    await a.start()
    await b.start()
    changes, other_changes = Changes(a), Changes(b)
    plain, hidden, queued = Collector(), Collector(), Collector()
    await a.subscribe("s", plain)
    await a.subscribe("s", hidden, echo=False)
    await a.subscribe("s", queued, queue="q")
    await a.subscribe("service", lambda ds: a.publish(ds[0].reply, [b"answer"]))
    for turn in range(2):
        server.kill()
        await changes.wait_for(False)
        assert not a.connected
        server.start()
        await changes.wait_for(True)
        await other_changes.wait_for(True)
        assert a.connected
        b.publish("s", [b"%d" % turn])
        for collector in (plain, hidden, queued):
            assert await collector.wait_for(turn + 1) == [b"%d" % i for i in range(turn + 1)]
        assert await b.request("service", b"", timeout_s=5) == b"answer"
    assert changes.seen == [False, True, False, True]


async def test_while_nats_is_away_publishes_wait_up_to_the_bound_and_arrive_in_order(
    server: NatsProcess, make: Make
) -> None:
    proxy = TcpProxy(server.port)
    await proxy.start()
    a, b = make(f"nats://127.0.0.1:{proxy.port}", "a", buffer_max_size=10_000), make(server.url, "b")
    await a.start()
    await b.start()
    changes = Changes(a)
    got = Collector()
    await b.subscribe("s", got)
    proxy.accepting = False
    proxy.cut()
    await changes.wait_for(False)
    taken = []
    with pytest.raises(TransportClosed, match=r"is away.*transport\.nats\.buffer\.max\.size"):
        while len(taken) < 100:
            payload = b"%04d" % len(taken) + b"x" * 1000
            a.publish("s", [payload])
            taken.append(payload)
    assert 5 <= len(taken) < 10
    with pytest.raises(TransportClosed):
        await a.subscribe("s", got)
    with pytest.raises(TransportClosed):
        await a.request("s", b"", timeout_s=1)
    with pytest.raises(TransportClosed):
        await a.flush(timeout_s=1)
    proxy.accepting = True
    await changes.wait_for(True)
    a.publish("s", [b"end"])
    assert await got.wait_for(len(taken) + 1) == [*taken, b"end"]
    await a.stop()
    await proxy.stop()


async def test_what_is_published_between_the_loss_of_the_socket_and_its_notice_arrives(
    server: NatsProcess, make: Make
) -> None:
    a, b = make(server.url, "a"), make(server.url, "b")
    await a.start()
    await b.start()
    got = Collector()
    await b.subscribe("s", got)
    changes = Changes(a)
    assert a._main is not None
    a._main.bulk._transport._io_writer.transport.abort()
    assert a._main.client.is_connected, "nats-py has noticed"
    a.publish("s", [b"at once"])
    a.publish("s", [b"with others"], deferrable=True)
    await changes.wait_for(True)
    assert await got.wait_for(2) == [b"at once", b"with others"]


async def test_a_slow_nats_fills_the_buffer_and_then_publishes_are_refused(server: NatsProcess, make: Make) -> None:
    a = make(server.url, buffer_max_size=1_000_000)
    await a.start()
    server.pause()
    try:
        with pytest.raises(TransportClosed, match="is slow"):
            for _ in range(1000):
                a.publish("s", [b"x" * 100_000])
                await asyncio.sleep(0)
    finally:
        server.resume()
    await a.flush(timeout_s=5)
    a.publish("s", [b"again"])


async def test_garbage_from_the_server_is_logged_and_answered_with_a_new_connection(
    server: NatsProcess, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = TcpProxy(server.port)
    await proxy.start()
    a = make(f"nats://127.0.0.1:{proxy.port}")
    await a.start()
    changes = Changes(a)
    got = Collector()
    await a.subscribe("s", got)
    for garbage in (b"\0\xff\r\n", b"MSG s 1 -1\r\n", b"INFO {nonsense\r\n", b"MSG \xff 1000 0\r\n\r\n"):
        changes.seen.clear()
        proxy.inject(garbage)
        if garbage.startswith(b"MSG \xff"):
            break  # for nobody we know: passed over
        await changes.wait_for(False)
        await changes.wait_for(True)
    a.publish("s", [b"alive"])
    assert await got.wait_for(1) == [b"alive"]
    assert "isn't one" in caplog.text
    await a.stop()
    await proxy.stop()


@pytest.mark.parametrize("error", [b"-ERR 'Slow Consumer'\r\n", b"-ERR 'Stale Connection'\r\n", b"-ERR 'whatever'\r\n"])
async def test_whatever_reason_the_server_hangs_up_for_we_come_back(
    server: NatsProcess, make: Make, error: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = TcpProxy(server.port)
    await proxy.start()
    a = make(f"nats://127.0.0.1:{proxy.port}")
    await a.start()
    changes = Changes(a)
    proxy.inject(error)
    await changes.wait_for(False)
    await changes.wait_for(True)
    assert error[6:-3].decode() in caplog.text
    await a.stop()
    await proxy.stop()


async def test_a_subscription_that_is_being_made_while_nats_goes_away_is_refused_and_leaves_nothing(
    server: NatsProcess, make: Make
) -> None:
    a = make(server.url)
    await a.start()
    changes = Changes(a)
    got = Collector()
    server.pause()
    making = asyncio.create_task(a.subscribe("s", got))
    flushing = asyncio.create_task(a.flush(timeout_s=10))
    await asyncio.sleep(0)
    server.kill()
    with pytest.raises(TransportClosed):
        await making
    with pytest.raises(TransportClosed):
        await flushing
    server.start()
    await changes.wait_for(True)
    witness = Collector()
    await a.subscribe("s", witness)
    a.publish("s", [b"x"])
    await witness.wait_for(1)
    assert got.payloads == []


async def test_a_sink_that_fails_harms_nobody_else(
    server: NatsProcess, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    a = make(server.url)
    await a.start()

    def broken(_: object) -> None:
        raise RuntimeError("a bug in the sink")

    got = Collector()
    await a.subscribe("s", broken)
    await a.subscribe("s", got)
    a.publish("s", [b"1"])
    await got.wait_for(1)
    a.publish("s", [b"2"])
    assert await got.wait_for(2) == [b"1", b"2"]
    assert "a bug in the sink" in caplog.text


async def test_max_payload_follows_the_server(make: Make, tmp_path: Path) -> None:
    server = NatsProcess("-c", str(write_config(tmp_path, "max_payload: 1000\n")))
    server.start()
    a = make(server.url)
    await a.start()
    changes = Changes(a)
    assert a.max_payload_bytes == 1000
    with pytest.raises(PayloadTooLarge, match="1000"):
        a.publish("s", [b"x" * 1001])
    write_config(tmp_path, "max_payload: 500\n")
    server.kill()
    await changes.wait_for(False)
    server.start()
    await changes.wait_for(True)
    assert a.max_payload_bytes == 500
    await a.stop()
    server.stop()


async def test_connections_are_named_after_namespace_server_and_role(make: Make, server: NatsProcess) -> None:
    a = make(server.url)
    await a.start()
    assert a._main is not None
    assert a._data is not None
    assert a._main.name == "LIFT.test.a.main"
    assert a._data.name == "LIFT.test.a.data"


async def test_a_start_without_nats_names_the_servers_and_the_reason(make: Make, server: NatsProcess) -> None:
    server.stop()
    a = make(server.url)
    with pytest.raises(TransportError, match=rf"failed to connect to NATS at {server.url}: .*[Cc]onnect"):
        await a.start()
    with pytest.raises(TransportClosed):
        a.publish("s", [b"x"])


async def test_failed_attempts_to_reconnect_are_logged_once_not_four_times_a_second(
    server: NatsProcess, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    a = make(server.url)
    await a.start()
    changes = Changes(a)
    server.kill()
    await changes.wait_for(False)
    assert a._main is not None
    async with asyncio.timeout(10):
        while max(s.reconnects for s in a._main.client._server_pool) < 5:
            await asyncio.sleep(0.01)
    server.start()
    await changes.wait_for(True)
    assert sum("Connect call failed" in record.message for record in caplog.records) <= 4
    assert f'Connection "LIFT.test.a.main" reconnected to NATS at "127.0.0.1:{server.port}"' in caplog.text
    assert 'Connection "LIFT.test.a.main" has been disconnected from NATS' in caplog.text


async def test_requests_while_nats_is_away_fail_at_once_and_leave_nothing(server: NatsProcess, make: Make) -> None:
    transport = make(server.url)
    await transport.start()
    changes = Changes(transport)
    with pytest.raises(NoResponders):
        await transport.request("nobody", b"", timeout_s=5)
    main = transport._main
    assert main is not None
    server.kill()
    async with asyncio.timeout(10):
        while main.client.is_connected:  # each connection notices for itself, the client before our own flag
            await asyncio.sleep(0)
    for _ in range(3):
        with pytest.raises(TransportClosed, match="NATS is away"):
            await transport.request("nobody", b"", timeout_s=5)
    await changes.wait_for(False)
    assert not vars(main.client)["_resp_map"]
    server.start()
    await changes.wait_for(True)


async def test_what_listens_there_but_is_no_nats_gives_no_answer(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("liftbridge_transport_nats.connection._CONNECT_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"nats://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(
            TransportError, match=rf"failed to connect to NATS at {url}: no answer\. Is it running there"
        ):
            await make(url).start()


async def test_a_request_is_cancelled_even_when_its_reply_comes_at_the_same_time(
    server: NatsProcess, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nats-py waits with ``wait_for``, which loses the cancellation in Python 3.11."""
    transport = make(server.url)
    await transport.start()
    assert transport._main is not None
    reply = asyncio.get_running_loop().create_future()

    async def request(subject: str, payload: bytes, *, timeout: float) -> object:
        del subject, payload
        return await asyncio.wait_for(reply, timeout)

    monkeypatch.setattr(transport._main.client, "request", request)
    asking = asyncio.create_task(transport.request("service", b"", timeout_s=10))
    await asyncio.sleep(0)
    reply.set_result(Msg(transport._main.client, data=b"reply"))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_stopping_ends_though_nats_py_does_not_close(
    server: NatsProcess, make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(transport_module, "_CLOSE_TIMEOUT_S", 0.05)
    transport = make(server.url)
    await transport.start()
    assert transport._main is not None
    client, done = transport._main.client, asyncio.Event()
    close = client.close

    async def deaf_close() -> None:
        while not done.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await done.wait()

    monkeypatch.setattr(client, "close", deaf_close)
    async with asyncio.timeout(10):
        await transport.stop()
    done.set()
    await close()
    assert "NATS takes nothing" in caplog.text
