"""One broker for a whole module: starting one takes half a second, and tests use streams of their own."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from api_client import ApiClient
from broker_process import BrokerProcess


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
