"""Peer: receive loops by hand on aiobotocore, eight side by side; each deletes its ten before it receives again."""

from __future__ import annotations

import asyncio

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from benchmarks.measure import Ids, Meter, arguments, run_async

LOOPS = 8


async def drain(endpoint: str, queue: str, messages: int) -> tuple[int, int, int]:
    """Receive, check and delete *messages*; how many were counted, receives, deletes."""
    ids = Ids(messages)
    count = receives = deletes = 0
    url = f"{endpoint}/000000000000/{queue}"
    config = AioConfig(max_pool_connections=2 * LOOPS)
    async with get_session().create_client("sqs", endpoint_url=endpoint, config=config) as client:

        async def loop() -> None:
            nonlocal count, receives, deletes
            while count < messages:
                receives += 1
                answer = await client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
                received = answer.get("Messages") or []
                if not received:
                    continue
                for message in received:
                    ids.seen[int(message["Body"][:10])] += 1
                deletes += 1
                entries = [
                    {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                    for number, message in enumerate(received)
                ]
                deleted = await client.delete_message_batch(QueueUrl=url, Entries=entries)
                if deleted.get("Failed"):
                    raise RuntimeError(f"SQS did not delete {len(deleted['Failed'])} messages")
                count += len(received)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(LOOPS):
                tasks.create_task(loop())
    ids.check()
    return count, receives, deletes


async def measure(endpoint: str, queue: str, messages: int, *, gate: bool) -> None:
    """Drain the queue once and print the measurement."""
    meter = Meter(gate=gate)
    count, receives, deletes = await drain(endpoint, queue, messages)
    meter.report(
        "sqs_aiobotocore",
        count,
        "aiobotocore",
        "botocore",
        messages_per_request=count / (receives + deletes),
        messages_per_delete=count / deletes,
    )


if __name__ == "__main__":
    asked = arguments(__doc__ or "", broker=True).parse_args()
    run_async(measure(asked.url, asked.queue, asked.messages, gate=asked.gate))
