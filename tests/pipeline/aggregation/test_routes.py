"""Which ways lead to an aggregator: beside batchers, from spawned and submitted messages, from new processors."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broadway_py import Batcher, BatchInfo, Message, Pipeline, Processors
from tests.pipeline.aggregation.support import ObeyingStore, Order, Shop, Sums, use
from tests.pipeline.support import ManualProducer, Recorder, clock_of, in_flight, outcomes, running, soon


@pytest.fixture(name="store", autouse=True)
def _store(monkeypatch: pytest.MonkeyPatch) -> ObeyingStore:
    store = ObeyingStore()
    use(monkeypatch, store)
    return store


def sums_of(pipeline: Pipeline[Any], name: str = "sums") -> Sums:
    own = pipeline.aggregators[name]
    assert isinstance(own, Sums)
    return own


async def test_a_message_goes_to_the_batcher_or_aggregator_that_it_names() -> None:
    class Both(Pipeline[Order]):
        processors = Processors(concurrency=2, max_demand=4)
        batchers = {"mail": Batcher(batch_size=2)}  # noqa: RUF012  # an option
        aggregators = {"sums": Sums, "others": Sums}  # noqa: RUF012  # an option
        state = "var/never-written.db"
        mailed: list[float]

        async def handle_message(self, message: Message[Order]) -> None:
            message.batcher = {"a": "mail", "b": "sums", "c": "others"}[message.data.key]

        async def handle_batch(self, messages: list[Message[Order]], info: BatchInfo) -> None:
            self.mailed += [message.data.at for message in messages]

    recorder = Recorder()
    source = ManualProducer(*recorder.messages([Order(key, 1) for key in "abcabc"]))
    source.feed.end()
    made = Both(producer=source)
    made.mailed = []
    clock_of(made)
    await soon(made.start())
    await soon(made.wait())
    assert outcomes(made) == {"acked": 6}
    assert made.mailed == [1, 1]
    assert sums_of(made).values == [("b", 2)]
    assert sums_of(made, "others").values == [("c", 2)]


async def test_a_parent_is_acked_when_its_children_are_stored(store: ObeyingStore) -> None:
    class Splitting(Shop):
        async def handle_message(self, message: Message[Order]) -> None:
            for part in range(message.data.amount):
                message.spawn(Order(message.data.key, part))

    recorder = Recorder()
    made = Splitting(producer=ManualProducer(*recorder.messages([Order("a", 0, 3)])), aggregators={"sums": Sums()})
    store.gate.clear()
    async with running(made) as clock:
        await clock.advance(1.0)
        assert store.begun.is_set()
        assert recorder.count == 0
        assert in_flight(made) == 1
        store.gate.set()
        await recorder.until(1)
    assert outcomes(made) == {"acked": 1}


async def test_a_submitted_message_is_there_when_it_is_stored() -> None:
    made = Shop(producer=ManualProducer(), aggregators={"sums": Sums()})
    async with running(made) as clock:
        submitting = asyncio.ensure_future(made.submit(Order("a", 1)))
        await clock.advance(0.05)
        assert not submitting.done()
        await clock.advance(0.1)
        assert (await soon(submitting)).ok
        assert made.stats().aggregators[0].windows_open == 1


async def test_processors_that_were_added_while_the_state_was_opened_lead_to_the_aggregator() -> None:
    recorder = Recorder()
    source = ManualProducer()
    made = Shop(producer=source, aggregators={"sums": Sums()})
    async with running(made) as clock:
        made.set_concurrency(processors=3)
        source.feed.put(*recorder.messages([Order("a", number) for number in range(30)]))
        await clock.advance(0)
        await clock.advance(1.0)
        await clock.advance(1.0)
        await recorder.until(30)
    assert outcomes(made) == {"acked": 30}


async def test_the_topology_names_the_aggregator_and_what_hands_out_its_results() -> None:
    made = Shop(producer=ManualProducer(), aggregators={"sums": Sums()})
    assert made.topology()["aggregators"] == [
        {"aggregator": "sums", "name": "Shop.aggregator:sums", "emitter": "Shop.emitter:sums"}
    ]


async def test_a_message_that_failed_is_counted_once_when_it_comes_again() -> None:
    class Failing(Shop):
        tries = 0

        async def handle_message(self, message: Message[Order]) -> None:
            self.tries += 1
            if self.tries == 1:
                raise OSError("not yet")

    recorder = Recorder()
    order = Order("a", 1)
    source = ManualProducer(*recorder.messages([order]))
    made = Failing(producer=source, aggregators={"sums": Sums()}, failure=None)
    async with running(made) as clock:
        await recorder.until(1)
        source.feed.put(*recorder.messages([order, Order("a", 61)]))
        await clock.advance(1.0)
        await recorder.until(3)
        assert sums_of(made).values == [("a", 1)]
    assert outcomes(made) == {"acked": 2, "rejected": 1}
