"""A subscription of the blocking client: messages cross threads by the batch, and none gets lost or too many held."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from written_calls import ACCEPTED, OneBroker, messages

from liftbridge.client import StartAt, StopAt, Subscription
from liftbridge.client.blocking import BlockingSubscription, _Loop
from liftbridge.client.brokers import Brokers
from liftbridge.errors import NotFound, RequestError


class CountingLoop(_Loop):
    """Knows how often a thread waited for it; ``interrupt`` is raised in that thread when the work is done."""

    def __init__(self) -> None:
        super().__init__()
        self.crossings = 0
        self.interrupt: type[BaseException] | None = None

    def run(self, work: Any) -> Any:
        self.crossings += 1
        result = super().run(work)
        if self.interrupt is not None:
            interrupt, self.interrupt = self.interrupt, None
            raise interrupt
        return result

    def call(self, function: Callable[[], None]) -> None:
        """There, and not counted."""

        async def work() -> None:
            function()

        super().run(work())


@pytest.fixture
def loop() -> Iterator[CountingLoop]:
    loop = CountingLoop()
    loop.start()
    yield loop
    loop.stop()


@pytest.fixture
def broker() -> OneBroker:
    return OneBroker()


@pytest.fixture
def subscription(loop: CountingLoop, broker: OneBroker) -> BlockingSubscription:
    source = Subscription(cast(Brokers, broker), "s", 0, start=StartAt.earliest(), stop=StopAt.never())
    return BlockingSubscription(loop, source)


def _bring(loop: CountingLoop, broker: OneBroker, *offsets: int) -> list[bytes]:
    responses = messages(*offsets)
    loop.call(lambda: broker.calls[0].bring(responses))
    return responses


def test_messages_that_came_together_cross_threads_together(
    loop: CountingLoop, broker: OneBroker, subscription: BlockingSubscription
) -> None:
    _bring(loop, broker, *range(1000))
    before = loop.crossings
    assert [next(subscription).offset for _ in range(1000)] == list(range(1000))
    assert loop.crossings == before + 1


def test_who_is_slow_holds_one_batch_and_the_server_hears_no_more(
    loop: CountingLoop, broker: OneBroker, subscription: BlockingSubscription
) -> None:
    first = _bring(loop, broker, 0, 1)
    second = _bring(loop, broker, 2)
    next(subscription)
    assert broker.calls[0].acknowledged == [ACCEPTED, *first]
    next(subscription)
    next(subscription)
    assert broker.calls[0].acknowledged == [ACCEPTED, *first, *second]


def test_a_wait_that_is_interrupted_costs_no_message(
    loop: CountingLoop, broker: OneBroker, subscription: BlockingSubscription
) -> None:
    with pytest.raises(TimeoutError):
        subscription.receive(timeout_s=0.01)
    _bring(loop, broker, 0, 1)
    loop.interrupt = KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        next(subscription)
    assert [subscription.receive(timeout_s=0).offset for _ in range(2)] == [0, 1]


@pytest.mark.parametrize("error", [None, NotFound("deleted")])
def test_the_end_comes_after_the_messages(
    loop: CountingLoop, broker: OneBroker, subscription: BlockingSubscription, error: RequestError | None
) -> None:
    _bring(loop, broker, 0, 1)
    loop.call(lambda: broker.calls[0].end(error))
    assert [next(subscription).offset for _ in range(2)] == [0, 1]
    with pytest.raises(StopIteration if error is None else NotFound):
        next(subscription)
    assert list(subscription) == []


def test_what_is_closed_hands_out_nothing(
    loop: CountingLoop, broker: OneBroker, subscription: BlockingSubscription
) -> None:
    _bring(loop, broker, 0, 1)
    next(subscription)
    subscription.close()
    assert list(subscription) == []


@pytest.mark.timeout(30)
def test_threads_may_share_the_messages(
    loop: CountingLoop, broker: OneBroker, subscription: BlockingSubscription
) -> None:
    taken: list[int] = []
    threads = [
        threading.Thread(target=lambda: taken.extend(message.offset for message in subscription)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for batch in range(50):
        _bring(loop, broker, *range(batch * 20, batch * 20 + 20))
    loop.call(lambda: broker.calls[0].end(None))
    for thread in threads:
        thread.join()
    assert Counter(taken) == Counter(range(1000))


def test_who_waits_for_another_thread_gives_up_in_time(subscription: BlockingSubscription) -> None:
    waiting = threading.Thread(target=lambda: list(subscription))
    waiting.start()
    try:
        with pytest.raises(TimeoutError):
            subscription.receive(timeout_s=0.05)
    finally:
        subscription.close()
        waiting.join()
