"""A real broker in a process of its own, that a test starts, kills and starts again on the same data."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import grpc

_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
_SERVING = b"\x08\x01"
#: gRPC would wait a second after the first connection that was refused.
_RECONNECT_QUICKLY = (("grpc.initial_reconnect_backoff_ms", 20), ("grpc.max_reconnect_backoff_ms", 100))


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class BrokerProcess:
    """``arguments`` are more of ``liftbridge serve``'s. With ``nats_url`` empty, the broker brings its own nats-server.
    ``bootstrap`` is how it gets into a cluster; empty: it joins one. ``program`` is what Python runs."""

    def __init__(
        self,
        data_dir: Path,
        *arguments: str,
        nats_url: str = "",
        server_id: str = "broker",
        bootstrap: tuple[str, ...] = ("--raft-bootstrap-seed",),
        program: tuple[str, ...] = ("-m", "liftbridge"),
    ) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.log_path = data_dir.with_suffix(".log")
        self.arguments = list(arguments)
        self.server_id = server_id
        self.bootstrap = bootstrap
        self.program = program
        self._nats_url = nats_url
        self.nats_url = nats_url
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when clients are served."""
        self.launch()
        self.wait_until_serving()

    def launch(self) -> None:
        """Returns at once."""
        if not self._nats_url:
            self.nats_url = f"nats://127.0.0.1:{free_port()}"
        with self.log_path.open("ab") as log:
            environment = {**os.environ, "PYTHONFAULTHANDLER": "1"}
            self._process = subprocess.Popen(self.command(), stderr=log, stdout=log, env=environment)

    def command(self) -> list[str]:
        """What starts it, on the same data as before."""
        command = [sys.executable, *self.program, "serve", "--id", self.server_id, "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--data-dir", str(self.data_dir), *self.bootstrap]
        if self._nats_url:
            command += ["--nats-servers", self._nats_url]
        else:
            command += ["-e", "--set", f"transport.nats.embedded.listen={self.nats_url.removeprefix('nats://')}"]
        return command + self.arguments

    def wait_until_serving(self) -> None:
        deadline = time.monotonic() + 30
        with grpc.insecure_channel(self.address, options=_RECONNECT_QUICKLY) as channel:
            check = channel.unary_unary(_HEALTH_CHECK)
            while time.monotonic() < deadline:
                assert self._process is not None
                if self._process.poll() is not None:
                    raise RuntimeError(f"the broker ended with {self._process.returncode}: {self.log()}")
                try:
                    if check(b"", timeout=1, wait_for_ready=True) == _SERVING:
                        return
                except grpc.RpcError:
                    continue
        raise RuntimeError(f"the broker doesn't serve: {self.log()}")

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def wait_for_end(self, timeout_s: float = 20) -> int:
        """The exit code of a broker that ends by itself."""
        process, self._process = self._process, None
        assert process is not None
        return process.wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        return self.end(signal.SIGTERM)

    def discard(self) -> None:
        """The end of it and of all that it brought."""
        self.stop()

    def end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            return process.wait(20)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # it says where it stands, and ends
            process.wait(20)
            raise AssertionError(f"the broker doesn't end: {self.log()[-6000:]}") from None

    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
