"""Members that run: what is written when, what survives, and what becomes of proposals when something breaks."""

import ast
import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from raft_group import DictStore, HubTransport, RaftGroup

import liftbridge_raft_builtin.core
from liftbridge.clock import SystemClock
from liftbridge.errors import (
    ConfigError,
    ConsensusError,
    NotLeader,
    PayloadTooLarge,
    ProposalDropped,
    ProposalTimeout,
    StorageError,
)
from liftbridge.interfaces.consensus import ConsensusStatus
from liftbridge.interfaces.context import ConsensusContext
from liftbridge.testing.consensus_suite import THREE, ListMachine, Members, eventually
from liftbridge_raft_builtin import driver, plugin
from liftbridge_raft_builtin.core import RaftCore, Snapshot
from liftbridge_raft_builtin.core.codec import encode_message
from liftbridge_raft_builtin.core.messages import AppendRequest
from liftbridge_raft_builtin.driver import RaftOptions
from liftbridge_raft_builtin.storage import RaftStorage


@pytest.fixture
def group() -> RaftGroup:
    return RaftGroup()


@pytest.fixture
async def members(group: RaftGroup) -> AsyncIterator[Members]:
    members = Members(group)
    yield members
    await members.stop()


# --- writes -----------------------------------------------------------------------------------------------------------


async def test_a_proposal_alone_costs_one_write(group: RaftGroup, members: Members) -> None:
    await members.start("a", bootstrap=["a"])
    before = group.stores["a"].writes
    await members.running["a"].propose(b"x", timeout_s=1)
    assert group.stores["a"].writes == before + 1


async def test_proposals_at_once_share_a_write(group: RaftGroup, members: Members) -> None:
    await members.start("a", bootstrap=["a"])
    before = group.stores["a"].writes
    await asyncio.gather(*(members.running["a"].propose(b"x", timeout_s=1) for _ in range(40)))
    assert group.stores["a"].writes <= before + 2


async def test_a_first_start_and_a_restart_cost_a_write_or_two(group: RaftGroup, members: Members) -> None:
    await members.start("a", bootstrap=["a"])
    assert group.stores["a"].writes == 2
    await members.stop("a")
    await members.start("a")
    assert group.stores["a"].writes == 3


async def test_a_group_of_one_does_nothing_while_idle(members: Members, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    await members.start("a", bootstrap=["a"])
    await members.propose(b"x")
    await asyncio.sleep(0.01)
    monkeypatch.setattr(RaftCore, "tick", lambda _core: calls.append("tick"))
    monkeypatch.setattr(RaftCore, "ready", lambda _core: calls.append("ready"))
    await asyncio.sleep(0.2)  # thirteen heartbeats of this group
    assert calls == []


async def test_a_store_that_refuses_for_a_while_delays_but_breaks_nothing(
    group: RaftGroup, members: Members, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(driver, "_STORAGE_RETRY_S", 0.01)
    await members.start("a", bootstrap=["a"])
    group.stores["a"].failures = 3
    assert await members.running["a"].propose(b"x", timeout_s=5) == 1
    assert caplog.text.count("can't be stored; trying again") == 3


async def test_a_snapshot_that_cannot_be_stored_is_tried_again_later(
    group: RaftGroup, members: Members, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_snapshot = RaftStorage.write_snapshot
    attempts: list[int] = []

    def write(storage: RaftStorage, snapshot: Snapshot, trailing_entries: int) -> None:
        attempts.append(snapshot.index)
        if len(attempts) == 1:
            raise StorageError("the disk said no")
        write_snapshot(storage, snapshot, trailing_entries)

    monkeypatch.setattr(RaftStorage, "write_snapshot", write)
    await members.start("a", bootstrap=["a"])
    for number in range(120):
        await members.propose(b"%d" % number)
    assert attempts == [50, 100]
    assert "A snapshot of the metadata can't be stored" in caplog.text
    assert len(group.stores["a"].values) < 50


async def test_the_log_in_the_store_stays_short(group: RaftGroup, members: Members) -> None:
    await members.start("a", bootstrap=["a"])
    for number in range(400):
        await members.propose(b"%d" % number)
    assert len(group.stores["a"].values) < 2 + 50 + 5 + 2
    await members.stop("a")
    await members.start("a")
    assert members.machines["a"].restored == 1
    assert len(members.machines["a"].commands) == 400


async def test_a_restart_with_thousands_of_entries_is_quick() -> None:
    group = RaftGroup(RaftOptions(snapshot_threshold_entries=100_000))
    members = Members(group)
    await members.start("a", bootstrap=["a"])
    await asyncio.gather(*(members.running["a"].propose(bytes(200), timeout_s=10) for _ in range(8000)))
    await members.stop("a")
    began = time.perf_counter()
    await members.start("a")
    assert time.perf_counter() - began < 2
    assert len(members.machines["a"].commands) == 8000
    await members.stop()


async def test_damaged_state_is_an_error_at_the_start(group: RaftGroup, members: Members) -> None:
    await members.start("a", bootstrap=["a"])
    await members.propose(b"x")
    await members.stop("a")
    values = group.stores["a"].values
    for key, damage in [
        (b"raft_builtin/hard_state", b"\xff"),
        (b"raft_builtin/entry/" + (1).to_bytes(8, "big"), None),
        (b"raft_builtin/entry/" + (2).to_bytes(8, "big"), None),
    ]:
        saved = values.pop(key)
        if damage is not None:
            values[key] = damage
        with pytest.raises(StorageError, match="stored Raft"):
            await group.member("a").start(ListMachine())
        values[key] = saved


# --- outcomes ---------------------------------------------------------------------------------------------------------


async def test_a_proposal_that_lost_its_place_was_dropped(group: RaftGroup, members: Members) -> None:
    await members.start(*THREE, bootstrap=THREE)
    await members.propose(b"before")
    old = await members.leader()
    group.isolate(old)
    lost = asyncio.create_task(members.running[old].propose(b"lost", timeout_s=10))
    new = await members.leader(other_than=old)
    await members.running[new].propose(b"kept", timeout_s=5)
    group.heal()
    with pytest.raises(ProposalDropped, match="another leader's entry"):
        await lost
    await members.agree([b"before", b"kept"])


async def test_a_proposal_without_an_answer_may_still_commit(group: RaftGroup, members: Members) -> None:
    await members.start(*THREE, bootstrap=THREE)
    leader = await members.leader()
    group.isolate(leader)
    with pytest.raises(ProposalTimeout):
        await members.running[leader].propose(b"late", timeout_s=0.02)
    group.heal()
    await members.propose(b"next")
    assert members.machines[await members.leader()].commands in ([b"next"], [b"late", b"next"])


async def test_a_proposal_larger_than_a_message_is_refused(members: Members) -> None:
    await members.start("a", bootstrap=["a"])
    with pytest.raises(PayloadTooLarge):
        await members.running["a"].propose(bytes(1 << 20), timeout_s=1)


async def test_a_learner_that_never_answers_is_not_promoted(members: Members) -> None:
    await members.start("a", bootstrap=["a"])
    with pytest.raises(ProposalTimeout, match="hasn't caught up"):
        await members.running["a"].add_voter("nobody", timeout_s=0.2)
    assert members.running["a"].status().learners == ("nobody",)
    assert await members.propose(b"x") == 1


async def test_handing_over_to_a_voter_that_is_gone_fails_and_proposals_go_on(members: Members) -> None:
    await members.start(*THREE, bootstrap=THREE)
    leader = await members.leader()
    gone = next(one for one in THREE if one != leader)
    await members.stop(gone)
    handing_over = asyncio.create_task(members.running[leader].transfer_leadership(gone, timeout_s=5))
    await asyncio.sleep(0)
    assert await members.running[leader].propose(b"x", timeout_s=5) == 1
    with pytest.raises(ProposalDropped):
        await handing_over


# --- what must not break a member, and what must ----------------------------------------------------------------------


async def test_bytes_that_are_no_message_are_ignored(group: RaftGroup, members: Members) -> None:
    await members.start(*THREE, bootstrap=THREE)
    await members.leader()
    stranger = HubTransport(group.hub, "stranger")
    for server_id in THREE:
        stranger.publish(f"ns.raft.builtin.{server_id}", [b"", b"rubbish", b"\x01\x03"])
    await members.propose(b"x")
    await members.agree([b"x"])


async def test_members_of_groups_with_different_names_never_hear_of_each_other(group: RaftGroup) -> None:
    one, other = group.member("a"), group.member("b")
    await one.start(ListMachine(), bootstrap=["a", "b"], group="one")
    await other.start(ListMachine(), bootstrap=["a", "b"], group="other")
    await asyncio.sleep(0.5)  # several elections of this group
    assert one.status().leader == other.status().leader == ""
    assert set(group.hub.sinks) == {"ns.raft.builtin.one.a", "ns.raft.builtin.other.b"}
    await one.stop()
    await other.stop()


async def test_a_member_whose_id_makes_no_subject_harms_nobody(
    members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = HubTransport.publish

    def picky(transport: HubTransport, subject: str, payloads: Sequence[bytes]) -> None:
        if " " in subject:
            raise ValueError(subject)
        publish(transport, subject, payloads)

    monkeypatch.setattr(HubTransport, "publish", picky)
    await members.start("a", bootstrap=["a"])
    await members.running["a"].add_learner("b c", timeout_s=5)
    assert await members.propose(b"x") == 1


async def test_a_member_that_sees_a_broken_promise_takes_no_more_part(
    group: RaftGroup, members: Members, caplog: pytest.LogCaptureFixture
) -> None:
    await members.start("a", "b", bootstrap=["a", "b"])
    leader = await members.leader()
    term = members.running[leader].status().term
    forged = AppendRequest("evil", leader, term, 0, 0, 0)
    HubTransport(group.hub, "evil").publish(f"ns.raft.builtin.{leader}", [encode_message(forged)])
    await eventually(lambda: members.running[leader].status().leader == "")
    with pytest.raises(NotLeader):
        await members.running[leader].propose(b"x", timeout_s=1)
    assert f"evil leads in term {term}" in caplog.text


async def test_a_state_machine_that_raises_ends_the_part_of_this_member(
    group: RaftGroup, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(ListMachine):
        def apply(self, index: int, command: bytes) -> object:
            raise ZeroDivisionError("a bug")

    member = group.member("a")
    await member.start(Broken(), bootstrap=["a"])
    with pytest.raises(ProposalTimeout, match="no longer takes part"):
        await member.propose(b"x", timeout_s=5)
    assert not member.status().is_leader
    assert "a bug" in caplog.text
    await member.stop()


async def test_a_callback_that_raises_harms_nobody(group: RaftGroup, caplog: pytest.LogCaptureFixture) -> None:
    member = group.member("a")

    def fail(_status: ConsensusStatus) -> None:
        raise ZeroDivisionError

    member.on_leader_change(fail)
    await member.start(ListMachine(), bootstrap=["a"])
    assert await member.propose(b"x", timeout_s=5) == 1
    assert "ZeroDivisionError" in caplog.text
    await member.stop()


async def test_with_the_defaults_another_leader_is_there_within_three_seconds() -> None:
    members = Members(RaftGroup(RaftOptions()))
    await members.start(*THREE, bootstrap=THREE)
    await members.propose(b"before")
    old = await members.leader()
    members.group.isolate(old)
    began = time.perf_counter()
    await members.leader(other_than=old)
    assert time.perf_counter() - began < 3
    await members.stop()


# --- the plugin -------------------------------------------------------------------------------------------------------


def context(group: RaftGroup, tmp_path: Path, **changed: float) -> ConsensusContext:
    settings = {setting.name: setting.default for setting in plugin.liftbridge_add_settings()} | changed
    return ConsensusContext(
        server_id="a",
        namespace="ns",
        data_dir=tmp_path,
        clock=SystemClock(),
        settings=settings,
        transport=HubTransport(group.hub, "a"),
        stable_store=group.stores.setdefault("a", DictStore()),
    )


async def test_the_provider_makes_a_member_from_the_default_settings(group: RaftGroup, tmp_path: Path) -> None:
    member = plugin.liftbridge_consensus().create(context(group, tmp_path))
    await member.start(ListMachine(), bootstrap=["a"])
    assert await member.propose(b"x", timeout_s=1) == 1
    await member.stop()


def test_an_election_time_out_too_close_to_the_heartbeat_is_refused(group: RaftGroup, tmp_path: Path) -> None:
    settings = {"clustering.raft.heartbeat": 0.5, "clustering.raft.election.timeout": 0.6}
    with pytest.raises(ConfigError, match="at least 1s"):
        plugin.liftbridge_consensus().create(context(group, tmp_path, **settings))


def test_every_setting_has_help_and_a_default_that_passes_its_own_check() -> None:
    for setting in plugin.liftbridge_add_settings():
        assert setting.help.endswith(".")
        assert setting.check is None or setting.check(setting.default) is None


def test_the_hooks_load_without_the_implementation() -> None:
    code = "import sys, liftbridge_raft_builtin.plugin; print([m for m in sys.modules if 'raft_builtin.' in m])"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert loaded.strip() == "['liftbridge_raft_builtin.plugin']"


def test_the_core_does_no_io() -> None:
    allowed = ("liftbridge.errors", "liftbridge.protocol", "liftbridge_raft_builtin.core")
    standard = {"bisect", "collections", "collections.abc", "dataclasses", "enum", "typing"}
    for path in Path(liftbridge_raft_builtin.core.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert all(name in standard or name.startswith(allowed) for name in names), (path.name, names)


async def test_proposing_before_the_start_is_refused(group: RaftGroup) -> None:
    with pytest.raises(ConsensusError):
        await group.member("a").propose(b"x", timeout_s=1)
