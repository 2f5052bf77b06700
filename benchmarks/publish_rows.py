"""The rows that publish with confirms, and their bars."""

from __future__ import annotations

from typing import Final

from benchmarks.row import Bar, Program, Row

__all__ = ["PUBLISH_BARS", "PUBLISH_ROWS"]

_PEER: Final = "benchmarks.limits.publish_rabbitmq_aio_pika"
_OURS: Final = "benchmarks.publish_rabbitmq"
_MESSAGES: Final = 20_000
_SENT: Final = 5_000


def _rabbitmq(name: str, title: str, *, queue: str = "classic", body: int = 1000) -> Row:
    """The same programs on another queue, or with other bodies."""
    size = f"--body={body}"
    return Row(
        name,
        title,
        _MESSAGES,
        (
            Program("limit", "benchmarks.limits.publish_rabbitmq_socket", (size,)),
            Program("aio-pika, one by one", _PEER, (size, "--at-once=1"), one_in=20),
            Program("aio-pika", _PEER, (size,), one_in=2),
            Program("aio-pika, gather", _PEER, (size, "--gather"), one_in=2),
            Program("aiormq", _PEER, (size, "--low"), one_in=2),
            Program("ours", _OURS, (size,)),
            Program("ours, one by one", _OURS, (size, "--list=1"), one_in=20),
        ),
        needs_broker=True,
        queue_type=queue,
        body_bytes=body,
        is_filled=True,
    )


PUBLISH_ROWS: Final = (
    _rabbitmq("publish_rabbitmq", "RabbitMQ, publish with confirms, 1,000 on their way, durable classic queue, 1 kB"),
    _rabbitmq("publish_rabbitmq_100", "the same with bodies of 100 B", body=100),
    _rabbitmq("publish_rabbitmq_quorum", "the same on a quorum queue, 1 kB", queue="quorum"),
    _rabbitmq("publish_rabbitmq_quorum_100", "the same on a quorum queue, 100 B", queue="quorum", body=100),
    Row(
        "publish_sqs",
        "SQS on LocalStack, publish, 1 kB, ten in a request, ten requests side by side",
        _SENT,
        (
            Program("aiobotocore", "benchmarks.limits.publish_sqs_aiobotocore", ("--body=1000",)),
            Program("ours", "benchmarks.publish_sqs", ("--body=1000",)),
        ),
        needs_broker=True,
        broker="sqs",
        is_filled=True,
    ),
)

PUBLISH_BARS: Final = (
    *(
        Bar(row.name, at_least, over=over)
        for row in PUBLISH_ROWS
        if row.broker == "rabbitmq"
        for at_least, over in (
            (0.7, "aio-pika"),
            (0.7, "aio-pika, gather"),
            (0.7, "aiormq"),
            (10.0, "aio-pika, one by one"),
        )
    ),
    # LocalStack is the limit of both, and runs on the same cores: nobody can be much faster.
    Bar("publish_sqs", 0.9, over="aiobotocore"),
    Bar(
        "publish_sqs", 1 / 1.1, over="aiobotocore", figure="messages_per_cpu_second"
    ),  # at most 1.1 x its processor time
)
