"""The conversations of this server with all others, over the transport: the only part of replication with an event loop."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from liftbridge.clock import Clock
from liftbridge.errors import LiftbridgeError, LogClosed, LogDeleted, ProtocolError, StorageError, TransportError
from liftbridge.interfaces.log import LogId
from liftbridge.interfaces.transport import Delivery, Subscription, Transport
from liftbridge.partition.replication.cluster import IsrController, Servers
from liftbridge.partition.replication.fetching import FetchingLimits, FollowedPartition, ReplicaFetcher
from liftbridge.partition.replication.leading import IsrChange, SyncLimits
from liftbridge.partition.replication.serving import FetchServer, ServingLimits
from liftbridge.partition.replication.sessions import LedPartition
from liftbridge.patience import subscribe_patiently
from liftbridge.protocol.replication import Fetch, decode_message
from liftbridge.tasks import end_tasks

logger = logging.getLogger(__name__)

_TICK_S = 0.1
_CHANGE_TIMEOUT_S = 5.0
#: How long a change of an ISR rests after the controller refused it or didn't answer.
_CHANGE_RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class ExchangeLimits:
    """``suspect_after_ns``: a leader that answers nothing for this time is reported to the controller."""

    sync: SyncLimits = field(default_factory=SyncLimits)
    serving: ServingLimits = field(default_factory=ServingLimits)
    fetching: FetchingLimits = field(default_factory=FetchingLimits)
    suspect_after_ns: int = 3_000_000_000


class ReplicationExchange:
    """Serves the followers of what this server leads, and fetches what it follows. All methods run on the event loop."""

    def __init__(
        self,
        transport: Transport,
        clock: Clock,
        controller: IsrController,
        servers: Servers,
        *,
        namespace: str,
        server_id: str,
        incarnation: str,
        limits: ExchangeLimits | None = None,
    ) -> None:
        self.limits = limits or ExchangeLimits()
        self._transport = transport
        self._clock = clock
        self._controller = controller
        self._servers = servers
        self._prefix = f"{namespace}.replication."
        self._server_id = server_id
        self._incarnation = incarnation
        self._serving = FetchServer(
            max_payload_bytes=self._max_payload_bytes, limits=self.limits.serving, is_current=servers.is_current
        )
        self._fetchers: dict[str, ReplicaFetcher] = {}
        self._suspected_ns: dict[str, int] = {}
        #: Partitions whose leader didn't show yet that it serves them, and since when that is expected.
        self._unserved: dict[LogId, tuple[FollowedPartition, int]] = {}
        self._subscriptions: list[Subscription] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._to_be_synced: set[FollowedPartition] = set()
        self._pump_scheduled = False
        self._timer: asyncio.TimerHandle | None = None

    def _max_payload_bytes(self) -> int:
        return self._transport.max_payload_bytes

    # --- starting and stopping ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begins to serve and to fetch; waits for the transport if it is away."""
        await self._subscribe(f"{self._fetch_subject(self._server_id)}", self._receive_fetches)
        await self._subscribe(f"{self._answer_prefix}>", self._receive_answers)
        self._run(self._keep_ticking())
        self._wake()

    def _fetch_subject(self, server_id: str) -> str:
        return f"{self._prefix}fetch.{server_id}"

    @property
    def _answer_prefix(self) -> str:
        """Behind it stands the ID of the server that answers."""
        return f"{self._prefix}answer.{self._server_id}.from."

    async def _subscribe(self, subject: str, sink: Callable[[list[Delivery]], None]) -> None:
        self._subscriptions.append(await subscribe_patiently(self._transport, subject, sink, direct=True))

    async def stop(self) -> None:
        """Serves and fetches nothing more. Idempotent."""
        await end_tasks(self._tasks)
        if self._timer is not None:
            self._timer.cancel()
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            with contextlib.suppress(TransportError):
                await subscription.unsubscribe()

    # --- roles --------------------------------------------------------------------------------------------------------

    def lead(self, led: LedPartition) -> None:
        """Serves its followers from now on."""
        self._serving.lead(led)
        self._wake()

    def unlead(self, log_id: LogId) -> None:
        """Serves its followers no longer."""
        self._serving.unlead(log_id)

    def isr_changed(self, led: LedPartition, isr: Collection[str], partition_epoch: int) -> None:
        """What metadata says of a partition that is led here."""
        self._serving.isr_changed(led, isr, partition_epoch)
        self._wake()

    def appending(self) -> None:
        """Records are appended later in this turn of the event loop, and shall be sent in it."""
        self._wake()

    def appended(self, led: LedPartition) -> None:
        """There are new records for its followers."""
        self._serving.appended(led)
        self._wake()

    def committed(self, led: LedPartition) -> None:
        """The high watermark moved by what this server did itself."""
        self._serving.committed(led)
        self._wake()

    def follow(self, leader: str, followed: FollowedPartition) -> None:
        """Fetches it from the leader's server from now on."""
        fetcher = self._fetchers.get(leader)
        if fetcher is None:
            fetcher = self._fetchers[leader] = self._make_fetcher(leader)
        now_ns = self._clock.monotonic_ns()
        if fetcher.is_idle:
            fetcher.last_answer_ns = now_ns
        fetcher.follow(followed)
        self._unserved[followed.log_id] = (followed, now_ns)
        self._wake()

    def unfollow(self, leader: str, log_id: LogId) -> None:
        """Doesn't touch its log any more."""
        self._unserved.pop(log_id, None)
        fetcher = self._fetchers.get(leader)
        if fetcher is not None:
            fetcher.unfollow(log_id)
            self._wake()

    def _make_fetcher(self, leader: str) -> ReplicaFetcher:
        return ReplicaFetcher(
            server_id=self._server_id,
            incarnation=self._incarnation,
            max_payload_bytes=self._max_payload_bytes,
            sync=lambda followed: self._run(self._sync_before_progress(leader, followed)),
            appended=self._sync_in_time,
            limits=self.limits.fetching,
            first_session=self._clock.monotonic_ns(),
        )

    # --- messages -----------------------------------------------------------------------------------------------------

    def _receive_fetches(self, deliveries: list[Delivery]) -> None:
        now_ns = self._clock.monotonic_ns()
        for delivery in deliveries:
            for payload in delivery.payloads:
                try:
                    message = decode_message(payload)
                except ProtocolError as error:
                    logger.warning('subject "%s": ignored %d bytes: %s', delivery.subject, len(payload), error)
                    continue
                if isinstance(message, Fetch) and delivery.reply:
                    joining = self._serving.receive(message, delivery.reply, now_ns)
                    if joining:
                        self._ask_for(self._serving.wanted_now(joining, now_ns))
        if self._serving.has_news:
            self._wake()

    def _receive_answers(self, deliveries: list[Delivery]) -> None:
        now_ns = self._clock.monotonic_ns()
        for delivery in deliveries:
            fetcher = self._fetchers.get(delivery.subject.removeprefix(self._answer_prefix))
            if fetcher is None:
                continue
            for payload in delivery.payloads:
                try:
                    message = decode_message(payload)
                except ProtocolError as error:
                    logger.warning('subject "%s": ignored %d bytes: %s', delivery.subject, len(payload), error)
                    continue
                if not isinstance(message, Fetch):
                    fetcher.receive(message, now_ns)
        self._pump()  # the next fetch carries what was appended: the sooner it is there, the sooner it is committed

    def _wake(self) -> None:
        """Sends what is to be sent once this turn of the event loop has done all it wanted to."""
        if not self._pump_scheduled:
            self._pump_scheduled = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_scheduled = False
        now_ns = self._clock.monotonic_ns()
        for subject, payloads in self._serving.collect(now_ns):
            self._publish(subject, payloads, "")
        for leader, fetcher in self._fetchers.items():
            payloads = fetcher.collect(now_ns)
            if payloads:
                self._publish(
                    self._fetch_subject(leader), payloads, f"{self._prefix}answer.{self._server_id}.from.{leader}"
                )
        due_ns = self._serving.due_ns()
        if due_ns is not None and self._timer is None:
            delay_s = max(0.001, (due_ns - now_ns) / 1e9)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._pump_in_time)

    def _pump_in_time(self) -> None:
        self._timer = None
        self._pump()

    def _publish(self, subject: str, payloads: list[bytes], reply: str) -> None:
        """What can't be sent is lost, as any message may be: the conversation begins again."""
        try:
            self._transport.publish_direct(subject, payloads, reply=reply)
        except (TransportError, ValueError) as error:  # ValueError: a server ID that makes no subject
            logger.debug('subject "%s": %d messages were dropped: %s', subject, len(payloads), error)

    # --- time ---------------------------------------------------------------------------------------------------------

    async def _keep_ticking(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            now_ns = self._clock.monotonic_ns()
            self._serving.tick(now_ns)
            for leader, fetcher in self._fetchers.items():
                fetcher.tick(now_ns)
                self._suspect_if_silent(leader, fetcher, now_ns)
            self._suspect_if_not_served(now_ns)
            self._ask_for(self._serving.wanted_changes(now_ns))
            self._pump()

    def _suspect_if_silent(self, leader: str, fetcher: ReplicaFetcher, now_ns: int) -> None:
        silent_since_ns = max(fetcher.last_answer_ns or 0, self._suspected_ns.get(leader, 0))
        if not fetcher.is_idle and now_ns - silent_since_ns > self.limits.suspect_after_ns:
            followed = fetcher.partitions()
            self._suspected_ns[leader] = now_ns
            logger.warning(
                "server %s doesn't answer, and leads %d partitions that are followed here", leader, len(followed)
            )
            self._run(self._suspect(followed))

    def _suspect_if_not_served(self, now_ns: int) -> None:
        """A server may answer and yet not lead a partition, because its log is damaged for example."""
        suspected = []
        for log_id, (followed, since_ns) in list(self._unserved.items()):
            if followed.replication.agrees:
                del self._unserved[log_id]
            elif now_ns - since_ns > self.limits.suspect_after_ns:
                self._unserved[log_id] = (followed, now_ns)
                suspected.append(followed)
        if suspected:
            logger.warning("%d partitions are not served by their leaders", len(suspected))
            self._run(self._suspect(suspected))

    async def _suspect(self, followed: list[FollowedPartition]) -> None:
        """One after the other: nothing is gained by a flood."""
        for one in followed:
            try:
                await self._controller.suspect_leader(
                    *one.log_id, one.replication.leader_epoch, timeout_s=_CHANGE_TIMEOUT_S
                )
            except LiftbridgeError as error:
                logger.debug("%s: the controller doesn't hear of its leader: %s", one.replica.key, error)
                return

    # --- changes of ISRs ----------------------------------------------------------------------------------------------

    def _ask_for(self, wanted: list[tuple[LedPartition, IsrChange]]) -> None:
        for led, change in wanted:
            self._run(self._ask(led, change))

    async def _ask(self, led: LedPartition, change: IsrChange) -> None:
        stream_id, partition = led.log_id
        logger.info(
            "%s: ISR %s is to become %s", led.replica.key, ", ".join(led.replication.isr), ", ".join(change.isr)
        )
        try:
            accepted = await self._controller.change_isr(
                stream_id, partition, change.partition_epoch, change.isr, timeout_s=_CHANGE_TIMEOUT_S
            )
        except LiftbridgeError as error:
            logger.warning("%s: nobody knows what became of the change of its ISR: %s", led.replica.key, error)
            await asyncio.sleep(_CHANGE_RETRY_S)
            self._serving.change_unknown(led, change)
        else:
            if not accepted:
                await asyncio.sleep(_CHANGE_RETRY_S)
                self._serving.change_refused(led, change)

    # --- disks --------------------------------------------------------------------------------------------------------

    async def _sync_before_progress(self, leader: str, followed: FollowedPartition) -> None:
        fetcher = self._fetchers[leader]
        try:
            await self._sync(followed)
        except StorageError as error:
            logger.error("%s: sync failed: %s", followed.replica.key, error)
            fetcher.sync_failed(followed, self._clock.monotonic_ns())
        else:
            fetcher.synced(followed)
            self._wake()

    def _sync_in_time(self, followed: FollowedPartition) -> None:
        if followed.sync_interval_s and followed not in self._to_be_synced:
            self._to_be_synced.add(followed)
            self._run(self._sync_later(followed))

    async def _sync_later(self, followed: FollowedPartition) -> None:
        await asyncio.sleep(followed.sync_interval_s)
        self._to_be_synced.discard(followed)
        try:
            await self._sync(followed)
        except (LogClosed, LogDeleted):
            pass
        except StorageError as error:
            logger.error("%s: sync failed: %s", followed.replica.key, error)

    async def _sync(self, followed: FollowedPartition) -> None:
        await asyncio.to_thread(followed.replica.log.sync)

    def _run(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.critical("a part of replication ended unexpectedly", exc_info=task.exception())
