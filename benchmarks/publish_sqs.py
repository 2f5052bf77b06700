"""Ours: a list of messages published to SQS by the sink's port."""

from __future__ import annotations

from benchmarks.measure import Meter, arguments, run_async
from benchmarks.ours import PACKAGES
from benchmarks.publish_rabbitmq import message
from benchmarks.sqs_queue import url_of
from broadway_py.producers.sqs import SQSSink

_TIMEOUT_S = 300.0


async def measure(endpoint: str, queue: str, messages: int, body_bytes: int, *, gate: bool) -> None:
    """Publish once, from the first request to the closed connections, and print the measurement."""
    meter = Meter(gate=gate)
    publisher = SQSSink(url_of(endpoint, queue), endpoint_url=endpoint).create("benchmark")
    await publisher.publish([message(number, body_bytes) for number in range(messages)], timeout=_TIMEOUT_S)
    await publisher.close()
    meter.report("publish_sqs", messages, *PACKAGES, "aiobotocore", "botocore")


if __name__ == "__main__":
    parser = arguments(__doc__ or "", broker=True)
    parser.add_argument("--body", type=int, required=True, help="the size of a body")
    asked = parser.parse_args()
    run_async(measure(asked.url, asked.queue, asked.messages, asked.body, gate=asked.gate))
