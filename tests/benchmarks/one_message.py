"""What one message costs when clients send one at a time: ``python tests/benchmarks/one_message.py [method] [clients]``.

Runs a broker in this process, with its embedded nats-server, and hands the bytes of clients to its connections, all of
them in each turn of the event loop: what is left out is the sockets of the clients. Prints microseconds a message;
``--profile`` prints where they go. Figures depend on the machine; run it twice.
"""

import argparse
import asyncio
import cProfile
import pstats
import socket
import tempfile
import time
from typing import Any

import grpc.aio
import uvloop
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes

from liftbridge.config import load
from liftbridge.plugin_manager import PluginManager
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.record_batch import RECORD_PREFIX
from liftbridge.server import Server

VALUE_BYTES = 256
MESSAGES = 20_000
DEFAULT_WINDOW, MAX_WINDOW = 65_535, 2**31 - 1


class FakeTransport:
    """Stands where asyncio's transport stands, and counts."""

    def __init__(self) -> None:
        self.writes = 0
        self._socket = socket.socket()

    def write(self, data: bytes) -> None:
        del data
        self.writes += 1

    def get_extra_info(self, name: str) -> Any:
        extra = {"peername": ("127.0.0.1", 1), "socket": self._socket}
        return extra.get(name)

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self._socket.close()

    close = abort


class Client:
    """The bytes of one client, and the server's connection that gets them."""

    def __init__(self, endpoint: Any, method: str) -> None:
        self.transport = FakeTransport()
        self.connection = endpoint.new_connection()
        self.connection.connection_made(self.transport)
        self._method = method
        self._h2 = H2Connection(H2Configuration(header_encoding="utf-8"))
        self._h2.initiate_connection()
        self._h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: MAX_WINDOW})
        self._h2.increment_flow_control_window(MAX_WINDOW - DEFAULT_WINDOW)
        self.receive(self._h2.data_to_send())
        self._number = 0
        if method == "PublishAsync":
            self._open(1)

    def receive(self, data: bytes) -> None:
        self.connection.data_received(data)

    def _open(self, stream_id: int) -> None:
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", f"/proto.API/{self._method}"),
            (":authority", "127.0.0.1:9292"),
            ("content-type", "application/grpc"),
            ("user-agent", "grpc-go/1.20.0"),
            ("te", "trailers"),
        ]
        if self._method == "Publish":
            headers.append(("grpc-timeout", f"{29_000_000 + self._number}u"))
        self._h2.send_headers(stream_id, headers)

    def next_bytes(self) -> bytes:
        """What the client sends for its next message."""
        self._number += 1
        stream_id = self._number * 2 - 1 if self._method == "Publish" else 1
        if self._method == "Publish":
            self._open(stream_id)
        request = api.PublishRequest(stream="load", value=bytes(VALUE_BYTES), correlationId=f"{self._number:022d}")
        message = request.SerializeToString()
        self._h2.send_data(
            stream_id, RECORD_PREFIX.pack(0, len(message)) + message, end_stream=self._method == "Publish"
        )
        data = self._h2.data_to_send()
        # The server gives credit and ends streams, which this client doesn't read.
        self._h2.outbound_flow_control_window = MAX_WINDOW
        self._h2.streams[stream_id].outbound_flow_control_window = MAX_WINDOW
        if self._method == "Publish":
            del self._h2.streams[stream_id]
        return data


async def main(method: str, clients: int, *, profile: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plugins = PluginManager()
        flags = {
            "data.dir": folder,
            "endpoint.grpc.listen": "127.0.0.1:0",
            "clustering.raft.bootstrap.seed": True,
            "transport.nats.embedded": True,
            "transport.nats.embedded.listen": f"127.0.0.1:{free_port()}",
        }
        server = Server(load(plugins.settings(), flags=flags, environment={}), plugins)
        await server.start()
        try:
            await measure(server, method, clients, profile=profile)
        finally:
            await server.stop()


async def measure(server: Server, method: str, client_count: int, *, profile: bool) -> None:
    (endpoint,) = server._endpoints  # no other way in without a socket
    await create_stream(endpoint)
    clients = [Client(endpoint, method) for _ in range(client_count)]
    rounds = MESSAGES // client_count
    inputs = [[client.next_bytes() for client in clients] for _ in range(rounds)]
    profiler = cProfile.Profile()
    if profile:
        profiler.enable()
    began = time.perf_counter()
    for one_round in inputs:
        for client, data in zip(clients, one_round, strict=True):
            client.receive(data)
        writes = clients[-1].transport.writes
        while clients[-1].transport.writes == writes:
            await asyncio.sleep(0)
    took_s = time.perf_counter() - began
    profiler.disable()
    if profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(60)
    for client in clients:
        client.connection.connection_lost(None)
    count = rounds * client_count
    print(f"{method}, {client_count} clients: {took_s / count * 1e6:.1f} us a message")
    assert all(client.transport.writes >= rounds for client in clients), "not every message was answered"


async def create_stream(endpoint: Any) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{endpoint.port}") as channel:
        create = channel.unary_unary(
            "/proto.API/CreateStream",
            request_serializer=api.CreateStreamRequest.SerializeToString,
            response_deserializer=api.CreateStreamResponse.FromString,
        )
        await create(api.CreateStreamRequest(subject="load", name="load", replicationFactor=1, partitions=1))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", choices=("Publish", "PublishAsync"), nargs="?", default="PublishAsync")
    parser.add_argument("clients", type=int, nargs="?", default=16)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    uvloop.run(main(options.method, options.clients, profile=options.profile))
