"""What keeps a server from starting with its settings, as far as that shows before anything is opened and anybody is asked.

:mod:`liftbridge.config` judges each setting by itself; here is what is wrong with them together.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from liftbridge.broker.api import CallContext, PublishReply, PublishSession, ResponseSink, Subscription, UnaryHandler
from liftbridge.clock import SystemClock
from liftbridge.config import Settings
from liftbridge.errors import ConfigError, Unavailable
from liftbridge.interfaces.figures import GroupPosition, ReplicaFigures, ServerFigures
from liftbridge.interfaces.keys import KeyRing
from liftbridge.interfaces.provider import Seam
from liftbridge.keys import load_keys
from liftbridge.metadata.state import MetadataState
from liftbridge.plugin_manager import PluginManager
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.settings import chosen_providers
from liftbridge.wiring import Setup, make_endpoints, make_parts, node_settings


def load_needed_keys(settings: Mapping[str, Any]) -> KeyRing | None:
    """What streams are encrypted with, if there is a key. Raises ConfigError for what can't be used, and for a key that the
    settings need and nobody has."""
    keys = load_keys(settings["encryption.keys"])
    if settings["streams.encryption"] and keys is None:
        raise ConfigError("streams.encryption needs a key: say with encryption.keys where the keys are")
    return keys


def refuse_rules_without_authorization(settings: Settings) -> None:
    """Whoever says where the rules are wants them to hold. Raises ConfigError."""
    if not chosen_providers(settings, Seam.AUTHORIZER):
        for name in settings.sources:
            if name.startswith("authorization.") and settings[name]:
                raise ConfigError(
                    f"{name} is set, but authorization is off and everybody could do everything: set authorization = policy "
                    f"(tls.client.authz.enabled = true), or leave {name} out"
                )


def find_mistakes(settings: Settings, plugins: PluginManager) -> list[str]:
    """What a server would refuse to start with, on this machine: files with keys and certificates are looked at. Of what
    the storage, transport and consensus say, the first. Leaves nothing behind."""
    with TemporaryDirectory() as folder:
        return asyncio.run(_find_mistakes(settings, plugins, Path(folder)))


async def _find_mistakes(settings: Settings, plugins: PluginManager, folder: Path) -> list[str]:
    """On an event loop, as in a server, and with an empty data directory."""
    values = MappingProxyType({**settings, "data.dir": folder})
    settings = replace(settings, values_by_name=values)
    setup = Setup(settings, plugins, SystemClock(), "check", "check", MetadataState(), None)
    checks: tuple[Callable[[], object], ...] = (
        lambda: plugins.check_endpoints(settings["endpoints"]),
        lambda: load_needed_keys(settings),
        lambda: refuse_rules_without_authorization(settings),
        lambda: node_settings(settings),
        lambda: make_parts(setup),
        lambda: make_endpoints(setup, _NobodyToAsk()),
    )
    return [mistake for check in checks for mistake in _said_by(check)]


def _said_by(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except ConfigError as error:
        return [str(error)]
    return []


class _NobodyToAsk:
    """The broker of endpoints that are never started."""

    def unary_handlers(self) -> Mapping[str, UnaryHandler]:
        return {}

    def publish(self, request: bytes, call: CallContext, reply: PublishReply) -> asyncio.Task[None] | None:
        raise _not_here()

    def publish_session(self, call: CallContext, sink: ResponseSink) -> PublishSession:
        raise _not_here()

    async def subscribe(self, request: api.SubscribeRequest, call: CallContext) -> Subscription:
        raise _not_here()

    def figures(self) -> ServerFigures:
        raise _not_here()

    def replica_figures(self) -> Iterator[ReplicaFigures]:
        raise _not_here()

    def group_positions(self) -> AsyncIterator[GroupPosition]:
        raise _not_here()


def _not_here() -> Unavailable:
    return Unavailable("only the settings are checked here")
