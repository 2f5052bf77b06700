"""The settings of a RabbitMQ source with partitions, and what describes one of them."""

from __future__ import annotations

from typing import Any

import pytest

from broadway_py._core.failure_authority import FailureAuthority
from broadway_py.errors import OptionsError
from broadway_py.producer import FailurePlan
from broadway_py.producers.rabbitmq import RabbitMQOptions, RabbitMQProducer

ACTIVE = {"declare": "active"}


def test_a_partition_is_the_queue_of_its_number() -> None:
    whole = RabbitMQProducer("work", partitions=3)
    parts = [whole.partition(number) for number in range(3)]

    assert [part.called for part in parts] == ["rabbitmq.0", "rabbitmq.1", "rabbitmq.2"]
    for part, queue in zip(parts, ("work.0", "work.1", "work.2"), strict=True):
        assert isinstance(part, RabbitMQProducer)
        assert part.options.queues == (queue,)
        assert part.options.shown_queue == queue
        assert (part.partitions, part.concurrency, part.keeps_keys_apart) == (None, 1, True)
        assert part.most_in_flight(100) == 100
    assert (whole.partitions, whole.keeps_keys_apart) == (3, True)
    assert whole.options.queues == ("work.0", "work.1", "work.2")


def test_without_partitions_the_source_is_its_queues() -> None:
    producer = RabbitMQProducer(["work", "more"])
    assert (producer.partitions, producer.keeps_keys_apart) == (None, False)
    assert producer.options.queues == ("work", "more")
    assert producer.options.named_after("more") == "more"
    assert producer.options.declare_arguments == {}


def test_the_queue_of_a_partition_has_one_reader_at_a_time() -> None:
    options = RabbitMQOptions(
        queue="work", partitions=2, **ACTIVE, declare_options={"arguments": {"x-queue-type": "quorum"}}
    )
    assert options.declare_arguments == {"x-queue-type": "quorum", "x-single-active-consumer": True}
    # Another consumer beside the first one would wait behind it for ever.
    assert not RabbitMQOptions(queue="work", partitions=2).allows_another_consumer


def test_what_is_made_of_the_options_of_a_partition_stays_one() -> None:
    part = RabbitMQOptions(queue="work", partitions=2, consume_options={"no_ack": True}).of_partition(1)
    assert part.without_no_ack().queues == ("work.1",)
    assert part.named_after("work.1") == "work"


def test_dead_letters_cannot_go_to_a_partition() -> None:
    plan = FailurePlan(
        frozenset({"dead_letter"}), "work.1", FailureAuthority(failure_is_given=True, on_failure_is_given=False)
    )
    with pytest.raises(OptionsError) as refused:
        RabbitMQProducer("work", partitions=2).partition(0).check_failure(plan)
    assert str(refused.value) == (
        "failure.dead_letter: 'work.1' is consumed here, so its dead letters would come back; name another queue"
    )


ONE_QUEUE = (
    "queue: expected the name of one queue with partitions, which begins the names of their queues; give each source a "
    "producer of its own"
)
KEYS_MOVE = "with partitions, because keys move to other queues when one is deleted; leave it out"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"queue": ["work", "more"]}, ONE_QUEUE),
        ({"queue": "", **ACTIVE}, ONE_QUEUE),
        ({"queue": "amq.gen-1"}, ONE_QUEUE),
        (
            {"queue": "w" * 128},
            (
                "queue: expected 127 characters at most with partitions, because an exchange has this name, but these "
                "are 128"
            ),
        ),
        (
            {"concurrency": 2},
            (
                "concurrency: expected 1 with partitions, because each of them has one reader, got 2; leave "
                "concurrency out"
            ),
        ),
        (
            {"merge_options": lambda _: {}},
            "merge_options: all partitions have the same settings; leave merge_options out",
        ),
        (
            {"bindings": [{"exchange": "events"}]},
            (
                "bindings: a binding to the queue of each partition would put each message into all of them; leave "
                "bindings out, and bind the exchange 'work' to yours at the broker"
            ),
        ),
        (
            {"consume_options": {"exclusive": True}},
            (
                "consume_options.exclusive: the broker hands the messages of a partition to one consumer anyway, and "
                "the next one must be able to stand by; leave exclusive out"
            ),
        ),
        ({**ACTIVE, "declare_options": {"durable": False}}, f"declare_options.durable: expected true {KEYS_MOVE}"),
        (
            {**ACTIVE, "declare_options": {"auto_delete": True}},
            f"declare_options.auto_delete: expected false {KEYS_MOVE}",
        ),
        ({**ACTIVE, "declare_options": {"exclusive": True}}, f"declare_options.exclusive: expected false {KEYS_MOVE}"),
        (
            {**ACTIVE, "declare_options": {"arguments": {"x-single-active-consumer": False}}},
            (
                "declare_options.arguments.x-single-active-consumer: expected true with partitions, because each of "
                "them has one reader at a time; leave it out"
            ),
        ),
        ({"partitions": 0}, "partitions: expected greater than or equal to 1, got 0"),
        ({"partitions": 257}, "partitions: expected less than or equal to 256, got 257"),
    ],
)
def test_settings_that_do_not_fit_partitions_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(OptionsError) as refused:
        RabbitMQProducer(**{"queue": "work", "partitions": 4, **settings})
    assert [str(one) for one in refused.value.all()] == [sentence]
