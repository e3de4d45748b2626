"""The client library: asyncio, on grpcio, for this broker and for the original Liftbridge.

::

    async with Client(["localhost:9292"]) as client:
        await client.create_stream("weather", "weather.*")
        await client.publish("weather", b"Oslo 3.1", key=b"oslo")
        async for message in client.subscribe("weather", start=StartAt.earliest()):
            print(message.offset, message.value)

What fails raises a class of :mod:`liftbridge.errors`; ``retriable`` says whether the same call may succeed later. Every
call has a deadline. Who isn't in a coroutine uses :mod:`liftbridge.client.blocking`; who publishes by plain NATS,
:mod:`liftbridge.client.nats_messages`.

Here lives what a client needs, and nothing of the server: of the rest of the package only ``errors``, ``certificates`` and
``protocol``.
"""

from liftbridge.client.client import Client
from liftbridge.client.consumer import Consumer
from liftbridge.client.failures import IncorrectOffset, PartitionPaused
from liftbridge.client.metadata import Broker, ClusterMetadata, EventTimes, Group, Partition, Stream
from liftbridge.client.partitioners import KeyPartitioner, Partitioner, RoundRobinPartitioner
from liftbridge.client.positions import StartAt, StopAt
from liftbridge.client.publisher import Publisher
from liftbridge.client.records import Ack, AckPolicy, Message
from liftbridge.client.security import Tls
from liftbridge.client.subscription import Subscription

__all__ = [
    "Ack",
    "AckPolicy",
    "Broker",
    "Client",
    "ClusterMetadata",
    "Consumer",
    "EventTimes",
    "Group",
    "IncorrectOffset",
    "KeyPartitioner",
    "Message",
    "Partition",
    "PartitionPaused",
    "Partitioner",
    "Publisher",
    "RoundRobinPartitioner",
    "StartAt",
    "StopAt",
    "Stream",
    "Subscription",
    "Tls",
]
