"""The hooks of the LMDB storage."""

from liftbridge.hookspecs import hookimpl
from liftbridge.interfaces.context import PluginContext
from liftbridge.interfaces.index import IndexStorage
from liftbridge.interfaces.provider import Provider
from liftbridge.interfaces.settings import Setting, SettingKind
from liftbridge.interfaces.stable import StableStore


@hookimpl
def liftbridge_add_settings() -> list[Setting]:
    return [
        Setting(
            "storage.lmdb.index.max.size",
            SettingKind.SIZE,
            1024 * 1024 * 1024,
            "How large the index may grow; beyond it, reads of old records scan a little instead.",
        ),
        Setting(
            "storage.lmdb.stable.max.size",
            SettingKind.SIZE,
            1024 * 1024 * 1024,
            "How large the stable store (term, vote, metadata) may grow.",
        ),
    ]


@hookimpl
def liftbridge_index_storage() -> Provider:
    return Provider("lmdb", "sparse offset index in LMDB, rebuilt when lost", _create_index)


@hookimpl
def liftbridge_stable_store() -> Provider:
    return Provider("lmdb", "durable values in LMDB", _create_stable)


def _create_index(context: PluginContext) -> IndexStorage:
    from liftbridge_storage_lmdb.index import LmdbIndexStorage

    return LmdbIndexStorage(context.data_dir / "index", max_bytes=context.settings["storage.lmdb.index.max.size"])


def _create_stable(context: PluginContext) -> StableStore:
    from liftbridge_storage_lmdb.stable import LmdbStableStore

    return LmdbStableStore(context.data_dir / "stable", max_bytes=context.settings["storage.lmdb.stable.max.size"])
