"""A server finds the plugin, as it is installed."""

from liftbridge.interfaces.provider import Seam
from liftbridge.plugin_manager import PluginManager


def test_the_provider_is_found_by_its_name() -> None:
    provider = PluginManager().provider(Seam.LOG_STORAGE, "onefile")
    assert provider.name == "onefile"
