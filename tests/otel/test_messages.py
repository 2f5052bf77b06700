"""The span of a message: where it hangs, what it says, and what the handler sees of it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

from broadway_py import Batcher, BatchInfo, FailurePolicy, Message, Processors, telemetry
from broadway_py.producers import MemoryProducer
from tests.otel.pipelines import Base, Traced, TracedThread, inner
from tests.pipeline.support import ManualProducer, Quiet, ReturningRecorder, finish, logged, running, soon
from tests.support.collector import Spans
from tests.support.traces import PARENT, SPAN, TRACE, Traces

HEADERS = {"headers": {"traceparent": PARENT}}


def sent(data: Any, **metadata: Any) -> Message[Any]:
    """A message as a publisher with tracing sends it."""
    return Message(data, metadata or dict(HEADERS))


async def spans_of(traces: Traces, *messages: Any, cls: type[Base] = Traced, **options: Any) -> Spans:
    await finish(cls(producer=MemoryProducer(messages, name="shop"), **options))
    return traces.spans()


@pytest.mark.parametrize("cls", [Traced, TracedThread])
async def test_the_span_of_a_message_is_a_child_of_the_span_that_sent_it(traces: Traces, cls: type[Base]) -> None:
    spans = await spans_of(traces, sent("a", message_id="m-1", **HEADERS), cls=cls)

    span = spans.one("process shop")
    assert (span.trace, span.parent, span.kind, span.scope) == (TRACE, SPAN, "CONSUMER", "broadway_py")
    assert span.attributes == {
        "messaging.system": "memory",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "shop",
        "messaging.message.id": "m-1",
        "messaging.message.body.size": 1,
        "broadway.pipeline": "orders",
    }
    assert not span.is_error


@pytest.mark.parametrize("cls", [Traced, TracedThread])
async def test_what_a_handler_begins_is_a_child_of_the_span_of_its_message(traces: Traces, cls: type[Base]) -> None:
    spans = await spans_of(traces, sent("a"), sent("b"), cls=cls)

    parents = [span.id for span in spans.named("process shop")]
    assert [span.parent for span in spans.named("inner")] == parents
    assert len(set(parents)) == 2


async def test_a_list_that_comes_in_has_a_span_with_links_to_its_senders_and_messages_have_links_to_it(
    traces: Traces,
) -> None:
    spans = await spans_of(traces, sent("a"), "b")

    received = spans.one("receive shop")
    assert (received.parent, received.kind, received.links) == ("", "CLIENT", ((TRACE, SPAN),))
    assert received.attributes["messaging.batch.message_count"] == 2
    assert {span.links for span in spans.named("process shop")} == {((received.trace, received.id),)}


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"headers": {}},
        {"headers": {"traceparent": "nonsense"}},
        {"headers": {"traceparent": f"00-{'0' * 32}-{SPAN}-01"}},
        {"headers": {"traceparent": b"\xff\xfe"}},
        {"headers": {"traceparent": 7}},
        {"headers": "no dict"},
    ],
)
async def test_a_message_without_a_valid_context_begins_a_trace(traces: Traces, metadata: dict[str, Any]) -> None:
    spans = await spans_of(traces, Message("a", metadata))

    span = spans.one("process shop")
    assert span.parent == ""
    assert span.trace != TRACE


@pytest.mark.parametrize(
    "metadata",
    [{"headers": {"traceparent": PARENT.encode()}}, {"traceparent": PARENT}],
)
async def test_headers_may_be_bytes_and_may_lie_in_the_metadata(traces: Traces, metadata: dict[str, Any]) -> None:
    spans = await spans_of(traces, Message("a", metadata))

    assert spans.one("process shop").parent == SPAN


async def test_the_program_around_the_pipeline_is_no_parent_of_messages(traces: Traces) -> None:
    with trace.get_tracer("user").start_as_current_span("main"):
        spans = await spans_of(traces, "a")

    assert spans.one("process shop").parent == ""


@pytest.mark.parametrize("cls", [Traced, TracedThread])
async def test_the_handler_sees_the_baggage_of_its_message_and_of_no_other(traces: Traces, cls: type[Base]) -> None:
    spans = await spans_of(
        traces, sent("a", headers={"traceparent": PARENT, "baggage": "tenant=blue"}), sent("b"), cls=cls
    )

    assert [dict(span.attributes) for span in spans.named("inner")] == [{"baggage.tenant": "blue"}, {}]


async def test_a_parent_that_is_not_sampled_is_followed(traces: Traces) -> None:
    spans = await spans_of(traces, sent("a", headers={"traceparent": PARENT[:-1] + "0"}))

    assert spans.of_trace(TRACE) == []
    assert [span.name for span in spans] == ["receive shop"]


async def test_the_sampler_of_the_program_decides_about_messages_without_a_context(traces: Traces) -> None:
    with traces.sampled_by(ParentBased(ALWAYS_OFF)):
        spans = await spans_of(traces, "a", sent("b"))

    assert [span.name for span in spans] == ["inner", "process shop"]
    assert {span.trace for span in spans} == {TRACE}


@pytest.mark.parametrize("cls", [Traced, TracedThread])
async def test_a_handler_that_raises_makes_its_span_an_error_with_the_type_alone(
    traces: Traces, cls: type[Base]
) -> None:
    spans = await spans_of(traces, sent("raise"), cls=cls)

    span = spans.one("process shop")
    assert (span.is_error, span.said, span.events) == (True, "", ())
    assert span.attributes["error.type"] == "ValueError"
    assert span.attributes["broadway.failure.cause"] == "raised"
    assert "secret" not in repr(spans)


async def test_a_handler_that_fails_a_message_makes_the_cause_the_type_of_the_error(traces: Traces) -> None:
    spans = await spans_of(traces, sent("fail"))

    span = spans.one("process shop")
    assert (span.is_error, span.attributes["error.type"]) == (True, "failed")
    assert "secret" not in repr(spans)


async def test_the_attempt_is_told(traces: Traces) -> None:
    message = sent("a")
    message.attempt = 3

    spans = await spans_of(traces, message)

    assert spans.one("process shop").attributes["broadway.message.attempt"] == 3


async def test_an_async_handler_that_is_too_late_ends_its_span_as_a_timeout(traces: Traces) -> None:
    class Slow(Traced):
        processors = Processors(concurrency=1, max_demand=10, min_demand=0, timeout=2.0)

        async def handle_message(self, message: Message[Any]) -> None:
            inner()
            began.set()
            await asyncio.Event().wait()

    began = asyncio.Event()
    producer = ManualProducer("a")
    pipeline = Slow(producer=producer)
    async with running(pipeline) as clock:
        await soon(began.wait())
        await clock.advance(2.0)
        producer.feed.end()
        await soon(pipeline.wait())

    span = traces.spans().one("process manual")
    assert (span.is_error, span.attributes["error.type"]) == (True, "timeout")


async def test_a_thread_that_does_not_return_in_time_leaves_a_span_that_has_ended(traces: Traces) -> None:
    class Slow(Base):
        processors = Processors(concurrency=1, max_demand=10, min_demand=0, timeout=2.0)

        def handle_message(self, message: Message[Any]) -> None:
            inner()
            began.set()
            assert free.wait(60)

    began, free = threading.Event(), threading.Event()
    producer = ManualProducer("a")
    pipeline = Slow(producer=producer)
    async with running(pipeline) as clock:
        await soon(asyncio.to_thread(began.wait))
        await clock.advance(2.0)
        spans = traces.spans()
        free.set()
        producer.feed.end()
        await soon(pipeline.wait())

    span = spans.one("process manual")
    assert (span.is_error, span.attributes["error.type"]) == (True, "timeout")
    assert traces.spans().named("process manual") == [span]


async def test_a_plain_function_that_returns_an_awaitable_has_a_span_until_that_has_ended(traces: Traces) -> None:
    async def later() -> None:
        inner()
        raise ValueError

    class Wrapped(Base):
        def handle_message(self, message: Message[Any]) -> Any:
            return later()

    spans = await spans_of(traces, sent("a"), cls=Wrapped)

    span = spans.one("process shop")
    assert (span.is_error, span.attributes["error.type"]) == (True, "ValueError")
    assert spans.one("inner").parent == span.id


async def test_a_thread_that_the_drain_cuts_off_leaves_a_span_that_ends_as_stopped(traces: Traces) -> None:
    class Endless(Base):
        def handle_message(self, message: Message[Any]) -> None:
            began.set()
            assert free.wait(60)

    began, free = threading.Event(), threading.Event()
    recorder = ReturningRecorder()
    pipeline = Endless(producer=ManualProducer(recorder.message("a")))
    async with running(pipeline):
        await soon(asyncio.to_thread(began.wait))
        pipeline.give_up()
    free.set()

    span = traces.spans().one("process manual")
    assert (span.is_error, span.attributes["error.type"]) == (True, "stopped")


async def test_a_handler_that_the_drain_cuts_off_ends_its_span_as_stopped(traces: Traces) -> None:
    class Endless(Traced):
        async def handle_message(self, message: Message[Any]) -> None:
            began.set()
            await asyncio.Event().wait()

    began = asyncio.Event()
    recorder = ReturningRecorder()
    pipeline = Endless(producer=ManualProducer(recorder.message("a")))
    async with running(pipeline):
        await soon(began.wait())
        pipeline.give_up()

    span = traces.spans().one("process manual")
    assert (span.is_error, span.attributes["error.type"]) == (True, "stopped")
    assert recorder.returned == ["a"]


async def test_a_message_that_is_invalid_has_no_span_of_a_handler_but_one_of_its_end(traces: Traces) -> None:
    class Numbers(Traced):
        schema = int
        failure = FailurePolicy(final="drop")

    spans = await spans_of(traces, sent("no number"), cls=Numbers)

    assert spans.named("process shop") == []
    assert spans.of_trace(TRACE).one("drop shop").parent == SPAN
    assert spans.one("drop shop").attributes["broadway.failure.cause"] == "invalid"


async def test_a_message_that_is_tried_again_in_place_has_a_span_for_each_attempt(traces: Traces) -> None:
    class Ordered(Traced):
        ordered = True
        failure = FailurePolicy(attempts=2, backoff=(1.0, 1.0), final="drop")

        def partition_by(self, message: Message[Any]) -> str:
            return "one"

    producer = ManualProducer(sent("raise"))
    pipeline = Ordered(producer=producer)
    async with running(pipeline) as clock:
        await clock.advance(1.0)
        producer.feed.end()
        await soon(pipeline.wait())

    spans = traces.spans().named("process manual")
    assert [span.parent for span in spans] == [SPAN, SPAN]


async def test_submitted_messages_go_on_in_the_trace_of_their_caller(traces: Traces) -> None:
    pipeline = Traced(producer=ManualProducer())
    async with running(pipeline):
        with trace.get_tracer("user").start_as_current_span("request"):
            await soon(pipeline.submit("a"))

    spans = traces.spans()
    assert spans.above(spans.one("inner")) == ["process", "request"]
    assert spans.one("process").attributes["messaging.system"] == "broadway_py"
    assert [span.name for span in spans if span.name.startswith("receive")] == []


async def test_the_lines_of_the_log_about_a_message_have_the_ids_of_its_span(
    traces: Traces, caplog: pytest.LogCaptureFixture
) -> None:
    spans = await spans_of(traces, sent("raise"))

    (line,) = [line for line in logged(caplog) if line["event"] == "a message failed"]
    assert (line["trace_id"], line["span_id"]) == (TRACE, spans.one("process shop").id)


async def test_telemetry_handlers_are_told_as_without_tracing(traces: Traces) -> None:
    told: list[str] = []
    events = [f"broadway.processor.message.{kind}" for kind in ("start", "stop", "exception")]
    telemetry.attach("a test", events, lambda event, *_: told.append(event.rpartition(".")[2]))
    try:
        await spans_of(traces, sent("a"), sent("raise"))
    finally:
        telemetry.detach("a test")

    assert told == ["start", "stop", "start", "exception"]


async def test_variables_that_a_handler_sets_do_not_reach_the_next_message(traces: Traces) -> None:
    seen: list[object] = []

    class Setting(Traced):
        async def handle_message(self, message: Message[Any]) -> None:
            seen.append(context.get_value("mine"))
            context.attach(context.set_value("mine", message.data))

    await spans_of(traces, sent("a"), sent("b"), cls=Setting)

    assert seen == [None, None]


async def test_a_pipeline_without_tracing_makes_no_span(traces: Traces) -> None:
    class Plain(Quiet):
        async def handle_message(self, message: Message[Any]) -> None:
            assert not trace.get_current_span().get_span_context().is_valid

    await finish(Plain(producer=MemoryProducer([sent("a")])))

    assert traces.spans() == []


async def test_spawned_messages_link_their_batch_to_the_span_of_their_parent(traces: Traces) -> None:
    class Family(Traced):
        batchers = {"default": Batcher(batch_size=2)}  # noqa: RUF012  # never changed

        async def handle_message(self, message: Message[Any]) -> None:
            message.spawn("child")
            message.spawn("child")

        async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            pass

    spans = await spans_of(traces, sent("a"), cls=Family)

    parent = spans.one("process shop")
    assert spans.one("process_batch shop").parent == parent.id
    assert spans.one("process_batch shop").links == ((TRACE, parent.id),)
