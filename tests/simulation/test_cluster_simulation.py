"""Whole clusters, from one seed each: the real servers over a virtual clock, network and disk.

A failure names its seed and arguments: ``World(seed, ...).run()`` replays it, and ``World.trace`` tells what happened.
``LIFTBRIDGE_TEST_SIMULATION_SECONDS`` looks for violations in seeds nobody has tried, for so long; without it, the same
seeds run each time, so that what fails is the change and not the hour.

What stands for which invariant:

==== ===================================================================================================================
I1   every member of an ISR holds all that is committed, at each moment; acks of policy ALL name a committed record; at the
     end each replica holds all of it, byte for byte. Excused: everybody in the ISR lost power before syncing
I2   what an ack of policy LEADER named is at its offset or nowhere
I3   an offset is written once in each epoch; readers get what was committed
I4   readers, on leaders and members of the ISR, get ascending offsets without unexplained gaps
I5   as I1, from the moment that a high watermark covers a record
I6   whatever is committed was published, to this partition
I7   what a session publishes to a partition is committed in that order, and no message of it twice
I8   one leader an epoch, in metadata and in servers; epochs in a log never fall
I9   the leader is in the ISR, the ISR in the replicas; every member's log reaches the highest high watermark
I10  a high watermark never falls while a server lives, covers what is held and what a leader committed, with min ISR
I11  below high watermarks all replicas are the same; whole logs at the end
I12  with durability sync, what is committed is on the platter of every member of the ISR
I13  metadata is equal at equal indexes, after snapshots too
I14  no apply raises; restarted servers run what metadata says (I20)
I17  each publish is answered while its server lives; what was refused is nowhere, and nothing is answered twice
I18  nothing ends unexpectedly, nothing complains of damage or lost data
I19  a truncation that reaches below a high watermark moves it back (I10), or leaves an ISR without the record (I9)
I20  without faults: everybody live, in sync and equal, one leader each, new messages acked, within 40 virtual seconds
==== ===================================================================================================================

Not here: I15 (consumer groups) and I16 (cursors) have tests of their own; bounded memory (I18) is the soak's.
"""

import os
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
from broken_cluster import BREAKS, BUGS, CALM, ELSEWHERE, WAYS
from simulation.full_disks import FullDiskWorld
from simulation.invariants import Violation
from simulation.leases import LeaseWorld
from simulation.world import World

from liftbridge.protocol.generated import api_pb2 as api

RUNS = 100
SECONDS = 3.0
#: How many lives a bug has to show itself.
LIVES = 60
SESSION_TIMEOUT_S = 1.0
KNOWN_BUGS = range(1, 31)
#: The link breaks that carries a chunk, then the one that carries the question about it, then the one with what was lost.
LONGEST_WAIT_S = 4.0


@pytest.mark.parametrize("block", range(4))
def test_the_invariants_hold_whatever_happens(block: int) -> None:
    worlds = [World(seed, seconds=SECONDS).run() for seed in range(block * RUNS // 4, (block + 1) * RUNS // 4)]
    assert sum(world.invariants.acks for world in worlds) > 1000
    assert sum(world.invariants.excused for world in worlds) < len(worlds) // 4, "nothing is promised too often"


@pytest.mark.parametrize("name", BUGS)
def test_a_known_bug_is_noticed(name: str) -> None:
    bug = BUGS[name]
    with bug.put_back():
        for seed in (bug.seed, *range(LIVES)):
            try:
                bug.world(seed).run()
            except Violation:
                return
    pytest.fail(f"{LIVES} lives with a known bug ({name}) went by unnoticed")


@pytest.mark.parametrize("name", ["truncates to its high watermark", "same epoch after a restart", "expands too early"])
def test_what_brings_bugs_to_light_breaks_nothing_else(name: str) -> None:
    for seed in range(12):
        BUGS[name].world(seed).run()


def test_every_known_bug_is_put_back_here_or_caught_elsewhere() -> None:
    assert {bug.number for bug in BUGS.values() if bug.number} | set(ELSEWHERE) == set(KNOWN_BUGS)


def test_a_deposed_leader_soon_loses_its_lease() -> None:
    """Not before its successor leads: see the docstring of LeaseWorld and decision 10."""
    weights = {"isolate": 5, "cut": 5, "slow_link": 2, "freeze": 2, "kill": 0, "kill_all": 0, "lose_power": 0}
    worlds = [LeaseWorld(seed, seconds=4.0, weights=weights).run() for seed in range(10)]
    overlaps_s = [one for world in worlds for many in world.overlaps_s.values() for one in many]
    assert max(overlaps_s, default=0.0) < SESSION_TIMEOUT_S


def test_what_brought_a_stuck_replica_to_light() -> None:
    """A deposed leader's records were all removed, by retention and by divergence, and nobody published any more."""
    weights = {**CALM, "slow_link": 6, "cut": 4, "transfer": 6}
    for seed in range(2024, 2032, 4):
        World(seed, seconds=5.0, weights=weights).run()


def test_whichever_way_messages_take() -> None:
    """Links and NATS, each slow, cut or away while the other isn't: what takes one overtakes what took the other."""
    for seed in range(15):
        World(seed, seconds=5.0, weights={**WAYS, "disconnect": 3, "isolate": 3}, publish_every_s=0.02).run()


def test_what_broken_links_lose_is_acked_soon_while_all_servers_live() -> None:
    """Chunks that are forwarded, and their answers."""
    worlds = [World(seed, seconds=5.0, weights=BREAKS, publish_every_s=0.02).run() for seed in range(10)]
    messages = [one for world in worlds for one in world.invariants.messages() if one.policy != api.NONE]
    assert len(messages) > 1000
    assert [one for one in messages if one.offset is None] == [], "told that it isn't stored, or may not be"
    waits_s = [((one.answered_ns or 0) - one.sent_ns) / 1e9 for one in messages]
    assert max(waits_s) > 0.5, "nothing was lost"
    assert max(waits_s) < LONGEST_WAIT_S


def test_who_has_no_room_leads_nothing_that_others_could_and_nothing_is_lost() -> None:
    worlds = [FullDiskWorld(seed, seconds=10.0, publish_every_s=0.05).run() for seed in range(10)]
    assert sum(world.relieved for world in worlds) > 5


def test_full_disks_among_all_that_goes_wrong_lose_nothing() -> None:
    for seed in range(15):
        World(seed, seconds=5.0, weights={"fill_disk": 4, "transfer": 1}).run()


_TELL = """
import zlib
from simulation.world import World
world = World(3, seconds=2.0).run()
print(world.turns, world.timeline.now_ns, zlib.crc32("\\n".join(world.trace).encode()))
"""


def test_a_life_is_the_same_again() -> None:
    """In another process, with other hashes."""
    support = str(Path(__file__).parents[1] / "support")
    path = os.pathsep.join([support, *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "77"}
    told = subprocess.run(
        [sys.executable, "-c", _TELL], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    world = World(3, seconds=2.0).run()
    trace = zlib.crc32("\n".join(world.trace).encode())
    assert told.stdout.split() == [str(world.turns), str(world.timeline.now_ns), str(trace)]


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_invariants_hold_in_many_seeds() -> None:
    asked = os.environ.get("LIFTBRIDGE_TEST_SIMULATION_SECONDS")
    end = time.monotonic() + float(asked or 60)
    seed = time.time_ns() // 1_000_000 if asked else 1_000_000
    runs = 0
    while time.monotonic() < end:
        World(seed + runs, seconds=(3.0, 6.0, 12.0)[runs % 3]).run()
        runs += 1
    print(f"{runs} lives from seed {seed} on")
