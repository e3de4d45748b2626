"""``liftbridge``, with direct links that a test breaks: on SIGUSR2, what comes next on each that leads to it is lost, and the
link closed, as by a firewall that forgets a connection. It says so on its standard output."""

import asyncio
import signal

from liftbridge.cli import main
from liftbridge_transport_nats import links

_armed: set[asyncio.Protocol] = set()


class BreakableLink(links.IncomingLink):
    def data_received(self, data: bytes) -> None:
        if self in _armed:
            _armed.discard(self)
            print(f"lost {len(data)} bytes on a link", flush=True)
            self.close()
        else:
            super().data_received(data)


class BreakableLinks(links.DirectLinks):
    async def start(self, host: str) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, self._arm)
        await super().start(host)

    def _arm(self) -> None:
        _armed.update(self.incoming)


if __name__ == "__main__":
    links.IncomingLink = BreakableLink  # type: ignore[misc]
    from liftbridge_transport_nats import transport

    transport.DirectLinks = BreakableLinks  # type: ignore[misc]
    main()
