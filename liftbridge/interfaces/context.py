"""What a provider's ``create`` is handed: only what that seam needs, never the server."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liftbridge.clock import Clock
from liftbridge.interfaces.index import IndexStorage
from liftbridge.interfaces.stable import StableStore
from liftbridge.interfaces.transport import Transport


@dataclass(frozen=True, slots=True)
class PluginContext:
    """For every seam. ``settings`` holds the plugin's own declared settings by their full names, checked and converted:
    durations in seconds (float), sizes in bytes (int). ``data_dir`` exists; a plugin keeps to a folder of its own in
    it, named after its provider."""

    server_id: str
    namespace: str
    data_dir: Path
    clock: Clock
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LogStorageContext(PluginContext):
    """For log storage: the index to use."""

    index: IndexStorage


@dataclass(frozen=True, slots=True)
class ConsensusContext(PluginContext):
    """For consensus: how to reach the other servers and where to keep the vote."""

    transport: Transport
    stable_store: StableStore


@dataclass(frozen=True, slots=True)
class EndpointContext(PluginContext):
    """For endpoints. ``broker`` is a :class:`liftbridge.broker.api.BrokerApi` (typed there: this package is below it).
    With ``needs_identities`` the broker refuses calls without an identity: an endpoint of clients that would never know
    any, by its settings, raises :class:`~liftbridge.errors.ConfigError`."""

    broker: Any
    version: str
    needs_identities: bool = False
