"""What a scrape costs a server with many partitions: ``python tests/benchmarks/scrapes.py [partitions]``.

One server with streams of 100 partitions (1,000 partitions unless told otherwise), each with a message. One client
publishes single messages one after the other, first alone and then while the metrics are scraped once a second. Prints how
long publishing takes in both cases, and time, size and CPU of a scrape. Figures depend on the machine and on who else uses it.
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
from scrapes import fetch, with_metrics

PHASE_S = 20.0
PARTITIONS_OF_A_STREAM = 100


async def main(partitions: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        port, arguments = with_metrics()
        broker = BrokerProcess(Path(folder) / "data", *arguments)
        broker.start()
        try:
            async with ApiClient(broker.address) as client:
                await fill(client, partitions)
                before = broker.resident_bytes()
                text = (await asyncio.to_thread(fetch, port, "/metrics"))[1]
                print(f"{partitions:,} partitions: {len(text) / 2**20:.2f} MiB, {text.count(chr(10)):,} lines")
                print(
                    f"memory: {before / 2**20:.1f} MiB before the first scrape, {broker.resident_bytes() / 2**20:.1f} after"
                )
                used_s = await report(client, broker, "alone")
                scraping = asyncio.create_task(keep_scraping(port))
                with_scrapes_s = await report(client, broker, "scraped once a second")
                scraping.cancel()
                print(
                    f"CPU beyond that of publishing alone, per scrape: {(with_scrapes_s - used_s) / PHASE_S * 1e3:.0f} ms"
                )
                await report_idle(broker, port)
        finally:
            broker.kill()


async def fill(client: ApiClient, partitions: int) -> None:
    for number in range(partitions // PARTITIONS_OF_A_STREAM):
        await client(
            "CreateStream", timeout=60, name=f"s{number}", subject=f"s{number}", partitions=PARTITIONS_OF_A_STREAM
        )
        for partition in range(PARTITIONS_OF_A_STREAM):
            await client("Publish", stream=f"s{number}", partition=partition, value=b"x")


async def report(client: ApiClient, broker: BrokerProcess, when: str) -> float:
    """Returns the server's CPU time for as many messages as it took in the time."""
    times_ms, began, used = [], time.perf_counter(), cpu_seconds(broker.pid)
    while time.perf_counter() - began < PHASE_S:
        sent = time.perf_counter()
        await client("Publish", stream="s0", value=b"x")
        times_ms.append((time.perf_counter() - sent) * 1e3)
        await asyncio.sleep(0.002)
    times_ms.sort()
    shown = ", ".join(f"{name} {times_ms[int(len(times_ms) * part)]:.2f}" for name, part in PERCENTILES)
    print(f"publishing {when}: {len(times_ms):,} messages, ms: {shown}, longest {times_ms[-1]:.2f}")
    return cpu_seconds(broker.pid) - used


async def report_idle(broker: BrokerProcess, port: int) -> None:
    """Without anybody who publishes."""
    times_ms, used = [], cpu_seconds(broker.pid)
    for _ in range(10):
        await asyncio.sleep(1.05)
        began = time.perf_counter()
        await asyncio.to_thread(fetch, port, "/metrics")
        times_ms.append((time.perf_counter() - began) * 1e3)
    cpu_ms = (cpu_seconds(broker.pid) - used) / len(times_ms) * 1e3
    print(f"a scrape of an idle server: {min(times_ms):.0f} to {max(times_ms):.0f} ms, {cpu_ms:.0f} ms of CPU")


PERCENTILES = (("median", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999))


async def keep_scraping(port: int) -> None:
    while True:
        await asyncio.to_thread(fetch, port, "/metrics")
        await asyncio.sleep(1)


def cpu_seconds(pid: int) -> float:
    """User and system time of the process and its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("partitions", type=int, nargs="?", default=1_000)
    asyncio.run(main(parser.parse_args().partitions))
