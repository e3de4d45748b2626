"""go-liftbridge v2.4.0, the official client, against a real broker."""

import shutil
import subprocess
from pathlib import Path

import pytest
from broker_process import BrokerProcess

_SOURCE = Path(__file__).parent / "go_client"


@pytest.mark.interop
@pytest.mark.timeout(300)
def test_go_liftbridge_publishes_subscribes_and_reads_metadata(tmp_path: Path) -> None:
    if shutil.which("go") is None:
        pytest.skip("go isn't installed")
    binary = tmp_path / "go_client"
    built = subprocess.run(
        ["go", "build", "-o", str(binary), "."], cwd=_SOURCE, capture_output=True, text=True, check=False, timeout=240
    )
    assert built.returncode == 0, built.stderr
    broker = BrokerProcess(tmp_path / "data", "--set", "cursors.stream.partitions=3")
    broker.start()
    try:
        done = subprocess.run([binary, broker.address], capture_output=True, text=True, check=False, timeout=60)
    finally:
        broker.stop()
    assert (done.stdout, done.stderr, done.returncode) == ("ok\n", "", 0)
