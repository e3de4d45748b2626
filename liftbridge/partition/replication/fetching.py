"""The follower's side of the conversation with one leader's broker: all partitions that this server follows from it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from liftbridge.errors import LiftbridgeError, ProtocolError, StorageError
from liftbridge.interfaces.log import LogId
from liftbridge.partition.replication.following import FollowerReplication
from liftbridge.partition.replication.replica import Replica
from liftbridge.protocol.replication import (
    CANNOT_STORE,
    ENTRY_BYTES,
    AnswerPart,
    Fetch,
    FetchEntry,
    Reset,
    Section,
    SectionKind,
    encode_fetch,
    iter_sections,
)

logger = logging.getLogger(__name__)

#: Room for a fetch's header and names.
_FETCH_OVERHEAD_BYTES = 1024


@dataclass(frozen=True, slots=True)
class FetchingLimits:
    """``answer_timeout_ns`` must be larger than the leaders' poll time: after that a session counts as lost.
    ``retry_ns``: how long a partition rests after something went wrong with it."""

    answer_timeout_ns: int = 1_000_000_000
    retry_ns: int = 500_000_000


@dataclass(eq=False, slots=True)
class FollowedPartition:
    """One partition that this server follows. ``needs_sync``: records count only once they are on the disk;
    ``sync_interval_s``: they are brought there within this time, 0 for whenever the system likes. ``begin_anew`` asks for
    another log in the place of this one, soon: the leader can't continue it, and nothing is in it."""

    log_id: LogId
    replica: Replica
    replication: FollowerReplication
    needs_sync: bool = False
    sync_interval_s: float = 0.0
    begin_anew: Callable[["FollowedPartition"], None] = lambda _followed: None
    syncing: bool = False
    sync_failed: bool = False
    #: What went wrong last, until something goes right.
    complaint: str = ""


class ReplicaFetcher:
    """Gives fetches and takes answers; knows neither a transport nor the time. ``sync`` is called with partitions whose
    log should be synced before their progress is reported; ``synced`` must be called afterwards. ``appended`` is called
    with partitions that have new records."""

    def __init__(
        self,
        *,
        server_id: str,
        incarnation: str,
        max_payload_bytes: Callable[[], int],
        sync: Callable[[FollowedPartition], None] = lambda _followed: None,
        appended: Callable[[FollowedPartition], None] = lambda _followed: None,
        limits: FetchingLimits | None = None,
        first_session: int = 1,
    ) -> None:
        self._server_id = server_id
        self._incarnation = incarnation
        self._max_payload_bytes = max_payload_bytes
        self._sync = sync
        self._appended = appended
        self._limits = limits or FetchingLimits()
        self._followed: dict[LogId, FollowedPartition] = {}
        self._changed: dict[LogId, None] = {}
        self._resting: dict[LogId, int] = {}
        self._session = first_session
        self._next_fetch = 0
        self._next_answer = 0
        self._fetched_ns: int | None = None
        self._pieces: list[memoryview] = []
        self.last_answer_ns: int | None = None

    # --- partitions ---------------------------------------------------------------------------------------------------

    def follow(self, followed: FollowedPartition) -> None:
        """Begins with it, or goes on in another leader epoch. What a kill left unsynced must not count as synced."""
        self._followed[followed.log_id] = followed
        self._resting.pop(followed.log_id, None)
        self._report(followed)

    def unfollow(self, log_id: LogId) -> None:
        """Nothing touches the partition's log any more."""
        if self._followed.pop(log_id, None) is not None:
            self._resting.pop(log_id, None)
            self._changed[log_id] = None

    @property
    def is_idle(self) -> bool:
        """Whether it follows nothing."""
        return not self._followed

    def partitions(self) -> list[FollowedPartition]:
        return list(self._followed.values())

    def synced(self, followed: FollowedPartition) -> None:
        """What was appended before the call of ``sync`` is on the disk."""
        followed.syncing = False
        if self._followed.get(followed.log_id) is followed:
            self._changed[followed.log_id] = None

    def sync_failed(self, followed: FollowedPartition, now_ns: int) -> None:
        """Nobody knows what the disk kept: tries again later, and says nothing of progress until then."""
        if self._followed.get(followed.log_id) is followed:
            followed.sync_failed = True
            self._resting[followed.log_id] = now_ns + self._limits.retry_ns

    # --- fetches ------------------------------------------------------------------------------------------------------

    def collect(self, now_ns: int) -> list[bytes]:
        """What should be sent to the leader's broker now: at most one fetch. While one waits there, another is worth it
        only with news."""
        if not self._followed and not self._changed:
            return []
        if self._fetched_ns is not None and not self._changed:
            return []
        entries = self._entries()
        number, self._next_fetch = self._next_fetch, self._next_fetch + 1
        self._fetched_ns = now_ns
        return [encode_fetch(Fetch(self._session, number, self._server_id, self._incarnation, entries))]

    def _entries(self) -> list[FetchEntry]:
        room = max(1, (self._max_payload_bytes() - _FETCH_OVERHEAD_BYTES) // ENTRY_BYTES)
        entries = []
        for log_id in list(self._changed)[:room]:
            del self._changed[log_id]
            followed = self._followed.get(log_id)
            if followed is None:
                entries.append(FetchEntry(log_id, 0, 0, 0))
            elif followed.replica.cannot_store:
                self._resting.setdefault(log_id, 0)  # it may be so since another role
                entries.append(FetchEntry(log_id, followed.replication.leader_epoch, CANNOT_STORE, 0))
            elif not followed.syncing:
                one = followed.replication
                entries.append(FetchEntry(log_id, one.leader_epoch, one.next_offset, one.last_epoch))
        return entries

    def tick(self, now_ns: int) -> None:
        """To be called a few times in ``retry_ns``, before ``collect``."""
        for log_id in [log_id for log_id, due_ns in self._resting.items() if due_ns <= now_ns]:
            self._retry(log_id, now_ns)
        if self._fetched_ns is not None and now_ns - self._fetched_ns > self._limits.answer_timeout_ns:
            self._open_session()

    def _retry(self, log_id: LogId, now_ns: int) -> None:
        del self._resting[log_id]
        followed = self._followed[log_id]
        if followed.replica.cannot_store and not followed.replica.check_room():
            self._resting[log_id] = now_ns + self._limits.retry_ns
        if followed.sync_failed:
            followed.sync_failed = False
            self._sync(followed)
        elif not followed.syncing:  # a second sync beside the first would vouch for what came after it began
            self._changed[log_id] = None

    def _open_session(self) -> None:
        self._session += 1
        self._next_fetch = self._next_answer = 0
        self._fetched_ns = None
        self._pieces.clear()
        self._changed = {log_id: None for log_id in self._followed if log_id not in self._resting}

    # --- answers ------------------------------------------------------------------------------------------------------

    def receive(self, message: AnswerPart | Reset, now_ns: int) -> None:
        """Takes a transport message from the leader's broker. What belongs to another session is ignored."""
        if message.session != self._session:
            return
        if isinstance(message, Reset):
            self._open_session()
            return
        body = self._assemble(message)
        if body is None:
            return
        self.last_answer_ns = now_ns
        self._next_answer += 1
        self._fetched_ns = None
        try:
            for section in iter_sections(body):
                self._take(section, now_ns)
        except ProtocolError as error:
            logger.error("an answer for replicas makes no sense, trying again: %s", error)
            self._open_session()

    def _assemble(self, part: AnswerPart) -> memoryview | bytes | None:
        """The whole answer once its last part is here. A lost part or answer ends the session."""
        if part.number < self._next_answer:
            return None
        if part.number > self._next_answer or part.part > len(self._pieces):
            self._open_session()
            return None
        if part.part < len(self._pieces):
            return None
        if part.parts == 1:
            return part.piece
        self._pieces.append(part.piece)
        if len(self._pieces) < part.parts:
            return None
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)

    def _take(self, section: Section, now_ns: int) -> None:
        followed = self._followed.get(section.log_id)
        if followed is None:
            return
        if section.kind is SectionKind.NOT_LEADER:
            self._resting[section.log_id] = now_ns + self._limits.retry_ns  # unless metadata says where to go before
            return
        if section.leader_epoch != followed.replication.leader_epoch:
            return
        try:
            if self._apply(followed, section):
                self._report(followed)
            followed.complaint = ""
        except (LiftbridgeError, ValueError) as error:  # ValueError: batches that don't continue each other
            if isinstance(error, StorageError):
                followed.replica.append_failed(error, len(section.data))
            if followed.replica.cannot_store:
                self._changed[section.log_id] = None
            if str(error) != followed.complaint:
                followed.complaint = str(error)
                logger.error("%s: following failed, trying again: %s", followed.replica.key, error)
            self._resting[section.log_id] = now_ns + self._limits.retry_ns

    def _apply(self, followed: FollowedPartition, section: Section) -> bool:
        """Whether there is a new position to report. Raises LiftbridgeError when the partition has to rest."""
        replication = followed.replication
        match section.kind:
            case SectionKind.SLICE:
                appended = replication.take_slice(section.offset, section.high_watermark, section.data)
                if appended:
                    self._appended(followed)
                return appended
            case SectionKind.DIVERGING:
                if not replication.take_diverging(section.epoch, section.offset):
                    if replication.is_stranded:
                        followed.begin_anew(followed)
                    raise ProtocolError(f"diverges from its leader at {section.offset}, with nothing left to drop")
            case SectionKind.OUT_OF_RANGE:
                replication.take_out_of_range(section.offset)
        return True

    def _report(self, followed: FollowedPartition) -> None:
        if not followed.needs_sync:
            self._changed[followed.log_id] = None
        elif not followed.syncing:
            followed.syncing = True
            self._sync(followed)
