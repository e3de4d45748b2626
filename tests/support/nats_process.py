"""A real nats-server that a test starts, kills and starts again on the same port."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

_LISTENING = re.compile(rb"Listening for client connections on \S+:(\d+)")


class NatsProcess:
    """Blocks while it starts, which takes some 20 ms; ``arguments`` are nats-server's own."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        binary = os.path.join(os.path.dirname(sys.executable), "nats-server")
        port = ["-a", "127.0.0.1", "-p", str(self.port or -1)]
        self._process = subprocess.Popen([binary, *port, *self._arguments], stderr=subprocess.PIPE)
        assert self._process.stderr is not None
        self.port = _await_port(self._process.stderr)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """It neither reads nor writes from now on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)  # each of its threads has stopped then

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def reload(self) -> None:
        """It reads its configuration file again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)
            process.wait(10)
            assert process.stderr is not None
            process.stderr.close()


def _await_port(log: IO[bytes]) -> int:
    """Reads the log until the server is ready. What comes later is little, and fits the pipe."""
    port, lines = 0, []
    for line in log:
        lines.append(line)
        if found := _LISTENING.search(line):
            port = int(found[1])
        if b"Server is ready" in line and port:
            return port
    raise RuntimeError("nats-server ended: " + b"".join(lines).decode(errors="replace"))


class TcpProxy:
    """Between a client and a server: a test cuts it, or says what the server never said."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        #: While False, new connections are closed at once.
        self.accepting = True
        #: While cleared, nothing gets through in either direction.
        self.flowing = asyncio.Event()
        self.flowing.set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def connections(self) -> int:
        return len(self._clients)

    def inject(self, data: bytes) -> None:
        """Every client reads ``data`` as if the server had sent it."""
        for client in self._clients:
            client.write(data)

    def cut(self) -> None:
        """Every connection breaks now; new ones are accepted."""
        for client in self._clients:
            client.transport.abort()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.flowing.set()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if not self.accepting:
            client.transport.abort()
            return
        try:
            reader, server = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            client.transport.abort()
            return
        self._clients.add(client)
        ways = [asyncio.create_task(self._copy(*ends)) for ends in ((client_reader, server), (reader, client))]
        self._tasks.update(ways)
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        self._clients.discard(client)
        client.transport.abort()
        server.transport.abort()
        await asyncio.gather(*ways, return_exceptions=True)
        self._tasks.difference_update(ways)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self.flowing.wait()
                writer.write(data)
                await writer.drain()


def write_config(folder: Path, text: str) -> Path:
    """A configuration file of nats-server."""
    path = folder / "nats.conf"
    path.write_text(text)
    return path
