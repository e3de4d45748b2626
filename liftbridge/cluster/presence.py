"""Who else is there: no two servers with one ID, no two clusters in one namespace.

* A server answers on ``<namespace>.cluster.server.<ID>``, so another one with that ID finds out before it does anything.
* A server that belongs to a cluster answers on ``<namespace>.cluster.presence``, so a seed finds out before it begins another.
* Each start is announced on ``<namespace>.cluster.announce``. Of two clusters that meet, the one that is only starting gives
  way; of two that are starting, the one with the larger ID.
"""

import asyncio
import logging
from collections.abc import Callable

from google.protobuf.message import DecodeError

from liftbridge.addresses import join_address
from liftbridge.cluster.answering import Answering
from liftbridge.cluster.identity import Identity
from liftbridge.errors import ConfigError, LiftbridgeError, NoResponders, RequestTimeout
from liftbridge.interfaces.transport import Delivery, Subscription, Transport
from liftbridge.patience import subscribe_patiently
from liftbridge.protocol.generated import internal_pb2 as internal

logger = logging.getLogger(__name__)

_ASK_S = 1.0
_RETRY_S = 1.0


def server_subject(namespace: str, server_id: str) -> str:
    """Where a server, and nobody else, answers as long as it runs."""
    return f"{namespace}.cluster.server.{server_id}"


class Presence:
    """Makes one server known to the others and finds them. ``conflict`` is called, at most once, with what makes it
    impossible for this server to go on."""

    def __init__(
        self,
        transport: Transport,
        identity: Identity,
        incarnation: str,
        address: Callable[[], tuple[str, int]],
        conflict: Callable[[LiftbridgeError], None],
    ) -> None:
        self._transport = transport
        self._server_id = identity.server_id
        self._namespace = identity.namespace
        self._incarnation = incarnation
        self._address = address
        self._conflict = conflict
        self._cluster_id = ""
        self._established = False
        self._told = False
        self._open: list[Answering | Subscription] = []

    # --- before this server does anything -----------------------------------------------------------------------------

    async def claim_server_id(self) -> None:
        """Raises ConfigError when another live server has this one's ID."""
        subject = server_subject(self._namespace, self._server_id)
        try:
            other = internal.Presence.FromString(await self._transport.request(subject, b"", timeout_s=_ASK_S))
        except NoResponders:
            pass
        except RequestTimeout:
            logger.warning("something listens as server %s and doesn't answer; it is taken for dead", self._server_id)
        else:
            raise ConfigError(
                f'server ID "{self._server_id}" is taken: a server with it runs at {join_address(other.host, other.port)} in '
                f'namespace "{self._namespace}". Give this one another --server-id (and data directory), or stop that one'
            )
        await self._answer(subject)

    async def find_cluster(self) -> internal.Presence | None:
        """A server of a cluster in this namespace; None when there is none that runs."""
        while True:
            try:
                data = await self._transport.request(self._subject("presence"), b"", timeout_s=_ASK_S)
                return internal.Presence.FromString(data)
            except NoResponders:
                return None
            except RequestTimeout:
                logger.warning('a cluster in namespace "%s" doesn\'t answer; asking again', self._namespace)
                await asyncio.sleep(_RETRY_S)

    # --- as a member --------------------------------------------------------------------------------------------------

    async def announce(self, cluster_id: str) -> None:
        """This server belongs to the cluster from now on, and says so."""
        self._cluster_id = cluster_id
        self._open.append(await subscribe_patiently(self._transport, self._subject("announce"), self._hear))
        await self._answer(self._subject("presence"))
        self._announce()

    def establish(self) -> None:
        """This server serves clients: it doesn't give way any more."""
        self._established = True

    async def close(self) -> None:
        for one in self._open:
            await (one.stop() if isinstance(one, Answering) else one.unsubscribe())
        self._open.clear()

    # ------------------------------------------------------------------------------------------------------------------

    async def _answer(self, subject: str) -> None:
        async def answer(_request: bytes) -> bytes:
            return self._picture()

        answering = Answering(self._transport, subject, answer)
        await answering.start()
        self._open.append(answering)

    def _announce(self) -> None:
        self._transport.publish(self._subject("announce"), [self._picture()])

    def _hear(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            for payload in delivery.payloads:
                try:
                    other = internal.Presence.FromString(payload)
                except DecodeError:
                    continue
                if other.cluster_id not in ("", self._cluster_id):
                    self._meet(other)

    def _meet(self, other: internal.Presence) -> None:
        if other.established and self._established:
            logger.error(
                'two clusters run in namespace "%s": %s, and %s with server %s at %s:%d. Stop one of them',
                self._namespace, self._cluster_id, other.cluster_id, other.server_id, other.host, other.port,
            )  # fmt: skip
        elif self._established or (not other.established and self._cluster_id < other.cluster_id):
            self._announce()  # so that the other one hears of us, and gives way
        elif not self._told:
            self._told = True
            self._conflict(foreign_cluster(self._namespace, self._cluster_id, other.cluster_id))

    def _picture(self) -> bytes:
        host, port = self._address()
        return internal.Presence(
            cluster_id=self._cluster_id,
            server_id=self._server_id,
            incarnation=self._incarnation,
            host=host,
            port=port,
            established=self._established,
        ).SerializeToString()

    def _subject(self, name: str) -> str:
        return f"{self._namespace}.cluster.{name}"


def foreign_cluster(namespace: str, cluster_id: str, other_cluster_id: str) -> ConfigError:
    """Why a server of one cluster can't be where another one is."""
    return ConfigError(
        f'namespace "{namespace}" has a cluster already ({other_cluster_id}), and this server belongs to another one '
        f"({cluster_id}). To join that cluster, start with an empty data directory and without --raft-bootstrap-seed or "
        "--raft-bootstrap-peers; to keep both, give this one another --namespace"
    )
