"""The rows with ``deduplicate_by``: what it costs to store the id of each message before its ack."""

from __future__ import annotations

from typing import Final

from benchmarks.row import Program, Row

__all__ = ["DEDUPLICATION_ROWS"]

_RABBITMQ: Final = "benchmarks.rabbitmq_drain"
_QUEUE: Final = "benchmarks.queue_drain"

DEDUPLICATION_ROWS: Final = (
    Row(
        "once_queue",
        "embedded queue, drain a full file, 256 B, without and with deduplicate_by",
        200_000,
        (Program("off", _QUEUE), Program("ours", _QUEUE, ("--config=queue_once.yaml",))),
    ),
    Row(
        "once_rabbitmq",
        "RabbitMQ, drain a full queue, 256 B, without and with deduplicate_by",
        200_000,
        (
            Program("off", _RABBITMQ, ("--config=rabbitmq_4.yaml",)),
            Program("ours", _RABBITMQ, ("--config=rabbitmq_once.yaml",)),
        ),
        needs_broker=True,
    ),
)
