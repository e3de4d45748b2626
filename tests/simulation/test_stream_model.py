"""Streams against a model: whatever clients and operators do, on one server over real files and on a cluster, all that
clients are told is what ``tests/support/stream_model.py`` says. The rules are in ``tests/support/stream_machine.py``.

A failure prints the steps that led to it. ``LIFTBRIDGE_TEST_STREAM_EXAMPLES`` tries so many lives that nobody has tried;
without it they are the same each time, so that what fails is the change and not the hour.
"""

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from broken_streams import BUGS
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from simulation.disk import Disk
from simulation.files import FileDisk
from simulation.invariants import Violation
from stream_machine import StreamMachine
from stream_model import Mismatch
from stream_world import StreamWorld

EXAMPLES = 60
STEPS = 40
#: How many lives a bug has to show itself.
LIVES = 150


class OneServer(StreamMachine):
    """Over real files."""

    def __init__(self) -> None:
        super().__init__()
        self._exit = ExitStack()

    def make_world(self, seed: int) -> StreamWorld:
        directory = Path(self._exit.enter_context(tempfile.TemporaryDirectory()))
        return StreamWorld(seed, [FileDisk("s0", directory)])

    def teardown(self) -> None:
        with self._exit:
            super().teardown()


class ThreeServers(StreamMachine):
    """A cluster, over modelled disks."""

    def make_world(self, seed: int) -> StreamWorld:
        return StreamWorld(seed, [Disk(f"s{number}") for number in range(3)])


def _settings(examples: int) -> settings:
    asked = os.environ.get("LIFTBRIDGE_TEST_STREAM_EXAMPLES")
    return settings(
        max_examples=int(asked or examples),
        stateful_step_count=STEPS,
        deadline=None,
        derandomize=not asked,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.timeout(7200)  # to shrink what fails takes its time
def test_one_server_does_what_the_model_does() -> None:
    run_state_machine_as_test(OneServer, settings=_settings(EXAMPLES))


@pytest.mark.timeout(7200)
def test_a_cluster_does_what_the_model_does() -> None:
    run_state_machine_as_test(ThreeServers, settings=_settings(EXAMPLES))


@pytest.mark.parametrize("name", BUGS)
def test_a_known_bug_is_noticed(name: str) -> None:
    bug = BUGS[name]
    machine = type(name, (ThreeServers if bug.needs_cluster else OneServer,), {})
    if bug.seed is not None:
        machine = seed(bug.seed)(machine)
    quick = settings(_settings(LIVES), phases=[Phase.generate], report_multiple_bugs=False)
    with bug.put_back(), pytest.raises((Mismatch, Violation)):
        run_state_machine_as_test(machine, settings=quick)
