"""Standard input as messages, without standing in the way of the event loop."""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator

_CHUNK_BYTES = 1 << 16
#: So many chunks are read ahead.
_AHEAD = 4


async def chunks_of(descriptor: int) -> AsyncIterator[bytes]:
    """What comes in, as it comes, until its end. A thread reads: an event loop can't wait for a file, and a terminal
    that nobody types at must not hold up Ctrl-C, so nobody waits for the thread either."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    room = threading.Semaphore(_AHEAD)

    def read() -> None:
        chunk: bytes | OSError = b"-"
        while chunk and not isinstance(chunk, OSError):
            room.acquire()
            try:
                chunk = os.read(descriptor, _CHUNK_BYTES)
            except OSError as error:
                chunk = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads any more
                loop.call_soon_threadsafe(queue.put_nowait, chunk)

    threading.Thread(target=read, name="reading", daemon=True).start()
    while chunk := await queue.get():
        if isinstance(chunk, OSError):
            raise chunk
        yield chunk
        room.release()


async def lines_of(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines without their ends; the last one may have none."""
    rest: list[bytes] = []
    async for chunk in chunks:
        first, *more = chunk.split(b"\n")
        rest.append(first)
        for line in more:
            yield b"".join(rest).removesuffix(b"\r")
            rest = [line]
    if last := b"".join(rest):
        yield last
