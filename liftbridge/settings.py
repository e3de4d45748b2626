"""The kernel's own settings. Plugins declare theirs; together they are every key that a config file may have."""

from collections.abc import Mapping
from typing import Any

from liftbridge.interfaces.provider import Seam
from liftbridge.interfaces.settings import Setting, SettingKind

_DURATION, _SIZE, _INTEGER = SettingKind.DURATION, SettingKind.SIZE, SettingKind.INTEGER
_BOOLEAN, _STRING, _LIST = SettingKind.BOOLEAN, SettingKind.STRING, SettingKind.LIST


def _not_negative(value: float) -> str | None:
    return None if value >= 0 else "must not be negative"


def _positive(value: float) -> str | None:
    return None if value > 0 else "must be more than 0"


def _percent(value: int) -> str | None:
    return None if 0 <= value <= 100 else "must be from 0 to 100"


def _token(value: str) -> str | None:
    """IDs and namespaces become parts of NATS subjects."""
    if any(character.isspace() or character in ".*>" or not character.isprintable() for character in value):
        return "must not contain white space, dots, * or >"
    return None


def _namespace(value: str) -> str | None:
    return _token(value) if value else "must not be empty"


def _segment_bytes(value: int) -> str | None:
    return None if 1 <= value < 1 << 31 else "must be from 1 byte to less than 2GiB"


def _internal_partitions(value: int) -> str | None:
    return None if 0 <= value <= 4096 else "must be from 0 to 4096"


def _internal_replicas(value: int) -> str | None:
    return None if value == -1 or value > 0 else "must be -1 or more than 0"


_NO_AUTHORIZATION = "none"

KERNEL_SETTINGS: tuple[Setting, ...] = (
    # --- which plugin does what
    Setting(
        "storage.log",
        _STRING,
        "segments",
        "Log storage to use; a data directory stays with the one that it began with.",
    ),
    Setting("storage.index", _STRING, "lmdb", "Index storage to use."),
    Setting("storage.stable", _STRING, "lmdb", "Stable store to use."),
    Setting("clustering.consensus", _STRING, "raft_builtin", "Consensus to use."),
    Setting("transport", _STRING, "nats", "Transport to use.", aliases=("transport.provider",)),
    Setting("routing", _STRING, "subjects", "Subject router to use."),
    Setting("endpoints", _LIST, ("grpc",), "Endpoints to run; clients are told the address of the first."),
    Setting(
        "authorization",
        _STRING,
        _NO_AUTHORIZATION,
        "Authorizer to use, which says what each client may do; with none, everybody may do everything.",
        aliases=("authorization.provider",),
    ),
    Setting(
        "tls.client.authz.enabled",
        _BOOLEAN,
        False,
        "The original's word for authorization = policy.",
    ),
    # --- the server
    Setting(
        "data.dir",
        SettingKind.PATH,
        None,
        "Where everything is stored. Unset: liftbridge/<namespace> in the system's temporary directory.",
        aliases=("data-dir",),
    ),
    Setting(
        "metadata.cache.max.age",
        _DURATION,
        120.0,
        "Accepted without effect: metadata is always current.",
        check=_not_negative,
    ),
    Setting("batch.max.messages", _INTEGER, 1024, "Messages of one batch, at most.", check=_positive),
    Setting("batch.max.time", _DURATION, 0.0, "Accepted without effect: batches never wait.", check=_not_negative),
    Setting("logging.level", _STRING, "info", "What is logged.", choices=("debug", "info", "warn", "warning", "error")),
    Setting("logging.recovery", _BOOLEAN, False, "Accepted without effect."),
    Setting("logging.raft", _BOOLEAN, False, "Log what the consensus plugin says below warnings."),
    Setting("logging.nats", _BOOLEAN, False, "Log what the embedded nats-server says below warnings."),
    Setting("telemetry.enabled", _BOOLEAN, False, "Accepted without effect: nothing is ever sent home."),
    Setting("telemetry.interval.seconds", _INTEGER, 0, "Accepted without effect."),
    # --- defaults for streams
    Setting("streams.retention.max.bytes", _SIZE, 0, "Bytes a partition keeps; 0 is no limit.", check=_not_negative),
    Setting(
        "streams.retention.max.messages", _INTEGER, 0, "Messages a partition keeps; 0 is no limit.", check=_not_negative
    ),
    Setting(
        "streams.retention.max.age",
        _DURATION,
        604_800.0,
        "How long messages are kept; 0 is no limit.",
        check=_not_negative,
    ),
    Setting(
        "streams.cleaner.interval", _DURATION, 300.0, "How often limits and segment age are looked at.", check=_positive
    ),
    Setting(
        "streams.segment.max.bytes", _SIZE, 268_435_456, "Size at which a new segment begins.", check=_segment_bytes
    ),
    Setting(
        "streams.segment.max.age",
        _DURATION,
        0.0,
        "Age at which a new segment begins; 0 takes the retention age.",
        check=_not_negative,
    ),
    Setting(
        "streams.durability",
        _STRING,
        "page",
        "What an ack proves: page (survives a kill of the process), interval (synced soon), sync (synced before the ack).",
        choices=("page", "interval", "sync"),
    ),
    Setting(
        "streams.durability.interval",
        _DURATION,
        1.0,
        "Time between two syncs with durability interval.",
        check=_positive,
    ),
    Setting("streams.compact.enabled", _BOOLEAN, False, "Keep only the last message of each key."),
    Setting(
        "streams.compact.max.goroutines",
        _INTEGER,
        0,
        "Accepted without effect: one thread compacts one partition after the other.",
    ),
    Setting(
        "streams.compact.dirty.percent",
        _INTEGER,
        50,
        "A partition is compacted when this part of what could be compacted is new; below 1MiB, when anything is.",
        check=_percent,
    ),
    Setting(
        "streams.compact.tombstones.max.age",
        _DURATION,
        0.0,
        "How long a compacted stream keeps a key whose last message has no value; 0 keeps it for ever.",
        check=_not_negative,
    ),
    Setting(
        "streams.auto.pause.time",
        _DURATION,
        0.0,
        "A partition that gets no message for so long is paused, until somebody wants it; 0 never pauses.",
        check=_not_negative,
    ),
    Setting(
        "streams.auto.pause.disable.if.subscribers",
        _BOOLEAN,
        False,
        "Don't pause idle partitions while they have subscribers.",
    ),
    Setting(
        "streams.concurrency.control", _BOOLEAN, False, "Comes with a later version; each stream can ask for it now."
    ),
    Setting(
        "streams.encryption",
        _BOOLEAN,
        False,
        "Encrypt what new streams store, unless they say otherwise; needs encryption.keys.",
    ),
    Setting(
        "encryption.keys",
        _STRING,
        "env:LIFTBRIDGE_ENCRYPTION_KEY",
        "Where the keys are: env:NAME, file:PATH or command:PROGRAM ARGUMENTS. The first one encrypts, all decrypt.",
    ),
    # --- the cluster
    Setting(
        "clustering.server.id",
        _STRING,
        "",
        "This server's ID; unset makes a random one. The ID in the data directory wins.",
        check=_token,
    ),
    Setting(
        "clustering.namespace",
        _STRING,
        "liftbridge-default",
        "Keeps clusters on one NATS apart.",
        check=_namespace,
    ),
    Setting("clustering.raft.bootstrap.seed", _BOOLEAN, False, "Begin a new cluster with this server."),
    Setting("clustering.raft.bootstrap.peers", _LIST, (), "Begin a new cluster with these servers and this one."),
    Setting(
        "clustering.raft.max.quorum.size",
        _INTEGER,
        0,
        "Servers that vote on metadata, at most; the others follow without a vote. 0 is no limit; the same on all servers.",
        check=_not_negative,
    ),
    Setting(
        "clustering.session.timeout",
        _DURATION,
        1.0,
        "Silence after which a server counts as dead and what it leads goes to others; the same on all servers.",
        check=_positive,
    ),
    Setting(
        "clustering.session.heartbeat",
        _DURATION,
        0.25,
        "How often a server tells the controller that it lives; a quarter of the time-out or less.",
        check=_positive,
    ),
    Setting(
        "clustering.rebalance.interval",
        _DURATION,
        60.0,
        "When nothing else changed for so long, some partitions get a replica that they lack, or another leader, until all "
        "servers lead about as many; 0 never does it.",
        check=_not_negative,
    ),
    Setting(
        "clustering.drain.timeout",
        _DURATION,
        10.0,
        "How long a server that is told to stop hands over what it leads, at most; 0 stops at once.",
        check=_not_negative,
    ),
    Setting(
        "clustering.replica.max.lag.time",
        _DURATION,
        15.0,
        "A follower that takes longer to catch up leaves the ISR. One that says nothing leaves after 2s at the latest.",
        check=_positive,
    ),
    Setting(
        "clustering.replica.max.leader.timeout",
        _DURATION,
        3.0,
        "Followers report a leader that answers nothing for so long.",
        check=_positive,
    ),
    Setting(
        "clustering.replica.max.idle.wait",
        _DURATION,
        10.0,
        "Accepted without effect: followers wait for news at the leader.",
        check=_positive,
    ),
    Setting(
        "clustering.replica.fetch.timeout",
        _DURATION,
        3.0,
        "Accepted without effect: an answer that doesn't come is noticed after 1s.",
        check=_positive,
    ),
    Setting(
        "clustering.min.insync.replicas", _INTEGER, 1, "Replicas in sync that ack policy ALL needs.", check=_positive
    ),
    Setting(
        "clustering.replication.max.bytes",
        _SIZE,
        1_048_576,
        "Largest message with its envelope.",
        check=_positive,
    ),
    # --- internal streams and groups
    Setting(
        "activity.stream.enabled",
        _BOOLEAN,
        False,
        "Tell of streams and groups that come, go and change in the stream __activity; the same on all servers.",
    ),
    Setting(
        "activity.stream.publish.timeout",
        _DURATION,
        5.0,
        "How long an event may take until its ack; after that there is a warning, and the events behind it wait.",
        check=_positive,
    ),
    Setting(
        "activity.stream.publish.ack.policy",
        _STRING,
        "all",
        "When an event counts as published; with less than all, a failover can lose events.",
        choices=("none", "leader", "all"),
    ),
    Setting(
        "cursors.stream.partitions",
        _INTEGER,
        0,
        "Partitions of the stream __cursors when it is made; 0 is no cursors. The same on all servers.",
        check=_internal_partitions,
    ),
    Setting(
        "cursors.stream.replication.factor",
        _INTEGER,
        -1,
        "Replicas of each partition of __cursors, as far as there are servers; -1 is one on every server, up to the "
        "quorum's size.",
        check=_internal_replicas,
    ),
    Setting(
        "cursors.stream.auto.pause.time",
        _DURATION,
        60.0,
        "Accepted without effect: the cluster's own streams are never paused.",
        check=_not_negative,
    ),
    Setting(
        "groups.consumer.timeout",
        _DURATION,
        15.0,
        "A member of a consumer group that its coordinator hears nothing of for so long is removed. Clients call at 0.4 "
        "times this.",
        check=_positive,
    ),
    Setting(
        "groups.coordinator.timeout",
        _DURATION,
        15.0,
        "Members that get no answer from their coordinator for so long report it; reports count together while each comes "
        "within this time of the one before.",
        check=_positive,
    ),
)

#: Accepted, because config files of the original have them, and without effect so far.
NOT_YET = frozenset(setting.name for setting in KERNEL_SETTINGS if setting.help.startswith("Comes with"))

#: The setting that chooses each kind of provider.
PROVIDER_SETTINGS = {
    Seam.LOG_STORAGE: "storage.log",
    Seam.INDEX_STORAGE: "storage.index",
    Seam.STABLE_STORE: "storage.stable",
    Seam.CONSENSUS: "clustering.consensus",
    Seam.TRANSPORT: "transport",
    Seam.SUBJECT_ROUTER: "routing",
    Seam.ENDPOINT: "endpoints",
    Seam.AUTHORIZER: "authorization",
}


def chosen_providers(values: Mapping[str, Any], seam: Seam) -> tuple[str, ...]:
    """The names that the settings choose for a kind of provider."""
    value = values[PROVIDER_SETTINGS[seam]]
    if seam is Seam.AUTHORIZER and value == _NO_AUTHORIZATION:
        return ("policy",) if values["tls.client.authz.enabled"] else ()
    return (value,) if isinstance(value, str) else tuple(value)


def is_default_provider(seam: Seam, name: str) -> bool:
    """Whether a server takes that provider unless it is told otherwise: then it comes with Liftbridge."""
    (default,) = (setting.default for setting in KERNEL_SETTINGS if setting.name == PROVIDER_SETTINGS[seam])
    return name == default or (isinstance(default, tuple) and name in default)
