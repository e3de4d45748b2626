"""The world: servers, clients, time, and what goes wrong. ``World(seed).run()`` is one life of a cluster."""

import logging
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any

from liftbridge.broker.api import CallContext
from liftbridge.errors import LiftbridgeError
from liftbridge.interfaces.log import LogId
from liftbridge.metadata.model import ServerStatus
from liftbridge.metadata.state import MetadataState
from liftbridge.protocol.generated import api_pb2 as api
from simulation.clients import Published, Publisher, Reader
from simulation.cluster import Cluster
from simulation.disk import Disk
from simulation.faults import Faults
from simulation.invariants import Invariants, Violation
from simulation.server import SimulatedServer, is_expected, simulated_system

STREAM = "stream"
_FORM_S = 20.0
_HEAL_S = 40.0


class World(Cluster):
    """``seconds`` is how long faults go on. ``weights`` says how often some faults happen, by name of their method in
    :class:`Faults`; ``settings`` overrides the servers'."""

    def __init__(
        self,
        seed: int,
        *,
        seconds: float = 6.0,
        weights: Mapping[str, float] | None = None,
        settings: Mapping[str, Any] | None = None,
        publish_every_s: float | None = None,
        servers: int = 3,
    ) -> None:
        self.seed = seed
        self._arguments = (
            f"World({seed}, seconds={seconds}, weights={weights}, settings={settings}, "
            f"publish_every_s={publish_every_s}, servers={servers})"
        )
        self.seconds = seconds
        super().__init__(random.Random(seed), [Disk(f"s{number}") for number in range(servers)])
        given = settings or {}
        self.durability = given.get("streams.durability", self.chance.choice(["page", "page", "interval", "sync"]))
        self.min_isr = given.get("clustering.min.insync.replicas", self.chance.choice([1, 1, 2]))
        self.partitions = self.chance.choice([1, 1, 2, 3])
        self.publish_every_s = publish_every_s or self.chance.choice([0.02, 0.05, 0.2])
        self.invariants = Invariants(self.disks, synced=self.durability == "sync", min_isr=self.min_isr)
        for disk in self.disks.values():
            disk.watcher = self.invariants
        self.removed: set[str] = set()
        self._settings = {
            "streams.durability": self.durability,
            "streams.durability.interval": 0.1,
            "clustering.min.insync.replicas": self.min_isr,
            "clustering.raft.bootstrap.peers": tuple(self.ids),
            **({"streams.retention.max.messages": 30, "streams.cleaner.interval": 0.3} if seed % 4 == 0 else {}),
            **given,
        }
        self.faults = Faults(self, weights or {})
        self.publishers = [
            Publisher(
                f"p{number}",
                STREAM,
                self.partitions,
                self.timeline,
                self.chance,
                self.invariants,
                self.running,
            )
            for number in range(2)
        ]
        self._probes = count()

    # --- servers ------------------------------------------------------------------------------------------------------

    def _clock_speed(self) -> float:
        return 1 + self.faults.drift * (self.chance.random() * 2 - 1)

    def add(self, server_id: str) -> None:
        """A new server, which joins by itself."""
        self.disks[server_id] = disk = Disk(server_id)
        disk.watcher = self.invariants
        self.ids.append(server_id)
        self._settings = {**self._settings, "clustering.raft.bootstrap.peers": ()}
        self.start(server_id)

    def _exited(self, server: SimulatedServer, error: BaseException | None) -> None:
        if not is_expected(error):
            self.invariants.fail("I18", f"{server.server_id} ended with {error!r}")
        super()._exited(server, error)

    # --- running ------------------------------------------------------------------------------------------------------

    def run(self) -> "World":
        """Forms a cluster, lets things go wrong, and heals them. Raises Violation."""
        try:
            with self._simulated():
                for server_id in self.ids:
                    self.timeline.after(self.chance.random() * 0.05, partial(self.start, server_id))
                self.until(self._formed, _FORM_S, "I20: no cluster was formed")
                self.note("formed")
                self._create_stream()
                self.note("created")
                self.faults.begin()
                self._begin_clients()
                self.advance(self.seconds)
                self.faults.end()
                self.until(self._healthy, _HEAL_S, "I20: not healthy without faults")
                self._check_end()
        except Violation as violation:
            violation.add_note(f"at {self.timeline.now_ns / 1e9:.3f} s; replay: {self._arguments}.run()")
            raise
        finally:
            self.end_all()
        return self

    @contextmanager
    def _simulated(self) -> Iterator[None]:
        invariants = self.invariants

        class WatchedState(MetadataState):
            def apply(self, index: int, command: bytes) -> Any:
                try:
                    outcome = super().apply(index, command)
                except Exception as error:
                    invariants.fail("I14", f"apply failed at index {index}: {error!r}")
                    raise
                invariants.applied(self)
                return outcome

            def restore(self, data: bytes) -> None:
                super().restore(data)
                invariants.applied(self)

        with simulated_system(self.chance, WatchedState), _complaints(invariants):
            yield

    def disk_filled(self, server_id: str) -> None:
        """By the faults, for who watches over it."""

    def _turned(self, server: SimulatedServer) -> None:
        self.invariants.check_server(server)
        self._check(server)

    def _time_passed(self) -> None:
        self.invariants.raise_problems()

    def _check(self, server: SimulatedServer) -> None:
        self.invariants.check_isrs()
        for problem in server.process.problems:
            self.invariants.fail("I18", f"{server.server_id}: {problem}")
        self.invariants.raise_problems()

    def picture(self) -> str:
        """What it looks like now."""
        latest = self.invariants.latest
        partitions = [one for stream in latest.streams.values() for one in stream.partitions]
        statuses = {one.server_id: one.status.name for one in latest.servers.values()}
        running = {one.server_id: (one.serving, one.process.frozen) for one in self.running()}
        unanswered = [one.value for one in self._unanswered()]
        return f"{statuses} {partitions} running {running} unanswered {unanswered}"

    # --- phases -------------------------------------------------------------------------------------------------------

    def _formed(self) -> bool:
        live = [one for one in self.invariants.latest.servers.values() if one.status is ServerStatus.LIVE]
        return len(live) == len(self.ids) and all(one.is_open for one in self.running())

    def _create_stream(self) -> None:
        request = api.CreateStreamRequest(
            name=STREAM, subject="subject", partitions=self.partitions, replicationFactor=min(3, len(self.ids))
        )
        self.call(self.servers[self.ids[0]], "CreateStream", request)
        self.until(lambda: STREAM in self.invariants.latest.streams, 10, "I20: the stream wasn't created")

    def call(self, server: SimulatedServer, method: str, request: Any) -> None:
        """A client's call, whose outcome is left to chance."""

        async def call() -> None:
            if server.endpoint is not None and server.endpoint.open:
                try:
                    await server.endpoint.broker.unary_handlers()[method](request, CallContext())
                except LiftbridgeError as error:
                    self.note(f"{method} at {server.server_id}: {error}")

        server.process.happen(lambda: server.process.call_soon(lambda: server.process.begin(call())))

    def _begin_clients(self) -> None:
        for publisher in self.publishers:
            self._publish_again(publisher)
        for number in range(2):
            reader = Reader(
                f"r{number}",
                STREAM,
                self.chance.randrange(self.partitions),
                self.timeline,
                self.chance,
                self.invariants,
                self.running,
            )
            reader.connect()

    def _publish_again(self, publisher: Publisher) -> None:
        if self.faults.over:
            return
        publisher.publish()
        self.timeline.after(self.publish_every_s * self.chance.random() * 2, partial(self._publish_again, publisher))

    # --- the end ------------------------------------------------------------------------------------------------------

    def _healthy(self) -> bool:
        """I20: everybody is there and in sync, every partition has one leader, and new messages are acked."""
        latest = self.invariants.latest
        members = [one for one in latest.servers.values() if one.server_id not in self.removed]
        if len(members) < len(set(self.ids) - self.removed):
            return False
        if any(one.status is not ServerStatus.LIVE for one in members):
            return False
        stream = latest.streams[STREAM]
        if not all(self._is_whole(LogId(stream.stream_id, number)) for number in range(self.partitions)):
            return False
        return self._probed() and not self._unanswered()

    def _unanswered(self) -> list[Published]:
        """I17: whoever is still connected to where it published gets an answer."""
        return [one for one in self.invariants.unanswered() if one.session_alive]

    def _is_whole(self, log_id: LogId) -> bool:
        partition = self.invariants.latest.partition(log_id)
        if partition is None or not partition.leader or set(partition.isr) != set(partition.replicas):
            return False
        if self.invariants.is_excused(log_id):
            return True
        ends = {self.disks[one].end_offset(log_id) for one in partition.replicas}
        return ends == {self.invariants.committed_end(log_id)}

    def _probed(self) -> bool:
        """A message to each partition with ack policy ALL, when all else is well."""
        waiting: list[Published] = getattr(self, "_waiting_probes", [])
        if not waiting:
            publisher = self.publishers[0]
            publisher.batch = 1
            for number in range(self.partitions):
                waiting += publisher.publish(api.ALL, number)
            self._waiting_probes = waiting
            return False
        if all(one.answered for one in waiting):
            if any(one.offset is None for one in waiting):
                self._waiting_probes = []
                return False
            return True
        return False

    def _check_end(self) -> None:
        stream = self.invariants.latest.streams[STREAM]
        for number, partition in enumerate(stream.partitions):
            for server_id in partition.replicas:
                self.invariants.check_log(server_id, LogId(stream.stream_id, number))
        self.invariants.raise_problems()


class _Complaints(logging.Handler):
    """What servers say when something happened that must not."""

    def __init__(self, invariants: Invariants) -> None:
        super().__init__(logging.ERROR)
        self._invariants = invariants

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.CRITICAL:
            self._critical(record)
        elif record.exc_info and not isinstance(record.exc_info[1], LiftbridgeError):
            self._invariants.fail("I18", f"{record.getMessage()} {record.exc_info[1]!r}")

    def _critical(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if "DATA LOSS" not in message:
            self._invariants.fail("I18", f"{message} {record.exc_info or ''}")
        elif not any(message.startswith(f"partition {one.partition} of ") for one in self._invariants.excused_logs()):
            self._invariants.fail("I1", message)


@contextmanager
def _complaints(invariants: Invariants) -> Iterator[None]:
    handler, root = _Complaints(invariants), logging.getLogger("liftbridge")
    raft = logging.getLogger("liftbridge_raft_builtin")
    before = root.level, raft.level, root.propagate, raft.propagate
    for logger in (root, raft):
        logger.addHandler(handler)
        logger.setLevel(logging.ERROR)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, level, propagate in ((root, before[0], before[2]), (raft, before[1], before[3])):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
