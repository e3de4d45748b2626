"""Direct links: what servers send each other for replication and forwarding, past NATS.

A message over NATS wakes a process that does nothing with it, and half of the time that a replicated message takes goes there.
So each server also listens on the address from which it reaches NATS, and announces over NATS where that is, with a token
that nobody else can know. Whoever has messages for it connects. Where no link is up, for whatever reason, messages go over
NATS; links are an improvement, never a condition. Decision page 28 says more.
"""

import asyncio
import contextlib
import hmac
import logging
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import cast

from liftbridge.errors import ProtocolError, TransportClosed, TransportError
from liftbridge.interfaces.transport import Delivery, DeliverySink
from liftbridge.tasks import end_tasks
from liftbridge_transport_nats.frames import (
    HELLO_BYTES,
    MAGIC,
    TOKEN_BYTES,
    WELCOME,
    Announcement,
    FrameReader,
    decode_announcement,
    encode_announcement,
    encode_frames,
)
from liftbridge_transport_nats.sinks import hand_over

logger = logging.getLogger(__name__)

_ANNOUNCE_S = 5.0
#: News within this time make one announcement.
_ANNOUNCE_SOON_S = 0.05
_CONNECT_TIMEOUT_S = 2.0
#: Anybody can connect to the port, and each connection takes a file descriptor that logs need, too.
_MAX_INCOMING = 500
#: How long stopping waits for others to take what was sent to them.
_FINISH_TIMEOUT_S = 2.0
#: A server whose machine doesn't answer for so long is not sent to on the link any more.
_UNANSWERED_MS = 3000
_KEEPALIVE = (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 3))


class DirectLinks:
    """This server's links in both directions. ``announce`` publishes to all servers; what they publish so is to be given to
    ``hear``. All methods run on the event loop."""

    def __init__(self, server_id: str, announce: Callable[[bytes], None], *, max_buffered_bytes: int) -> None:
        self.server_id = server_id
        self.max_buffered_bytes = max_buffered_bytes
        self.hello = MAGIC + secrets.token_bytes(TOKEN_BYTES)
        self.sinks: dict[int, DeliverySink] = {}
        self.incoming: set[_IncomingLink] = set()
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
        self._server = await asyncio.get_running_loop().create_server(lambda: _IncomingLink(self), host, 0)
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

    def find(self, subject: str) -> "Way | None":
        """The link on which a message to the subject arrives; None if it must go over NATS."""
        try:
            return self._ways[subject]
        except KeyError:
            way = self._ways[subject] = self._look_for(subject)
            return way

    def _look_for(self, subject: str) -> "Way | None":
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

    def _connect(self, peer: "_Peer") -> None:
        peer.link = _OutgoingLink(self, peer)
        task = asyncio.get_running_loop().create_task(self._open(peer, peer.link))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self, peer: "_Peer", link: "_OutgoingLink") -> None:
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
            self.lost(link)
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

    def changed(self) -> None:
        """A link is up."""
        self._ways.clear()

    def lost(self, link: "_OutgoingLink") -> None:
        """A link is gone; if the other server isn't, it announces itself."""
        self._ways.clear()
        if link.peer.link is link:
            link.peer.link = None


@dataclass(eq=False, slots=True)
class _Peer:
    """What is known of another server."""

    announcement: Announcement
    link: "_OutgoingLink | None" = None
    complained: bool = False

    def hang_up(self) -> None:
        link, self.link = self.link, None
        if link is not None:
            link.close()


class Way:
    """How messages to one subject get to the server that listens."""

    __slots__ = ("_link", "_number", "_subject")

    def __init__(self, link: "_OutgoingLink", number: int, subject: str) -> None:
        self._link = link
        self._number = number
        self._subject = subject

    def publish(self, payloads: Sequence[bytes], reply: str) -> None:
        """Sends them at once. Raises TransportClosed when too much waits for the other server already."""
        self._link.send(encode_frames(self._number, self._subject, reply, payloads))


class _OutgoingLink(asyncio.Protocol):
    """A connection to another server, to send on."""

    def __init__(self, links: DirectLinks, peer: _Peer) -> None:
        self.peer = peer
        self.up = False
        self.given_up = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._links = links
        self._transport: asyncio.Transport | None = None
        self._gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self.given_up:
            self._transport.abort()
            return
        _notice_silence(transport.get_extra_info("socket"))
        self._transport.write(MAGIC + self.peer.announcement.token)

    def data_received(self, data: bytes) -> None:
        if data != WELCOME or self.up or self.opened.done():
            self.close()
            return
        self.up = True
        self.opened.set_result(None)
        self._links.changed()

    def connection_lost(self, error: Exception | None) -> None:
        if self.up:
            logger.info("the direct link to server %s is lost: %s", self.peer.announcement.server_id, error or "closed")
        elif not self.opened.done():
            self.opened.set_exception(error or ConnectionResetError("it hung up"))
            self.opened.exception()  # whoever waits hears of it; nobody else has to
        self.up, self._transport = False, None
        self._gone.set()
        self._links.lost(self)

    def send(self, data: bytes) -> None:
        assert self._transport is not None
        waiting_bytes = self._transport.get_write_buffer_size()
        if waiting_bytes + len(data) > self._links.max_buffered_bytes:
            raise TransportClosed(
                f"server {self.peer.announcement.server_id} is slow, and {waiting_bytes} bytes wait for it already "
                "(transport.nats.buffer.max.size)"
            )
        self._transport.write(data)

    def close(self) -> None:
        """At once, whether it is there already or not."""
        self.up, self.given_up = False, True
        if self._transport is not None:
            self._transport.abort()

    async def finish(self) -> None:
        """Closes it once the other server has taken what was sent, or doesn't."""
        if self._transport is not None:
            self.up = False
            self._transport.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FINISH_TIMEOUT_S):
                    await self._gone.wait()
        self.close()


class _IncomingLink(asyncio.Protocol):
    """A connection from another server, to hear on."""

    def __init__(self, links: DirectLinks) -> None:
        self._links = links
        self._hello = b""
        self._reader: FrameReader | None = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not self._links.listening or len(self._links.incoming) >= _MAX_INCOMING:
            self.close()
            return
        self._links.incoming.add(self)
        self._timer = asyncio.get_running_loop().call_later(_CONNECT_TIMEOUT_S, self.close)
        _notice_silence(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        if self._reader is None:
            self._greet(data)
            return
        try:
            found = self._reader.feed(data)
        except ProtocolError as error:
            logger.error("%s; hanging up", error)
            self.close()
            return
        for number, deliveries in _by_subscription(found):
            sink = self._links.sinks.get(number)
            if sink is not None:
                hand_over(sink, deliveries)

    def _greet(self, data: bytes) -> None:
        self._hello += data
        if len(self._hello) < HELLO_BYTES:
            return
        if not hmac.compare_digest(self._hello, self._links.hello):
            self._links.note_stranger()
            self.close()
            return
        assert self._transport is not None
        assert self._timer is not None
        self._timer.cancel()
        self._reader = FrameReader()
        self._transport.write(WELCOME)

    def connection_lost(self, error: Exception | None) -> None:
        del error
        if self._timer is not None:
            self._timer.cancel()
        self._links.incoming.discard(self)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _by_subscription(found: list[tuple[int, Delivery]]) -> list[tuple[int, list[Delivery]]]:
    """In order of arrival, consecutive ones of one subscription together."""
    if len(found) == 1:
        return [(found[0][0], [found[0][1]])]
    together: list[tuple[int, list[Delivery]]] = []
    for number, delivery in found:
        if together and together[-1][0] == number:
            together[-1][1].append(delivery)
        else:
            together.append((number, [delivery]))
    return together


def _is_loopback(host: str) -> bool:
    return ip_address(host).is_loopback


def _notice_silence(sock: socket.socket) -> None:
    """A machine that is gone is noticed within seconds, whether there is something to send or not."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (*_KEEPALIVE, ("TCP_USER_TIMEOUT", _UNANSWERED_MS)):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
