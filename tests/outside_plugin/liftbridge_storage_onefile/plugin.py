"""The hooks of the plugin."""

from liftbridge.hookspecs import hookimpl
from liftbridge.interfaces.context import LogStorageContext
from liftbridge.interfaces.log import LogStorage
from liftbridge.interfaces.provider import Provider
from liftbridge.interfaces.settings import Setting


@hookimpl
def liftbridge_add_settings() -> list[Setting]:
    """Settings of your own, each named after the seam and the provider, like ``storage.onefile.size``."""
    return []


@hookimpl
def liftbridge_log_storage() -> Provider:
    return Provider("onefile", "each log in one file", _create)


def _create(context: LogStorageContext) -> LogStorage:
    """Cheap and without IO: it is called at start. Import what is heavy here, not above."""
    from liftbridge_storage_onefile.log_storage import OnefileStorage

    return OnefileStorage(context.data_dir / "onefile")
