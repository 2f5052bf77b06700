"""Ours: a full RabbitMQ queue drained by the pipeline of a file in ``benchmarks/config``."""

from __future__ import annotations

from benchmarks.measure import Ids, Meter, arguments, run_async
from benchmarks.ours import PACKAGES, all_acked, scraped, settings_of
from benchmarks.queue_file import directory
from benchmarks.sdk import MODES, set_up
from broadway_py.daemon.pipelines.loader import build_pipelines


async def measure(url: str, queue: str, messages: int, config: str, *, gate: bool, tracing: bool) -> None:
    """Drain the queue once, from connecting to the last acknowledgement and the closed connection, and print it."""
    with directory() as place:
        state = str(place / "state.db")
        variables = {"BENCHMARK_AMQP_URL": url, "BENCHMARK_QUEUE": queue, "BENCHMARK_STATE": state}
        if tracing:
            variables["BROADWAY_PIPELINES__RABBITMQ__TRACING"] = "true"
        (pipeline,) = build_pipelines(settings_of(config, variables))
        ids = pipeline.ids = Ids(messages)  # type: ignore[attr-defined]  # the pipeline in that file has it
        meter = Meter(gate=gate)
        async with pipeline, scraped(pipeline):
            await pipeline.wait()
        ids.check()
        all_acked(pipeline, messages)
        meter.report("rabbitmq_drain", messages, *PACKAGES, "aio-pika", "aiormq")


if __name__ == "__main__":
    parser = arguments(__doc__ or "", broker=True)
    parser.add_argument("--config", default="rabbitmq.yaml", help="the settings file (rabbitmq.yaml)")
    parser.add_argument("--tracing", choices=MODES, default="off", help="whether it makes traces (off)")
    asked = parser.parse_args()
    tracing = set_up(asked.tracing)
    run_async(measure(asked.url, asked.queue, asked.messages, asked.config, gate=asked.gate, tracing=tracing))
