"""Peer: aiobotocore sends ten messages in a request, with ten requests on their way at any time."""

from __future__ import annotations

import asyncio

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from benchmarks.measure import Meter, arguments, run_async

SENDERS = 10


async def measure(endpoint: str, queue: str, messages: int, body_bytes: int, *, gate: bool) -> None:
    """Send once and print the measurement."""
    meter = Meter(gate=gate)
    url = f"{endpoint}/000000000000/{queue}"
    starts = iter(range(0, messages, 10))
    config = AioConfig(max_pool_connections=2 * SENDERS)
    async with get_session().create_client("sqs", endpoint_url=endpoint, config=config) as client:

        async def each() -> None:
            for start in starts:
                entries = [
                    {
                        "Id": str(number),
                        "MessageBody": f"{number:010d}".ljust(body_bytes, "."),
                        "MessageAttributes": {"message_id": {"DataType": "String", "StringValue": str(number)}},
                    }
                    for number in range(start, min(start + 10, messages))
                ]
                answer = await client.send_message_batch(QueueUrl=url, Entries=entries)
                if answer.get("Failed"):
                    raise RuntimeError(f"SQS did not take {len(answer['Failed'])} messages")

        async with asyncio.TaskGroup() as tasks:
            for _ in range(SENDERS):
                tasks.create_task(each())
    meter.report("publish_sqs_aiobotocore", messages, "aiobotocore", "botocore")


if __name__ == "__main__":
    parser = arguments(__doc__ or "", broker=True)
    parser.add_argument("--body", type=int, required=True, help="the size of a body")
    asked = parser.parse_args()
    run_async(measure(asked.url, asked.queue, asked.messages, asked.body, gate=asked.gate))
