"""What streams cost that nobody uses: ``python tests/benchmarks/idle_streams.py [streams]``.

Starts a broker with its embedded nats-server, creates streams one after the other (1,000 unless told otherwise), lets them
idle, kills the broker and starts it again on the same data, and once more after a clean stop. Prints times, memory, CPU
and open files of the broker's process; its nats-server is another one. Takes about a minute; figures depend on the
machine and on who else uses it.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from api_client import ApiClient
from broker_process import BrokerProcess

IDLE_S = 20.0


def main(streams: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        broker = BrokerProcess(Path(folder) / "data", "--level", "warn")
        try:
            print(f"start without streams: {start(broker):.2f} s to serving")
            report(broker, "without streams")
            print(f"create {streams:,} streams, one after the other: {asyncio.run(create(broker, streams)):.1f} s")
            report(broker, f"with {streams:,} streams")
            report_idle_cpu(broker)
            broker.kill()
            print(f"start with {streams:,} streams after kill -9: {start(broker):.2f} s to serving")
            report(broker, f"restarted with {streams:,} streams")
            report_idle_cpu(broker)
            began = time.perf_counter()
            broker.stop()
            print(f"clean stop: {time.perf_counter() - began:.2f} s")
            print(f"start with {streams:,} streams after a clean stop: {start(broker):.2f} s to serving")
        finally:
            broker.kill()


def start(broker: BrokerProcess) -> float:
    """Seconds from starting the process until clients are served."""
    began = time.perf_counter()
    broker.start()
    return time.perf_counter() - began


async def create(broker: BrokerProcess, streams: int) -> float:
    """Seconds."""
    async with ApiClient(broker.address) as client:
        began = time.perf_counter()
        for number in range(streams):
            await client("CreateStream", name=f"idle-{number}", subject=f"idle.{number}")
        return time.perf_counter() - began


def report(broker: BrokerProcess, when: str) -> None:
    open_files = len(os.listdir(f"/proc/{broker.pid}/fd"))
    print(f"{when}: {broker.resident_bytes() / 2**20:.1f} MiB resident, {open_files} open files")


def report_idle_cpu(broker: BrokerProcess) -> None:
    before = cpu_seconds(broker.pid)
    time.sleep(IDLE_S)
    used = cpu_seconds(broker.pid) - before
    print(f"idle for {IDLE_S:.0f} s: {used / IDLE_S:.2%} of one core")


def cpu_seconds(pid: int) -> float:
    """User and system time of the process and its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("streams", type=int, nargs="?", default=1_000)
    main(parser.parse_args().streams)
