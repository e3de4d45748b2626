"""Simulated servers on one timeline: starting, ending and turning them. What happens to them is somebody else's business."""

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from simulation.disk import Disk
from simulation.invariants import Violation
from simulation.network import Network
from simulation.process import Process, Timeline
from simulation.server import SimulatedServer, settings_for


class Cluster:
    """``disks`` are those of the servers that there are from the beginning. All chance is that of ``chance``."""

    def __init__(self, chance: random.Random, disks: Sequence[Disk]) -> None:
        self.chance = chance
        self.timeline = Timeline()
        self.network = Network(self.timeline, chance)
        self.ids = [disk.server_id for disk in disks]
        self.disks = {disk.server_id: disk for disk in disks}
        self.servers: dict[str, SimulatedServer] = {}
        self.trace: list[str] = []
        self.turns = 0
        self._settings: Mapping[str, Any] = {}

    # --- servers ------------------------------------------------------------------------------------------------------

    def running(self) -> list[SimulatedServer]:
        return [server for server in self.servers.values() if server.process.alive]

    def start(self, server_id: str) -> None:
        """Starts a server that doesn't run."""
        if server_id in self.servers and self.servers[server_id].process.alive:
            return
        disk = self.disks[server_id]
        process = Process(server_id, self.timeline, self.chance, self._clock_speed())
        settings = settings_for(disk, self._settings)
        self.servers[server_id] = SimulatedServer(disk, process, self.network, self.chance, settings, self._exited)
        self.note(f"start {server_id}")

    def _clock_speed(self) -> float:
        """How fast the clock of the server runs that is about to start."""
        return 1.0

    def kill(self, server_id: str) -> None:
        """Ends the process; what it wrote is there."""
        server = self.servers.get(server_id)
        if server is not None and server.process.alive:
            self.note(f"kill {server_id}")
            self._end(server)

    def _end(self, server: SimulatedServer) -> None:
        server.disk.unmount()
        self.network.forget(server.transport)
        server.serving = False
        server.process.kill()

    def _exited(self, server: SimulatedServer, error: BaseException | None) -> None:
        """A process ended by itself."""
        self.note(f"exit {server.server_id} {error!r}")
        self.timeline.after(0, partial(self._end, server))

    def end_all(self) -> None:
        """Leaves nothing behind in the test's process."""
        for server in self.running():
            self._end(server)

    def note(self, text: str) -> None:
        """For whoever looks for the cause of a violation."""
        self.trace.append(f"{self.timeline.now_ns / 1e9:8.4f} {text}")

    # --- time ---------------------------------------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Lets so much time pass."""
        end_ns = self.timeline.now_ns + int(seconds * 1e9)
        while self._step(end_ns):
            pass

    def _step(self, end_ns: int) -> bool:
        """One turn of one server, or else what is next on the timeline. False once the time is over."""
        runnable = [server for server in self.servers.values() if server.process.runnable]
        if runnable:
            server = runnable[0] if len(runnable) == 1 else runnable[int(self.chance.random() * len(runnable))]
            server.process.turn()
            self.turns += 1
            self._turned(server)
            return True
        if self.timeline.next_due_ns() > end_ns:
            self.timeline.now_ns = end_ns
            return False
        self.timeline.advance()
        self._time_passed()
        return True

    def _turned(self, server: SimulatedServer) -> None:
        """Called after each turn of a server."""

    def _time_passed(self) -> None:
        """Called after whatever else happened."""

    def until(self, done: Callable[[], bool], seconds: float, problem: str) -> None:
        """Lets time pass until something is so. Raises Violation with the problem when it takes too long."""
        end_ns = self.timeline.now_ns + int(seconds * 1e9)
        while not done():
            if self.timeline.now_ns >= end_ns:
                raise Violation(f"{problem} after {seconds} s: {self.picture()}")
            self.advance(0.1)

    def picture(self) -> str:
        """What it looks like now."""
        return f"running {[server.server_id for server in self.running()]}"
