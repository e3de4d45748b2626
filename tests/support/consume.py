"""A member of a consumer group in a process of its own, that a test can kill: ``consume.py GROUP STREAM ADDRESS...``

Prints a line for each message it was handed, and one for each commit: ``message PARTITION OFFSET VALUE``, ``commit``.
"""

import asyncio
import sys

from liftbridge.client import Client, StartAt

COMMIT_EVERY = 10


async def consume(group: str, stream: str, addresses: list[str]) -> None:
    async with (
        Client(addresses) as client,
        client.consumer(group, [stream], start=StartAt.earliest(), checkpoint_interval_s=None) as consumer,
    ):
        handed_out = 0
        async for message in consumer:
            print("message", message.partition, message.offset, message.value.decode(), flush=True)
            handed_out += 1
            if handed_out % COMMIT_EVERY == 0:
                await consumer.commit()
                print("commit", flush=True)


if __name__ == "__main__":
    asyncio.run(consume(sys.argv[1], sys.argv[2], sys.argv[3:]))
