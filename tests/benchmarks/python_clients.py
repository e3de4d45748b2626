"""Our Python client beside python-liftbridge from PyPI: ``python tests/benchmarks/python_clients.py [rounds]``.

One broker of ours with a nats-server; the loads alternate between the clients, round after round, each in a process of its
own; values of 256 bytes. Prints a Markdown table: medians of the rounds, and ratios. python-liftbridge 0.0.7 is installed into
an environment of its own. Its generated code needs protobuf before 3.21, which on the Pythons that we support exists
in pure Python only; it waits for each ack, so that only threads have many messages in flight. About a minute.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from broker_process import BrokerProcess
from client_loads import IN_FLIGHT, THREADS

from liftbridge.client import StartAt, StopAt
from liftbridge.client.blocking import BlockingClient

_LOADS = Path(__file__).parent / "client_loads.py"
_THEIR_REQUIREMENTS = ("python-liftbridge==0.0.7", "protobuf<3.21")
#: What is measured: a name, our load, theirs, and how many messages each of them gets.
CELLS = (
    ("one at a time, asyncio beside blocking", "ours_publish", "theirs_publish", 3_000, 3_000),
    ("one at a time, both blocking", "ours_blocking", "theirs_publish", 3_000, 3_000),
    (f"many: {IN_FLIGHT} in flight beside {THREADS} threads", "ours_publisher", "theirs_publisher", 50_000, 5_000),
    ("replay from the earliest", "ours_replay", "theirs_replay", 50_000, 50_000),
    ("replay, both blocking", "ours_blocking_replay", "theirs_replay", 50_000, 50_000),
)
_Figures = dict[str, float]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as folder:
        pythons = {"ours": sys.executable, "theirs": their_python(Path(folder) / "venv")}
        broker = BrokerProcess(Path(folder) / "data")
        broker.start()
        try:
            with BlockingClient([broker.address]) as client:
                for stream in ("published", "replayed"):
                    client.create_stream(stream, stream)
                client.publish_all("replayed", [b"x" * 256] * 50_000)
                assert sum(1 for _ in client.subscribe("replayed", start=StartAt.earliest(), stop=StopAt.latest()))
            results = measure(broker.address, pythons, rounds)
        finally:
            broker.stop()
    print_table(results, rounds)


def their_python(environment: Path) -> str:
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    install = [environment / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, *_THEIR_REQUIREMENTS], check=True)
    return str(environment / "bin" / "python")


def measure(address: str, pythons: dict[str, str], rounds: int) -> dict[tuple[str, str], list[_Figures]]:
    """The figures of all rounds, by cell and side."""
    results: dict[tuple[str, str], list[_Figures]] = {}
    for _ in range(rounds):
        for name, ours, theirs, our_messages, their_messages in CELLS:
            stream = "replayed" if "replay" in ours else "published"
            for side, load, messages in (("ours", ours, our_messages), ("theirs", theirs, their_messages)):
                command = [pythons[side], str(_LOADS), load, address, stream, str(messages)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                results.setdefault((name, side), []).append(json.loads(done.stdout))
    return results


def print_table(results: dict[tuple[str, str], list[_Figures]], rounds: int) -> None:
    load = os.getloadavg()[1]
    print(f"Medians of {rounds} rounds, Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {load:.1f}\n")
    print("| | ours, msgs/s | python-liftbridge, msgs/s | ours / theirs | ours p50 / p99 | theirs p50 / p99 |")
    print("|---|---|---|---|---|---|")
    for name, *_ in CELLS:
        ours, theirs = (results[name, side] for side in ("ours", "theirs"))
        rates = [median(figures, "per_second") for figures in (ours, theirs)]
        ratio = f"{rates[0] / rates[1]:.1f}"
        print(f"| {name} | {rates[0]:,.0f} | {rates[1]:,.0f} | {ratio} | {latency(ours)} | {latency(theirs)} |")


def median(figures: list[_Figures], name: str) -> float:
    return statistics.median(one[name] for one in figures)


def latency(figures: list[_Figures]) -> str:
    if "p50_us" not in figures[0]:
        return ""
    return f"{median(figures, 'p50_us') / 1e3:.2f} / {median(figures, 'p99_us') / 1e3:.2f} ms"


if __name__ == "__main__":
    main()
