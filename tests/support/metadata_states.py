"""Metadata for tests: a state machine that is told commands, as consensus would tell it."""

from collections.abc import Sequence
from itertools import count

from liftbridge.metadata.commands import (
    ChangePartitions,
    ChangeServer,
    Command,
    CreateStream,
    PartitionChange,
    Placement,
    RegisterServer,
    encode_command,
)
from liftbridge.metadata.config import StreamConfig
from liftbridge.metadata.model import Applied, PartitionState, Refused, ServerStatus
from liftbridge.metadata.state import MetadataState


class NoPolicy:
    """Leaves every decision to the defaults."""

    def place_replicas(self, *_: object) -> None:
        return None

    def choose_leader(self, *_: object) -> None:
        return None


class States:
    """A :class:`MetadataState` and what a test does to it."""

    def __init__(self) -> None:
        self.state = MetadataState()
        self._indexes = count(1)

    def apply(self, command: Command, request_id: str = "") -> Applied | Refused:
        return self.state.apply(next(self._indexes), encode_command(command, request_id))

    def register(self, *server_ids: str, start: int = 1, unclean: bool = False) -> None:
        for server_id in server_ids:
            self.apply(RegisterServer(server_id, "host", 9292, f"{server_id}-{start}", unclean))

    def set_status(self, server_id: str, status: ServerStatus) -> Applied | Refused:
        return self.apply(ChangeServer(server_id, status))

    def create(self, name: str, *placements: str) -> int:
        """Each placement is its replicas, one letter a server, the first one leading. Returns the stream's ID."""
        placed = tuple(Placement(tuple(replicas), replicas[0]) for replicas in placements)
        applied = self.apply(CreateStream(name, name, "", StreamConfig(), 0, placed))
        assert isinstance(applied, Applied)
        return applied.index

    def partition(self, stream_id: int, number: int = 0) -> PartitionState:
        partition = self.state.partition(stream_id, number)
        assert partition is not None
        return partition

    def change(
        self,
        stream_id: int,
        number: int = 0,
        *,
        epoch: int | None = None,
        leader: str | None = None,
        isr: Sequence[str] = (),
        replicas: Sequence[str] = (),
        unclean: bool = False,
    ) -> bool:
        """Proposes one change of one partition, by default from what it is; returns whether it was accepted."""
        known = self.partition(stream_id, number).partition_epoch if epoch is None else epoch
        change = PartitionChange(stream_id, number, known, leader, tuple(isr), tuple(replicas), unclean)
        applied = self.apply(ChangePartitions((change,)))
        assert isinstance(applied, Applied)
        return applied.accepted == (True,)
