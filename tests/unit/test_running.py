"""A server that is told to stop, and doesn't."""

import asyncio
import os
import signal

import pytest

from liftbridge import running
from liftbridge.config import Settings
from liftbridge.plugin_manager import PluginManager


class _Server:
    """Stops when its log says that it should have."""

    def __init__(self, _settings: Settings, _plugins: PluginManager) -> None:
        self.failed = asyncio.get_running_loop().create_future()
        self.stopped = asyncio.Event()

    async def start(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    async def drain(self) -> None:
        pass

    async def stop(self) -> None:
        await self.hold_up()

    async def hold_up(self) -> None:
        await asyncio.sleep(0.1)


def test_says_what_it_is_that_stopping_waits_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(running, "Server", _Server)
    monkeypatch.setattr(running, "_STOP_PATIENCE_S", 0.01)
    assert running.run(Settings({}), PluginManager()) == 0
    assert "Still stopping after 0.01 s" in caplog.text
    assert "_Server.hold_up (test_running.py" in caplog.text
