"""Members of the built-in Raft in one process, with storage and network in memory that a test can break."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence

from liftbridge.errors import StorageError, TransportClosed
from liftbridge.interfaces.consensus import Consensus
from liftbridge.interfaces.stable import StableStore
from liftbridge.interfaces.transport import Delivery, DeliverySink, Subscription, Transport
from liftbridge.testing.consensus_suite import ConsensusGroup
from liftbridge_raft_builtin.consensus import RaftConsensus
from liftbridge_raft_builtin.driver import Driver, RaftOptions

QUICK = RaftOptions(
    heartbeat_s=0.015, election_timeout_s=0.09, snapshot_threshold_entries=50, trailing_entries=5, max_message_bytes=500
)


class DictStore(StableStore):
    """``writes`` counts them; ``failures`` writes fail first."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.writes = 0
        self.failures = 0

    def get(self, key: bytes) -> bytes | None:
        return self.values.get(key)

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(sorted((key, value) for key, value in self.values.items() if start <= key < stop))

    def write(
        self,
        puts: Mapping[bytes, bytes],
        *,
        deletes: Sequence[bytes] = (),
        delete_range: tuple[bytes, bytes] | None = None,
    ) -> None:
        if self.failures:
            self.failures -= 1
            raise StorageError("the disk said no")
        self.writes += 1
        gone = set(deletes)
        if delete_range is not None:
            gone.update(key for key in self.values if delete_range[0] <= key < delete_range[1])
        for key in gone:
            self.values.pop(key, None)
        self.values.update(puts)

    def close(self) -> None:
        """Nothing is open."""


class Hub:
    """Delivers between the ports of all members, but for those that are cut off."""

    def __init__(self) -> None:
        self.sinks: dict[str, DeliverySink] = {}
        self.isolated: set[str] = set()
        self.sent = 0

    def deliver(self, sender: str, subject: str, payloads: Sequence[bytes]) -> None:
        receiver = subject.rpartition(".")[2]
        if self.isolated.isdisjoint({sender, receiver}):
            self.sent += len(payloads)
            asyncio.get_running_loop().call_soon(self._hand_over, subject, list(payloads))

    def _hand_over(self, subject: str, payloads: list[bytes]) -> None:
        if subject in self.sinks:
            self.sinks[subject]([Delivery(subject, "", payloads)])


class _HubSubscription(Subscription):
    def __init__(self, hub: Hub, subject: str) -> None:
        self._hub, self._subject = hub, subject

    async def unsubscribe(self) -> None:
        self._hub.sinks.pop(self._subject, None)


class HubTransport(Transport):
    """What Raft needs of a transport."""

    def __init__(self, hub: Hub, server_id: str) -> None:
        self._hub, self._server_id = hub, server_id
        self.closed = False

    async def start(self) -> None:
        """Always connected."""

    @property
    def max_payload_bytes(self) -> int:
        return 1 << 20

    @property
    def connected(self) -> bool:
        return not self.closed

    def publish(
        self,
        subject: str,
        payloads: Sequence[bytes],
        *,
        reply: str = "",
        echo: bool = True,
        deferrable: bool = False,
    ) -> None:
        if self.closed:
            raise TransportClosed("closed by the test")
        self._hub.deliver(self._server_id, subject, payloads)

    async def subscribe(self, subject: str, sink: DeliverySink, *, queue: str = "", echo: bool = True) -> Subscription:
        self._hub.sinks[subject] = sink
        return _HubSubscription(self._hub, subject)

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        raise NotImplementedError

    async def flush(self, *, timeout_s: float) -> None:
        """Delivery is immediate."""

    def on_connection_change(self, callback: Callable[[bool], None]) -> None:
        """Never changes."""

    async def stop(self) -> None:
        self.closed = True


class RaftGroup(ConsensusGroup):
    """``stores`` by server ID survive restarts."""

    def __init__(self, options: RaftOptions = QUICK) -> None:
        self.options = options
        self.hub = Hub()
        self.stores: dict[str, DictStore] = {}

    def member(self, server_id: str) -> Consensus:
        store = self.stores.setdefault(server_id, DictStore())
        return RaftConsensus(Driver(server_id, "ns", HubTransport(self.hub, server_id), store, self.options))

    def isolate(self, server_id: str) -> None:
        self.hub.isolated.add(server_id)

    def heal(self) -> None:
        self.hub.isolated.clear()
