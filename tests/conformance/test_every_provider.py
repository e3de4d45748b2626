"""No provider is registered without its suite: whatever the installed plugins offer is tested in this folder."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from liftbridge.interfaces.endpoint import FOR_OPERATORS
from liftbridge.interfaces.provider import Seam
from liftbridge.plugin_manager import Offer, PluginManager
from liftbridge.testing.authorizer_suite import AuthorizerSuite
from liftbridge.testing.consensus_suite import ConsensusSuite
from liftbridge.testing.endpoint_lifecycle_suite import EndpointLifecycleSuite
from liftbridge.testing.endpoint_suite import EndpointSuite
from liftbridge.testing.index_suite import IndexStorageSuite
from liftbridge.testing.log_suite import LogStorageSuite
from liftbridge.testing.router_suite import RouterSuite
from liftbridge.testing.stable_suite import StableStoreSuite
from liftbridge.testing.transport_suite import TransportSuite

SUITES: dict[Seam, type] = {
    Seam.LOG_STORAGE: LogStorageSuite,
    Seam.INDEX_STORAGE: IndexStorageSuite,
    Seam.STABLE_STORE: StableStoreSuite,
    Seam.CONSENSUS: ConsensusSuite,
    Seam.TRANSPORT: TransportSuite,
    Seam.SUBJECT_ROUTER: RouterSuite,
    Seam.ENDPOINT: EndpointSuite,
    Seam.AUTHORIZER: AuthorizerSuite,
}


def _modules() -> Iterator[ModuleType]:
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        if path != Path(__file__):
            spec = importlib.util.spec_from_file_location(f"every_provider_{path.stem}", path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            yield module


def _suite_for(seam: Seam, name: str) -> type:
    """The suite of the seam; an endpoint that clients can't use has a smaller one."""
    for_operators = seam is Seam.ENDPOINT and FOR_OPERATORS in PluginManager().provider(seam, name).capabilities
    return EndpointLifecycleSuite if for_operators else SUITES[seam]


def _tested() -> set[tuple[Seam, str]]:
    """Which providers have a test class that runs the suite of their seam."""
    classes = (one for module in _modules() for name, one in vars(module).items() if name.startswith("Test"))
    named = ((getattr(one, "provider", None), one) for one in classes)
    return {provider for provider, one in named if provider and issubclass(one, _suite_for(*provider))}


@pytest.mark.parametrize("offer", PluginManager().offers(), ids=lambda one: f"{one.seam}-{one.provider.name}")
def test_registered_provider_is_run_through_the_suite_of_its_seam(offer: Offer) -> None:
    assert (offer.seam, offer.provider.name) in _tested(), (
        f'{offer.origin} offers the {offer.seam} "{offer.provider.name}", which no class in tests/conformance runs '
        f"through {_suite_for(offer.seam, offer.provider.name).__name__}"
    )


def test_every_seam_has_a_suite() -> None:
    assert set(SUITES) == set(Seam)


def test_no_class_names_a_provider_that_does_not_exist() -> None:
    assert _tested() == {(offer.seam, offer.provider.name) for offer in PluginManager().offers()}
