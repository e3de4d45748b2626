"""``liftbridge demo``: a broker, a stream, a few messages by plain NATS and by gRPC, and all of them replayed."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import nats

from liftbridge.errors import LiftbridgeError
from liftbridge.protocol.generated import api_pb2 as api

_START_TIMEOUT_S = 20.0
_STREAM, _SUBJECT = "weather", "weather.readings"


def run(*, port: int, data_dir: Path | None, stay: bool) -> int:
    """Runs the demo and returns the exit code."""
    try:
        return asyncio.run(_run(port or _free_port(), data_dir, stay))
    except grpc.aio.AioRpcError as error:
        raise LiftbridgeError(f"the broker doesn't do what the demo asks for: {error.details()}") from error
    except (nats.errors.Error, TimeoutError) as error:
        raise LiftbridgeError(f"the broker doesn't answer: {error or type(error).__name__}") from error


async def _run(port: int, data_dir: Path | None, stay: bool) -> int:
    nats_port = _free_port()
    with tempfile.TemporaryDirectory(prefix="liftbridge-demo-") as temporary:
        folder = data_dir or Path(temporary)
        async with _broker(port, nats_port, folder):
            await _show(port, nats_port)
            if (data_dir is not None or stay) and (log := _only_log(folder)):
                _say(f"or look at what is on disk\n  liftbridge dump-log {log}")
            if stay:
                _say(f"\nThe broker goes on at localhost:{port}. Ctrl-C ends it.")
                await _until_interrupted()
    return 0


@asynccontextmanager
async def _broker(port: int, nats_port: int, folder: Path) -> AsyncIterator[None]:
    """A broker as a child process, as ``liftbridge serve`` runs it."""
    _say(f"Starting a broker with an embedded nats-server, data in {folder}")
    command = [sys.executable, "-m", "liftbridge", "serve", "--embedded-nats", "--raft-bootstrap-seed"]
    command += ["--id", "demo", "--port", str(port), "--data-dir", str(folder), "--level", "error"]
    command += ["--set", f"transport.nats.embedded.listen=127.0.0.1:{nats_port}"]
    process = await asyncio.to_thread(subprocess.Popen, command, start_new_session=True)
    try:
        await _wait_until_serving(port, process)
        yield
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
        await asyncio.to_thread(process.wait)


async def _wait_until_serving(port: int, process: "subprocess.Popen[bytes]") -> None:
    check = "/grpc.health.v1.Health/Check"
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(check, request_serializer=bytes, response_deserializer=bytes)
        async with asyncio.timeout(_START_TIMEOUT_S):
            while True:
                if process.poll() is not None:
                    raise LiftbridgeError(f"the broker ended with code {process.returncode}")
                try:
                    if await call(b"", wait_for_ready=True, timeout=1) == b"\x08\x01":
                        return
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.1)


async def _show(port: int, nats_port: int) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await _create_stream(channel)
        await _publish_by_nats(nats_port, channel)
        await _publish_by_grpc(channel)
        _say("\nReplaying the stream from the start:")
        async for message in _replay(channel):
            key = message.key.decode() or "-"
            _say(f"  offset {message.offset}   key {key:<6} {message.value.decode()}")
    _say(
        "\nNext: run a broker of your own, and publish to it from any NATS or Liftbridge client\n"
        "  liftbridge serve --embedded-nats --raft-bootstrap-seed --data-dir ./data\n"
        "or let this one go on, and keep what it stored\n"
        "  liftbridge demo --stay --data-dir ./demo"
    )


async def _create_stream(channel: grpc.aio.Channel) -> None:
    try:
        await _unary(channel, "CreateStream", api.CreateStreamRequest(name=_STREAM, subject=_SUBJECT))
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
            raise
        _say(f'The stream "{_STREAM}" is there already, with what earlier demos published')
    else:
        _say(f'Created the stream "{_STREAM}": it records what is published on the NATS subject "{_SUBJECT}"')


def _only_log(folder: Path) -> Path | None:
    """The directory of the one partition that there is; none if the log storage isn't segment files."""
    return next((folder / "streams").glob("*-0"), None)


async def _publish_by_nats(nats_port: int, channel: grpc.aio.Channel) -> None:
    client = await nats.connect(f"nats://127.0.0.1:{nats_port}")
    texts = ("Oslo 3.1", "Lima 22.4", "Pune 30.8")
    recorded = await _newest_offset(channel) + len(texts)
    for text in texts:
        await client.publish(_SUBJECT, text.encode())
    await client.drain()
    async with asyncio.timeout(_START_TIMEOUT_S):  # plain NATS has no acks
        while await _newest_offset(channel) < recorded:
            await asyncio.sleep(0.02)
    _say("Published 3 messages by plain NATS: the publisher knows nothing of Liftbridge")


async def _newest_offset(channel: grpc.aio.Channel) -> int:
    request = api.FetchPartitionMetadataRequest(stream=_STREAM, partition=0)
    return int((await _unary(channel, "FetchPartitionMetadata", request)).metadata.newestOffset)


async def _publish_by_grpc(channel: grpc.aio.Channel) -> None:
    for key, text in (("oslo", "Oslo 2.9"), ("lima", "Lima 22.0")):
        request = api.PublishRequest(stream=_STREAM, key=key.encode(), value=text.encode())
        response = await _unary(channel, "Publish", request)
        _say(f"Published by gRPC, with a key: acknowledged at offset {response.ack.offset}")


async def _replay(channel: grpc.aio.Channel) -> AsyncIterator[api.Message]:
    subscribe = channel.unary_stream(
        "/proto.API/Subscribe",
        request_serializer=api.SubscribeRequest.SerializeToString,
        response_deserializer=api.Message.FromString,
    )
    request = api.SubscribeRequest(
        stream=_STREAM, startPosition=api.StartPosition.EARLIEST, stopPosition=api.StopPosition.STOP_LATEST
    )
    call = subscribe(request)
    try:
        first = True
        async for message in call:
            if not first:  # the first one only says "subscribed"
                yield message
            first = False
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:  # how the end of a bounded read is told
            raise


async def _unary(channel: grpc.aio.Channel, method: str, request: Any) -> Any:
    call = channel.unary_unary(
        f"/proto.API/{method}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=getattr(api, f"{method}Response").FromString,
    )
    return await call(request, timeout=10)


async def _until_interrupted() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _say(text: str) -> None:
    print(text, flush=True)
