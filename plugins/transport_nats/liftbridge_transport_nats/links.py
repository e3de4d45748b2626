"""Direct links: what servers send each other for replication and forwarding, past NATS.

A message over NATS wakes a process that does nothing with it, and half of the time that a replicated message takes goes there.
So each server also listens on the address from which it reaches NATS, and announces over NATS where that is, with a token
that nobody else can know. Whoever has messages for it connects. Where no link is up, for whatever reason, messages go over
NATS; links are an improvement, never a condition. Decision page 28 says more.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

from liftbridge.errors import ProtocolError, TransportError
from liftbridge.interfaces.transport import Delivery, DeliverySink
from liftbridge.tasks import end_tasks
from liftbridge_transport_nats.frames import (
    MAGIC,
    TOKEN_BYTES,
    Announcement,
    decode_announcement,
    encode_announcement,
)
from liftbridge_transport_nats.incoming_link import IncomingLink
from liftbridge_transport_nats.outgoing_link import OutgoingLink, Way

logger = logging.getLogger(__name__)

_ANNOUNCE_S = 5.0
#: News within this time make one announcement.
_ANNOUNCE_SOON_S = 0.05
_CONNECT_TIMEOUT_S = 2.0


@dataclass(eq=False, slots=True)
class _Peer:
    """What is known of another server."""

    announcement: Announcement
    link: OutgoingLink | None = None
    complained: bool = False

    def hang_up(self) -> None:
        link, self.link = self.link, None
        if link is not None:
            link.close()


class DirectLinks:
    """This server's links in both directions. ``announce`` publishes to all servers; what they publish so is to be given to
    ``hear``. All methods run on the event loop."""

    def __init__(self, server_id: str, announce: Callable[[bytes], None], *, max_buffered_bytes: int) -> None:
        self.server_id = server_id
        self._max_buffered_bytes = max_buffered_bytes
        self.hello = MAGIC + secrets.token_bytes(TOKEN_BYTES)
        self.sinks: dict[int, DeliverySink] = {}
        self.incoming: set[IncomingLink] = set()
        self._announce = announce
        self._patterns: dict[int, str] = {}
        self._last_number = 0
        self._host, self._port = "", 0
        self._server: asyncio.Server | None = None
        self._peers: dict[str, _Peer] = {}
        self._ways: dict[str, Way | None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._asks = True
        self._had_strangers = False

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self, host: str) -> None:
        """Listens on ``host`` and looks for others. Raises OSError if nobody can listen there."""
        self._server = await asyncio.get_running_loop().create_server(lambda: IncomingLink(self), host, 0)
        self._host, self._port = host, self._server.sockets[0].getsockname()[1]
        self._announce_within(0.0)

    @property
    def listening(self) -> bool:
        return self._server is not None

    async def stop(self) -> None:
        """Sends what is buffered, as far as others take it, and closes every link. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        server, self._server = self._server, None
        if server is not None:
            server.close()
        await end_tasks(self._tasks)
        peers, self._peers = self._peers, {}
        self._ways.clear()
        await asyncio.gather(*(peer.link.finish() for peer in peers.values() if peer.link is not None))
        for link in list(self.incoming):
            link.close()

    # --- receiving ----------------------------------------------------------------------------------------------------

    def add(self, pattern: str, sink: DeliverySink) -> int:
        """From now on others may send what matches the pattern on their links. Returns a number for ``remove``."""
        self._last_number += 1
        self.sinks[self._last_number] = sink
        self._patterns[self._last_number] = pattern
        self._announce_within(_ANNOUNCE_SOON_S)
        return self._last_number

    def remove(self, number: int) -> None:
        """The sink isn't called again."""
        del self.sinks[number], self._patterns[number]
        self._announce_within(_ANNOUNCE_SOON_S)

    def note_stranger(self) -> None:
        """Said once: whoever looks for open ports comes often."""
        if not self._had_strangers:
            self._had_strangers = True
            logger.warning("somebody who isn't a server of this cluster connected to its port for direct links")

    # --- sending ------------------------------------------------------------------------------------------------------

    def find(self, subject: str) -> Way | None:
        """The link on which a message to the subject arrives; None if it must go over NATS."""
        try:
            return self._ways[subject]
        except KeyError:
            way = self._ways[subject] = self._look_for(subject)
            return way

    def _look_for(self, subject: str) -> Way | None:
        for peer in self._peers.values():
            if peer.link is not None and peer.link.up:
                for number, pattern in peer.announcement.subscriptions.items():
                    if subject == pattern or (pattern.endswith(".>") and subject.startswith(pattern[:-1])):
                        return Way(peer.link, number, subject)
        return None

    # --- the others ---------------------------------------------------------------------------------------------------

    def ask(self) -> None:
        """Announcements may have been missed."""
        self._asks = True
        self._announce_within(0.0)

    def _announce_within(self, delay_s: float) -> None:
        if self._server is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._announce_now)

    def _announce_now(self) -> None:
        token = self.hello.removeprefix(MAGIC)
        mine = Announcement(self.server_id, self._host, self._port, token, dict(self._patterns), self._asks)
        self._asks = False
        try:
            self._announce(encode_announcement(mine))
        except TransportError as error:
            logger.debug("can't announce direct links now: %s", error)
        self._announce_within(_ANNOUNCE_S)

    def hear(self, deliveries: list[Delivery]) -> None:
        """What servers announced."""
        for delivery in deliveries:
            for payload in delivery.payloads:
                try:
                    announcement = decode_announcement(payload)
                except ProtocolError as error:
                    logger.warning("%s: ignored %s", delivery.subject, error)
                    continue
                if announcement.server_id != self.server_id and self._server is not None:
                    self._take(announcement)

    def _take(self, announcement: Announcement) -> None:
        peer = self._peers.get(announcement.server_id)
        if peer is None or peer.announcement.token != announcement.token:
            if peer is not None:
                peer.hang_up()
                self._ways.clear()
            peer = self._peers[announcement.server_id] = _Peer(announcement)
        if peer.announcement.subscriptions != announcement.subscriptions:
            self._ways.clear()
        peer.announcement = announcement
        if peer.link is None:
            self._connect(peer)
        if announcement.asks:
            self._announce_within(_ANNOUNCE_SOON_S)

    def _connect(self, peer: _Peer) -> None:
        peer.link = OutgoingLink(
            peer.announcement, max_buffered_bytes=self._max_buffered_bytes, changed=self._ways.clear, lost=self._lost
        )
        task = asyncio.get_running_loop().create_task(self._open(peer, peer.link))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self, peer: _Peer, link: OutgoingLink) -> None:
        announced = peer.announcement
        try:
            if link.given_up:
                return
            if _is_loopback(announced.host) and not _is_loopback(self._host):
                raise OSError("that is an address of its own machine")
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await asyncio.get_running_loop().create_connection(lambda: link, announced.host, announced.port)
                await link.opened
        except (OSError, TimeoutError) as error:
            link.close()
            self._lost(link)
            if not peer.complained and self._peers.get(announced.server_id) is peer:
                peer.complained = True
                logger.warning(
                    "server %s can't be reached directly at %s:%d (%s): what is for it goes over NATS",
                    announced.server_id,
                    announced.host,
                    announced.port,
                    error or "no answer",
                )
        except BaseException:
            link.close()
            raise
        else:
            logger.debug("there is a direct link to server %s", announced.server_id)

    def _lost(self, link: OutgoingLink) -> None:
        """A link is gone; if the other server isn't, it announces itself."""
        self._ways.clear()
        for peer in self._peers.values():
            if peer.link is link:
                peer.link = None


def _is_loopback(host: str) -> bool:
    return ip_address(host).is_loopback
