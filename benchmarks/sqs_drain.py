"""Ours: a full SQS queue drained by the pipeline of ``benchmarks/config/sqs.yaml``."""

from __future__ import annotations

from benchmarks.measure import Ids, Meter, arguments, run_async
from benchmarks.ours import PACKAGES, all_acked, scraped, settings_of
from benchmarks.sqs_queue import url_of
from broadway_py.daemon.pipelines.loader import build_pipelines


async def measure(endpoint: str, queue: str, messages: int, *, gate: bool) -> None:
    """Drain the queue once, from the first request to the last delete and the closed connections, and print it."""
    settings = settings_of("sqs.yaml", {"BENCHMARK_QUEUE_URL": url_of(endpoint, queue)})
    (pipeline,) = build_pipelines(settings)
    ids = pipeline.ids = Ids(messages)  # type: ignore[attr-defined]  # the pipeline in that file has it
    meter = Meter(gate=gate)
    async with pipeline, scraped(pipeline):
        await pipeline.wait()
    ids.check()
    all_acked(pipeline, messages)
    (producer,) = pipeline.stats().producers
    assert producer.requests is not None, "an SQS producer counts its requests"
    requests = producer.requests.requests
    deletes = sum(count for (kind, _), count in requests.items() if kind == "delete") - 1  # the first asks only
    meter.report(
        "sqs_drain",
        messages,
        *PACKAGES,
        "aiobotocore",
        "botocore",
        messages_per_request=messages / sum(requests.values()),
        messages_per_delete=messages / deletes,
    )


if __name__ == "__main__":
    asked = arguments(__doc__ or "", broker=True).parse_args()
    run_async(measure(asked.url, asked.queue, asked.messages, gate=asked.gate))
