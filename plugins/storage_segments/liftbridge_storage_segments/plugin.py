"""The hooks of the segment storage."""

from typing import IO

from liftbridge.hookspecs import hookimpl
from liftbridge.interfaces.context import LogStorageContext
from liftbridge.interfaces.log import LogStorage
from liftbridge.interfaces.provider import Provider
from liftbridge.interfaces.settings import Setting, SettingKind


@hookimpl
def liftbridge_add_settings() -> list[Setting]:
    return [
        Setting(
            "storage.segments.index.interval",
            SettingKind.SIZE,
            16 * 1024,
            "Bytes of log between two entries of the offset index.",
            check=lambda value: None if value >= 1024 else "must be at least 1KiB",
        ),
        Setting(
            "storage.segments.open.files",
            SettingKind.INTEGER,
            256,
            "Segment files that are kept open at once, over all partitions.",
            check=lambda value: None if value >= 8 else "must be at least 8",
        ),
    ]


@hookimpl
def liftbridge_log_storage() -> Provider:
    return Provider("segments", "record batches in segment files", _create, capabilities=frozenset({"compaction"}))


@hookimpl
def liftbridge_dump_log(path: str, out: IO[str], values: bool, as_json: bool) -> bool | None:
    from liftbridge_storage_segments.dump import dump_log

    return dump_log(path, out, values=values, as_json=as_json) or None


def _create(context: LogStorageContext) -> LogStorage:
    from liftbridge_storage_segments.storage import SegmentStorage

    return SegmentStorage(
        context.data_dir,
        context.index,
        index_interval_bytes=context.settings["storage.segments.index.interval"],
        open_files=context.settings["storage.segments.open.files"],
    )
