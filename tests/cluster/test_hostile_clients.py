"""Clients that break the rules are refused, and the others don't notice. And the public conformance test of HTTP/2."""

import asyncio
import os
import shutil
import struct
import subprocess
from pathlib import Path

import grpc
import pytest
from api_client import ApiClient, fails_with
from broker_process import BrokerProcess

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
#: :method POST, :scheme http, :path /, from the static table.
REQUEST_BLOCK = b"\x83\x86\x84"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


ATTACKS = {
    "garbage": b"\x00\xff" * 5000,
    "half a frame, then garbage": PREFACE + b"\0\0\x20\1" + b"\xff" * 100,
    "10,000 resets": PREFACE
    + b"".join(frame(1, 4, 2 * i + 1, REQUEST_BLOCK) + frame(3, 0, 2 * i + 1, bytes(4)) for i in range(10_000)),
    "pings": PREFACE + frame(6, 0, 0, bytes(8)) * 20_000,
    "settings": PREFACE + frame(4, 0, 0) * 20_000,
    "continuations": PREFACE + frame(1, 0, 1, REQUEST_BLOCK) + frame(9, 0, 1) * 20_000,
    "empty data": PREFACE + frame(1, 4, 1, REQUEST_BLOCK) + frame(0, 0, 1) * 20_000,
    "a frame too large": PREFACE + frame(1, 4, 1, bytes(20_000)),
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_attacks_end_their_own_connection_only(client: ApiClient, broker: BrokerProcess, attack: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
    try:
        writer.write(ATTACKS[attack])
        await writer.drain()
        async with asyncio.timeout(10):
            while await reader.read(65_536):
                pass
    except ConnectionError:
        pass
    finally:
        writer.close()
    assert (await client("FetchMetadata")).brokers


async def test_five_megabytes_in_one_message_are_refused_and_the_connection_lives(client: ApiClient) -> None:
    with fails_with(grpc.StatusCode.RESOURCE_EXHAUSTED, "received message larger than max"):
        await client("Publish", stream="x", value=bytes(5_000_000))
    assert (await client("FetchMetadata")).brokers


@pytest.mark.parametrize(
    ("path", "text"),
    [("/proto.API/Nothing", "unknown method Nothing for service proto.API"), ("/other.S/M", "unknown service other.S")],
)
async def test_unknown_methods_are_named(client: ApiClient, path: str, text: str) -> None:
    with fails_with(grpc.StatusCode.UNIMPLEMENTED, text):
        await client.channel.unary_unary(path)(b"")


async def test_undecodable_requests_are_an_error_of_that_call(client: ApiClient) -> None:
    for method in ("CreateStream", "Publish"):
        with fails_with(grpc.StatusCode.INTERNAL, "error unmarshalling request"):
            await client.channel.unary_unary(f"/proto.API/{method}")(b"\xff\xff\xff")


async def test_gzip_requests_are_read(broker: BrokerProcess) -> None:
    async with grpc.aio.insecure_channel(broker.address, compression=grpc.Compression.Gzip) as channel:
        assert await channel.unary_unary("/grpc.health.v1.Health/Check")(b"\x0a\x09proto.API") == b"\x08\x01"


async def test_health_of_a_service_that_is_not_here(client: ApiClient) -> None:
    with fails_with(grpc.StatusCode.NOT_FOUND, "unknown service"):
        await client.channel.unary_unary("/grpc.health.v1.Health/Check")(b"\x0a\x01x")


def find_h2spec(folder: Path) -> str | None:
    found = shutil.which("h2spec", path=f"{os.environ.get('PATH', '')}:{Path.home() / 'go' / 'bin'}")
    if found is None and shutil.which("go"):
        command = ["go", "install", "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible"]
        done = subprocess.run(command, env={**os.environ, "GOBIN": str(folder)}, check=False, capture_output=True)
        found = str(folder / "h2spec") if done.returncode == 0 else None
    return found


@pytest.mark.interop
def test_all_cases_of_h2spec_pass(broker: BrokerProcess, tmp_path: Path) -> None:
    h2spec = find_h2spec(tmp_path)
    if h2spec is None:
        pytest.skip("h2spec isn't here and can't be built: it takes Go")
    done = subprocess.run(
        [h2spec, "-h", "127.0.0.1", "-p", str(broker.port)], capture_output=True, text=True, timeout=100, check=False
    )
    assert ", 0 failed" in done.stdout, done.stdout[-5000:]
