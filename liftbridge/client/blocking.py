"""The client for who isn't in a coroutine: the same calls, each of which waits.

::

    with BlockingClient(["localhost:9292"]) as client:
        client.publish("weather", b"3.1")
        for message in client.subscribe("weather", start=StartAt.earliest(), stop=StopAt.latest()):
            print(message.value)

The asyncio client runs in a thread of its own. Any number of threads may use one client.
"""

import asyncio
import functools
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar

from liftbridge.client.client import DEFAULT_TIMEOUT_S, Client
from liftbridge.client.consumer import Consumer
from liftbridge.client.records import Ack, Message
from liftbridge.client.security import Tls
from liftbridge.client.subscription import Subscription
from liftbridge.errors import InvalidRequest

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class _Source(Protocol):
    """What messages come from: a subscription, or a consumer."""

    async def __aenter__(self) -> AsyncIterator[Message]: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


_Messages = TypeVar("_Messages", bound=_Source)


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="liftbridge-client", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Waits for it; who is interrupted meanwhile, by Ctrl-C for instance, cancels it. Raises InvalidRequest when the loop
        doesn't run."""
        if not self._thread.is_alive():
            work.close()
            raise InvalidRequest("use the client inside of: with BlockingClient(...) as client")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


class BlockingMessages(Generic[_Messages]):
    """An iterator of :class:`Message` that waits for each, and ends and raises as the asyncio one does. It is subscribed,
    or a member, from the beginning until ``close``, the end of a ``with``, or that of the client."""

    def __init__(self, loop: _Loop, source: _Messages) -> None:
        self._loop = loop
        self._source = source
        self._messages = loop.run(source.__aenter__())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the subscription, or leaves the group. Idempotent."""
        self._loop.run(self._source.__aexit__(None, None, None))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Message:
        return self.receive()

    def receive(self, timeout_s: float | None = None) -> Message:
        """The next message. Raises TimeoutError when there is none in time, which costs none, and StopIteration at the end."""
        message = self._loop.run(self._next(timeout_s))
        if message is None:
            raise StopIteration
        return message

    async def _next(self, timeout_s: float | None) -> Message | None:
        async with asyncio.timeout(timeout_s):
            return await anext(self._messages, None)


class BlockingSubscription(BlockingMessages[Subscription]):
    """Messages that came together cross threads together, when one of them is asked for; the server sends no more until
    then, but for some 2 MiB. Threads may share the iteration: each message goes to one of them."""

    def __init__(self, loop: _Loop, source: Subscription) -> None:
        super().__init__(loop, source)
        self._received: deque[Message] = deque()
        self._asking = threading.Lock()

    def close(self) -> None:
        super().close()
        self._received.clear()

    def receive(self, timeout_s: float | None = None) -> Message:
        """The next message. Raises TimeoutError when there is none in time, which costs none, and StopIteration at the end."""
        while True:
            with suppress(IndexError):
                return self._received.popleft()
            began_s = time.monotonic()
            self._ask(timeout_s)
            if timeout_s is not None:
                timeout_s = max(0.0, timeout_s - (time.monotonic() - began_s))

    def _ask(self, timeout_s: float | None) -> None:
        """Until there are messages, maybe because another thread asked for them."""
        if not self._asking.acquire(timeout=-1 if timeout_s is None else timeout_s):
            raise TimeoutError
        try:
            if not self._received and not self._loop.run(self._receive_many(timeout_s)):
                raise StopIteration
        finally:
            self._asking.release()

    async def _receive_many(self, timeout_s: float | None) -> bool:
        """Puts them where they stay when who asked was interrupted. False at the end."""
        async with asyncio.timeout(timeout_s):
            messages = await self._source.receive_many()
        self._received.extend(messages)
        return bool(messages)


class BlockingConsumer(BlockingMessages[Consumer]):
    """A member of a consumer group; see :class:`liftbridge.client.Consumer` for what it promises."""

    def commit(self) -> None:
        """Remembers that everything handed out so far, the current message too, is processed. Raises what keeps a cursor
        from being set."""
        self._loop.run(self._source.commit())

    @property
    def assignments(self) -> frozenset[tuple[str, int]]:
        """The partitions that this member reads now, as (stream, partition)."""
        return self._source.assignments


def _waits(
    method: Callable[Concatenate[Client, _Arguments], Coroutine[Any, Any, _Result]],
) -> "Callable[Concatenate[BlockingClient, _Arguments], _Result]":
    """The client's method, with its arguments, results, errors and documentation, for who waits."""

    def call(self: "BlockingClient", /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        return self._loop.run(method(self._client, *args, **kwargs))

    functools.update_wrapper(call, method)
    return call


class BlockingClient:
    """Calls, their arguments, results and errors are those of :class:`liftbridge.client.Client`."""

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        tls: Tls | None = None,
        call_metadata: Mapping[str, str] | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        self._client = Client(addresses, tls=tls, call_metadata=call_metadata, timeout_s=timeout_s)
        self._loop = _Loop()

    def __enter__(self) -> Self:
        """Raises Unavailable when no server can be reached."""
        self._loop.start()
        try:
            self._loop.run(self._client.__aenter__())
        except BaseException:
            self._loop.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.run(self._client.close())
        self._loop.stop()

    create_stream = _waits(Client.create_stream)
    delete_stream = _waits(Client.delete_stream)
    pause_stream = _waits(Client.pause_stream)
    set_stream_readonly = _waits(Client.set_stream_readonly)
    publish = _waits(Client.publish)
    publish_to_subject = _waits(Client.publish_to_subject)
    set_cursor = _waits(Client.set_cursor)
    fetch_cursor = _waits(Client.fetch_cursor)
    fetch_metadata = _waits(Client.fetch_metadata)
    fetch_partition_metadata = _waits(Client.fetch_partition_metadata)

    def publish_all(self, stream: str, values: Sequence[bytes], **options: Any) -> list[Ack | None]:
        """Many messages with many in flight, in order; ``options`` are those of :meth:`Client.publisher`. Returns their acks,
        or raises what the first one that failed raised, when all have an answer."""

        async def publish() -> list[Ack | None]:
            async with self._client.publisher(stream, **options) as publisher:
                acks = [await publisher.publish(value) for value in values]
            return [ack.result() for ack in acks]

        return self._loop.run(publish())

    def subscribe(self, stream: str, partition: int = 0, **options: Any) -> BlockingSubscription:
        """Messages of one partition, from now on unless ``start`` says otherwise; ``options`` are those of
        :meth:`Client.subscribe`. Raises what the server answers."""
        return BlockingSubscription(self._loop, self._client.subscribe(stream, partition, **options))

    def consume(self, group_id: str, streams: Sequence[str], **options: Any) -> BlockingConsumer:
        """Joins a consumer group; ``options`` are those of :meth:`Client.consumer`."""
        return BlockingConsumer(self._loop, self._client.consumer(group_id, streams, **options))
