"""grpcio with stubs that its own tools make from proto/api.proto, as any application in any language has them."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import grpc
import pytest
from broker_process import BrokerProcess

_PROTO = Path(__file__).parents[2] / "proto"


@pytest.fixture
def stubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    protoc = pytest.importorskip("grpc_tools.protoc")
    arguments = ["protoc", f"-I{_PROTO}", f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}", "api.proto"]
    assert protoc.main(arguments) == 0
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = importlib.import_module("api_pb2"), importlib.import_module("api_pb2_grpc")
    yield modules
    for module in modules:
        sys.modules.pop(module.__name__)


def test_create_publish_subscribe_and_metadata(stubs: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    api, services = stubs
    broker = BrokerProcess(tmp_path / "data")
    broker.start()
    try:
        with grpc.insecure_channel(broker.address) as channel:
            stub = services.APIStub(channel)
            stub.CreateStream(api.CreateStreamRequest(name="s", subject="s"))
            assert stub.Publish(api.PublishRequest(stream="s", value=b"0"), timeout=5).ack.offset == 0
            requests = [api.PublishRequest(stream="s", value=b"%d" % i, correlationId=str(i)) for i in range(1, 100)]
            answers = list(stub.PublishAsync(iter(requests)))
            assert [(one.correlationId, one.ack.offset) for one in answers] == [(str(i), i) for i in range(1, 100)]
            call = stub.Subscribe(api.SubscribeRequest(stream="s", startPosition=api.EARLIEST))
            messages = [next(call) for _ in range(101)][1:]
            assert [(one.offset, one.value) for one in messages] == [(i, b"%d" % i) for i in range(100)]
            call.cancel()
            metadata = stub.FetchMetadata(api.FetchMetadataRequest())
            assert [one.name for one in metadata.streamMetadata] == ["s"]
            assert metadata.streamMetadata[0].partitions[0].newestOffset == 99
    finally:
        broker.stop()
