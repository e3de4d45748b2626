"""The endpoint: listens, and stops without cutting off what runs."""

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from liftbridge.broker.api import BrokerApi
from liftbridge.clock import Clock
from liftbridge.errors import ConfigError
from liftbridge.interfaces.endpoint import Endpoint
from liftbridge_endpoint_grpc.client_connection import ClientConnection
from liftbridge_endpoint_grpc.health import Health
from liftbridge_endpoint_grpc.methods import Methods
from liftbridge_endpoint_grpc.server_settings import ServerSettings

logger = logging.getLogger(__name__)

_SHUTDOWN_NOTICE_S = 0.05


class GrpcEndpoint(Endpoint):
    """See :class:`liftbridge.interfaces.endpoint.Endpoint`."""

    def __init__(self, broker: BrokerApi, settings: ServerSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._connections: set[ClientConnection] = set()
        self._health = Health()
        self._methods = Methods(broker, self._health)
        self._server: asyncio.Server | None = None

    def new_connection(self) -> ClientConnection:
        """What asyncio asks for when a client connects."""
        return ClientConnection(self._methods, self._settings, self._clock, self._connections)

    async def bind(self) -> None:
        """Whoever connects before ``start`` is refused, and need not wait."""
        host, port = self._settings.host, self._settings.port
        with self._address_errors():
            self._server = await asyncio.get_running_loop().create_server(
                self.new_connection, host, port, ssl=self._settings.tls, backlog=1024, start_serving=False
            )

    async def start(self) -> None:
        if self._server is None:
            await self.bind()
        assert self._server is not None
        with self._address_errors():
            await self._server.start_serving()
        logger.debug("Listening on %s:%d", self._settings.host, self.port)

    @contextmanager
    def _address_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise ConfigError(
                f"can't listen on {self._settings.host}:{self._settings.port}: {reason}. Choose another address with --host "
                "and --port (endpoint.grpc.listen)"
            ) from error

    @property
    def advertised_host(self) -> str:
        return self._settings.advertised_host

    @property
    def port(self) -> int:
        if self._server is None:
            return self._settings.port
        return int(self._server.sockets[0].getsockname()[1])

    def set_serving(self, serving: bool) -> None:
        self._health.set_serving(serving)

    async def stop(self, *, grace_s: float) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for connection in list(self._connections):
            connection.begin_shutdown()
        await asyncio.sleep(_SHUTDOWN_NOTICE_S if self._connections else 0)  # streams that are on their way
        endings = [connection.finish_shutdown() for connection in list(self._connections)]
        if endings:
            await asyncio.wait([asyncio.ensure_future(ending) for ending in endings], timeout=grace_s)
        for connection in list(self._connections):
            connection.close()
