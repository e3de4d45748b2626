"""One connection to NATS: connects once with few attempts, then reconnects for ever."""

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import nats.errors
from nats.aio.client import Client

from liftbridge.errors import ConfigError, TransportError
from liftbridge_transport_nats.bulk import BulkConnection

logger = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 2
_FIRST_ATTEMPTS = 5


class Connection:
    """``client`` is nats-py's, for requests; ``bulk`` is for everything that comes in lists."""

    def __init__(self, name: str, *, echo: bool, max_buffered_bytes: int, changed: Callable[[], None]) -> None:
        self.name = name
        self.client = Client()
        self.bulk = BulkConnection(self.client, max_buffered_bytes)
        self._echo = echo
        self._changed = changed
        self._stopping = False
        self._was_connected = False
        self._last_error = ""
        #: Whether messages flow: unlike nats-py's word, not before the subscriptions are renewed.
        self.connected = False

    async def connect(self, servers: Sequence[str], reconnect_wait_s: float, options: dict[str, Any]) -> None:
        """Raises TransportError naming the servers, with the last thing that went wrong."""
        try:
            await self.client.connect(
                servers=list(servers),
                name=self.name,
                no_echo=not self._echo,
                connect_timeout=_CONNECT_TIMEOUT_S,
                max_reconnect_attempts=_FIRST_ATTEMPTS,
                reconnect_time_wait=reconnect_wait_s,  # type: ignore[arg-type]  # nats-py sleeps for it: a float will do
                error_cb=self._log_error,
                disconnected_cb=self._disconnected,
                reconnected_cb=self._reconnected,
                pending_size=0,
                **options,
            )
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise TransportError(
                f"failed to connect to NATS at {', '.join(servers)}: {self._last_error or _reason(error)}. Is it running "
                "there? transport.nats.servers (--nats-servers) says where it is"
            ) from error
        except ValueError as error:
            raise ConfigError(f"transport.nats.servers: {error} ({', '.join(servers)})") from error
        self.client.options["max_reconnect_attempts"] = -1  # from now on for ever: nobody waits for the outcome
        self._last_error = ""
        self._was_connected = self.connected = True

    async def close(self) -> None:
        """Sends what is buffered, if there is a connection, and disconnects. Idempotent."""
        self._stopping = True
        self.connected = False
        if self.client.is_connected:
            self.bulk.flush_now()
        elif dropped := self.bulk.drop_buffered():
            logger.error('Connection "%s": %d bytes were never sent: NATS is away', self.name, dropped)
        await self.client.close()
        self.bulk.disconnected()

    async def _disconnected(self) -> None:
        self.connected = False
        self.bulk.disconnected()
        if not self._stopping:
            logger.error('Connection "%s" has been disconnected from NATS', self.name)
            self._changed()

    async def _reconnected(self) -> None:
        self.connected = True
        self._last_error = ""
        url = self.client.connected_url
        logger.info('Connection "%s" reconnected to NATS at "%s"', self.name, url.netloc if url else "")
        self._changed()

    async def _log_error(self, error: Exception) -> None:
        """nats-py reports each failed attempt, several times a second; the same news is told once. Of the first attempts
        who called ``connect`` hears."""
        text = _reason(error)
        if text != self._last_error and not self._stopping:
            self._last_error = text
            logger.log(
                logging.WARNING if self._was_connected else logging.DEBUG, 'Connection "%s": %s', self.name, text
            )


def _reason(error: Exception) -> str:
    """In the system's words, without its numbers."""
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
    if isinstance(error, TimeoutError):
        return "no answer"
    return str(error) or type(error).__name__
