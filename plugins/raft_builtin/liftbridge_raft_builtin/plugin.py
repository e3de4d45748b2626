"""The hooks of the built-in consensus."""

from typing import Any

from liftbridge.errors import ConfigError
from liftbridge.hookspecs import hookimpl
from liftbridge.interfaces.consensus import Consensus
from liftbridge.interfaces.context import ConsensusContext
from liftbridge.interfaces.provider import Provider
from liftbridge.interfaces.settings import Setting, SettingKind

_DEFAULT_THRESHOLD = 8192


def _at_least(least: float, text: str) -> Any:
    return lambda value: None if value >= least else f"must be at least {text}"


@hookimpl
def liftbridge_add_settings() -> list[Setting]:
    return [
        Setting(
            "clustering.raft.heartbeat",
            SettingKind.DURATION,
            0.15,
            "How often the metadata leader tells the other servers that it is there.",
            check=_at_least(0.003, "3ms"),
        ),
        Setting(
            "clustering.raft.election.timeout",
            SettingKind.DURATION,
            0.6,
            "A server that hears of no metadata leader for this long, up to twice as long, tries to become it. "
            "At least twice the heartbeat.",
            check=_at_least(0.006, "6ms"),
        ),
        Setting(
            "clustering.raft.max.message.bytes",
            SettingKind.SIZE,
            256 * 1024,
            "The size from which metadata sent to another server is divided into several messages.",
            check=_at_least(1024, "1KiB"),
        ),
        Setting(
            "clustering.raft.snapshot.threshold",
            SettingKind.INTEGER,
            _DEFAULT_THRESHOLD,
            "A snapshot of the metadata is taken after so many changes; 0 means the default.",
            check=_at_least(0, "0"),
        ),
        Setting(
            "clustering.raft.snapshot.trailing",
            SettingKind.INTEGER,
            1024,
            "So many changes before a snapshot are kept, for servers that are a little behind; one that is further "
            "behind is sent the snapshot.",
            check=_at_least(0, "0"),
        ),
        Setting(
            "clustering.raft.snapshot.retain",
            SettingKind.INTEGER,
            2,
            "No effect, accepted for old config files: a snapshot replaces the one before it in the same write.",
        ),
        Setting(
            "clustering.raft.cache.size",
            SettingKind.INTEGER,
            512,
            "No effect, accepted for old config files: changes since the last snapshot are in memory anyway.",
        ),
    ]


@hookimpl
def liftbridge_consensus() -> Provider:
    return Provider(
        name="raft_builtin",
        summary="Raft with pre-vote, learners, snapshots and leadership transfer",
        create=_create,
        capabilities=frozenset({"learners", "membership", "snapshots", "transfer"}),
    )


def _create(context: ConsensusContext) -> Consensus:
    from liftbridge_raft_builtin.consensus import RaftConsensus
    from liftbridge_raft_builtin.driver import Driver, RaftOptions

    settings = context.settings
    heartbeat_s = settings["clustering.raft.heartbeat"]
    election_timeout_s = settings["clustering.raft.election.timeout"]
    if election_timeout_s < 2 * heartbeat_s:
        raise ConfigError(
            f"clustering.raft.election.timeout is {election_timeout_s:g}s; with clustering.raft.heartbeat at "
            f"{heartbeat_s:g}s it must be at least {2 * heartbeat_s:g}s"
        )
    options = RaftOptions(
        heartbeat_s=heartbeat_s,
        election_timeout_s=election_timeout_s,
        snapshot_threshold_entries=settings["clustering.raft.snapshot.threshold"] or _DEFAULT_THRESHOLD,
        trailing_entries=settings["clustering.raft.snapshot.trailing"],
        max_message_bytes=settings["clustering.raft.max.message.bytes"],
    )
    driver = Driver(context.server_id, context.namespace, context.transport, context.stable_store, options)
    return RaftConsensus(driver)
