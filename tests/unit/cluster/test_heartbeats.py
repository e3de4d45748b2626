"""The lease that a server's heartbeats earn it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from liftbridge.cluster.heartbeats import Heartbeats
from liftbridge.interfaces.transport import Delivery
from liftbridge.partition.troubles import Troubles
from liftbridge.protocol.generated import internal_pb2 as internal

TIMEOUT_S = 1.0


@dataclass
class Network:
    """The controller's side of a transport: what was sent to it, and its answers. Time stands still."""

    connected: bool = True
    now_ns: int = 10**9
    heartbeats: list[internal.Heartbeat] = field(default_factory=list)
    sent: asyncio.Event = field(default_factory=asyncio.Event)

    async def subscribe(self, subject: str, receive: Any, **_options: object) -> Any:
        self._receive = receive

        async def unsubscribe() -> None:
            pass

        return SimpleNamespace(unsubscribe=unsubscribe)

    def publish(self, subject: str, parts: list[bytes], *, reply: str) -> None:
        self.heartbeats.append(internal.Heartbeat.FromString(b"".join(parts)))
        self.sent.set()

    def monotonic_ns(self) -> int:
        return self.now_ns

    def answer(self, *, controller: str = "controller", index: int = 0) -> None:
        reply = internal.HeartbeatReply(controller=controller, number=self.heartbeats[-1].number, index=index)
        self._receive([cast(Delivery, SimpleNamespace(payloads=[reply.SerializeToString()]))])


@dataclass
class Group:
    applied_index: int = 0
    is_leader: bool = False

    def status(self) -> "Group":
        return self

    def on_leader_change(self, _callback: object) -> None:
        pass


@dataclass
class Server:
    heartbeats: Heartbeats
    network: Network
    group: Group


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    network, group = Network(), Group()
    heartbeats = Heartbeats(
        cast(Any, network),
        cast(Any, group),
        network,
        namespace="n",
        cluster_id="c",
        server_id="s",
        incarnation="i",
        interval_s=60,
        session_timeout_s=TIMEOUT_S,
        troubles=Troubles(),
    )
    running = asyncio.create_task(heartbeats.run())
    await network.sent.wait()
    yield Server(heartbeats, network, group)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_an_answer_lets_a_server_lead_for_half_a_time_out_from_when_it_sent(server: Server) -> None:
    assert not server.heartbeats.holds_lease
    server.network.now_ns += int(0.3e9)
    server.network.answer()
    assert server.heartbeats.holds_lease
    server.network.now_ns += int(0.19e9)
    assert server.heartbeats.holds_lease
    server.network.now_ns += int(0.01e9)
    assert not server.heartbeats.holds_lease


async def test_a_server_whose_metadata_is_behind_the_controllers_waits_for_it(server: Server) -> None:
    server.group.applied_index = 6
    server.network.answer(index=7)
    assert not server.heartbeats.holds_lease
    server.group.applied_index = 7
    assert server.heartbeats.holds_lease


async def test_without_a_connection_there_is_no_lease(server: Server) -> None:
    server.network.answer()
    server.network.connected = False
    assert not server.heartbeats.holds_lease


async def test_what_it_answered_itself_while_it_led_the_metadata_is_no_lease(server: Server) -> None:
    server.group.is_leader = True
    assert server.heartbeats.holds_lease
    server.network.answer(controller="s")
    server.group.is_leader = False
    assert not server.heartbeats.holds_lease
