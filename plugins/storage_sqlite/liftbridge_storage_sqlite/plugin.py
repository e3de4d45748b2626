"""The hooks of the SQLite storage."""

from liftbridge.hookspecs import hookimpl
from liftbridge.interfaces.context import LogStorageContext
from liftbridge.interfaces.log import LogStorage
from liftbridge.interfaces.provider import Provider
from liftbridge.interfaces.settings import Setting, SettingKind


@hookimpl
def liftbridge_add_settings() -> list[Setting]:
    return [
        Setting(
            "storage.sqlite.cache.size",
            SettingKind.SIZE,
            256 * 1024,
            "Memory that SQLite may use to cache pages, for each partition.",
            check=lambda value: None if value >= 64 * 1024 else "must be at least 64KiB",
        ),
    ]


@hookimpl
def liftbridge_log_storage() -> Provider:
    return Provider("sqlite", "record batches in SQLite databases", _create, capabilities=frozenset({"compaction"}))


def _create(context: LogStorageContext) -> LogStorage:
    from liftbridge_storage_sqlite.storage import SqliteStorage

    return SqliteStorage(context.data_dir / "sqlite", cache_bytes=context.settings["storage.sqlite.cache.size"])
