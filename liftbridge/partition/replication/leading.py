"""The leader's rules, for one partition and one leader epoch: who holds what, what is committed, who is in sync.

Section numbers of the protocol's description are left out on purpose: the rules stand beside the code that keeps them.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from liftbridge.interfaces.log import EpochStart
from liftbridge.partition.replication.replica import Replica


@dataclass(frozen=True, slots=True)
class SyncLimits:
    """When a follower is out of sync: it says nothing for ``max_silence_ns``, or takes longer than ``max_lag_ns`` to
    reach what was the leader's end when that time began. A replica that is about to come back into sync holds up commits
    for ``max_wait_ns`` at most, and if it didn't make it not again before ``max_lag_ns``."""

    max_silence_ns: int = 2_000_000_000
    max_lag_ns: int = 10_000_000_000
    max_wait_ns: int = 500_000_000


@dataclass(eq=False, slots=True)
class Contact:
    """One start of a follower's server, as all partitions that it follows here see it. Compared by identity: progress
    made in another session is void."""

    replica: str
    incarnation: str
    last_heard_ns: int


class Diverging(NamedTuple):
    """The follower's log differs: the leader's records of ``epoch`` end at ``end_offset`` (exclusive)."""

    epoch: int
    end_offset: int


class OutOfRange(NamedTuple):
    """The leader keeps nothing below ``start_offset`` any more."""

    start_offset: int


@dataclass(frozen=True, slots=True)
class IsrChange:
    """What to ask the controller for: the set as it should be, computed from the partition's state at ``partition_epoch``."""

    partition_epoch: int
    isr: tuple[str, ...]


@dataclass(slots=True)
class _Progress:
    """How far one follower's log is known to be the leader's, in this epoch and by this contact."""

    contact: Contact
    next_offset: int
    #: Where the leader ended when the follower was heard of last.
    end_when_heard: int
    #: Where the leader ended when the follower was last found behind, and when that was.
    target_offset: int = 0
    behind_since_ns: int | None = None


class LeaderReplication:
    """Made anew for each leader epoch, so nothing that was known in an earlier one counts.

    Whoever calls a method that returns True acts on a higher high watermark: readers are awake already, acks and
    followers are the caller's. Times are monotonic. ``durable_end`` is how much of the log is as durable as the stream asks,
    None for all of it. ``may_serve`` says whether an incarnation is a server's present one, and the server is wanted in
    ISRs; ``is_down`` whether the controller has lost a server.
    """

    def __init__(
        self,
        replica: Replica,
        *,
        server_id: str,
        leader_epoch: int,
        replicas: Sequence[str],
        isr: Collection[str],
        partition_epoch: int,
        min_isr: int,
        now_ns: int,
        durable_end: int | None = None,
        limits: SyncLimits | None = None,
        may_serve: Callable[[str, str], bool] = lambda _replica, _incarnation: True,
        is_down: Callable[[str], bool] = lambda _replica: False,
    ) -> None:
        self._replica = replica
        self._server_id = server_id
        self._replicas = tuple(replicas)
        #: More replicas than there are can't be asked for: such a stream would never commit anything.
        self._min_isr = min(min_isr, len(self._replicas))
        self._limits = limits or SyncLimits()
        self._may_serve = may_serve
        self._is_down = is_down
        self._started_ns = now_ns
        self._progress: dict[str, _Progress] = {}
        self.leader_epoch = leader_epoch
        #: The first offset of this epoch. There is no marker record: clients would see a gap for each change of leader.
        self.start_offset = replica.log.end_offset
        self._epochs = (*replica.log.epochs, EpochStart(leader_epoch, self.start_offset))
        self._durable_end = self.start_offset if durable_end is None else durable_end
        self.isr: tuple[str, ...] = ()
        self._partition_epoch = -1
        self._requested: IsrChange | None = None
        self._joining: frozenset[str] = frozenset()
        self._uncertain: frozenset[str] = frozenset()
        self._awaited: dict[str, int] = {}
        self._gave_up_ns: dict[str, int] = {}
        #: Replicas whose disks took nothing when they were heard of last.
        self._cannot_store: set[str] = set()
        self._counted: tuple[str, ...] = ()
        self.apply_isr(isr, partition_epoch)

    # --- the high watermark -------------------------------------------------------------------------------------------

    @property
    def settled(self) -> bool:
        """Whether everything that was committed in earlier epochs is known to be. Before that, this server may not say
        what the latest record is: clients could see it go back."""
        return self._replica.high_watermark >= self.start_offset

    def appended(self, durable_end: int) -> bool:
        """This server's own records below ``durable_end`` are as durable as the stream asks."""
        self._durable_end = durable_end
        return self._advance()

    def fetched(self, contact: Contact, next_offset: int) -> bool:
        """A follower at a position that ``check`` found no fault with."""
        self._cannot_store.discard(contact.replica)
        progress = self._progress.get(contact.replica)
        end_offset = self._replica.log.end_offset
        if progress is None or progress.contact is not contact:
            self._progress[contact.replica] = _Progress(contact, next_offset, end_offset)
        else:
            progress.next_offset = next_offset
            if contact.replica not in self._counted:
                self._wait_if_close(progress)
            progress.end_when_heard = end_offset
        return contact.replica in self._counted and self._advance()

    def cannot_store(self, one: str) -> None:
        """A replica says so itself: nobody need wait for it until the time for catching up is over."""
        self._cannot_store.add(one)
        self._progress.pop(one, None)
        self._awaited.pop(one, None)

    def _wait_if_close(self, progress: _Progress) -> None:
        """A leader that commits alone is always a little ahead of a follower, so under load nobody would ever catch up
        with what is committed. Somebody who is one answer behind is worth the wait."""
        one, now_ns = progress.contact.replica, progress.contact.last_heard_ns
        given_up_ns = self._gave_up_ns.get(one)
        if (
            progress.end_when_heard <= progress.next_offset < self._replica.high_watermark
            and self._may_serve(one, progress.contact.incarnation)
            and (given_up_ns is None or now_ns - given_up_ns > self._limits.max_lag_ns)
        ):
            self._awaited[one] = now_ns
            self._count()

    def stop_waiting(self, now_ns: int) -> bool:
        """Gives up on replicas that didn't get in sync in time."""
        late = [one for one, since_ns in self._awaited.items() if now_ns - since_ns > self._limits.max_wait_ns]
        for one in late:
            del self._awaited[one]
            self._gave_up_ns[one] = now_ns
        return bool(late) and self._count()

    def _advance(self) -> bool:
        """Committed is what all in the ISR hold, if they are enough. A replica that may be in the ISR without our
        knowledge counts as one: else it could be elected without records that were committed meanwhile."""
        if len(self.isr) < self._min_isr:
            return False
        committed = self._durable_end
        for one in self._counted:
            progress = self._progress.get(one)
            if progress is None:
                return False
            committed = min(committed, progress.next_offset)
        if committed <= self._replica.high_watermark:
            return False
        self._replica.advance_high_watermark(committed)
        return True

    # --- followers' positions -----------------------------------------------------------------------------------------

    def lag_messages(self) -> int | None:
        """What the slowest follower lacks, of those that were heard of in this epoch; None when none was."""
        positions = [progress.next_offset for progress in self._progress.values()]
        return max(0, self._replica.log.end_offset - min(positions)) if positions else None

    def is_replica(self, server_id: str) -> bool:
        return server_id in self._replicas and server_id != self._server_id

    def check(self, server_id: str, next_offset: int, last_epoch: int) -> Diverging | OutOfRange | None:
        """Whether a follower that holds records up to ``next_offset``, the last of ``last_epoch``, can go on from there.

        An end above ours is divergence, never "caught up". Equal epochs of the last record mean equal logs up to it,
        because each epoch has one leader, and followers append only behind what was checked.
        """
        log = self._replica.log
        first_offset = max(log.start_offset, self._epochs[0].start_offset)
        if next_offset < first_offset:
            return OutOfRange(first_offset)
        if not last_epoch:
            return Diverging(0, log.end_offset) if next_offset > log.end_offset else None
        epoch, end_offset = self.epoch_end(last_epoch)
        if epoch == last_epoch and next_offset <= end_offset:
            return None
        if not epoch and next_offset == end_offset:
            # Its last record was removed here by retention, so it was committed, and the ISR holds what is committed.
            return None if server_id in self.isr else OutOfRange(next_offset)
        return Diverging(epoch, end_offset)

    def epoch_end(self, asked_epoch: int) -> tuple[int, int]:
        """The largest epoch up to ``asked_epoch`` and where its records end; (0, where the earliest known epoch begins)
        if there is none. Knows epochs that retention has removed since this one began."""
        place = bisect_right(self._epochs, asked_epoch, key=lambda start: start.leader_epoch)
        if not place:
            return 0, self._epochs[0].start_offset
        end_offset = self._epochs[place].start_offset if place < len(self._epochs) else self._replica.log.end_offset
        return self._epochs[place - 1].leader_epoch, end_offset

    # --- the in-sync replicas -----------------------------------------------------------------------------------------

    def apply_isr(self, isr: Collection[str], partition_epoch: int) -> bool:
        """What metadata says now. Requests that were made from an earlier partition epoch can't take effect any more."""
        if partition_epoch <= self._partition_epoch:
            return False
        self._partition_epoch = partition_epoch
        self.isr = tuple(one for one in self._replicas if one in isr)
        self._requested, self._joining, self._uncertain = None, frozenset(), frozenset()
        for one in self.isr:
            self._awaited.pop(one, None)
        return self._count()

    def _count(self) -> bool:
        members = {*self.isr, *self._joining, *self._uncertain, *self._awaited} - {self._server_id}
        self._counted = tuple(one for one in self._replicas if one in members)
        return self._advance()

    def wanted_change(self, now_ns: int) -> IsrChange | None:
        """What to ask the controller for now; None while it was asked already, or is content. From here on the
        replicas that shall join count as if they had."""
        if self._requested is not None:
            return None
        isr = tuple(one for one in self._replicas if self._belongs(one, now_ns))
        if isr == self.isr and not (self._uncertain - {*isr}):
            return None
        self._joining = frozenset(isr) - frozenset(self.isr)
        self._count()
        self._requested = IsrChange(self._partition_epoch, isr)
        return self._requested

    def change_refused(self, change: IsrChange) -> bool:
        """The controller said that the change never took effect and never will."""
        if change is not self._requested:
            return False
        self._requested, self._joining = None, frozenset()
        return self._count()

    def change_unknown(self, change: IsrChange) -> None:
        """No answer: it may still take effect, until metadata shows a later partition epoch. Asking again is safe."""
        if change is self._requested:
            self._requested, self._uncertain = None, self._uncertain | self._joining

    def at_rest(self, now_ns: int) -> bool:
        """Whether nothing about the ISR can change before somebody appends, fetches or falls silent."""
        if self.isr != self._replicas or self._requested is not None or self._uncertain or self._awaited:
            return False
        end_offset = self._replica.log.end_offset
        for one in self._counted:
            progress = self._progress.get(one)
            if progress is None or progress.next_offset < end_offset or self._is_silent(progress.contact, now_ns):
                return False
            if self._is_down(one):
                return False
        return True

    def _is_silent(self, contact: Contact, now_ns: int) -> bool:
        return now_ns - contact.last_heard_ns > self._limits.max_silence_ns

    def _belongs(self, one: str, now_ns: int) -> bool:
        if one == self._server_id:
            return True
        return not self._lags(one, now_ns) if one in self.isr else self.may_join(one, now_ns)

    def may_join(self, one: str, now_ns: int) -> bool:
        """Whether a replica outside the ISR holds all that is committed, and all that was when this epoch began. What an
        earlier start of it held says nothing."""
        progress = self._progress.get(one)
        return (
            progress is not None
            and self._may_serve(one, progress.contact.incarnation)
            and progress.next_offset >= max(self._replica.high_watermark, self.start_offset)
            and not self._is_silent(progress.contact, now_ns)
        )

    def _lags(self, one: str, now_ns: int) -> bool:
        if self._is_down(one) or one in self._cannot_store:
            return True
        progress = self._progress.get(one)
        if progress is None:
            return now_ns - self._started_ns > self._limits.max_silence_ns
        if self._is_silent(progress.contact, now_ns):
            return True
        end_offset = self._replica.log.end_offset
        if progress.next_offset >= end_offset:
            progress.behind_since_ns = None
        elif progress.behind_since_ns is None or progress.next_offset >= progress.target_offset:
            progress.target_offset, progress.behind_since_ns = end_offset, now_ns
        return progress.behind_since_ns is not None and now_ns - progress.behind_since_ns > self._limits.max_lag_ns
