"""The conformance suite of consensus: subclass :class:`ConsensusSuite`, give it a group, and run it with pytest.

::

    class TestMyConsensus(ConsensusSuite):
        @pytest.fixture
        def group(self):
            return MyGroup()  # a ConsensusGroup
"""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from liftbridge.errors import ConsensusError, NotLeader, ProposalDropped, ProposalTimeout, StorageError
from liftbridge.interfaces.consensus import Consensus, ConsensusStatus

TIMEOUT_S = 10.0


class ListMachine:
    """A state machine that lists its commands. The result of the n-th command is n."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []
        self.indexes: list[int] = []
        self.restored = 0

    def apply(self, index: int, command: bytes) -> object:
        self.indexes.append(index)
        self.commands.append(command)
        return len(self.commands)

    def snapshot(self) -> bytes:
        return json.dumps([command.decode() for command in self.commands]).encode()

    def restore(self, data: bytes) -> None:
        self.restored += 1
        self.commands = [command.encode() for command in json.loads(data)]


class ConsensusGroup(ABC):
    """How the suite makes members that can reach each other. It should take a snapshot about every 50 commands."""

    @abstractmethod
    def member(self, server_id: str) -> Consensus:
        """A member that isn't started. Made again after a stop, it has what was stored: a restart."""

    @abstractmethod
    def isolate(self, server_id: str) -> None:
        """Cuts a member off from all others."""

    @abstractmethod
    def heal(self) -> None:
        """Connects everybody again."""


class Members:
    """The running members of one test."""

    def __init__(self, group: ConsensusGroup) -> None:
        self.group = group
        self.running: dict[str, Consensus] = {}
        self.machines: dict[str, ListMachine] = {}
        self.seen: dict[str, list[ConsensusStatus]] = {}
        self._changed = asyncio.Event()

    async def start(self, *server_ids: str, bootstrap: Sequence[str] = ()) -> None:
        for server_id in server_ids:
            member = self.running[server_id] = self.group.member(server_id)
            self.machines[server_id] = ListMachine()
            self.seen[server_id] = []
            member.on_leader_change(self._note(server_id))
        await asyncio.gather(
            *(self.running[one].start(self.machines[one], bootstrap=tuple(bootstrap)) for one in server_ids)
        )

    def _note(self, server_id: str) -> Callable[[ConsensusStatus], None]:
        def note(status: ConsensusStatus) -> None:
            self.seen[server_id].append(status)
            self._changed.set()

        return note

    async def stop(self, *server_ids: str) -> None:
        for server_id in server_ids or list(self.running):
            await self.running.pop(server_id).stop()

    async def leader(self, *, other_than: str = "") -> str:
        """Waits until all members that are running, but for that one, see the same leader among them."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                seen = {one.status().leader for server_id, one in self.running.items() if server_id != other_than}
                if len(seen) == 1 and (leader := seen.pop()) in self.running.keys() - {other_than}:
                    return leader
                self._changed.clear()
                await self._changed.wait()

    async def propose(self, command: bytes) -> object:
        """Proposes at the leader, whoever that is by then."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                leader = await self.leader()
                try:
                    return await self.running[leader].propose(command, timeout_s=TIMEOUT_S)
                except (NotLeader, ProposalDropped):
                    await asyncio.sleep(0.01)

    async def agree(self, commands: Sequence[bytes], *server_ids: str) -> None:
        """Waits until the members have applied these commands, and no others."""
        expected = list(commands)
        names = server_ids or tuple(self.running)
        await eventually(lambda: all(len(self.machines[one].commands) >= len(expected) for one in names))
        assert {one: self.machines[one].commands for one in names} == dict.fromkeys(names, expected)


async def eventually(condition: Callable[[], bool]) -> None:
    """Waits for something of which nobody tells."""
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():
            await asyncio.sleep(0.005)


THREE = ("a", "b", "c")


class ConsensusSuite:
    """Each test is one promise of :class:`~liftbridge.interfaces.consensus.Consensus`."""

    @pytest.fixture
    def group(self) -> ConsensusGroup:
        raise NotImplementedError("give the suite a group")

    @pytest.fixture
    async def members(self, group: ConsensusGroup) -> AsyncIterator[Members]:
        members = Members(group)
        yield members
        await members.stop()

    # --- alone --------------------------------------------------------------------------------------------------------

    async def test_a_sole_voter_leads_when_start_returns(self, members: Members) -> None:
        await members.start("a", bootstrap=["a"])
        status = members.running["a"].status()
        assert status.is_leader
        assert status.voters == ("a",)

    async def test_a_member_knows_whether_it_has_been_one_before(self, group: ConsensusGroup, members: Members) -> None:
        assert not await group.member("a").is_stored()
        await members.start("a", bootstrap=["a"])
        await members.propose(b"x")
        await members.stop("a")
        assert await group.member("a").is_stored()

    async def test_what_is_stored_belongs_to_one_group(self, group: ConsensusGroup) -> None:
        member = group.member("a")
        await member.start(ListMachine(), bootstrap=["a"], group="one")
        assert await member.propose(b"x", timeout_s=TIMEOUT_S) == 1
        await member.stop()
        with pytest.raises(StorageError):
            await group.member("a").start(ListMachine(), group="other")

    async def test_propose_returns_what_apply_returned(self, members: Members) -> None:
        await members.start("a", bootstrap=["a"])
        assert [await members.running["a"].propose(b"x", timeout_s=TIMEOUT_S) for _ in range(3)] == [1, 2, 3]

    async def test_proposals_at_once_are_applied_once_each_at_rising_indexes(self, members: Members) -> None:
        await members.start("a", bootstrap=["a"])
        commands = [b"%d" % number for number in range(200)]
        proposals = (members.running["a"].propose(command, timeout_s=TIMEOUT_S) for command in commands)
        results = await asyncio.gather(*proposals)
        machine = members.machines["a"]
        assert [machine.commands[int(str(result)) - 1] for result in results] == commands
        assert machine.indexes == sorted(set(machine.indexes))

    async def test_a_restart_has_applied_everything_when_start_returns(self, members: Members) -> None:
        await members.start("a", bootstrap=["a"])
        commands = [b"%d" % number for number in range(130)]
        for command in commands:
            await members.running["a"].propose(command, timeout_s=TIMEOUT_S)
        await members.stop("a")
        await members.start("a", bootstrap=["a"])
        assert members.machines["a"].commands == commands

    async def test_indexes_go_on_after_a_restart(self, members: Members) -> None:
        await members.start("a", bootstrap=["a"])
        await members.propose(b"before")
        before = members.running["a"].status().applied_index
        await members.stop("a")
        await members.start("a")
        await members.propose(b"after")
        assert members.machines["a"].indexes[-1] > before

    async def test_bootstrap_changes_nothing_once_something_is_stored(self, members: Members) -> None:
        await members.start("a", bootstrap=["a"])
        await members.stop("a")
        await members.start("a", bootstrap=["a", "b", "c"])
        assert members.running["a"].status().voters == ("a",)

    async def test_without_bootstrap_a_server_belongs_to_no_group(self, members: Members) -> None:
        await members.start("a")
        status = members.running["a"].status()
        assert (status.leader, status.voters, status.learners) == ("", (), ())
        with pytest.raises(NotLeader):
            await members.running["a"].propose(b"x", timeout_s=0.2)

    async def test_stop_may_be_called_twice(self, members: Members) -> None:
        await members.start("a", bootstrap=["a"])
        member = members.running["a"]
        await member.stop()
        await member.stop()
        assert not member.status().is_leader

    async def test_the_last_voter_cannot_be_removed(self, members: Members) -> None:
        await members.start("a", bootstrap=["a"])
        with pytest.raises(ConsensusError):
            await members.running["a"].remove_member("a", timeout_s=TIMEOUT_S)
        assert await members.propose(b"x") == 1

    # --- together -----------------------------------------------------------------------------------------------------

    async def test_all_members_apply_the_same_commands_in_the_same_order(self, members: Members) -> None:
        await members.start(*THREE, bootstrap=THREE)
        commands = [b"%d" % number for number in range(20)]
        for command in commands:
            await members.propose(command)
        await members.agree(commands)

    async def test_a_follower_refuses_and_names_the_leader(self, members: Members) -> None:
        await members.start(*THREE, bootstrap=THREE)
        leader = await members.leader()
        follower = next(one for one in THREE if one != leader)
        for refused in (
            members.running[follower].propose(b"x", timeout_s=TIMEOUT_S),
            members.running[follower].barrier(timeout_s=TIMEOUT_S),
            members.running[follower].add_learner("d", timeout_s=TIMEOUT_S),
            members.running[follower].remove_member(leader, timeout_s=TIMEOUT_S),
            members.running[follower].transfer_leadership(follower, timeout_s=TIMEOUT_S),
        ):
            with pytest.raises(NotLeader) as refusal:
                await refused
            assert refusal.value.leader == leader

    async def test_everybody_hears_of_the_leader(self, members: Members) -> None:
        await members.start(*THREE, bootstrap=THREE)
        leader = await members.leader()
        await eventually(lambda: all(seen and seen[-1].leader == leader for seen in members.seen.values()))
        assert [one for one in THREE if members.seen[one][-1].is_leader] == [leader]

    async def test_a_barrier_returns_an_index_at_which_everything_committed_before_is_applied(
        self, members: Members
    ) -> None:
        await members.start(*THREE, bootstrap=THREE)
        await members.propose(b"x")
        leader = await members.leader()
        committed = members.machines[leader].indexes[-1]
        assert await members.running[leader].barrier(timeout_s=TIMEOUT_S) >= committed

    async def test_when_the_leader_stops_another_one_takes_over_and_nothing_is_lost(self, members: Members) -> None:
        await members.start(*THREE, bootstrap=THREE)
        await members.propose(b"before")
        old = await members.leader()
        await members.stop(old)
        await members.propose(b"after")
        assert await members.leader() != old
        await members.start(old)
        await members.agree([b"before", b"after"])

    async def test_a_leader_that_is_cut_off_can_neither_commit_nor_read(self, members: Members) -> None:
        await members.start(*THREE, bootstrap=THREE)
        old = await members.leader()
        members.group.isolate(old)
        with pytest.raises(ConsensusError):
            await members.running[old].propose(b"lost", timeout_s=0.5)
        with pytest.raises(ConsensusError):
            await members.running[old].barrier(timeout_s=0.5)
        new = await members.leader(other_than=old)
        assert await members.running[new].propose(b"kept", timeout_s=TIMEOUT_S) == 1
        members.group.heal()
        await members.agree([b"kept"])

    async def test_without_a_majority_nothing_is_committed(self, members: Members) -> None:
        await members.start(*THREE, bootstrap=THREE)
        leader = await members.leader()
        await members.stop(*(one for one in THREE if one != leader))
        with pytest.raises(ConsensusError):
            await members.running[leader].propose(b"x", timeout_s=0.3)
        assert members.machines[leader].commands == []

    async def test_a_stop_ends_pending_proposals(self, members: Members) -> None:
        await members.start(*THREE, bootstrap=THREE)
        leader = await members.leader()
        members.group.isolate(leader)
        proposal = asyncio.create_task(members.running[leader].propose(b"x", timeout_s=TIMEOUT_S))
        await asyncio.sleep(0)
        await members.stop(leader)
        with pytest.raises((ProposalTimeout, NotLeader)):  # NotLeader if it knew at once that it was cut off
            await asyncio.wait_for(proposal, 1)

    async def test_a_member_that_was_away_for_long_gets_everything(self, members: Members) -> None:
        await members.start(*THREE, bootstrap=THREE)
        leader = await members.leader()
        away = next(one for one in THREE if one != leader)
        await members.stop(away)
        commands = [b"%d" % number for number in range(200)]
        for command in commands:
            await members.propose(command)
        await members.start(away)
        await members.agree(commands)

    # --- members ------------------------------------------------------------------------------------------------------

    async def test_a_server_can_be_added_as_a_voter_with_everything_that_was_before(self, members: Members) -> None:
        await members.start("a", bootstrap=["a"])
        commands = [b"%d" % number for number in range(120)]
        for command in commands:
            await members.propose(command)
        await members.start("b")
        await members.running["a"].add_voter("b", timeout_s=TIMEOUT_S)
        assert members.running["a"].status().voters == ("a", "b")
        await members.agree(commands)
        await eventually(lambda: members.running["b"].status().voters == ("a", "b"))

    async def test_adding_a_voter_again_changes_nothing(self, members: Members) -> None:
        await members.start("a", bootstrap=["a"])
        await members.running["a"].add_voter("a", timeout_s=TIMEOUT_S)
        assert members.running["a"].status().voters == ("a",)

    async def test_a_learner_follows_without_a_vote(self, members: Members) -> None:
        await members.start("a", bootstrap=["a"])
        await members.start("b")
        await members.running["a"].add_learner("b", timeout_s=TIMEOUT_S)
        await members.propose(b"x")
        await members.agree([b"x"])
        status = members.running["a"].status()
        assert (status.voters, status.learners) == (("a",), ("b",))
        await members.stop("b")
        assert await members.running["a"].propose(b"y", timeout_s=TIMEOUT_S) == 2

    async def test_a_removed_server_counts_no_more(self, members: Members) -> None:
        await members.start("a", "b", bootstrap=["a", "b"])
        leader = await members.leader()
        other = "b" if leader == "a" else "a"
        await members.running[leader].remove_member(other, timeout_s=TIMEOUT_S)
        await members.stop(other)
        assert members.running[leader].status().voters == (leader,)
        assert await members.running[leader].propose(b"x", timeout_s=TIMEOUT_S) == 1

    async def test_a_leader_can_remove_itself(self, members: Members) -> None:
        await members.start(*THREE, bootstrap=THREE)
        old = await members.leader()
        await members.running[old].remove_member(old, timeout_s=TIMEOUT_S)
        await members.stop(old)
        assert await members.propose(b"x") == 1
        assert members.running[await members.leader()].status().voters == tuple(one for one in THREE if one != old)

    async def test_leadership_can_be_handed_over(self, members: Members) -> None:
        await members.start(*THREE, bootstrap=THREE)
        old = await members.leader()
        new = next(one for one in THREE if one != old)
        await members.running[old].transfer_leadership(new, timeout_s=TIMEOUT_S)
        assert await members.leader() == new
        assert await members.propose(b"x") == 1

    async def test_leadership_cannot_be_handed_to_a_stranger(self, members: Members) -> None:
        await members.start("a", bootstrap=["a"])
        with pytest.raises(ConsensusError):
            await members.running["a"].transfer_leadership("stranger", timeout_s=TIMEOUT_S)
        assert members.running["a"].status().is_leader
