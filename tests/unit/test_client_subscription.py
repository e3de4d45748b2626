"""A subscription and the calls that it makes, one after the other; what calls bring is written by the tests."""

import asyncio
import gc
from typing import Any, cast

import pytest
from written_calls import ACCEPTED, OneBroker, messages

from liftbridge.client import StartAt, StopAt, Subscription, turns
from liftbridge.client.brokers import Brokers
from liftbridge.errors import InternalError, InvalidRequest, NotFound, RequestError, ResourceExhausted, Unavailable
from liftbridge.protocol.generated import api_pb2 as api


@pytest.fixture
def broker() -> OneBroker:
    return OneBroker()


def subscribe(broker: OneBroker, *, start: StartAt | None = None, **options: Any) -> Subscription:
    options = {"stop": StopAt.never(), **options}
    return Subscription(cast(Brokers, broker), "s", 0, start=start or StartAt.earliest(), **options)


async def offsets(subscription: Subscription, count: int) -> list[int]:
    return [(await anext(subscription)).offset for _ in range(count)]


async def test_what_came_together_is_handed_out_without_waiting(
    broker: OneBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_EVERY_S", 60)
    async with subscribe(broker) as subscription:
        broker.calls[0].bring(messages(*range(101)))
        await anext(subscription)
        for number in range(1, 101):
            with pytest.raises(StopIteration) as done:
                anext(subscription).send(None)  # a coroutine that runs to its end at once
            assert done.value.value.offset == number


async def test_a_loop_that_never_waits_leaves_turns_to_others(
    broker: OneBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_EVERY_S", 0)
    async with subscribe(broker) as subscription:
        broker.calls[0].bring(messages(*range(100)))
        seen = 0
        seen_by_other = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(lambda: seen_by_other.set_result(seen))
        for _ in range(100):
            await anext(subscription)
            seen += 1
        assert seen_by_other.result() < 2


async def test_only_what_is_asked_for_is_acknowledged(broker: OneBroker) -> None:
    async with subscribe(broker) as subscription:
        (call,) = broker.calls
        first, second = messages(0, 1), messages(2)
        call.bring(first)
        call.bring(second)
        assert call.acknowledged == [ACCEPTED]
        await offsets(subscription, 2)
        assert call.acknowledged == [ACCEPTED, *first]
        await offsets(subscription, 1)
        assert call.acknowledged == [ACCEPTED, *first, *second]


async def test_what_came_together_can_be_had_together(broker: OneBroker) -> None:
    async with subscribe(broker, stop=StopAt.offset(2)) as subscription:
        (call,) = broker.calls
        first, second = messages(0, 1), messages(2)
        call.bring(first)
        call.bring(second)
        assert [message.offset for message in await subscription.receive_many()] == [0, 1]
        assert call.acknowledged == [ACCEPTED, *first]
        assert [message.offset for message in await subscription.receive_many()] == [2]
        assert await subscription.receive_many() == []


async def test_a_wait_that_is_given_up_costs_nothing(broker: OneBroker) -> None:
    async with subscribe(broker) as subscription:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(subscription), 0.01)
        broker.calls[0].bring(messages(0, 1))
        assert await offsets(subscription, 2) == [0, 1]
    assert len(broker.calls) == 1


async def test_it_goes_on_behind_what_it_has_even_if_nobody_asked_for_that_yet(broker: OneBroker) -> None:
    async with subscribe(broker) as subscription:
        broker.calls[0].bring(messages(3, 4, 5))
        assert await offsets(subscription, 1) == [3]
        broker.calls[0].end(Unavailable("it died"))
        assert await offsets(subscription, 2) == [4, 5]
        waiting = asyncio.ensure_future(anext(subscription))
        async with asyncio.timeout(5):
            while len(broker.calls) < 2:
                await asyncio.sleep(0)
        assert (broker.calls[1].request.startPosition, broker.calls[1].request.startOffset) == (
            api.StartPosition.OFFSET,
            6,
        )
        broker.calls[1].bring(messages(4, 5, 6))  # a leader that doesn't know yet how far the partition is committed
        assert (await asyncio.wait_for(waiting, 5)).offset == 6


async def test_a_stop_ends_the_call_though_the_server_goes_on(broker: OneBroker) -> None:
    async with subscribe(broker, stop=StopAt.offset(1)) as subscription:
        broker.calls[0].bring(messages(0, 1, 2))
        assert [message.offset async for message in subscription] == [0, 1]
        assert broker.calls[0].closed.is_set()


async def test_a_stop_that_is_gone_ends_at_what_is_behind_it(broker: OneBroker) -> None:
    async with subscribe(broker, stop=StopAt.offset(1)) as subscription:
        broker.calls[0].bring(messages(0, 2))
        assert [message.offset async for message in subscription] == [0]


@pytest.mark.parametrize("end", [None, ResourceExhausted("end of readonly partition")])
async def test_a_good_end_comes_after_the_messages(broker: OneBroker, end: RequestError | None) -> None:
    async with subscribe(broker) as subscription:
        broker.calls[0].bring(messages(0))
        broker.calls[0].end(end)
        assert [message.offset async for message in subscription] == [0]


@pytest.mark.parametrize("error", [NotFound("stream deleted"), InvalidRequest("the client is closed")])
async def test_a_bad_end_is_raised_after_the_messages(broker: OneBroker, error: RequestError) -> None:
    async with subscribe(broker) as subscription:
        broker.calls[0].bring(messages(0))
        broker.calls[0].end(error)
        assert await offsets(subscription, 1) == [0]
        with pytest.raises(type(error), match=str(error)):
            await anext(subscription)


async def test_what_is_no_message_is_an_error(broker: OneBroker) -> None:
    async with subscribe(broker) as subscription:
        broker.calls[0].bring([b"\xff\xff"])
        with pytest.raises(InternalError, match="no message"):
            await anext(subscription)
        assert broker.calls[0].closed.is_set()


async def test_closing_ends_a_wait_in_another_task(broker: OneBroker) -> None:
    subscription = subscribe(broker)
    waiting = asyncio.ensure_future(anext(subscription, None))
    async with asyncio.timeout(5):
        while not broker.calls:
            await asyncio.sleep(0)
        await subscription.close()
        assert await waiting is None
        await broker.calls[0].closed.wait()


async def test_who_forgets_a_subscription_keeps_no_connection(broker: OneBroker) -> None:
    subscription = subscribe(broker)
    await subscription.__aenter__()
    del subscription
    gc.collect()
    await asyncio.wait_for(broker.calls[0].closed.wait(), 5)
