"""Ours: how long a message takes from publish to ack in a pipeline, at an even pace."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from benchmarks.measure import Meter, arguments, run_async
from benchmarks.ours import PACKAGES, all_acked, scraped, settings_of
from benchmarks.rabbitmq_pace import began_at, offered, p99
from broadway_py import telemetry
from broadway_py.daemon.pipelines.loader import build_pipelines


async def measure(url: str, queue: str, messages: int, *, gate: bool) -> None:
    """Take all that is offered, and print the measurement."""
    settings = settings_of("rabbitmq_latency.yaml", {"BENCHMARK_AMQP_URL": url, "BENCHMARK_QUEUE": queue})
    (pipeline,) = build_pipelines(settings)
    pipeline.expected = messages  # type: ignore[attr-defined]  # the pipeline in that file has it
    found: list[float] = []

    def settled(_: str, __: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        # After the chunk's acknowledgements were written.
        now = time.monotonic()
        found.extend(now - began_at(message.data) for message in metadata["successful_to_ack"])

    meter = Meter(gate=gate)
    telemetry.attach("latency", ["broadway.processor.stop"], settled)
    async with pipeline, scraped(pipeline):
        with offered(url, queue, messages):
            await pipeline.wait()
    telemetry.detach("latency")
    all_acked(pipeline, messages)
    meter.report("rabbitmq_latency", messages, *PACKAGES, "aio-pika", "aiormq", p99_seconds=p99(found))


if __name__ == "__main__":
    asked = arguments(__doc__ or "", broker=True).parse_args()
    run_async(measure(asked.url, asked.queue, asked.messages, gate=asked.gate))
