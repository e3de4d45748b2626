"""Every hook of Liftbridge, in one file.

A plugin is any distribution with an entry point in the group ``liftbridge``; the entry point names a module (or an
object) that has functions marked with :data:`hookimpl`. Hooks are called at start and at rare events, never on
the path of a message: providers are chosen once and then called directly.

*Provider hooks* return a :class:`~liftbridge.interfaces.provider.Provider` (or a list of them). All providers are
collected; the config picks one of each kind by its name. *Policy hooks* ask until somebody answers. *Observer hooks*
tell everybody; an observer that raises is logged and counted, and the others still run.
"""

from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from liftbridge.interfaces.events import MetadataEvent
    from liftbridge.interfaces.provider import Provider
    from liftbridge.interfaces.settings import Setting

PROJECT = "liftbridge"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


# --- settings ---------------------------------------------------------------------------------------------------------


@hookspec
def liftbridge_add_settings() -> "Sequence[Setting]":
    """The settings of this plugin. Called first of all, before the config is read, so that an unknown key can be
    refused by name. Names begin with the seam and the provider (``storage.segments.``); two plugins that declare
    the same name are an error."""
    raise NotImplementedError


# --- providers --------------------------------------------------------------------------------------------------------


@hookspec
def liftbridge_log_storage() -> "Provider | Sequence[Provider]":
    """Offers :class:`~liftbridge.interfaces.log.LogStorage`, chosen by ``storage.log``. Called once at start.
    ``create`` gets a :class:`~liftbridge.interfaces.context.LogStorageContext`."""
    raise NotImplementedError


@hookspec
def liftbridge_index_storage() -> "Provider | Sequence[Provider]":
    """Offers :class:`~liftbridge.interfaces.index.IndexStorage`, chosen by ``storage.index``. Called once at start.
    ``create`` gets a :class:`~liftbridge.interfaces.context.PluginContext`."""
    raise NotImplementedError


@hookspec
def liftbridge_stable_store() -> "Provider | Sequence[Provider]":
    """Offers :class:`~liftbridge.interfaces.stable.StableStore`, chosen by ``storage.stable``. Called once at start.
    ``create`` gets a :class:`~liftbridge.interfaces.context.PluginContext`."""
    raise NotImplementedError


@hookspec
def liftbridge_consensus() -> "Provider | Sequence[Provider]":
    """Offers :class:`~liftbridge.interfaces.consensus.Consensus`, chosen by ``clustering.consensus``. Called once at
    start. ``create`` gets a :class:`~liftbridge.interfaces.context.ConsensusContext`."""
    raise NotImplementedError


@hookspec
def liftbridge_transport() -> "Provider | Sequence[Provider]":
    """Offers :class:`~liftbridge.interfaces.transport.Transport`, chosen by ``transport``. Called once at start.
    ``create`` gets a :class:`~liftbridge.interfaces.context.PluginContext`."""
    raise NotImplementedError


@hookspec
def liftbridge_subject_router() -> "Provider | Sequence[Provider]":
    """Offers :class:`~liftbridge.interfaces.routing.SubjectRouter`, chosen by ``routing``. Called once at start.
    ``create`` gets a :class:`~liftbridge.interfaces.context.PluginContext`."""
    raise NotImplementedError


@hookspec
def liftbridge_endpoint() -> "Provider | Sequence[Provider]":
    """Offers :class:`~liftbridge.interfaces.endpoint.Endpoint`; each one named in ``endpoints`` runs. Called once at
    start. ``create`` gets an :class:`~liftbridge.interfaces.context.EndpointContext`."""
    raise NotImplementedError


@hookspec
def liftbridge_authorizer() -> "Provider | Sequence[Provider]":
    """Offers :class:`~liftbridge.interfaces.authorizer.Authorizer`, chosen by ``authorization``, if any is. Called once at
    start. ``create`` gets a :class:`~liftbridge.interfaces.context.PluginContext`."""
    raise NotImplementedError


# --- tools ------------------------------------------------------------------------------------------------------------


@hookspec(firstresult=True)
def liftbridge_dump_log(path: str, out: "IO[str]", values: bool, as_json: bool) -> "bool | None":
    """Shows a file or directory of a log storage, for ``liftbridge dump-log``. Returns True, or None when
    the path isn't one of this storage. Reads only. ``values`` asks for whole values instead of previews; ``as_json`` for
    an object on each line, whose ``kind`` says what it is, with whole values. Who doesn't take ``as_json`` isn't asked for that."""


# --- policies: the first answer that isn't None wins, and the kernel checks it ----------------------------------------


@hookspec(firstresult=True)
def liftbridge_place_replicas(
    stream: str, partition: int, replication_factor: int, loads: "dict[str, int]"
) -> "Sequence[str] | None":
    """Which servers hold a new partition. ``loads`` maps each usable server ID to the partitions it holds, those
    placed earlier for the same request included. Called on the metadata leader for each partition of a new stream."""


@hookspec(firstresult=True)
def liftbridge_choose_leader(
    stream: str, partition: int, candidates: "Sequence[str]", leaderships: "dict[str, int]"
) -> "str | None":
    """Which candidate leads. ``leaderships`` maps server IDs to the partitions they lead. Called on the metadata leader
    for each new partition and at each failover."""


# --- observers --------------------------------------------------------------------------------------------------------


@hookspec
def liftbridge_broker_started(server_id: str, address: str) -> None:
    """The broker serves clients. Called once, on the event loop; must not block."""


@hookspec
def liftbridge_broker_stopping(server_id: str) -> None:
    """The broker begins to stop, and still serves. Called once, on the event loop; must not block."""


@hookspec
def liftbridge_metadata_applied(event: "MetadataEvent") -> None:
    """A metadata change was committed and applied on this server. Called in commit order, on the event loop, after a
    restart only for changes committed since; must not block."""
