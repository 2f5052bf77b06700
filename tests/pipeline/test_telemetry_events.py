"""Telemetry: which events come, in which order, and what they carry."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broadway_py import Batcher, BatchInfo, FailurePolicy, Message, Pipeline, ProducerError, telemetry
from broadway_py.events import EVENTS
from broadway_py.producers import MemoryProducer
from tests.pipeline.support import ONE, Breaking, ManualProducer, Quiet, finish, logged, running, telemetry_events
from tests.support.conformance import conforms

Messages = list[Message[Any]]


class Mixed(Pipeline[Any]):
    """``"fail"`` is marked, ``"raise"`` raises, the others go to their batch."""

    processors = ONE
    batchers = {"default": Batcher(batch_size=2)}  # noqa: RUF012  # never changed
    context = "the context"
    failure: FailurePolicy | None = None  # what fails must not come again

    async def handle_message(self, message: Message[Any]) -> None:
        if message.data == "fail":
            message.fail("on purpose")
        if message.data == "raise":
            raise ValueError("by accident")

    async def handle_batch(self, messages: Messages, info: BatchInfo) -> None:
        if messages[0].data == "broken batch":
            raise OSError("sink")
        if messages[0].data == "half":
            messages[0].fail("half")


STAGES = ("broadway.processor.", "broadway.batcher.", "broadway.batch_processor.")


async def test_telemetry_has_the_context_that_setup_has_made() -> None:
    class Connected(Mixed):
        async def setup(self) -> None:
            self.context = "a connection"

    with telemetry_events("broadway.topology.init", "broadway.processor.start") as seen:
        await finish(Connected(producer=MemoryProducer([1])))

    assert {metadata["context"] for _, _, metadata in seen} == {"a connection"}


@conforms("B-037")
async def test_a_mixed_chunk_tells_every_step_in_order_with_its_contents() -> None:
    with telemetry_events(*(event for event in EVENTS if event.startswith(STAGES))) as seen:
        await finish(Mixed(name="orders", producer=MemoryProducer([1, "fail", "raise", 2])))

    assert [event.removeprefix("broadway.") for event, _, _ in seen] == [
        "processor.start",
        "processor.message.start",
        "processor.message.stop",
        "processor.message.start",
        "processor.message.stop",
        "processor.message.start",
        "processor.message.exception",
        "processor.message.start",
        "processor.message.stop",
        "processor.stop",
        "batcher.start",
        "batcher.stop",
        "batcher.start",
        "batcher.stop",
        "batch_processor.start",
        "batch_processor.stop",
    ]
    by_name = {event.removeprefix("broadway."): metadata for event, _, metadata in seen}
    assert {metadata["pipeline"] for _, _, metadata in seen} == {"orders"}
    assert {metadata["context"] for _, _, metadata in seen} == {"the context"}
    assert {metadata["index"] for _, _, metadata in seen} == {0}
    assert by_name["processor.start"]["name"] == "orders.processors.0"
    assert [m.data for m in by_name["processor.start"]["messages"]] == [1, "fail", "raise", 2]
    stop = by_name["processor.stop"]
    assert list(stop["successful_to_ack"]) == []
    assert [m.data for m in stop["successful_to_forward"]] == [1, 2]
    assert [m.data for m in stop["failed"]] == ["fail", "raise"]
    assert by_name["processor.message.exception"]["message"].data == "raise"
    assert isinstance(by_name["processor.message.exception"]["exception"], ValueError)
    assert by_name["batcher.start"]["batcher"] == "default"
    assert by_name["batch_processor.start"]["name"] == "orders.batch_processors:default.0"
    assert by_name["batch_processor.start"]["batch_info"] == BatchInfo("default", "default", None, 2, "size")
    assert [m.data for m in by_name["batch_processor.start"]["messages"]] == [1, 2]
    assert [m.data for m in by_name["batch_processor.stop"]["successful"]] == [1, 2]
    assert list(by_name["batch_processor.stop"]["failed"]) == []


async def test_a_start_tells_the_time_and_an_end_tells_the_duration() -> None:
    gate = asyncio.Event()

    class Slow(Quiet):
        async def handle_message(self, message: Message[Any]) -> None:
            await gate.wait()

    pipeline = Slow(producer=ManualProducer(1))
    with telemetry_events("broadway.processor.start", "broadway.processor.stop") as seen:
        async with running(pipeline) as clock:
            await clock.advance(2.5)
            gate.set()

    (_, start, _), (_, stop, _) = seen
    assert set(start) == {"system_time", "monotonic_time"}
    assert start["system_time"] == pytest.approx(clock.wall() - 2.5)
    assert set(stop) == {"duration", "monotonic_time"}
    assert stop["duration"] == pytest.approx(2.5)
    assert stop["monotonic_time"] - start["monotonic_time"] == pytest.approx(2.5)


async def test_a_batch_that_raises_ends_in_one_event() -> None:
    with telemetry_events(
        "broadway.batch_processor.start", "broadway.batch_processor.stop", "broadway.batch_processor.exception"
    ) as seen:
        await finish(Mixed(producer=MemoryProducer(["broken batch", 2, "half", 4])))

    events = [event.rsplit(".", 1)[1] for event, _, _ in seen]
    assert len(events) == 4
    assert events[0] == events[2] == "start"
    assert events[1] in {"stop", "exception"}
    assert events[3] == "stop"
    assert [m.data for m in seen[3][2]["failed"]] == ["half"]
    assert [m.data for m in seen[3][2]["successful"]] == [4]


async def test_a_stage_that_breaks_tells_so() -> None:
    pipeline = Mixed(producer=MemoryProducer([1, "fail"]))
    pipeline._meters["processors"].failed = Breaking()
    with telemetry_events(
        "broadway.processor.start", "broadway.processor.stop", "broadway.processor.exception"
    ) as seen:
        async with running(pipeline) as clock:
            await clock.advance(10.0)

    assert [event.rsplit(".", 1)[1] for event, _, _ in seen] == ["start", "exception"]
    assert isinstance(seen[1][2]["exception"], OSError)


async def test_a_handler_that_raises_is_detached_and_the_pipeline_does_not_notice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = 0

    def broken(event: str, measurements: Any, metadata: Any) -> None:
        nonlocal calls
        calls += 1
        raise ValueError("canary")

    telemetry.attach("broken", EVENTS, broken)
    try:
        assert await finish(Mixed(producer=MemoryProducer([1, "fail", 2]))) == {"acked": 2, "rejected": 1}
    finally:
        telemetry.detach("broken")

    assert calls == 1
    assert not telemetry.active()
    assert logged(caplog)[0]["event"] == "a telemetry handler raised and was detached"
    assert logged(caplog)[0]["handler"] == "broken"


def test_an_unknown_event_and_a_taken_name_are_refused_with_the_whole_sentence() -> None:
    with pytest.raises(ValueError) as unknown:  # noqa: PT011  # the sentence follows
        telemetry.attach("mine", "broadway.processor.stopp", print)
    assert str(unknown.value) == (
        "telemetry.attach: unknown event 'broadway.processor.stopp'; did you mean 'broadway.processor.stop'?"
    )

    telemetry.attach("mine", "broadway.processor.stop", print)
    try:
        with pytest.raises(ValueError) as taken:  # noqa: PT011  # the sentence follows
            telemetry.attach("mine", ["broadway.processor.stop"], print)
    finally:
        telemetry.detach("mine")
    assert str(taken.value) == (
        "telemetry.attach: a handler named 'mine' is attached to 'broadway.processor.stop' already"
    )


def test_detaching_what_was_never_attached_is_fine() -> None:
    telemetry.detach("nobody")


async def test_every_event_of_the_table_that_a_pipeline_makes_is_in_the_table() -> None:
    with telemetry_events() as seen:
        await finish(Mixed(producer=MemoryProducer([1, "fail", "raise", 2, "broken batch", 3])))

    assert {event for event, _, _ in seen} <= EVENTS
    assert all(metadata["pipeline"] == "Mixed" for _, _, metadata in seen)


#: Event -> what its metadata holds besides the pipeline, the position and the context.
CARRIES: dict[str, set[str]] = {
    "topology.init": {"topology"},
    "processor.start": {"name", "messages"},
    "processor.stop": {"name", "messages", "successful_to_ack", "successful_to_forward", "failed"},
    "processor.exception": {"name", "messages", "exception"},
    "processor.message.start": {"name", "message"},
    "processor.message.stop": {"name", "message"},
    "processor.message.exception": {"name", "message", "exception"},
    "batcher.start": {"batcher", "messages"},
    "batcher.stop": {"batcher", "messages"},
    "batch_processor.start": {"name", "messages", "batch_info"},
    "batch_processor.stop": {"name", "messages", "batch_info", "successful", "failed"},
    "batch_processor.exception": {"name", "messages", "batch_info", "exception"},
    "handle_failed.start": {"stage", "messages"},
    "handle_failed.stop": {"stage", "messages"},
    "handle_failed.exception": {"stage", "messages", "exception"},
    "producer.connected": {"producer"},
    "producer.lost": {"producer", "reason"},
}


class Everything(Mixed):
    """Its ``handle_failed`` raises once."""

    told = 0

    async def handle_failed(self, messages: Messages) -> None:
        self.told += 1
        if self.told == 1:
            raise ValueError("once")


async def test_each_event_comes_with_what_its_page_says() -> None:
    producer = ManualProducer(1, "fail", "raise", 2, "half", 3)
    pipeline = Everything(producer=producer)
    with telemetry_events() as seen:
        async with running(pipeline) as clock:
            await clock.advance(5.0)
            for layer in ("processors", "batch_processors:default"):
                pipeline._meters[layer].failed = Breaking()
            producer.feed.put("fail")
            await clock.advance(5.0)
            producer.feed.put("half", 5)
            producer.feed.fail(ProducerError("gone"))
            await clock.advance(60.0)

    # Those of a connector, of aggregators, of deduplicate_by, of publishers and of flows are tested with them.
    others = (
        "broadway.sqs.",
        "broadway.aggregator.",
        "broadway.deduplication.",
        "broadway.publisher.",
        "broadway.flow.",
    )
    of_every_pipeline = {event for event in EVENTS if not event.startswith(others)}
    assert {event for event, _, _ in seen} == of_every_pipeline == {f"broadway.{event}" for event in CARRIES}
    for event, measured, metadata in seen:
        carries = {"pipeline", *CARRIES[event.removeprefix("broadway.")]}
        if event != "broadway.topology.init":
            carries.add("index")
        if not event.startswith("broadway.producer."):
            carries.add("context")
        assert set(metadata) == carries, event
        ends = event.endswith((".stop", ".exception"))
        assert set(measured) == {"duration" if ends else "system_time", "monotonic_time"}, event
