"""Who this server is, as its data directory remembers it, and whether its last stop can have cost it data.

========================= ==============================================================================
file                      holds
========================= ==============================================================================
``server.json``           server ID, namespace, the cluster it belongs to ("" before it is in one), and the log storage
``running.json``          exists from a start to a clean stop; says in which boot of the machine that was, once the
                          cluster knows of the start
========================= ==============================================================================
"""

import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from liftbridge.errors import ConfigError, StorageError

logger = logging.getLogger(__name__)

_FORMAT = 1
_RUNNING = "running.json"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Identity:
    """``server_id`` outlives the configured one. ``cluster_id`` is "" until this server has formed or found a cluster.
    ``log_storage`` keeps the messages: another one would find none, and the cluster would believe it."""

    server_id: str
    namespace: str
    cluster_id: str = ""
    log_storage: str = ""


def load_identity(
    data_dir: Path, *, wanted_id: str, fallback_id: str, namespace: str, log_storage: str = ""
) -> Identity:
    """The identity in the data directory; a new directory gets the wanted ID or else the fallback.

    Raises ConfigError for the data of another namespace or log storage, StorageError for what can't be read and for the
    data of the original.
    """
    path = data_dir / "server.json"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        stored = json.loads(path.read_text()) if path.exists() else None
    except OSError as error:
        reason = "it is a file" if data_dir.is_file() else error.strerror
        raise StorageError(
            f"data directory {data_dir} can't be used: {reason}. Name another with --data-dir"
        ) from error
    except ValueError as error:
        raise StorageError(
            f"{path}, which says who this server is, can't be read: {error}. Restore it, or begin with an empty --data-dir"
        ) from error
    if stored is None:
        _refuse_data_of_the_original(data_dir)
        identity = Identity(wanted_id or fallback_id, namespace, log_storage=log_storage)
        save_identity(data_dir, identity)
        return identity
    return _checked(stored, data_dir, wanted_id, namespace, log_storage)


def _refuse_data_of_the_original(data_dir: Path) -> None:
    """Its config files work here, so its data directory is soon named, and none of its streams would be there."""
    if (data_dir / "raft" / "raft.db").is_file():
        raise StorageError(
            f"data directory {data_dir} is the original Liftbridge's, whose files this server can't read: begin with an empty "
            "--data-dir, and copy what the streams hold (docs/how-to/move-from-the-original.md)"
        )


def _checked(stored: object, data_dir: Path, wanted_id: str, namespace: str, log_storage: str) -> Identity:
    if not isinstance(stored, dict) or not stored.get("server_id"):
        raise StorageError(
            f"data directory {data_dir}: server.json names no server_id. Restore it, or begin with an empty --data-dir"
        )
    if stored.get("format") != _FORMAT:
        raise StorageError(
            f"data directory {data_dir} has format {stored.get('format')}; this version of the server reads {_FORMAT}. Start "
            "the version that wrote it, or begin with an empty --data-dir"
        )
    # Versions before clusters didn't note the namespace, nor later ones the log storage.
    identity = Identity(
        stored["server_id"],
        stored.get("namespace", namespace),
        stored.get("cluster_id", ""),
        stored.get("log_storage") or log_storage,
    )
    if identity.namespace != namespace:
        raise ConfigError(
            f'data directory {data_dir} belongs to namespace "{identity.namespace}", and this server is to be in '
            f'"{namespace}": use another data directory, or --namespace {identity.namespace}'
        )
    if identity.log_storage != log_storage:
        raise ConfigError(
            f'data directory {data_dir} keeps its messages with storage.log = {identity.log_storage}, and "{log_storage}" '
            f"would find none: use another data directory, or storage.log = {identity.log_storage}"
        )
    if wanted_id not in ("", identity.server_id):
        logger.warning(
            "server ID %s from the data directory is used, not the configured %s", identity.server_id, wanted_id
        )
    return identity


def save_identity(data_dir: Path, identity: Identity) -> None:
    """Durable on return."""
    _write(data_dir / "server.json", {**asdict(identity), "format": _FORMAT})


def begin_run(data_dir: Path) -> bool:
    """Notes that the server runs. True after an unclean stop that can have cost data: the machine went down meanwhile.

    When only the process was killed, everything it had written is in the page cache or on the disk. What an unclean stop
    left stays noted until :func:`note_registered`: a process that is killed before the cluster knows of it must not make
    the next start look clean.
    """
    before = _noted_boot(data_dir)
    boot = _boot_id()
    unclean = before is not None and (before != boot or not boot)
    if not unclean:
        _note_boot(data_dir, boot)
    return unclean


def note_registered(data_dir: Path) -> None:
    """The cluster knows of this start, and how the one before it ended."""
    _note_boot(data_dir, _boot_id())


def end_run(data_dir: Path) -> None:
    """Notes a clean stop: every log is closed and on the disk."""
    (data_dir / _RUNNING).unlink(missing_ok=True)


def _noted_boot(data_dir: Path) -> str | None:
    """The boot in which a server that didn't stop cleanly last ran; "" if nobody can say, None after a clean stop."""
    path = data_dir / _RUNNING
    try:
        return str(json.loads(path.read_text())["boot_id"]) if path.exists() else None
    except (OSError, ValueError, KeyError):
        return ""  # torn by the crash that we are asking about


def _note_boot(data_dir: Path, boot: str) -> None:
    _write(data_dir / _RUNNING, {"boot_id": boot})


def _boot_id() -> str:
    """Another one after each boot; "" where the system doesn't say."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _write(path: Path, content: dict[str, object]) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("w") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StorageError(
            f"{path} can't be written: {error.strerror}. Make room for it there, or name another --data-dir"
        ) from error
