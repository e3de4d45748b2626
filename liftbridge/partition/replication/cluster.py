"""What replication asks of the rest of the cluster."""

from collections.abc import Sequence
from typing import Protocol


class IsrController(Protocol):
    """What replication asks of the metadata group's leader."""

    async def change_isr(
        self, stream_id: int, partition: int, partition_epoch: int, isr: Sequence[str], *, timeout_s: float
    ) -> bool:
        """False when it was refused for good; raises LiftbridgeError when nobody knows."""

    async def suspect_leader(self, stream_id: int, partition: int, leader_epoch: int, *, timeout_s: float) -> bool:
        """Reports that the leader doesn't answer."""


class Servers(Protocol):
    """What metadata says of the servers, now."""

    def is_current(self, server_id: str, incarnation: str) -> bool:
        """Whether this is the server's present start."""

    def may_serve(self, server_id: str, incarnation: str) -> bool:
        """The same, and the server is wanted in ISRs: live, and not about to leave."""

    def is_down(self, server_id: str) -> bool:
        """Whether the controller has lost it."""
