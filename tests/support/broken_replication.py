"""Known bugs of the original, and of our own drafts, put back: the simulation must notice each. The numbers are those of
the list of known bugs that the project keeps."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from replication_simulation import Controller, PartitionMetadata, Rules

from liftbridge.interfaces.log import EpochStart, LogId
from liftbridge.partition.replication.following import FollowerReplication
from liftbridge.partition.replication.leading import Contact, Diverging, IsrChange, LeaderReplication, OutOfRange
from liftbridge.partition.replication.replica import Replica


class TruncatesToHighWatermark(FollowerReplication):
    """1: without an answer, drops what isn't known to be committed."""

    def __init__(self, replica: Replica, leader_epoch: int, name: str) -> None:
        replica.log.truncate(max(replica.high_watermark, replica.log.start_offset))
        super().__init__(replica, leader_epoch, name)


class EpochBeginsTooEarly(LeaderReplication):
    """2: an epoch begins at the last record of the one before."""

    def __init__(self, replica: Replica, **arguments: Any) -> None:
        super().__init__(replica, **arguments)
        *before, own = self._epochs
        self._epochs = (*before, EpochStart(own.leader_epoch, max(0, own.start_offset - 1)))


class EpochEndsTooLate(LeaderReplication):
    """2, the other way round: the answer is one record too many."""

    def epoch_end(self, asked_epoch: int) -> tuple[int, int]:
        epoch, end_offset = super().epoch_end(asked_epoch)
        return epoch, min(end_offset + 1, self._replica.log.end_offset)


class KeepsProgress(LeaderReplication):
    """3: what followers held in an earlier epoch still counts."""

    def __init__(self, replica: Replica, **arguments: Any) -> None:
        super().__init__(replica, **arguments)
        self._progress = vars(replica).setdefault("progress", self._progress)
        self._count()

    def fetched(self, contact: Contact, next_offset: int) -> bool:
        known = self._progress.get(contact.replica)
        return super().fetched(contact, max(next_offset, known.next_offset if known is not None else 0))


class KeepsEpochAfterRestart(Controller):
    """4: a leader that comes back goes on in its epoch."""

    def restarted(self, server_id: str, log_id: LogId, partition: PartitionMetadata) -> None:
        if partition.leader == server_id:
            self._change(log_id)
        else:
            super().restarted(server_id, log_id, partition)


class TrustsTheEnd(LeaderReplication):
    """5: a follower above the leader's end is caught up."""

    def check(self, server_id: str, next_offset: int, last_epoch: int) -> Diverging | OutOfRange | None:
        if next_offset >= self._replica.log.end_offset:
            return None
        return super().check(server_id, next_offset, last_epoch)


class ExpandsTooEarly(LeaderReplication):
    """6: whoever was heard of lately may join the ISR."""

    def may_join(self, one: str, now_ns: int) -> bool:
        progress = self._progress.get(one)
        return progress is not None and now_ns - progress.contact.last_heard_ns <= self._limits.max_silence_ns


class CommitsWithoutJoining(LeaderReplication):
    """6, the second half: a replica that is about to join doesn't count until metadata says so."""

    def _count(self) -> bool:
        self._counted = tuple(one for one in self.isr if one != self._server_id)
        return self._advance()


class ForgetsUnknownOutcomes(LeaderReplication):
    """A request without an answer counts as refused."""

    def change_unknown(self, change: IsrChange) -> None:
        self.change_refused(change)


class ChecksBeforeProposing(Controller):
    """9: nobody looks again when the change is applied."""

    def accepts(self, partition: PartitionMetadata, server_id: str, change: IsrChange) -> bool:
        return True


class IgnoresRestartsOfOutsiders(Controller):
    """A restart changes nothing where the server isn't in the ISR: a request to add it, made before, still works."""

    def restarted(self, server_id: str, log_id: LogId, partition: PartitionMetadata) -> None:
        if server_id in partition.isr:
            super().restarted(server_id, log_id, partition)


class KeepsRestartedInIsr(Controller):
    """A server that may have lost its tail stays in the ISR."""

    def restarted(self, server_id: str, log_id: LogId, partition: PartitionMetadata) -> None:
        self._change(log_id, new_leader=partition.leader == server_id)


class ElectsAnybody(Controller):
    """A leader from outside the ISR."""

    def elect(self, log_id: LogId, candidates: list[str]) -> None:
        partition = self.now.partitions[log_id]
        live = [one for one in partition.replicas if one in self.live]
        leader = next(reversed(live), "")
        self._change(log_id, leader=leader, isr=(leader,) if leader else partition.isr, new_leader=True)


class UnclampedHighWatermark(FollowerReplication):
    """11: the leader's high watermark, whatever is held."""

    def take_high_watermark(self, leader_high_watermark: int) -> None:
        self._replica.advance_high_watermark(leader_high_watermark)


class BelievesTooSoon(FollowerReplication):
    """The leader's high watermark, before the logs are known to agree."""

    def take_slice(self, offset: int, high_watermark: int, data: bytes | memoryview) -> bool:
        self.agrees = True
        return super().take_slice(offset, high_watermark, data)

    def take_diverging(self, epoch: int, end_offset: int) -> bool:
        self.take_high_watermark(1 << 60)
        return super().take_diverging(epoch, end_offset)


class IgnoresMinIsr(LeaderReplication):
    """Commits with fewer in sync than the stream asks for."""

    def __init__(self, replica: Replica, **arguments: Any) -> None:
        super().__init__(replica, **arguments)
        self._min_isr = 1


@dataclass(frozen=True)
class Broken:
    """How often a broken rule shows depends on what happens; ``weights`` makes that more likely."""

    rules: Rules
    weights: Mapping[str, float] = field(default_factory=dict)


#: Requests are slow, and servers come and go.
RESTLESS = {
    "carry_request": 1,
    "crash": 0,
    "lose_power": 3,
    "restart": 20,
    "apply_metadata": 40,
    "depose": 0,
    "publish": 10,
}
ELECTIONS = {"depose": 4, "apply_metadata": 40, "deliver": 120, "crash": 0}

BROKEN: dict[str, Broken] = {
    "truncates to its high watermark": Broken(Rules(follower=TruncatesToHighWatermark)),
    "an epoch begins too early": Broken(Rules(leader=EpochBeginsTooEarly)),
    "an epoch ends too late": Broken(Rules(leader=EpochEndsTooLate)),
    "progress outlives the epoch": Broken(Rules(leader=KeepsProgress), ELECTIONS),
    "same epoch after a restart": Broken(Rules(controller=KeepsEpochAfterRestart)),
    "above the end is caught up": Broken(Rules(leader=TrustsTheEnd)),
    "expands too early": Broken(Rules(leader=ExpandsTooEarly)),
    "commits without those that join": Broken(Rules(leader=CommitsWithoutJoining)),
    "no answer is a refusal": Broken(Rules(leader=ForgetsUnknownOutcomes)),
    "checked before it is proposed": Broken(Rules(controller=ChecksBeforeProposing)),
    "restarts of outsiders go unnoticed": Broken(Rules(controller=IgnoresRestartsOfOutsiders), RESTLESS),
    "a restarted server stays in the ISR": Broken(Rules(controller=KeepsRestartedInIsr)),
    "leader from outside the ISR": Broken(Rules(controller=ElectsAnybody)),
    "unclamped high watermark": Broken(Rules(follower=UnclampedHighWatermark)),
    "believes the high watermark too soon": Broken(Rules(follower=BelievesTooSoon)),
    "commits below min ISR": Broken(Rules(leader=IgnoresMinIsr)),
    "no barrier between roles": Broken(Rules(barrier=False)),
}
