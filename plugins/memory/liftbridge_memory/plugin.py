"""The hooks of the in-memory providers."""

import logging
from functools import cache
from typing import TYPE_CHECKING

from liftbridge.hookspecs import hookimpl
from liftbridge.interfaces.context import LogStorageContext, PluginContext
from liftbridge.interfaces.index import IndexStorage
from liftbridge.interfaces.log import LogStorage
from liftbridge.interfaces.provider import Provider
from liftbridge.interfaces.stable import StableStore
from liftbridge.interfaces.transport import Transport

if TYPE_CHECKING:
    from liftbridge.testing.memory_transport import MemoryNetwork

logger = logging.getLogger(__name__)


@hookimpl
def liftbridge_log_storage() -> Provider:
    summary = "record batches in memory: nothing survives the process"
    return Provider("memory", summary, _create_log, capabilities=frozenset({"compaction"}))


@hookimpl
def liftbridge_index_storage() -> Provider:
    return Provider("memory", "offset index in memory: rebuilt after each start", _create_index)


@hookimpl
def liftbridge_stable_store() -> Provider:
    return Provider("memory", "values in memory: nothing survives the process", _create_stable)


@hookimpl
def liftbridge_transport() -> Provider:
    return Provider("memory", "between the servers of one process, without NATS", _create_transport)


def _create_log(context: LogStorageContext) -> LogStorage:
    logger.warning("storage.log = memory: every message is lost when this process ends")
    from liftbridge.testing.memory_log import MemoryLogStorage

    return MemoryLogStorage()


def _create_index(context: PluginContext) -> IndexStorage:
    from liftbridge.testing.memory_index import MemoryIndexStorage

    return MemoryIndexStorage()


def _create_stable(context: PluginContext) -> StableStore:
    logger.warning("storage.stable = memory: streams and votes are forgotten when this process ends")
    from liftbridge.testing.memory_stable import MemoryStableStore

    return MemoryStableStore()


def _create_transport(context: PluginContext) -> Transport:
    logger.warning("transport = memory: nothing outside of this process can be reached, NATS clients included")
    from liftbridge.testing.memory_transport import MemoryTransport

    return MemoryTransport(_network(context.namespace), context.server_id)


@cache
def _network(namespace: str) -> "MemoryNetwork":
    """What the servers of one cluster in this process share."""
    from liftbridge.testing.memory_transport import MemoryNetwork

    return MemoryNetwork()
