"""Providers as a server gets them: by name, from whatever is installed."""

from pathlib import Path
from typing import Any

from liftbridge.interfaces.provider import Seam
from liftbridge.plugin_manager import PluginManager
from liftbridge.testing.contexts import make_context

#: A seam and the name of one of its providers; a suite class that tests one says so in its attribute ``provider``.
ProviderName = tuple[Seam, str]


def create(provider: ProviderName, data_dir: Path, settings: dict[str, Any] | None = None, **context: Any) -> Any:
    """What the provider makes; ``settings`` are those that aren't at their defaults."""
    plugins = PluginManager()
    seam, name = provider
    return plugins.provider(seam, name).create(make_context(seam, data_dir, plugins.settings(), settings, **context))
