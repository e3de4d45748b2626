"""Subscribing while the transport is away: it is said once, not with each attempt."""

import pytest

from liftbridge import patience
from liftbridge.errors import RequestTimeout, TransportClosed, TransportError
from liftbridge.interfaces.transport import DeliverySink, Subscription
from liftbridge.testing.memory_transport import MemoryNetwork, MemoryTransport


class _Away(MemoryTransport):
    """Each attempt fails with the next of ``problems``; then none does."""

    problems: list[TransportError]

    async def subscribe(self, subject: str, sink: DeliverySink, *, queue: str = "", echo: bool = True) -> Subscription:
        if self.problems:
            raise self.problems.pop(0)
        return await super().subscribe(subject, sink, queue=queue, echo=echo)


async def test_each_reason_why_it_waits_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(patience, "_RETRY_S", 0)
    transport = _Away(MemoryNetwork(), "a")
    transport.problems = [TransportClosed("away")] * 3 + [RequestTimeout("slow")] * 2
    await transport.start()
    await patience.subscribe_patiently(transport, "a.b", lambda deliveries: None)
    await transport.stop()
    waits = 'subject "a.b": can\'t subscribe yet, trying until it works: '
    assert caplog.messages == [f"{waits}away", f"{waits}slow"]
