"""The hooks of the built-in Raft."""

from liftbridge.hookspecs import hookimpl
from liftbridge.interfaces.consensus import Consensus
from liftbridge.interfaces.context import ConsensusContext
from liftbridge.interfaces.provider import Provider
from liftbridge.interfaces.settings import Setting, SettingKind


@hookimpl
def liftbridge_add_settings() -> list[Setting]:
    return [
        Setting(
            "clustering.raft.heartbeat",
            SettingKind.DURATION,
            0.1,
            "How often the metadata leader is heard of.",
            check=lambda value: None if value >= 0.01 else "must be at least 10ms",
        ),
        Setting(
            "clustering.raft.election.timeout",
            SettingKind.DURATION,
            1.0,
            "Silence of the metadata leader after which another one is elected.",
            check=lambda value: None if value >= 0.05 else "must be at least 50ms",
        ),
        Setting(
            "clustering.raft.snapshot.threshold",
            SettingKind.INTEGER,
            8192,
            "Metadata changes between two snapshots.",
            check=lambda value: None if value >= 1 else "must be at least 1",
        ),
        Setting(
            "clustering.raft.snapshot.trailing",
            SettingKind.INTEGER,
            1024,
            "Metadata changes that are kept behind a snapshot, for servers that are a little behind.",
        ),
        Setting("clustering.raft.snapshot.retain", SettingKind.INTEGER, 1, "Accepted; one snapshot is kept."),
        Setting("clustering.raft.cache.size", SettingKind.INTEGER, 0, "Accepted without effect."),
    ]


@hookimpl
def liftbridge_consensus() -> Provider:
    return Provider(
        "raft_builtin", "Raft with pre-vote, learners and snapshots", _create, capabilities=frozenset({"membership"})
    )


def _create(context: ConsensusContext) -> Consensus:
    from liftbridge_raft_builtin.consensus import RaftConsensus, RaftTimes

    settings = context.settings
    return RaftConsensus(
        context.server_id,
        context.namespace,
        context.transport,
        context.stable_store,
        times=RaftTimes(settings["clustering.raft.heartbeat"], settings["clustering.raft.election.timeout"]),
        snapshot_threshold=settings["clustering.raft.snapshot.threshold"],
        trailing_entries=settings["clustering.raft.snapshot.trailing"],
    )
