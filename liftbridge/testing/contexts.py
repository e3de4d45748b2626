"""What the server hands to a provider's ``create``, for tests that make one without a server."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from liftbridge.clock import SystemClock
from liftbridge.interfaces.context import ConsensusContext, EndpointContext, LogStorageContext, PluginContext
from liftbridge.interfaces.provider import Seam
from liftbridge.interfaces.settings import Setting
from liftbridge.testing.memory_index import MemoryIndexStorage
from liftbridge.testing.memory_stable import MemoryStableStore
from liftbridge.testing.memory_transport import MemoryNetwork, MemoryTransport


def make_context(
    seam: Seam,
    data_dir: Path,
    declared: Iterable[Setting] = (),
    settings: Mapping[str, Any] | None = None,
    **more: Any,
) -> PluginContext:
    """The context of a seam. ``declared`` settings have their defaults but for those in ``settings``; ``more`` replaces
    other fields. What isn't given works in memory."""
    fields: dict[str, Any] = {
        "server_id": "server",
        "namespace": "test",
        "data_dir": data_dir,
        "clock": SystemClock(),
        "settings": {one.name: one.default for one in declared} | dict(settings or {}),
    }
    kind: type[PluginContext] = PluginContext
    if seam is Seam.LOG_STORAGE:
        kind = LogStorageContext
        fields["index"] = MemoryIndexStorage()
    elif seam is Seam.CONSENSUS:
        kind = ConsensusContext
        fields |= {"transport": MemoryTransport(MemoryNetwork(), "server"), "stable_store": MemoryStableStore()}
    elif seam is Seam.ENDPOINT:
        kind = EndpointContext
        fields |= {"broker": None, "version": "test"}
    return kind(**(fields | more))
