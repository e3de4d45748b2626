"""Every consensus of ours keeps the promises of the seam."""

from typing import ClassVar

import pytest
from raft_group import RaftGroup
from registered import ProviderName

from liftbridge.interfaces.consensus import Consensus
from liftbridge.interfaces.provider import Seam
from liftbridge.testing.consensus_suite import ConsensusGroup, ConsensusSuite
from liftbridge.testing.memory_consensus import MemoryConsensus, MemoryConsensusGroup


class MemoryGroup(ConsensusGroup):
    def __init__(self) -> None:
        self.shared = MemoryConsensusGroup(snapshot_every=50)

    def member(self, server_id: str) -> Consensus:
        return MemoryConsensus(server_id, self.shared)

    def isolate(self, server_id: str) -> None:
        self.shared.isolate(server_id)

    def heal(self) -> None:
        self.shared.heal()


class TestMemoryConsensus(ConsensusSuite):
    @pytest.fixture
    def group(self) -> ConsensusGroup:
        return MemoryGroup()


class TestRaftBuiltin(ConsensusSuite):
    provider: ClassVar[ProviderName] = (Seam.CONSENSUS, "raft_builtin")

    @pytest.fixture
    def group(self) -> ConsensusGroup:
        return RaftGroup()
