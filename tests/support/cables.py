"""What connects servers with NATS, in a test's hands: it is cut, and it goes silent."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

from nats_process import TcpProxy


class Cables:
    """One for each server, in a thread of their own: tests that block don't stop the traffic."""

    def __init__(self, nats_port: int) -> None:
        self._nats_port = nats_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._proxies: dict[str, TcpProxy] = {}

    def lay(self, server_id: str) -> str:
        """The URL by which the server reaches NATS."""
        proxy = self._proxies[server_id] = TcpProxy(self._nats_port)
        self._run(proxy.start())
        return f"nats://127.0.0.1:{proxy.port}"

    def cut(self, server_id: str) -> None:
        """Connections break, and new ones too."""
        proxy = self._proxies[server_id]
        proxy.accepting = False
        self._loop.call_soon_threadsafe(proxy.cut)

    def silence(self, server_id: str) -> None:
        """Nothing gets through and nobody is told; what is on its way arrives when the cable is mended."""
        self._loop.call_soon_threadsafe(self._proxies[server_id].flowing.clear)

    def mend(self, server_id: str) -> None:
        proxy = self._proxies[server_id]
        proxy.accepting = True
        self._loop.call_soon_threadsafe(proxy.flowing.set)

    def stop(self) -> None:
        for proxy in self._proxies.values():
            self._run(proxy.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)
