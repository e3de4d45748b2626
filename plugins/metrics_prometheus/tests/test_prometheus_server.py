"""The endpoint on real sockets: scrapes, health, and everybody who doesn't behave."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from liftbridge.errors import ConfigError
from liftbridge.interfaces.context import EndpointContext
from liftbridge.interfaces.figures import (
    GroupPosition,
    LeaderFigures,
    LogFigures,
    ReplicaFigures,
    ReplicaRole,
    ServerFigures,
)
from liftbridge.testing.scripted_broker import ScriptedBroker
from liftbridge.testing.virtual_clock import VirtualClock
from liftbridge_metrics_prometheus import machine, plugin, scraping, server
from liftbridge_metrics_prometheus.exposition import partition_pieces
from liftbridge_metrics_prometheus.machine import Machine, MachineFigures, disk_of
from liftbridge_metrics_prometheus.scraping import Scrapes
from liftbridge_metrics_prometheus.server import PrometheusEndpoint

GET = b"GET %s HTTP/1.1\r\nHost: test\r\n\r\n"


class StepClock(VirtualClock):
    """Moves by ``step_s`` each time somebody looks."""

    step_s = 0.0

    def monotonic_ns(self) -> int:
        self.advance(self.step_s)
        return super().monotonic_ns()


class CountingBroker(ScriptedBroker):
    """Counts the scrapes, and raises the ``problem`` if there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.scrapes = 0
        self.problem: Exception | None = None

    def figures(self) -> ServerFigures:
        self.scrapes += 1
        if self.problem is not None:
            raise self.problem
        return super().figures()


class Answer(NamedTuple):
    status: int
    head: str
    body: bytes


@pytest.fixture
def broker() -> CountingBroker:
    return CountingBroker()


@pytest.fixture
def clock() -> StepClock:
    return StepClock()


@pytest.fixture
async def endpoint(broker: CountingBroker, clock: StepClock, tmp_path: Path) -> AsyncIterator[PrometheusEndpoint]:
    context = EndpointContext("a", "test", tmp_path, clock, {}, broker, "1.2.3")
    endpoint = PrometheusEndpoint(Scrapes(context), "127.0.0.1", 0)
    await endpoint.start()
    endpoint.set_serving(True)
    yield endpoint
    await endpoint.stop(grace_s=1)


async def send(endpoint: PrometheusEndpoint, request: bytes) -> Answer:
    """Sends it all, reads until the end."""
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
        writer.write(request)
        await writer.drain()
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        writer.close()
        return Answer(int(head.split()[1]), head.decode(), body)


async def get(endpoint: PrometheusEndpoint, path: bytes) -> Answer:
    return await send(endpoint, GET % path)


def partitions(count: int) -> list[ReplicaFigures]:
    log, leader = LogFigures(0, 1, 1, 1), LeaderFigures(1, 1, 1)
    return [ReplicaFigures("s", number, ReplicaRole.LEADER, log=log, leader=leader) for number in range(count)]


# --- what is there ----------------------------------------------------------------------------------------------------


async def test_a_scrape_is_text_for_prometheus_of_the_server_its_partitions_and_its_process(
    endpoint: PrometheusEndpoint, broker: CountingBroker
) -> None:
    broker.replicas = partitions(2)
    answer = await get(endpoint, b"/metrics")
    assert answer.status == 200
    assert "Content-Type: text/plain; version=0.0.4; charset=utf-8" in answer.head
    assert f"Content-Length: {len(answer.body)}\r\n" in answer.head
    assert b'liftbridge_partition_end_offset{partition="1",stream="s"} 1.0\n' in answer.body
    assert b'liftbridge_server_info{namespace="test",server_id="a",version="1.2.3"} 1.0\n' in answer.body
    assert b"liftbridge_data_dir_free_bytes " in answer.body
    assert b"process_resident_memory_bytes " in answer.body
    assert answer.body.endswith(b"\n")


async def test_who_asks_for_the_head_gets_the_head(endpoint: PrometheusEndpoint) -> None:
    answer = await send(endpoint, b"HEAD /metrics HTTP/1.1\r\n\r\n")
    assert (answer.status, answer.body) == (200, b"")
    assert "Content-Length: 0" not in answer.head


async def test_health_tells_running_from_serving(endpoint: PrometheusEndpoint) -> None:
    for serving, status in ((True, 200), (False, 503), (True, 200)):
        endpoint.set_serving(serving)
        assert (await get(endpoint, b"/healthz")).status == 200
        assert (await get(endpoint, b"/readyz")).status == status


async def test_what_is_not_there_says_what_is(endpoint: PrometheusEndpoint) -> None:
    answer = await get(endpoint, b"/")
    assert answer.status == 404
    assert b"/metrics" in answer.body


# --- how much a scrape may cost ---------------------------------------------------------------------------------------


async def test_all_who_ask_at_once_get_one_scrape(endpoint: PrometheusEndpoint, broker: CountingBroker) -> None:
    broker.replicas = partitions(300)
    answers = await asyncio.gather(*(get(endpoint, b"/metrics") for _ in range(40)))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert broker.scrapes == 1


async def test_a_scrape_that_takes_long_is_not_begun_again_meanwhile(
    broker: CountingBroker, clock: StepClock, tmp_path: Path
) -> None:
    scrapes = Scrapes(EndpointContext("a", "test", tmp_path, clock, {}, broker, "1"))
    clock.step_s = 0.9
    assert len(set(await asyncio.gather(*(scrapes.text() for _ in range(5))))) == 1
    assert broker.scrapes == 1
    await scrapes.close()


async def test_a_scrape_is_good_for_a_second_and_no_longer(
    endpoint: PrometheusEndpoint, broker: CountingBroker, clock: StepClock
) -> None:
    first = await get(endpoint, b"/metrics")
    clock.advance(0.999)
    assert await get(endpoint, b"/metrics") == first
    clock.advance(0.001)
    await get(endpoint, b"/metrics")
    assert broker.scrapes == 2


async def test_the_event_loop_has_a_turn_between_the_steps_of_a_scrape(
    endpoint: PrometheusEndpoint, broker: CountingBroker, clock: StepClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here each look at the clock takes longer than a step may."""
    clock.step_s = 0.001
    turns = 0
    seen: list[int] = []

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def watched_replicas() -> Iterator[ReplicaFigures]:
        for one in partitions(100):
            seen.append(turns)
            yield one

    def watched_pieces(replicas: list[ReplicaFigures]) -> Iterator[bytes]:
        for piece in partition_pieces(replicas):
            seen.append(turns)
            yield piece

    monkeypatch.setattr(broker, "replica_figures", watched_replicas)
    monkeypatch.setattr(scraping, "partition_pieces", watched_pieces)
    others = asyncio.create_task(take_turns())
    assert (await get(endpoint, b"/metrics")).status == 200
    others.cancel()
    assert len(seen) > 120
    assert len(seen) == len(set(seen))


async def test_cursors_that_take_long_to_read_are_left_to_later_scrapes(
    endpoint: PrometheusEndpoint, broker: CountingBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def endless() -> AsyncIterator[GroupPosition]:
        yield GroupPosition("g", "s", 0, 5)
        await asyncio.Event().wait()
        yield GroupPosition("g", "s", 1, 5)

    monkeypatch.setattr(scraping, "_POSITIONS_S", 0.05)
    monkeypatch.setattr(broker, "group_positions", endless)
    answer = await get(endpoint, b"/metrics")
    assert b'liftbridge_group_next_offset{group="g",partition="0",stream="s"} 5.0\n' in answer.body
    assert b'group="g",partition="1"' not in answer.body


async def test_a_disk_that_does_not_answer_is_left_out_and_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, asked = threading.Event(), []

    def hung(path: Path) -> None:
        asked.append(path)
        answers.wait(20)

    monkeypatch.setattr(machine, "_PATIENCE_S", 0.01)
    monkeypatch.setattr(machine, "disk_of", hung)
    one = Machine(tmp_path)
    try:
        for _ in range(5):
            assert await one.figures() == MachineFigures()
        answers.set()
        async with asyncio.timeout(10):
            while not (await one.figures()).process_text:
                pass
        assert len(asked) <= 2
    finally:
        answers.set()
        one.close()


def test_a_disk_says_how_much_is_free(tmp_path: Path) -> None:
    disk = disk_of(tmp_path)
    assert disk is not None
    assert 0 < disk.free_bytes <= disk.size_bytes
    assert disk_of(tmp_path / "nothing") is None


async def test_a_scrape_that_fails_is_told_once_and_the_next_one_works(
    endpoint: PrometheusEndpoint, broker: CountingBroker, clock: StepClock, caplog: pytest.LogCaptureFixture
) -> None:
    broker.problem = ZeroDivisionError("the password is 1234")
    for _ in range(3):
        answer = await get(endpoint, b"/metrics")
        assert answer.status == 500
        assert b"1234" not in answer.body
    assert caplog.text.count("a scrape failed") == 1
    assert (await get(endpoint, b"/healthz")).status == 200
    broker.problem = None
    clock.advance(1)
    assert (await get(endpoint, b"/metrics")).status == 200


# --- who doesn't behave -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 500000\r\n\r\n" + b"x" * 500_000, 405),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n" + bytes(100_000), 400),
        (b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n", 431),
        (b"x" * 100_000, 431),
    ],
    ids=["post", "http2", "garbage", "many headers", "endless line"],
)
async def test_bad_requests_get_their_answer_though_they_sent_more(
    endpoint: PrometheusEndpoint, request_: bytes, status: int
) -> None:
    assert (await send(endpoint, request_)).status == status
    assert (await get(endpoint, b"/healthz")).status == 200


async def test_who_says_nothing_is_told_and_hung_up_on(
    endpoint: PrometheusEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_REQUEST_TIMEOUT_S", 0.1)
    assert (await send(endpoint, b"GET /metr")).status == 408


async def test_who_goes_away_in_the_middle_leaves_nothing_behind(
    endpoint: PrometheusEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    for request in (b"", b"GET /metr", GET % b"/metrics"):
        _, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
        writer.write(request)
        await writer.drain()
        writer.transport.abort()
    assert (await get(endpoint, b"/metrics")).status == 200
    async with asyncio.timeout(10):
        while endpoint.conversations:
            await asyncio.sleep(0.01)
    assert [one for one in caplog.records if one.levelname != "DEBUG"] == []


@pytest.fixture
def deaf() -> Iterator[socket.socket]:
    """A client that takes next to nothing of what it is sent."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.setblocking(False)
        yield one


async def test_who_does_not_read_holds_up_nobody_and_is_hung_up_on(
    endpoint: PrometheusEndpoint, broker: CountingBroker, deaf: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_ANSWER_TIMEOUT_S", 1.5)
    broker.replicas = partitions(10_000)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(deaf, ("127.0.0.1", endpoint.port))
    await loop.sock_sendall(deaf, GET % b"/metrics")
    whole_bytes = len((await get(endpoint, b"/metrics")).body)
    assert whole_bytes > 8 << 20  # more than any socket holds
    async with asyncio.timeout(20):
        while endpoint.conversations:
            await asyncio.sleep(0.01)
        received_bytes = 0
        while piece := await loop.sock_recv(deaf, 1 << 20):
            received_bytes += len(piece)
    assert received_bytes < whole_bytes


async def test_of_too_many_connections_the_later_ones_are_told_to_come_again(
    endpoint: PrometheusEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_MAX_CONNECTIONS", 3)
    writers = [(await asyncio.open_connection("127.0.0.1", endpoint.port))[1] for _ in range(3)]
    async with asyncio.timeout(10):
        while endpoint.conversations < 3:
            await asyncio.sleep(0.01)
    assert (await get(endpoint, b"/healthz")).status == 503
    writers[0].close()
    async with asyncio.timeout(10):
        while (await get(endpoint, b"/healthz")).status != 200:
            await asyncio.sleep(0.01)
    for writer in writers:
        writer.close()


async def test_stopping_lets_a_scrape_that_was_begun_end(endpoint: PrometheusEndpoint, broker: CountingBroker) -> None:
    broker.replicas = partitions(3000)
    scrape = asyncio.create_task(get(endpoint, b"/metrics"))
    async with asyncio.timeout(10):
        while not broker.scrapes:
            await asyncio.sleep(0)
    await endpoint.stop(grace_s=20)
    assert (await scrape).status == 200


# --- where ------------------------------------------------------------------------------------------------------------


async def test_an_address_that_is_taken_is_named_with_what_helps(
    endpoint: PrometheusEndpoint, broker: CountingBroker, tmp_path: Path
) -> None:
    context = EndpointContext("a", "test", tmp_path, StepClock(), {}, broker, "1")
    other = PrometheusEndpoint(Scrapes(context), "127.0.0.1", endpoint.port)
    with pytest.raises(ConfigError, match=rf"127.0.0.1:{endpoint.port} for metrics.*endpoint.prometheus.listen"):
        await other.start()
    await other.stop(grace_s=0)


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("127.0.0.1:9293", ("127.0.0.1", 9293)),
        (":0", ("", 0)),
        ("[::1]:80", ("::1", 80)),
        ("m.example:1", ("m.example", 1)),
    ],
)
def test_addresses_are_hosts_and_ports(address: str, parts: tuple[str, int]) -> None:
    assert plugin.split_address(address) == parts


@pytest.mark.parametrize("address", ["", "9293", "host", "host:", "host:x", "host:65536", "::1:9293", "[::1]"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="must"):
        plugin.split_address(address)


# --- without the library ----------------------------------------------------------------------------------------------


def test_the_list_of_plugins_says_what_is_missing_and_so_does_who_chooses_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "NOT USABLE" not in plugin.liftbridge_endpoint().summary
    monkeypatch.setattr(plugin, "find_spec", lambda _name: None)
    provider = plugin.liftbridge_endpoint()
    assert "NOT USABLE" in provider.summary
    assert "pip install prometheus_client" in provider.summary
    with pytest.raises(ConfigError, match="pip install prometheus_client"):
        provider.create(EndpointContext("a", "test", tmp_path, StepClock(), {}, ScriptedBroker(), "1"))
