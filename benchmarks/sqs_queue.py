"""Fills the SQS queue that the programs of the row drain, and counts what is left: by SQS itself."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiobotocore.session import get_session

__all__ = ["BODY_BYTES", "fill", "left", "url_of"]

BODY_BYTES: Final = 256
_SENDERS: Final = 8


def url_of(endpoint: str, queue: str) -> str:
    """The queue's URL; LocalStack's own one names a host that does not resolve."""
    return f"{endpoint}/000000000000/{queue}"


def fill(endpoint: str, queue: str, messages: int) -> None:
    """Make the queue anew and put *messages* in, ids 0 …, each confirmed."""
    asyncio.run(_fill(endpoint, queue, messages))


def left(endpoint: str, queue: str) -> int:
    """How many messages are in the queue, ready, in flight or delayed."""
    return asyncio.run(_left(endpoint, queue))


def _client(endpoint: str) -> Any:
    return get_session().create_client("sqs", endpoint_url=endpoint)


async def _fill(endpoint: str, queue: str, messages: int) -> None:
    async with _client(endpoint) as client:
        await client.create_queue(QueueName=queue)
        await client.purge_queue(QueueUrl=url_of(endpoint, queue))
        starts = iter(range(0, messages, 10))

        async def send() -> None:
            for start in starts:
                entries = [
                    {"Id": str(number), "MessageBody": f"{number:010d}".ljust(BODY_BYTES, ".")}
                    for number in range(start, min(start + 10, messages))
                ]
                answer = await client.send_message_batch(QueueUrl=url_of(endpoint, queue), Entries=entries)
                if answer.get("Failed"):
                    raise RuntimeError(f"SQS did not take {len(answer['Failed'])} messages")

        async with asyncio.TaskGroup() as tasks:
            for _ in range(_SENDERS):
                tasks.create_task(send())


async def _left(endpoint: str, queue: str) -> int:
    async with _client(endpoint) as client:
        answer = await client.get_queue_attributes(QueueUrl=url_of(endpoint, queue), AttributeNames=["All"])
    names = ("", "NotVisible", "Delayed")
    return sum(int(answer["Attributes"][f"ApproximateNumberOfMessages{name}"]) for name in names)
