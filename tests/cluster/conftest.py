"""One broker for a whole module: starting one takes half a second, and tests use streams of their own."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from api_client import ApiClient
from broker_process import BrokerProcess
from original_process import Flavour, why_it_cannot_run


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    process = BrokerProcess(tmp_path_factory.mktemp("broker") / "data", "--set", "streams.cleaner.interval=200ms")
    process.start()
    yield process
    process.stop()


@pytest.fixture
async def client(broker: BrokerProcess) -> AsyncIterator[ApiClient]:
    async with ApiClient(broker.address) as client:
        yield client


@pytest.fixture
def stream(request: pytest.FixtureRequest) -> str:
    """A name for this test's stream."""
    return "".join(character if character.isalnum() else "-" for character in request.node.name)


@pytest.fixture
def new_broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    """A broker of this test's own, not started yet."""
    process = BrokerProcess(tmp_path / "data")
    yield process
    process.kill()


# --- for tests that run against our server and against the original -------------------------------------------------------


@pytest.fixture(scope="module", params=["ours", pytest.param("original", marks=pytest.mark.interop)])
def flavour(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flavour]:
    """Servers of the one kind, then of the other."""
    name = str(request.param)
    if name == "original" and (reason := why_it_cannot_run()):
        pytest.skip(reason)
    flavour = Flavour(name, tmp_path_factory.mktemp(name))
    yield flavour
    flavour.stop()


@pytest.fixture(autouse=True)
def what_the_original_cannot(request: pytest.FixtureRequest) -> None:
    """Skips what is marked ``only_ours(reason)``."""
    mark = request.node.get_closest_marker("only_ours")
    if mark is not None and request.getfixturevalue("flavour").is_original:
        pytest.skip(mark.args[0])
