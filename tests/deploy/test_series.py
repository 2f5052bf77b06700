"""The number of series: what is in the messages, and what a broker makes up, does not change it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from broadway_py import Batcher, BatchInfo, Message, Pipeline, Processors
from broadway_py.metrics import (
    SERIES_LIMIT,
    PipelineCollector,
    pipeline_metrics,
    process_metrics,
)
from broadway_py.pipeline.stats import SourceStats
from broadway_py.producers import MemoryProducer, RabbitMQProducer
from broadway_py.request_counts import RequestCounts
from tests.daemon.snapshots import EMPTY, pipeline, producer, stage
from tests.support.rabbitmq import RabbitMQ

Series = set[tuple[str, tuple[tuple[str, str], ...]]]


def series_of(running: Pipeline[int]) -> Series:
    registry = CollectorRegistry()
    registry.register(PipelineCollector(lambda: [running.stats()]))
    text = generate_latest(registry).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Keyed(Pipeline[int]):
    """Every message has a key of its own, and one in ten fails with a text, and of a type, of its own."""

    name = "keyed"
    processors = Processors(concurrency=4)
    batchers = {"default": Batcher(batch_size=10, batch_timeout=0.05)}  # noqa: RUF012  # an option of the pipeline

    def partition_by(self, message: Message[int]) -> str:
        return f"key {message.data}"

    async def handle_message(self, message: Message[int]) -> None:
        message.batch_key = f"customer {message.data}"
        if message.data % 10 == 0:
            raise type(f"Error{message.data}", (RuntimeError,), {})(f"no stock of item {message.data}")

    async def handle_batch(self, messages: Sequence[Message[int]], info: BatchInfo) -> None:
        """Nothing: what it is called with matters."""


async def test_10_000_keys_and_1_000_texts_of_errors_leave_the_number_of_series_as_it_was() -> None:
    quiet, keyed = (Keyed(producer=MemoryProducer(range(count)), failure=None) for count in (0, 10_000))
    for one in (quiet, keyed):
        async with one:
            await one.wait()

    (source,) = keyed.stats().producers
    assert (source.received, source.outcomes["acked"]) == (10_000, 9_000)
    assert series_of(keyed) == series_of(quiet)


@pytest.mark.integration
@pytest.mark.any_broker
async def test_names_of_queues_that_the_broker_made_up_are_in_no_label(rabbitmq: RabbitMQ) -> None:
    found: list[Series] = []
    for queue in ("", "", "orders"):
        source = RabbitMQProducer(queue, rabbitmq.url, declare="active")
        async with Keyed(producer=source) as running:
            await running.ready(30)
            found.append(series_of(running))

    assert found[0] == found[1] == found[2]


def test_each_metric_has_a_thousand_series_at_most_and_the_rest_is_added_up_under_other() -> None:
    count = 3 * SERIES_LIMIT
    batcher = stage("batcher:b", batcher="b", duration=None, batches={"size": 2}, batch_sizes=EMPTY)
    counts = RequestCounts()
    counts.requests.update({("receive", "ok"): 3, ("delete", "throttled"): 1})
    counts.entries["delete"] = 4
    counts.received(10)
    many = [
        pipeline(
            f"p{index}",
            producers=(producer(requests=counts, source=SourceStats(3, 0, 1, 0.0, None)),),
            stages=(stage(), batcher, stage("batch_processors:b", batcher="b")),
        )
        for index in range(count)
    ]
    families = [
        *pipeline_metrics(many),
        *process_metrics({str(index): float(index) for index in range(count)}, 0),
    ]
    for family in families:
        sizes = Counter(sample.name for sample in family.samples if not sample.name.endswith("_bucket"))
        assert max(sizes.values()) <= SERIES_LIMIT, family.name
        if max(sizes.values()) > 1:
            values = {value for sample in family.samples for value in sample.labels.values()}
            assert "other" in values, family.name
    received = next(family for family in families if family.name == "broadway_messages_received")
    assert sum(sample.value for sample in received.samples) == 10 * count
    settled = next(family for family in families if family.name == "broadway_messages_settled")
    assert sum(sample.value for sample in settled.samples if sample.labels["outcome"] == "acked") == 6 * count
