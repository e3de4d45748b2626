"""Thousands of short lives of a cluster's data plane. A failure names its seed: ``World(seed).run(steps)`` replays it."""

import logging
from collections.abc import Iterator, Mapping

import pytest
from broken_replication import BROKEN, ELECTIONS, RESTLESS
from compacted_simulation import CompactedWorld
from replication_simulation import Violation, World

SHORT_STEPS = 600
LONG_STEPS = 3000
BROKEN_STEPS = 1500
BROKEN_SEEDS = 300


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """What followers say when they drop records, thousands of times."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


def run(seed: int, steps: int) -> World:
    world = World(seed)
    try:
        world.run(steps)
    except BaseException as error:
        error.add_note(f"replay: World({seed}).run({steps})")
        raise
    return world


@pytest.mark.parametrize("block", range(4))
def test_nothing_committed_is_lost_and_all_replicas_agree_in_the_end(block: int) -> None:
    worlds = [run(seed, SHORT_STEPS) for seed in range(block * 100, (block + 1) * 100)]
    assert sum(world.history.acks for world in worlds) > 500


def test_nothing_committed_is_lost_in_longer_lives() -> None:
    for seed in range(50_000, 50_060):
        run(seed, LONG_STEPS)


@pytest.mark.parametrize("block", range(2))
def test_replicas_that_compact_hold_the_last_of_each_key_and_agree_on_the_rest(block: int) -> None:
    removed = 0
    for seed in range(block * 60, (block + 1) * 60):
        world = CompactedWorld(seed)
        try:
            world.run(SHORT_STEPS * 2)
        except BaseException as error:
            error.add_note(f"replay: CompactedWorld({seed}).run({SHORT_STEPS * 2})")
            raise
        removed += world.history.removed
    assert removed > 500


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_nothing_committed_is_lost_in_thousands_of_lives(block: int) -> None:
    for seed in range(100_000 + block * 400, 100_000 + (block + 1) * 400):
        run(seed, LONG_STEPS)


@pytest.mark.parametrize("weights", [RESTLESS, ELECTIONS])
def test_what_brings_broken_rules_to_light_breaks_nothing_else(weights: Mapping[str, float]) -> None:
    for seed in range(40):
        World(seed, weights=weights).run(BROKEN_STEPS)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_noticed(name: str) -> None:
    broken = BROKEN[name]
    for seed in range(BROKEN_SEEDS):
        try:
            World(seed, rules=broken.rules, weights=broken.weights).run(BROKEN_STEPS)
        except Violation:
            return
    pytest.fail(f"{BROKEN_SEEDS} lives with a broken rule ({name}) went by unnoticed")
