"""Files and the standard input as messages, without standing in the way of the event loop."""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

from liftbridge.config import format_size
from liftbridge.errors import InvalidRequest

_CHUNK_BYTES = 1 << 16
#: So many chunks are read ahead.
_AHEAD = 4


async def chunks_of(source: int | Path) -> AsyncIterator[bytes]:
    """What comes from a descriptor or a file, as it comes, until its end. A thread reads: an event loop can't wait for a file,
    and a terminal that nobody types at must not hold up Ctrl-C, so nobody waits for the thread either. Raises OSError."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    room = threading.Semaphore(_AHEAD)

    def hand_over(chunk: bytes | OSError) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads any more
            loop.call_soon_threadsafe(queue.put_nowait, chunk)

    def read() -> None:
        try:
            with open(source, "rb", buffering=0, closefd=isinstance(source, Path)) as file:
                chunk = b"-"
                while chunk:
                    room.acquire()
                    chunk = os.read(file.fileno(), _CHUNK_BYTES)
                    hand_over(chunk)
        except OSError as error:
            hand_over(error)

    threading.Thread(target=read, name="reading", daemon=True).start()
    while chunk := await queue.get():
        if isinstance(chunk, OSError):
            raise chunk
        yield chunk
        room.release()


async def whole(chunks: AsyncIterator[bytes], name: str, max_bytes: int) -> bytes:
    """All of what ``name`` is called. Raises InvalidRequest as soon as that is too much."""
    read = bytearray()
    async for chunk in chunks:
        read += chunk
        if len(read) > max_bytes:
            raise _too_large(name, max_bytes)
    return bytes(read)


async def lines_of(chunks: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[bytes]:
    """Lines without their ends; the last one may have none. Raises InvalidRequest as soon as one is too long."""
    rest: list[bytes] = []
    rest_bytes = count = 0
    async for chunk in chunks:
        first, *more = chunk.split(b"\n")
        rest.append(first)
        rest_bytes += len(first)
        for line in more:
            count += 1
            yield _line(rest, count, max_bytes).removesuffix(b"\r")
            rest, rest_bytes = [line], len(line)
        if rest_bytes > max_bytes:
            break
    if last := _line(rest, count + 1, max_bytes):
        yield last


def _line(parts: list[bytes], number: int, max_bytes: int) -> bytes:
    line = b"".join(parts)
    if len(line) > max_bytes:
        raise _too_large(f"line {number} of the standard input", max_bytes)
    return line


def _too_large(name: str, max_bytes: int) -> InvalidRequest:
    return InvalidRequest(
        f"{name} is larger than {format_size(max_bytes)}, which is the most that becomes one message here; "
        "if the servers take more, say so with --max-size"
    )
