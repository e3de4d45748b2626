"""Known bugs of the original, and of our own drafts, put back into a whole simulated cluster, which must notice each.

A bug is what stands in for a class or function while the cluster lives. The numbers are those of the list of known bugs
that the project keeps; ``ELSEWHERE`` says where those are caught that a cluster over a modelled disk can't show.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

from broken_replication import (
    BelievesTooSoon,
    EpochBeginsTooEarly,
    EpochEndsTooLate,
    ExpandsTooEarly,
    IgnoresMinIsr,
    KeepsProgress,
    TruncatesToHighWatermark,
    TrustsTheEnd,
    UnclampedHighWatermark,
)
from simulation.disk import Disk
from simulation.world import World

from liftbridge.broker.forwarded import ForwardServer
from liftbridge.broker.forwarded_lane import ForwardedLane
from liftbridge.broker.forwarding import ForwardLane
from liftbridge.cluster.control import ControllerCore
from liftbridge.metadata.commands import PartitionChange
from liftbridge.metadata.model import PartitionState, ServerStatus
from liftbridge.metadata.partition_changes import restarted
from liftbridge.metadata.state import MetadataState
from liftbridge.partition.replication import serving
from liftbridge.partition.replication.leading import LeaderReplication
from liftbridge.protocol.forwarding import Chunk

_LEADER = "liftbridge.partition.roles.LeaderReplication"
_FOLLOWER = "liftbridge.partition.roles.FollowerReplication"
_RESTARTED = "liftbridge.metadata.state.restarted"


def _nothing(*_: Any, **__: Any) -> None:
    pass


async def _nothing_async(*_: Any, **__: Any) -> None:
    pass


class CommitsUnsynced(LeaderReplication):
    """What the leader has appended counts, though its disk may not have it."""

    def appended(self, durable_end: int) -> bool:
        return super().appended(self._replica.log.end_offset)


def keeps_epoch(partition: PartitionState, server_id: str, *, unclean: bool, index: int) -> PartitionState:
    if partition.leader == server_id:
        return replace(partition, partition_epoch=index)
    return restarted(partition, server_id, unclean=unclean, index=index)


def keeps_in_isr(partition: PartitionState, server_id: str, *, unclean: bool, index: int) -> PartitionState:
    return restarted(partition, server_id, unclean=False, index=index)


def elects_anybody(core: ControllerCore, stream: Any, number: int, partition: PartitionState, _: Any) -> Any:
    servers = core._state.servers
    live = [one for one in partition.replicas if one in servers and servers[one].status is ServerStatus.LIVE]
    if partition.leader in live or not live:
        return None
    return PartitionChange(stream.stream_id, number, partition.partition_epoch, leader=live[-1], unclean=True)


def gives_up_on_large(replica: Any, offset: int, max_bytes: int) -> bytes:
    data = _read(replica, offset, min(max_bytes, 200))
    return data if len(data) <= 200 else b""


_read = serving._read


def snapshot_of_the_living(state: MetadataState) -> bytes:
    """As if whoever is down when it is taken were not."""
    servers = state._servers
    state._servers = {name: replace(one, status=ServerStatus.LIVE) for name, one in servers.items()}
    try:
        return _snapshot(state)
    finally:
        state._servers = servers


_snapshot = MetadataState.snapshot


def takes_any_chunk(server: ForwardServer, chunk: Chunk, lane: ForwardedLane, answer_subject: str) -> None:
    """As if nothing could overtake anything."""
    if chunk.sequence not in lane.answers:
        lane.next_sequence = chunk.sequence
    _take(server, chunk, lane, answer_subject)


def takes_copies(server: ForwardServer, chunk: Chunk, lane: ForwardedLane, answer_subject: str) -> None:
    """As if each chunk came once."""
    lane.next_sequence = min(lane.next_sequence, chunk.sequence)
    _take(server, chunk, lane, answer_subject)


_take = ForwardServer._take


def takes_back_what_may_be_stored(lane: ForwardLane, sequence: int, now_ns: int) -> None:
    """As if a restarted leader knew what it took before."""
    lane._take_back(min([sequence, *lane._sent]), now_ns)


def forgets_unclean_stop(disk: Disk) -> bool:
    unclean = disk.running and disk.rebooted
    if disk.mounted is not None:
        disk.running, disk.rebooted = True, False
    return unclean


@dataclass(frozen=True)
class Bug:
    """``patches``: what stands in for what. ``finds`` are the invariants of which one must fail. Weights and settings make
    it likelier that the bug shows."""

    patches: Mapping[str, Any]
    number: int | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 3.0
    publish_every_s: float | None = None
    #: A seed that showed it when this was written: where to begin to look.
    seed: int = 0

    def world(self, seed: int) -> World:
        """A life in which the bug is likely to show."""
        return World(
            seed,
            seconds=self.seconds,
            weights=self.weights,
            settings=self.settings,
            publish_every_s=self.publish_every_s,
        )

    @contextmanager
    def put_back(self) -> Iterator[None]:
        with ExitStack() as stack:
            for target, substitute in self.patches.items():
                stack.enter_context(mock.patch(target, substitute))
            yield


_LEADS: Callable[[type], dict[str, Any]] = lambda broken: {_LEADER: broken}  # noqa: E731
_FOLLOWS: Callable[[type], dict[str, Any]] = lambda broken: {_FOLLOWER: broken}  # noqa: E731
CALM = dict.fromkeys(("kill", "kill_all", "freeze", "isolate", "terminate", "drain", "slow_disk", "disconnect"), 0.0)
_CHURN = {**CALM, "transfer": 6, "cut": 3, "isolate": 3, "slow_link": 2, "lose_power": 0, "bad_network": 0}
_POWER = {**CALM, "lose_power": 5, "cut": 1, "transfer": 1, "bad_network": 0, "slow_link": 1}
_SLOW = {**CALM, "slow_disk": 6, "slow_link": 6, "kill": 3, "cut": 3, "freeze": 1, "lose_power": 0}
_KILLS = {**CALM, "kill": 4, "freeze": 2, "lose_power": 0, "transfer": 1, "bad_network": 0}
_RELAPSES = {**CALM, "relapse": 5, "lose_power": 0, "cut": 1, "transfer": 0}
#: Ways between servers that come, go and are slow; nobody else does.
WAYS = {**CALM, "slow_link": 8, "break_link": 8, "cut": 5, "transfer": 1, "lose_power": 0}
#: Links that break, and nothing else.
BREAKS = {
    **CALM,
    **dict.fromkeys(("cut", "slow_link", "bad_network", "transfer", "lose_power", "relapse"), 0.0),
    "break_link": 20,
}
#: Chunks and answers are lost while who leads changes.
_LOSSES = {**CALM, "break_link": 10, "transfer": 5, "kill": 3, "slow_link": 4, "lose_power": 0}
_PAGE = {"streams.durability": "page"}
_SYNC = {"streams.durability": "sync"}

BUGS: dict[str, Bug] = {
    "truncates to its high watermark": Bug(_FOLLOWS(TruncatesToHighWatermark), 1, _CHURN),
    "an epoch begins too early": Bug(_LEADS(EpochBeginsTooEarly), 2, _CHURN),
    "an epoch ends too late": Bug(_LEADS(EpochEndsTooLate), 2, _CHURN),
    "progress outlives the epoch": Bug(
        _LEADS(KeepsProgress), 3, {**_CHURN, "transfer": 12}, publish_every_s=0.02, seed=12
    ),
    "same epoch after a restart": Bug({_RESTARTED: keeps_epoch}, 4, _POWER, _PAGE),
    "above the end is caught up": Bug(_LEADS(TrustsTheEnd), 5, _CHURN),
    "expands too early": Bug(_LEADS(ExpandsTooEarly), 6, _KILLS),
    "no barrier between roles": Bug({"liftbridge.partition.leader.PartitionLeader.step_down": _nothing}, 10, _CHURN),
    "unclamped high watermark": Bug(_FOLLOWS(UnclampedHighWatermark), 11, _KILLS),
    "restored, and nobody starts it": Bug({"liftbridge.metadata.state.MetadataState._changed": _nothing}, 20),
    "a snapshot isn't the state": Bug(
        {"liftbridge.metadata.state.MetadataState.snapshot": snapshot_of_the_living},
        21,
        _KILLS,
        {"clustering.raft.snapshot.threshold": 12},
    ),
    "a large record stalls": Bug({"liftbridge.partition.replication.serving._read": gives_up_on_large}, 24),
    "a restarted server stays in the ISR": Bug({_RESTARTED: keeps_in_isr}, None, _POWER, _PAGE),
    "leader from outside the ISR": Bug(
        {"liftbridge.cluster.control.ControllerCore._election": elects_anybody}, None, _KILLS, seed=314
    ),
    "believes the high watermark too soon": Bug(_FOLLOWS(BelievesTooSoon), None, _CHURN),
    "commits below min ISR": Bug(_LEADS(IgnoresMinIsr), None, _KILLS, {"clustering.min.insync.replicas": 2}),
    "commits what isn't synced": Bug(_LEADS(CommitsUnsynced), None, _SLOW, _SYNC),
    "an unclean stop is forgotten by who is killed twice": Bug(
        {"simulation.disk.Disk.begin_run": forgets_unclean_stop}, None, _RELAPSES, _PAGE
    ),
    "forwarded chunks overtake each other": Bug(
        {"liftbridge.broker.forwarded.ForwardServer._take": takes_any_chunk}, None, WAYS, publish_every_s=0.02, seed=9
    ),
    "a copy of a chunk is stored, too": Bug(
        {"liftbridge.broker.forwarded.ForwardServer._take": takes_copies}, None, WAYS, publish_every_s=0.02
    ),
    "what a restarted leader may have stored is sent again": Bug(
        {"liftbridge.broker.forwarding.ForwardLane._take_strange": takes_back_what_may_be_stored},
        None,
        _LOSSES,
        publish_every_s=0.02,
        seed=8,
    ),
    "a follower begins below what was asked": Bug(
        {"liftbridge.broker.subscribing.Subscribing._look_for_end": _nothing_async}
    ),
}

#: Why a known bug isn't put back here, and what catches it.
ELSEWHERE: dict[int, str] = {
    7: "witnesses belong to an epoch by their key: tests/unit/cluster/test_control.py",
    8: "witnesses are checked: tests/unit/cluster/test_control.py",
    9: "too rare here: tests/simulation/test_replication_simulation.py, and tests/unit/metadata/test_partition_changes.py",
    12: "no read of a log swallows an error: liftbridge/testing/log_suite.py",
    13: "the disk is modelled here; tails: plugins/storage_segments/tests/test_crashes.py",
    14: "the index is a cache: plugins/storage_segments/tests/test_crashes.py",
    15: "leftovers: plugins/storage_segments/tests/test_crashes.py",
    16: "short writes: plugins/storage_segments/tests/test_crashes.py",
    17: "headers have checksums: plugins/storage_segments/tests/test_crashes.py",
    18: "absent header values: tests/unit/protocol/test_publish_requests.py",
    19: "lengths in envelopes: tests/unit/protocol/test_envelope.py",
    22: "apply has no asynchronous part: tests/architecture (the state machine may not import asyncio)",
    23: "placement counts as it goes: tests/unit/metadata/test_cluster_state.py",
    25: "retention and rolling: liftbridge/testing/log_suite.py",
    26: "times with an empty active segment: liftbridge/testing/log_suite.py",
    27: "reading backward over gaps: tests/cluster/test_subscribing.py",
    28: "one replica commits what it has at its start: tests/cluster/test_kill.py",
    29: "cursors have no age retention: tests of cursors",
    30: "no permissions yet: nothing is denied",
}
