"""The client for who isn't in a coroutine: the same calls, each of which waits.

::

    with BlockingClient(["localhost:9292"]) as client:
        client.publish("weather", b"3.1")
        for message in client.subscribe("weather", start=StartAt.earliest(), stop=StopAt.latest()):
            print(message.value)

The asyncio client runs in a thread of its own. Any number of threads may use one client.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Self, TypeVar

from liftbridge.client.client import DEFAULT_TIMEOUT_S, Client
from liftbridge.client.metadata import ClusterMetadata, Partition
from liftbridge.client.records import Ack, Message
from liftbridge.client.security import Tls

_Result = TypeVar("_Result")


class BlockingClient:
    """Arguments of calls are those of :class:`liftbridge.client.Client`, and so are results and errors."""

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        tls: Tls | None = None,
        call_metadata: Mapping[str, str] | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="liftbridge-client", daemon=True)
        self._client = Client(addresses, tls=tls, call_metadata=call_metadata, timeout_s=timeout_s)

    def __enter__(self) -> Self:
        """Raises Unavailable when no server can be reached."""
        self._thread.start()
        try:
            self._run(self._client.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._run(self._client.close())
        self._stop()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def create_stream(self, name: str, subject: str, **options: Any) -> None:
        self._run(self._client.create_stream(name, subject, **options))

    def delete_stream(self, name: str, **options: Any) -> None:
        self._run(self._client.delete_stream(name, **options))

    def pause_stream(self, name: str, partitions: Sequence[int] = (), **options: Any) -> None:
        self._run(self._client.pause_stream(name, partitions, **options))

    def set_stream_readonly(self, name: str, partitions: Sequence[int] = (), **options: Any) -> None:
        self._run(self._client.set_stream_readonly(name, partitions, **options))

    def publish(self, stream: str, value: bytes, **options: Any) -> Ack | None:
        return self._run(self._client.publish(stream, value, **options))

    def publish_to_subject(self, subject: str, value: bytes, **options: Any) -> Ack | None:
        return self._run(self._client.publish_to_subject(subject, value, **options))

    def publish_all(self, stream: str, values: Sequence[bytes], **options: Any) -> list[Ack | None]:
        """Many messages with many in flight; ``options`` are those of :meth:`Client.publisher`. Returns their acks, or
        raises what the first one that failed raised, when all have an answer."""

        async def publish() -> list[Ack | None]:
            async with self._client.publisher(stream, **options) as publisher:
                return await asyncio.gather(*[await publisher.publish(value) for value in values])

        return self._run(publish())

    def subscribe(self, stream: str, partition: int = 0, **options: Any) -> Iterator[Message]:
        """An iterator that waits for each message; closing it ends the subscription."""
        return self._iterate(self._client.subscribe(stream, partition, **options))

    def consume(self, group_id: str, streams: Sequence[str], **options: Any) -> Iterator[Message]:
        """Messages as a member of a consumer group; closing the iterator leaves the group."""
        return self._iterate(self._client.consumer(group_id, streams, **options))

    def _iterate(self, source: AbstractAsyncContextManager[AsyncIterator[Message]]) -> Iterator[Message]:
        messages = self._run(source.__aenter__())
        try:
            while True:
                try:
                    yield self._run(_next(messages))
                except StopAsyncIteration:
                    return
        finally:
            self._run(_leave(source))

    def set_cursor(self, cursor_id: str, stream: str, partition: int, offset: int, **options: Any) -> None:
        self._run(self._client.set_cursor(cursor_id, stream, partition, offset, **options))

    def fetch_cursor(self, cursor_id: str, stream: str, partition: int, **options: Any) -> int | None:
        return self._run(self._client.fetch_cursor(cursor_id, stream, partition, **options))

    def fetch_metadata(self, **options: Any) -> ClusterMetadata:
        return self._run(self._client.fetch_metadata(**options))

    def fetch_partition_metadata(self, stream: str, partition: int = 0, **options: Any) -> Partition:
        return self._run(self._client.fetch_partition_metadata(stream, partition, **options))


async def _next(messages: AsyncIterator[Message]) -> Message:
    return await anext(messages)


async def _leave(source: AbstractAsyncContextManager[Any]) -> None:
    await source.__aexit__(None, None, None)
