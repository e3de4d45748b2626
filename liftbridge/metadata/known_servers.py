"""What replication asks about other servers, answered from metadata as this server knows it now."""

from dataclasses import dataclass

from liftbridge.metadata.model import ServerStatus
from liftbridge.metadata.state import MetadataState


@dataclass(frozen=True, slots=True)
class KnownServers:
    """See :class:`liftbridge.partition.replication.cluster.Servers`."""

    state: MetadataState

    def is_current(self, server_id: str, incarnation: str) -> bool:
        server = self.state.servers.get(server_id)
        return server is not None and server.incarnation == incarnation

    def may_serve(self, server_id: str, incarnation: str) -> bool:
        server = self.state.servers.get(server_id)
        return server is not None and server.incarnation == incarnation and server.status is ServerStatus.LIVE

    def is_down(self, server_id: str) -> bool:
        server = self.state.servers.get(server_id)
        return server is not None and server.status is ServerStatus.DOWN
