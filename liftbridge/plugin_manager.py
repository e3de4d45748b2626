"""Finds plugins, checks them, and hands out what they offer. The only user of :class:`pluggy.PluginManager`."""

import inspect
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import metadata
from typing import IO, Any, NamedTuple

import pluggy

from liftbridge import hookspecs
from liftbridge.errors import ConfigError, DuplicateProvider, IncompatiblePlugin, PluginError, PluginNotFound
from liftbridge.interfaces.endpoint import FOR_OPERATORS
from liftbridge.interfaces.provider import GENERATIONS, Provider, Seam
from liftbridge.interfaces.settings import Setting
from liftbridge.settings import is_default_provider

logger = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "liftbridge"
_HOOK_PREFIX = "liftbridge_"

#: The hook that offers providers of each seam.
PROVIDER_HOOKS = {
    Seam.LOG_STORAGE: "liftbridge_log_storage",
    Seam.INDEX_STORAGE: "liftbridge_index_storage",
    Seam.STABLE_STORE: "liftbridge_stable_store",
    Seam.CONSENSUS: "liftbridge_consensus",
    Seam.TRANSPORT: "liftbridge_transport",
    Seam.SUBJECT_ROUTER: "liftbridge_subject_router",
    Seam.ENDPOINT: "liftbridge_endpoint",
    Seam.AUTHORIZER: "liftbridge_authorizer",
}


@dataclass(frozen=True, slots=True)
class Origin:
    """Which plugin, of which distribution."""

    plugin: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f'plugin "{self.plugin}" of {self.distribution} {self.version}'.rstrip()


class Offer(NamedTuple):
    """A provider and where it comes from."""

    seam: Seam
    provider: Provider
    origin: Origin


class PluginManager:
    """The plugins of this process."""

    def __init__(self, extra: Iterable[tuple[str, object]] = (), *, entry_points: bool = True) -> None:
        """Loads every entry point of the group and, for tests and embedding, ``extra`` (name and module or object)."""
        self._pluggy = pluggy.PluginManager(hookspecs.PROJECT)
        self._pluggy.add_hookspecs(hookspecs)
        self._origins: dict[int, Origin] = {}
        self.observer_failures: Counter[str] = Counter()
        if entry_points:
            for entry_point in metadata.entry_points(group=ENTRY_POINT_GROUP):
                self._register(_load(entry_point), _origin(entry_point))
        for name, plugin in extra:
            self._register(plugin, Origin(name, "this process", ""))
        self._offers = self._collect()
        self.policy = _Policy(self._pluggy)

    # --- loading ------------------------------------------------------------------------------------------------------

    def _register(self, plugin: object, origin: Origin) -> None:
        self._refuse_hooks_that_would_never_be_called(plugin, origin)
        self._origins[id(plugin)] = origin
        try:
            self._pluggy.register(plugin, origin.plugin)
            self._pluggy.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            raise IncompatiblePlugin(f"{origin}: {' '.join(str(error).split())}") from error

    def _refuse_hooks_that_would_never_be_called(self, plugin: object, origin: Origin) -> None:
        """A misspelt name or a forgotten marker: pluggy would pass over both."""
        known = [name for name in vars(hookspecs) if name.startswith(_HOOK_PREFIX)]
        for name in dir(plugin):
            if not name.startswith(_HOOK_PREFIX) or not callable(getattr(plugin, name)):
                continue
            if name not in known:
                nearest = get_close_matches(name, known, n=1)
                hint = f"; did you mean {nearest[0]}?" if nearest else ""
                raise IncompatiblePlugin(f"{origin}: there is no hook {name}{hint}")
            if self._pluggy.parse_hookimpl_opts(plugin, name) is None:
                raise IncompatiblePlugin(f"{origin}: {name} isn't marked with @liftbridge.hookspecs.hookimpl")

    def _collect(self) -> dict[tuple[Seam, str], Offer]:
        offers: dict[tuple[Seam, str], Offer] = {}
        for seam, hook in PROVIDER_HOOKS.items():
            for answer, origin in self._ask_everybody(hook):
                for provider in _as_providers(answer, hook, origin):
                    _check_generation(seam, provider, origin)
                    other = offers.get((seam, provider.name))
                    if other is not None:
                        raise DuplicateProvider(
                            f'two plugins offer {seam} "{provider.name}": {other.origin} and {origin}; uninstall one'
                        )
                    offers[seam, provider.name] = Offer(seam, provider, origin)
        return offers

    def _ask_everybody(self, hook: str) -> Iterator[tuple[Any, Origin]]:
        """The answers to a hook without arguments. One that raises is an error that names the plugin."""
        for implementation in getattr(self._pluggy.hook, hook).get_hookimpls():
            origin = self._origins[id(implementation.plugin)]
            try:
                answer = implementation.function()
            except Exception as error:
                raise PluginError(f"{origin}: {hook} failed: {type(error).__name__}: {error}") from error
            yield answer, origin

    # --- what plugins offer -------------------------------------------------------------------------------------------

    def settings(self) -> list[Setting]:
        """What all plugins declare. Raises DuplicateProvider naming both plugins that declare one name."""
        hook = "liftbridge_add_settings"
        declared: list[Setting] = []
        owners: dict[str, Origin] = {}
        for settings, origin in self._ask_everybody(hook):
            if not isinstance(settings, list | tuple) or not all(isinstance(one, Setting) for one in settings):
                raise IncompatiblePlugin(f"{origin}: {hook} returned {settings!r}, not a list of Setting")
            for setting in settings:
                for name in (setting.name, *setting.aliases):
                    if name in owners:
                        raise DuplicateProvider(
                            f"two plugins declare the setting {name}: {owners[name]} and {origin}; uninstall one"
                        )
                    owners[name] = origin
                declared.append(setting)
        return declared

    def offers(self) -> Sequence[Offer]:
        """Every provider, by kind and name."""
        return sorted(self._offers.values(), key=lambda offer: (list(Seam).index(offer.seam), offer.provider.name))

    def provider(self, seam: Seam, name: str) -> Provider:
        """The provider of that name. Raises PluginNotFound that lists what there is."""
        offer = self._offers.get((seam, name))
        if offer is None:
            names = [offer.provider.name for offer in self.offers() if offer.seam is seam]
            raise PluginNotFound(f'no {seam} is called "{name}" {_what_to_do(seam, name, names)}')
        return offer.provider

    def check_endpoints(self, names: Sequence[str]) -> None:
        """Raises ConfigError unless clients can use the first one, whose address they are told."""
        if not names:
            raise ConfigError("endpoints: name at least one; without an endpoint no client can connect")
        if FOR_OPERATORS in self.provider(Seam.ENDPOINT, names[0]).capabilities:
            others = [name for name in names if name != names[0]] or ["grpc"]
            raise ConfigError(
                f'endpoints: "{names[0]}" can\'t be the first, because clients are told the address of the first one and it '
                f"doesn't serve them. Write: endpoints = {', '.join([*others, names[0]])}"
            )

    def dump_log(self, path: str, out: IO[str], *, values: bool, as_json: bool) -> bool:
        """Asks the plugins to show a log; False if none knows the path."""
        hook = self._pluggy.hook.liftbridge_dump_log
        without = [one.plugin for one in hook.get_hookimpls() if as_json and "as_json" not in one.argnames]
        asked = self._pluggy.subset_hook_caller(hook.name, without)
        return bool(asked(path=path, out=out, values=values, as_json=as_json))

    # --- observers ----------------------------------------------------------------------------------------------------

    def notify(self, hook: str, **arguments: Any) -> None:
        """Tells every observer. One that raises is logged and counted, and the others are told all the same."""
        for implementation in getattr(self._pluggy.hook, hook).get_hookimpls():
            try:
                implementation.function(**{name: arguments[name] for name in implementation.argnames})
            except Exception:
                origin = self._origins[id(implementation.plugin)]
                self.observer_failures[origin.plugin] += 1
                logger.exception("%s: %s failed", origin, hook)


def _what_to_do(seam: Seam, name: str, installed: Sequence[str]) -> str:
    """About a provider that is missing: what is there, and how to get it."""
    if is_default_provider(seam, name):
        remedy = (
            f'"{name}" comes with Liftbridge, so this installation is damaged. Repair it with: '
            "pip install --force-reinstall liftbridge"
        )
    else:
        nearest = get_close_matches(name, installed, n=1)
        hint = f'Did you mean "{nearest[0]}"? ' if nearest else ""
        remedy = (
            f"{hint}Install the distribution that offers it; plugins are found by the entry point group "
            f'"{ENTRY_POINT_GROUP}". What comes with Liftbridge is repaired by: pip install --force-reinstall liftbridge'
        )
    return f"({'installed: ' + ', '.join(installed) if installed else 'none is installed'}). {remedy}"


class _Policy:
    """The policy hooks, as the placement of partitions asks them."""

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self._hook = manager.hook

    def place_replicas(
        self, stream: str, partition: int, replication_factor: int, loads: Mapping[str, int]
    ) -> Sequence[str] | None:
        chosen: Sequence[str] | None = self._hook.liftbridge_place_replicas(
            stream=stream, partition=partition, replication_factor=replication_factor, loads=dict(loads)
        )
        return chosen

    def choose_leader(
        self, stream: str, partition: int, candidates: Sequence[str], leaderships: Mapping[str, int]
    ) -> str | None:
        chosen: str | None = self._hook.liftbridge_choose_leader(
            stream=stream, partition=partition, candidates=candidates, leaderships=dict(leaderships)
        )
        return chosen


def _origin(entry_point: metadata.EntryPoint) -> Origin:
    distribution = entry_point.dist
    if distribution is None:
        return Origin(entry_point.name, "an unknown distribution", "")
    return Origin(entry_point.name, distribution.name, distribution.version)


def _load(entry_point: metadata.EntryPoint) -> object:
    """A plugin that can't be imported is an error, chosen or not: it was installed to be used."""
    try:
        return entry_point.load()
    except Exception as error:
        raise PluginError(
            f"{_origin(entry_point)} can't be loaded: {type(error).__name__}: {error}. Repair or uninstall it"
        ) from error


def _as_providers(answer: Any, hook: str, origin: Origin) -> list[Provider]:
    providers = [answer] if isinstance(answer, Provider) else answer
    if not isinstance(providers, list | tuple) or not all(isinstance(one, Provider) for one in providers):
        raise IncompatiblePlugin(f"{origin}: {hook} returned {answer!r}, not a Provider or a list of them")
    for one in providers:
        if not callable(one.create) or not inspect.signature(one.create).parameters:
            raise IncompatiblePlugin(f'{origin}: provider "{one.name}": create must take the context of its seam')
    return list(providers)


def _check_generation(seam: Seam, provider: Provider, origin: Origin) -> None:
    wanted = GENERATIONS[seam]
    if provider.generation != wanted:
        older = provider.generation < wanted
        raise IncompatiblePlugin(
            f'{origin}: {seam} "{provider.name}" is of generation {provider.generation}, and this server speaks '
            f"{wanted}: {'upgrade the plugin' if older else 'upgrade liftbridge, or install an older plugin'}"
        )
