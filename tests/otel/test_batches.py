"""The span of a batch: its parent, its links, and how it ends."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from broadway_py import Batcher, BatchInfo, Message
from broadway_py.producers import MemoryProducer
from tests.otel.pipelines import Base, Traced, TracedThread, inner
from tests.pipeline.support import ManualProducer, finish, running, soon
from tests.support.collector import Spans
from tests.support.traces import PARENT, SPAN, TRACE, Traces

OTHER = f"00-{'1' * 32}-{'2' * 16}-01"


def sent(data: Any, parent: str = PARENT) -> Message[Any]:
    return Message(data, {"traceparent": parent})


async def spans_of(traces: Traces, *messages: Any, cls: type[Base] = Traced, **batcher: Any) -> Spans:
    batchers = {"default": Batcher(batch_size=2, **batcher)}
    await finish(cls(producer=MemoryProducer(messages, name="shop"), batchers=batchers))
    return traces.spans()


@pytest.mark.parametrize("cls", [Traced, TracedThread])
async def test_a_batch_of_one_trace_goes_on_in_it(traces: Traces, cls: type[Base]) -> None:
    spans = await spans_of(traces, sent("a"), sent("b"), cls=cls)

    batch, messages = spans.one("process_batch shop"), spans.named("process shop")
    assert (batch.trace, batch.parent, batch.kind) == (TRACE, messages[0].id, "CONSUMER")
    assert batch.links == tuple((TRACE, message.id) for message in messages)
    assert spans.one("inner of the batch").parent == batch.id
    assert batch.attributes == {
        "messaging.system": "memory",
        "messaging.operation.name": "process_batch",
        "messaging.operation.type": "process",
        "messaging.destination.name": "shop",
        "messaging.batch.message_count": 2,
        "broadway.pipeline": "orders",
        "broadway.batcher": "default",
        "broadway.batch.trigger": "size",
    }


async def test_a_batch_of_several_traces_begins_one_with_links_to_its_messages(traces: Traces) -> None:
    spans = await spans_of(traces, sent("a"), sent("b", OTHER))

    batch = spans.one("process_batch shop")
    assert batch.parent == ""
    assert batch.trace not in {TRACE, "1" * 32}
    assert batch.links == tuple((message.trace, message.id) for message in spans.named("process shop"))


async def test_a_batch_whose_handler_raises_is_an_error_with_the_type_alone(traces: Traces) -> None:
    spans = await spans_of(traces, sent("raise in the batch"), sent("b"))

    batch = spans.one("process_batch shop")
    assert (batch.is_error, batch.said, batch.events) == (True, "", ())
    assert batch.attributes["error.type"] == "OSError"
    assert batch.attributes["broadway.batch.failed_message_count"] == 2
    assert "secret" not in repr(spans)


async def test_a_batch_that_fails_in_part_is_no_error_and_tells_how_many_failed(traces: Traces) -> None:
    class Half(Traced):
        async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            messages[0].fail("half")

    spans = await spans_of(traces, sent("a"), sent("b"), cls=Half)

    batch = spans.one("process_batch shop")
    assert not batch.is_error
    assert batch.attributes["broadway.batch.failed_message_count"] == 1


@pytest.mark.parametrize("kind", ["loop", "thread"])
async def test_a_batch_that_is_too_late_ends_its_span_as_a_timeout(traces: Traces, kind: str) -> None:
    class Slow(Traced):
        async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            began.set()
            await asyncio.Event().wait()

    class SlowThread(Base):
        def handle_message(self, message: Message[Any]) -> None:
            pass

        def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            began.set()
            assert free.wait(60)

    began, free = threading.Event(), threading.Event()
    producer = ManualProducer(sent("a"), sent("b"))
    batchers = {"default": Batcher(batch_size=2, timeout=2.0)}
    cls: type[Base] = Slow if kind == "loop" else SlowThread
    pipeline = cls(producer=producer, batchers=batchers)
    async with running(pipeline) as clock:
        await soon(asyncio.to_thread(began.wait))
        await clock.advance(2.0)
        spans = traces.spans()
        free.set()
        producer.feed.end()
        await soon(pipeline.wait())

    batch = spans.one("process_batch manual")
    assert (batch.is_error, batch.attributes["error.type"]) == (True, "timeout")
    assert traces.spans().named("process_batch manual") == [batch]


async def test_a_batch_that_the_drain_cuts_off_ends_its_span_as_stopped(traces: Traces) -> None:
    class Endless(Traced):
        async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            inner("inner of the batch")
            began.set()
            await asyncio.Event().wait()

    began = asyncio.Event()
    pipeline = Endless(producer=ManualProducer(sent("a"), sent("b")), batchers={"default": Batcher(batch_size=2)})
    async with running(pipeline):
        await soon(began.wait())
        pipeline.give_up()

    batch = traces.spans().one("process_batch manual")
    assert (batch.is_error, batch.attributes["error.type"], batch.trace) == (True, "stopped", TRACE)
    assert batch.id != SPAN
