"""How a server gets into its cluster: it is in one, begins one, or asks to join one."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from liftbridge.cluster.identity import Identity
from liftbridge.cluster.presence import Presence, foreign_cluster
from liftbridge.errors import ConfigError, FailedPrecondition, Unavailable
from liftbridge.metadata.asking import ControllerClient
from liftbridge.protocol.generated import internal_pb2 as internal

logger = logging.getLogger(__name__)

#: When a server that waits for a cluster says so first, and how often then.
_FIRST_REMINDER_S = 1.0
_REMIND_S = 5.0


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """What the operator said about beginning a cluster. ``max_voters`` 0 is no limit."""

    seed: bool
    peers: tuple[str, ...]
    max_voters: int

    def voters(self, server_id: str) -> tuple[str, ...]:
        """The first voters; empty for a server that begins nothing. Those of a list are the same on every server of it."""
        if self.peers:
            everybody = sorted({server_id, *self.peers})
            voters = tuple(everybody[: self.max_voters] if self.max_voters else everybody)
            return voters if server_id in voters else ()
        return (server_id,) if self.seed else ()


@dataclass(frozen=True, slots=True)
class Membership:
    """The way in: the cluster, and the first voters if it is to begin now."""

    identity: Identity
    voters: tuple[str, ...] = ()


async def find_membership(
    identity: Identity,
    bootstrap: Bootstrap,
    presence: Presence,
    client: ControllerClient,
    incarnation: str,
    *,
    is_stored: bool,
    new_id: Callable[[], str],
) -> Membership:
    """Returns once there is a way in, which for a server that joins may take until the cluster is there. Raises
    ConfigError when there can't be one."""
    if is_stored:
        return Membership(replace(identity, cluster_id=identity.cluster_id or new_id()))
    voters = bootstrap.voters(identity.server_id)
    if not voters:
        return Membership(replace(identity, cluster_id=await _join(identity, client, incarnation)))
    wanted = _id_of_list(identity.namespace, voters) if bootstrap.peers else identity.cluster_id or new_id()
    found = await presence.find_cluster()
    if found is None or (found.cluster_id == wanted and not found.established):
        return Membership(replace(identity, cluster_id=wanted), voters)
    if found.cluster_id != wanted:
        raise _second_cluster(identity.namespace, found.cluster_id)
    # It runs already, without this server: which may have been in it, and lost its disk.
    return Membership(replace(identity, cluster_id=await _join(identity, client, incarnation)))


def _second_cluster(namespace: str, cluster_id: str) -> ConfigError:
    return ConfigError(
        f'namespace "{namespace}" has a cluster already ({cluster_id}), so this server can\'t begin one there. To join it, '
        "start without --raft-bootstrap-seed and --raft-bootstrap-peers; to begin another, choose another --namespace"
    )


def _id_of_list(namespace: str, voters: Sequence[str]) -> str:
    """The same for all servers that were given the same list."""
    return hashlib.sha256(f"{namespace}/{','.join(voters)}".encode()).hexdigest()[:22]


async def _join(identity: Identity, client: ControllerClient, incarnation: str) -> str:
    """Asks until the cluster lets this server in; returns the cluster's ID."""
    request = internal.ControlRequest(join=internal.Join(server_id=identity.server_id, incarnation=incarnation))
    patience_s = _FIRST_REMINDER_S
    while True:
        try:
            reply = await client.ask(request, timeout_s=patience_s)
        except Unavailable as error:
            patience_s = _REMIND_S
            logger.warning(
                'Waiting for a cluster in namespace "%s" to join: %s. The first server of a new cluster needs '
                "--raft-bootstrap-seed",
                identity.namespace,
                error,
            )
            continue
        except FailedPrecondition as error:
            raise ConfigError(f"failed to join the cluster: {error}") from error
        if identity.cluster_id not in ("", reply.cluster_id):
            raise foreign_cluster(identity.namespace, identity.cluster_id, reply.cluster_id)
        logger.info('Joined the cluster %s in namespace "%s"', reply.cluster_id, identity.namespace)
        return reply.cluster_id
