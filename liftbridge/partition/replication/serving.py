"""The leader's side of the conversations with followers' brokers: all partitions that this server leads.

Each follower's broker has one session, and at most one fetch of it waits here. It is answered as soon as one of its
partitions has something new, with everything that is new. Partitions in which nothing happens cost nothing.
"""

import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from liftbridge.errors import LiftbridgeError, OffsetOutOfRange
from liftbridge.interfaces.log import LogId
from liftbridge.partition.replication.leading import Contact, Diverging, IsrChange, OutOfRange
from liftbridge.partition.replication.replica import Replica
from liftbridge.partition.replication.sessions import LedPartition, Position, Session
from liftbridge.protocol.replication import (
    CANNOT_STORE,
    PART_OVERHEAD_BYTES,
    SECTION_OVERHEAD_BYTES,
    Fetch,
    FetchEntry,
    Section,
    SectionKind,
    encode_answer,
    encode_reset,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServingLimits:
    """``poll_ns``: a fetch for which there is nothing new is answered after this time. ``high_watermark_delay_ns``: how
    long a new high watermark waits for records to travel with. An answer has about ``answer_max_bytes``, or one batch.
    ``max_silence_ns`` is that of the partitions' :class:`SyncLimits`."""

    poll_ns: int = 500_000_000
    high_watermark_delay_ns: int = 20_000_000
    answer_max_bytes: int = 1024 * 1024
    max_silence_ns: int = 2_000_000_000


class Outgoing(NamedTuple):
    """Transport messages to one subject, in order."""

    subject: str
    payloads: list[bytes]


class FetchServer:
    """Takes fetches and gives answers; knows neither a transport nor the time. ``is_current`` says whether an incarnation
    is a server's present one, so that what an earlier start of it sent can't count."""

    def __init__(
        self,
        *,
        max_payload_bytes: Callable[[], int],
        limits: ServingLimits | None = None,
        is_current: Callable[[str, str], bool] = lambda _replica, _incarnation: True,
    ) -> None:
        self._max_payload_bytes = max_payload_bytes
        self._limits = limits or ServingLimits()
        self._is_current = is_current
        self._led: dict[LogId, LedPartition] = {}
        self._sessions: dict[str, Session] = {}
        #: Sessions that may have something to be told.
        self._awake: dict[str, Session] = {}
        self._resets: list[Outgoing] = []
        #: Partitions whose ISR may have to change.
        self._watched: set[LogId] = set()

    # --- partitions ---------------------------------------------------------------------------------------------------

    def lead(self, led: LedPartition) -> None:
        """From now on followers are served; those that asked before this server knew that it leads, too."""
        self._led[led.log_id] = led
        self._watched.add(led.log_id)
        for session in self._sessions.values():
            position = session.positions.get(led.log_id)
            if position is not None:
                self._consider(position)

    def unlead(self, log_id: LogId) -> None:
        """This server no longer leads the partition; followers learn where to go from metadata."""
        led = self._led.pop(log_id, None)
        if led is not None:
            led.followers.clear()

    def get(self, log_id: LogId) -> LedPartition | None:
        return self._led.get(log_id)

    def appended(self, led: LedPartition) -> None:
        """There are new records."""
        self._watched.add(led.log_id)
        for position in led.followers.values():
            if not position.answered:
                self._make_ready(position)

    def committed(self, led: LedPartition) -> None:
        """The high watermark moved: whoever waits for it, here or at the followers, hears of it."""
        led.committed()
        for position in led.followers.values():
            session = position.session
            session.moved[led.log_id] = None
            self._awake[session.contact.replica] = session

    # --- changes of the ISR -------------------------------------------------------------------------------------------

    def wanted_changes(self, now_ns: int) -> list[tuple[LedPartition, IsrChange]]:
        """What to ask the controller for now; to be called a few times in ``max_silence_ns``. Each is to be answered by
        ``change_refused`` or ``change_unknown``, unless it was accepted: then metadata tells. Looks only at partitions in
        which something happened since all was well, and at those of followers that fell silent."""
        for session in self._sessions.values():
            if now_ns - session.contact.last_heard_ns > self._limits.max_silence_ns:
                self._watched.update(session.positions)
        wanted = []
        for log_id in list(self._watched):
            led = self._led.get(log_id)
            if led is None:
                self._watched.discard(log_id)
                continue
            if led.replication.stop_waiting(now_ns):
                self.committed(led)
            change = led.replication.wanted_change(now_ns)
            if change is not None:
                wanted.append((led, change))
            elif led.replication.at_rest(now_ns):
                self._watched.discard(log_id)
        return wanted

    def wanted_now(self, log_ids: Iterable[LogId], now_ns: int) -> list[tuple[LedPartition, IsrChange]]:
        """The same for some partitions that a follower may have caught up with."""
        leds = [led for log_id in log_ids if (led := self._led.get(log_id)) is not None]
        return [(led, change) for led in leds if (change := led.replication.wanted_change(now_ns)) is not None]

    def isr_changed(self, led: LedPartition, isr: Collection[str], partition_epoch: int) -> None:
        """What metadata says of the partition now."""
        self._watched.add(led.log_id)
        if led.replication.apply_isr(isr, partition_epoch):
            self.committed(led)

    def change_refused(self, led: LedPartition, change: IsrChange) -> None:
        """It never took effect and never will. No matter any more if the role is over."""
        if self._led.get(led.log_id) is led and led.replication.change_refused(change):
            self.committed(led)

    def change_unknown(self, led: LedPartition, change: IsrChange) -> None:
        """Nobody said what became of it."""
        led.replication.change_unknown(change)

    # --- fetches ------------------------------------------------------------------------------------------------------

    def receive(self, fetch: Fetch, reply_subject: str, now_ns: int) -> list[LogId]:
        """Takes a fetch. Returns the partitions in which its sender is ready to join the ISR."""
        session = self._session_of(fetch, reply_subject, now_ns)
        if session is None:
            return []
        session.contact.last_heard_ns = session.waiting_since_ns = now_ns
        session.next_fetch += 1
        joining = []
        for entry in fetch.entries:
            position = self._take(session, entry)
            if position is not None and self._consider(position):
                led = self._led[entry.log_id]
                if fetch.replica not in led.replication.isr and led.replication.may_join(fetch.replica, now_ns):
                    joining.append(entry.log_id)
        if session.ready or session.moved:
            self._awake[fetch.replica] = session
        return joining

    def _session_of(self, fetch: Fetch, reply_subject: str, now_ns: int) -> Session | None:
        """The session that the fetch continues or opens; None when it is refused, or too old to be answered."""
        if not self._is_current(fetch.replica, fetch.incarnation):
            return None
        session = self._sessions.get(fetch.replica)
        same_start = session is not None and session.contact.incarnation == fetch.incarnation
        if same_start and session is not None and fetch.session < session.number:
            return None
        if not fetch.number and (session is None or not same_start or fetch.session > session.number):
            return self._open(fetch, reply_subject, now_ns)
        if session is None or not same_start or fetch.session != session.number or fetch.number > session.next_fetch:
            self._resets.append(Outgoing(reply_subject, [encode_reset(fetch.session)]))
            return None
        return session if fetch.number == session.next_fetch else None

    def _open(self, fetch: Fetch, reply_subject: str, now_ns: int) -> Session:
        self._close(fetch.replica)
        contact = Contact(fetch.replica, fetch.incarnation, now_ns)
        session = self._sessions[fetch.replica] = Session(fetch.session, contact, reply_subject)
        return session

    def _close(self, replica: str) -> None:
        session = self._sessions.pop(replica, None)
        self._awake.pop(replica, None)
        for log_id in session.positions if session is not None else ():
            led = self._led.get(log_id)
            if led is not None:
                led.followers.pop(replica, None)

    def _take(self, session: Session, entry: FetchEntry) -> Position | None:
        session.ready.pop(entry.log_id, None)
        if entry.leader_epoch:
            before = session.positions.get(entry.log_id)
            position = session.positions[entry.log_id] = Position(session, entry)
            if before is not None and before.entry.leader_epoch == entry.leader_epoch:
                position.told_high_watermark = before.told_high_watermark
            return position
        session.positions.pop(entry.log_id, None)
        led = self._led.get(entry.log_id)
        if led is not None:
            led.followers.pop(session.contact.replica, None)
        return None

    def _consider(self, position: Position) -> bool:
        """Works out what a position calls for; whether it is one to go on from. A follower that knows of a later epoch
        than this server waits until this server knows, too. A position without a record before it says where to go on,
        not how much the follower holds: as a leader it would give the offsets below it away again."""
        log_id, leader_epoch, next_offset, last_epoch = position.entry
        contact = position.session.contact
        led = self._led.get(log_id)
        if led is None or led.replication.leader_epoch < leader_epoch:
            return False
        replication = led.replication
        if replication.leader_epoch > leader_epoch or not replication.is_replica(contact.replica):
            self._tell(position, Section(log_id, SectionKind.NOT_LEADER, replication.leader_epoch))
            return False
        led.followers.pop(contact.replica, None)
        if next_offset == CANNOT_STORE:
            replication.cannot_store(contact.replica)
            self._watched.add(log_id)
            return False
        fault = replication.check(contact.replica, next_offset, last_epoch)
        if fault is not None:
            self._tell(position, _fault_section(led, fault))
            return False
        led.followers[contact.replica] = position
        if (last_epoch or not next_offset) and replication.fetched(contact, next_offset):
            self.committed(led)
        elif position.told_high_watermark < led.replica.high_watermark:
            position.session.moved[log_id] = None
        if next_offset < led.replica.log.end_offset:
            self._make_ready(position)
        return True

    def _tell(self, position: Position, problem: Section) -> None:
        position.problem = problem
        self._make_ready(position)

    def _make_ready(self, position: Position) -> None:
        session = position.session
        session.ready[position.entry.log_id] = None
        self._awake[session.contact.replica] = session

    # --- answers ------------------------------------------------------------------------------------------------------

    @property
    def has_news(self) -> bool:
        """Whether ``collect`` has something, or will have soon."""
        return bool(self._awake or self._resets)

    def collect(self, now_ns: int) -> list[Outgoing]:
        """Everything that should be sent now."""
        outgoing, self._resets = self._resets, []
        awake, self._awake = self._awake, {}
        for replica, session in awake.items():
            if session.waiting_since_ns is None:
                continue
            if session.moved and session.high_watermarks_due_ns is None:
                session.high_watermarks_due_ns = now_ns + self._limits.high_watermark_delay_ns
            due_ns = session.high_watermarks_due_ns
            expired = now_ns - session.waiting_since_ns >= self._limits.poll_ns
            if session.ready or expired or (due_ns is not None and now_ns >= due_ns):
                outgoing.append(self._answer(session))
            elif due_ns is not None:
                self._awake[replica] = session
        return outgoing

    def due_ns(self) -> int | None:
        """When ``collect`` has something again, if nothing happens; None for not before the next ``tick``."""
        dues = [one.high_watermarks_due_ns for one in self._awake.values() if one.high_watermarks_due_ns is not None]
        return min(dues, default=None)

    def tick(self, now_ns: int) -> None:
        """To be called a few times in ``poll_ns``, before ``collect``: finds the fetches that waited long enough."""
        for replica, session in self._sessions.items():
            since_ns = session.waiting_since_ns
            if since_ns is not None and now_ns - since_ns >= self._limits.poll_ns:
                self._awake[replica] = session

    def _answer(self, session: Session) -> Outgoing:
        payload_bytes = self._max_payload_bytes()
        budget = self._limits.answer_max_bytes - PART_OVERHEAD_BYTES
        sections: list[Section] = []
        for log_id in list(session.ready):
            if budget <= SECTION_OVERHEAD_BYTES and sections:
                break
            del session.ready[log_id]
            section = self._section(session.positions[log_id], budget - SECTION_OVERHEAD_BYTES)
            if section is not None:
                session.moved.pop(log_id, None)
                sections.append(section)
                budget -= section.size_bytes()
        sections += self._high_watermarks(session)
        session.moved.clear()
        session.waiting_since_ns = session.high_watermarks_due_ns = None
        number, session.next_answer = session.next_answer, session.next_answer + 1
        return Outgoing(session.reply_subject, encode_answer(session.number, number, sections, payload_bytes))

    def _section(self, position: Position, max_bytes: int) -> Section | None:
        if position.problem is not None:
            problem, position.problem = position.problem, None
            position.answered = True
            return problem
        led = self._led.get(position.entry.log_id)
        if led is None or position.answered:
            return None
        offset = position.entry.next_offset
        try:
            data = _read(led.replica, offset, max_bytes)
        except OffsetOutOfRange:  # retention was here since the follower asked
            position.answered = True
            return _fault_section(led, OutOfRange(led.replica.log.start_offset))
        except LiftbridgeError as error:
            logger.error("%s: can't be read for followers at offset %d: %s", led.replica.key, offset, error)
            position.answered = True
            return None
        position.answered = bool(data)
        position.told_high_watermark = led.replica.high_watermark
        return Section(
            led.log_id,
            SectionKind.SLICE,
            led.replication.leader_epoch,
            led.replica.high_watermark,
            offset,
            0,
            data,
        )

    def _high_watermarks(self, session: Session) -> list[Section]:
        sections = []
        for log_id in session.moved:
            led, position = self._led.get(log_id), session.positions.get(log_id)
            if led is None or position is None or led.followers.get(session.contact.replica) is not position:
                continue
            if position.told_high_watermark < led.replica.high_watermark:
                position.told_high_watermark = led.replica.high_watermark
                offset, epoch = position.entry.next_offset, led.replication.leader_epoch
                sections.append(Section(log_id, SectionKind.SLICE, epoch, led.replica.high_watermark, offset))
        return sections


def _fault_section(led: LedPartition, fault: Diverging | OutOfRange) -> Section:
    log_id, epoch, high_watermark = led.log_id, led.replication.leader_epoch, led.replica.high_watermark
    if isinstance(fault, Diverging):
        return Section(log_id, SectionKind.DIVERGING, epoch, high_watermark, fault.end_offset, fault.epoch)
    return Section(log_id, SectionKind.OUT_OF_RANGE, epoch, high_watermark, fault.start_offset)


def _read(replica: Replica, offset: int, max_bytes: int) -> bytes:
    """Batches from ``offset`` on, at least one. A follower at the tail gets the last batch without a look at the disk."""
    base_offset, data = replica.last_body
    if base_offset == offset:
        return data
    return replica.log.read(offset, stop=replica.log.end_offset, max_bytes=max(1, max_bytes))
