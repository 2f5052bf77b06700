"""Each source says how long the messages of a lost copy may stay away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broadway_py.producer import Producer
from broadway_py.producer_description import AnyProducer, described
from broadway_py.producers import MemoryProducer, QueueProducer, SQSProducer
from broadway_py.producers.rabbitmq import RabbitMQProducer

URL = "https://sqs.eu-central-1.amazonaws.com/123456789012/orders"


def said_by(producer: AnyProducer) -> tuple[float, float]:
    """What it says for a lost connection, and for a process that died."""
    description = described(producer)
    return description.returns_within(process_died=False), description.returns_within(process_died=True)


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        ({}, 45.0),
        ({"heartbeat": 1.2}, 6.0),
        ({"url": "amqp://h/?heartbeat=30"}, 90.0),
        ({"concurrency": 2, "merge_options": lambda index: {"heartbeat": 10 + 10 * index}}, 60.0),
    ],
    ids=["default", "a fraction", "in the url", "of copies"],
)
def test_rabbitmq_takes_three_heartbeats_to_notice_a_silent_connection(settings: Any, seconds: float) -> None:
    assert said_by(RabbitMQProducer("orders", **settings)) == (seconds, 0.0)


def test_at_sqs_a_lost_receive_may_still_wait_for_messages_and_then_hides_them() -> None:
    assert said_by(SQSProducer(URL, visibility_timeout=120)) == (142.0, 142.0)
    assert said_by(SQSProducer(URL, visibility_timeout=120, wait_time_seconds=1)) == (123.0, 123.0)


def test_sqs_learns_the_visibility_of_its_queue_when_it_connects() -> None:
    producer = SQSProducer(URL)
    assert said_by(producer) == (52.0, 52.0)

    producer._learned.visibility_s = 300.0
    renewed = SQSProducer(URL)
    renewed.succeed(producer)

    assert said_by(producer) == said_by(renewed) == (322.0, 322.0)


def test_a_source_that_delivers_again_at_once_says_so(tmp_path: Path) -> None:
    assert said_by(QueueProducer(str(tmp_path / "queue.db"), "orders")) == (0.0, 0.0)
    assert said_by(MemoryProducer([])) == (0.0, 0.0)


def test_a_producer_of_a_user_says_it_itself() -> None:
    class Slow(Producer):
        def returns_within(self, *, process_died: bool) -> float:
            return 8.0 if process_died else 3.0

    assert said_by(Slow()) == (3.0, 8.0)
