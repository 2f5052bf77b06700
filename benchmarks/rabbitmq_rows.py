"""The rows that need a RabbitMQ, and their bars."""

from __future__ import annotations

from typing import Final

from benchmarks.row import Bar, Program, Row

__all__ = ["RABBITMQ_BARS", "RABBITMQ_ROWS"]

_LIMIT: Final = "benchmarks.limits.rabbitmq_socket"
_AIO_PIKA: Final = "benchmarks.limits.rabbitmq_aio_pika"
_FASTSTREAM: Final = "benchmarks.limits.rabbitmq_faststream"
_OURS: Final = "benchmarks.rabbitmq_drain"


def _drain(
    name: str, title: str, messages: int, *, queue: str = "classic", body: int = 256, prefetch: int = 500
) -> Row:
    """The same four programs on another queue, with other bodies or another prefetch."""
    theirs = (f"--prefetch={prefetch}",)
    file = "rabbitmq.yaml" if prefetch == 500 else f"rabbitmq_prefetch_{prefetch}.yaml"
    return Row(
        name,
        title,
        messages,
        (
            Program("limit", _LIMIT, theirs),
            Program("aio-pika", _AIO_PIKA, theirs),
            Program("FastStream", _FASTSTREAM, theirs, environment="faststream"),
            Program("ours", _OURS, (f"--config={file}",)),
        ),
        needs_broker=True,
        queue_type=queue,
        body_bytes=body,
    )


RABBITMQ_ROWS: Final = (
    _drain("rabbitmq", "RabbitMQ, drain a full queue, 256 B, prefetch 500, every message acked", 200_000),
    _drain("rabbitmq_4k", "the same with bodies of 4 KiB", 60_000, body=4096),
    _drain("rabbitmq_quorum", "the same on a quorum queue", 60_000, queue="quorum"),
    _drain("rabbitmq_prefetch_50", "the same with prefetch 50", 100_000, prefetch=50),
    Row(
        "rabbitmq_batch",
        "the same through batchers, and with nothing set but the queue and one batcher",
        100_000,
        (
            Program("limit", _LIMIT),
            Program("tuned, no batcher", _OURS, ("--config=rabbitmq.yaml",)),
            Program("ours", _OURS, ("--config=rabbitmq_batch.yaml",)),
            Program("ours, defaults", _OURS, ("--config=rabbitmq_default.yaml",)),
        ),
        needs_broker=True,
    ),
    Row(
        "rabbitmq_latency",
        "RabbitMQ, 1,000 messages a second offered, from publish to ack, 256 B",
        10_000,
        (
            Program("aio-pika", "benchmarks.limits.rabbitmq_latency_aio_pika"),
            Program("ours", "benchmarks.rabbitmq_latency"),
        ),
        needs_broker=True,
        is_offered=True,
    ),
)

RABBITMQ_BARS: Final = (
    Bar("rabbitmq", 0.8, over="limit"),
    Bar("rabbitmq", 0.9, over="limit", when="aim"),
    Bar("rabbitmq", 4.0, over="aio-pika"),
    *(
        Bar(f"rabbitmq_{name}", at_least, over=over, when="aim")
        for name in ("4k", "quorum", "prefetch_50")
        for at_least, over in ((0.8, "limit"), (4.0, "aio-pika"))
    ),
    Bar("rabbitmq_batch", 0.8, over="limit", when="aim"),
    Bar("rabbitmq_batch", 0.5, over="tuned, no batcher", ours="ours, defaults"),
    # At most 1.5 (1.2) times the other's: a figure is better when it is more, so it is turned over.
    Bar("rabbitmq_latency", 1 / 1.5, over="aio-pika", figure="per_second_of_p99"),
    Bar("rabbitmq_latency", 1 / 1.2, over="aio-pika", figure="per_second_of_p99", when="aim"),
)
