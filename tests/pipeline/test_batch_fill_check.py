"""A source that lets go of fewer messages than a batch takes: the pipeline says so, and how slow that makes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from broadway_py import Batcher, BatchInfo, Message, Pipeline, Processors
from broadway_py.producer_description import AnyProducer
from broadway_py.producers import DummyProducer, Producer, ProducerDescription
from tests.pipeline.support import logged, running


class Prefetching(ProducerDescription):
    """Holds back whatever is more than *prefetch* unsettled messages; None: as many as the pipeline has room for."""

    def __init__(self, prefetch: int | None, *, name: str = "prefetching", concurrency: int = 1) -> None:
        self.name = name
        self.concurrency = concurrency
        self.prefetch = prefetch
        self.asked: list[int] = []

    def most_in_flight(self, capacity: int) -> int | None:
        self.asked.append(capacity)
        return capacity if self.prefetch is None else self.prefetch

    def create(self) -> Producer:
        return DummyProducer()


class Unlimited(Prefetching):
    """Sets no limit."""

    def most_in_flight(self, capacity: int) -> int | None:
        return None


class Batched(Pipeline[Any]):
    processors = Processors(concurrency=2, max_demand=10)
    batchers = {"default": Batcher(batch_size=200, batch_timeout=2.0)}  # noqa: RUF012  # never changed

    async def handle_message(self, message: Message[Any]) -> None:
        pass

    async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        pass


async def warnings_of(
    caplog: pytest.LogCaptureFixture, producer: AnyProducer | Sequence[AnyProducer], **options: Any
) -> Any:
    async with running(Batched(producer=producer, **options)):
        return [line["event"] for line in logged(caplog)]


async def test_a_prefetch_with_which_batches_never_fill_is_warned_of_with_the_rate_that_is_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    (warning,) = await warnings_of(caplog, Prefetching(50))
    assert warning == (
        "batches of 'default' never fill: batch_size is 200, but the sources let this pipeline hold 50 unsettled "
        "messages at most; batches of at most 50 every 2 s = at most 25 msg/s per pipeline and process; raise the "
        "source's prefetch to 200 or more, or lower batch_size or batch_timeout"
    )


async def test_each_batcher_is_judged_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    batchers = {
        "small": Batcher(batch_size=50),
        "large": Batcher(batch_size=51, batch_timeout=0.5),
        "counted": Batcher(batch_size=(0, lambda _, count: ("cont", count)), max_demand=100),
    }

    (warning,) = await warnings_of(caplog, Prefetching(50), batchers=batchers)
    assert "batches of 'large' never fill" in warning
    assert "every 0.5 s = at most 100 msg/s" in warning


async def test_all_copies_of_all_sources_count(caplog: pytest.LogCaptureFixture) -> None:
    enough = [Prefetching(50, name="a", concurrency=3), Prefetching(50, name="b")]
    assert await warnings_of(caplog, enough) == []

    (warning,) = await warnings_of(caplog, [Prefetching(50, name="a", concurrency=3), Prefetching(49, name="b")])
    assert "hold 199 unsettled messages at most" in warning


@pytest.mark.parametrize("producers", [[Unlimited(1)], [Prefetching(1, name="a"), Unlimited(1, name="b")]])
async def test_a_source_without_a_limit_fills_every_batch(
    caplog: pytest.LogCaptureFixture, producers: list[AnyProducer]
) -> None:
    assert await warnings_of(caplog, producers) == []


async def test_a_prefetch_of_all_that_the_pipeline_holds_is_enough(caplog: pytest.LogCaptureFixture) -> None:
    producer = Prefetching(None, concurrency=2)

    assert await warnings_of(caplog, producer) == []
    # Two processors of ten, one batch at work and one that fills: 20 + 2 * 200, for two copies.
    assert producer.asked == [210]
