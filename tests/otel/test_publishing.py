"""What handlers publish goes on in the trace of their messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

from broadway_py import Aggregator, Batcher, BatchInfo, Message, Window
from broadway_py.producers import MemoryProducer, MemoryPublisher
from tests.otel.pipelines import Traced
from tests.pipeline.support import ManualProducer, finish, running
from tests.support.collector import Spans, SpanSeen
from tests.support.traces import PARENT, SPAN, TRACE, Traces

OTHER = f"00-{'1' * 32}-{'2' * 16}-01"


def sent(data: Any, parent: str = PARENT, **metadata: Any) -> Message[Any]:
    return Message(data, {"headers": {"traceparent": parent, "baggage": "tenant=blue"}, **metadata})


def parent_of(span: SpanSeen) -> str:
    """The ``traceparent`` by which others go on with *span*, without its flags."""
    return f"00-{span.trace}-{span.id}"


def parents_in(headers: list[dict[str, str]]) -> list[str]:
    return [each["traceparent"][:-3] for each in headers]


class Publishing(Traced):
    """Publishes each message."""

    headers: Mapping[str, str] | None = None

    async def handle_message(self, message: Message[Any]) -> None:
        await self.publishers["out"].publish(message.data, message_id="m-1", headers=self.headers)


class PublishingBatches(Traced):
    """Publishes the messages of each batch, as they are or their data."""

    batchers = {"default": Batcher(batch_size=2)}  # noqa: RUF012  # never changed
    context = "messages"

    async def handle_message(self, message: Message[Any]) -> None:
        pass

    async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        items = messages if self.context == "messages" else [message.data for message in messages]
        await self.publishers["out"].publish_many(items)


async def run(traces: Traces, cls: type[Traced], *messages: Message[Any], **options: Any) -> tuple[Spans, list[Any]]:
    out = MemoryPublisher()
    await finish(cls(producer=MemoryProducer(messages, name="shop"), publishers={"out": out}, **options))
    return traces.spans(), [dict(message.all_headers) for message in out.messages]


async def test_what_a_handler_publishes_goes_on_from_its_span(traces: Traces) -> None:
    spans, (headers,) = await run(traces, Publishing, sent("a"))

    send = spans.one("send")
    assert spans.above(send) == ["process shop"]
    assert (send.trace, send.kind, send.is_error) == (TRACE, "PRODUCER", False)
    assert parents_in([headers]) == [parent_of(send)]
    assert headers["baggage"] == "tenant=blue"
    assert send.attributes == {
        "messaging.system": "memory",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.message.id": "m-1",
        "broadway.pipeline": "orders",
    }


async def test_headers_of_a_trace_that_the_handler_has_set_stay(traces: Traces) -> None:
    class Own(Publishing):
        headers = {"traceparent": OTHER}  # noqa: RUF012  # never changed

    _, (headers,) = await run(traces, Own, sent("a"))

    assert headers == {"traceparent": OTHER}


async def test_a_message_that_is_not_sampled_says_so_to_the_next(traces: Traces) -> None:
    with traces.sampled_by(ParentBased(ALWAYS_OFF)):
        spans, (headers,) = await run(traces, Publishing, sent("a", PARENT[:-1] + "0"))

    assert spans == []
    assert headers["traceparent"].startswith(f"00-{TRACE}-")
    assert headers["traceparent"].endswith("-00")


async def test_messages_of_a_batch_of_several_traces_each_go_on_in_their_own(traces: Traces) -> None:
    spans, headers = await run(traces, PublishingBatches, sent("a"), sent("b", OTHER))

    send, handled = spans.one("send"), spans.named("process shop")
    assert spans.above(send) == ["process_batch shop"]
    assert send.attributes["messaging.batch.message_count"] == 2
    assert parents_in(headers) == [parent_of(span) for span in handled]
    assert send.links == tuple((span.trace, span.id) for span in handled)


async def test_messages_of_a_batch_of_one_trace_go_on_from_the_call_that_publishes_them(traces: Traces) -> None:
    spans, headers = await run(traces, PublishingBatches, sent("a"), sent("b"))

    send = spans.one("send")
    assert set(parents_in(headers)) == {parent_of(send)}
    assert spans.above(send) == ["process_batch shop", "process shop"]


async def test_data_of_a_batch_goes_on_from_the_call_that_publishes_it(traces: Traces) -> None:
    spans, headers = await run(traces, PublishingBatches, sent("a"), sent("b", OTHER), context="data")

    assert set(parents_in(headers)) == {parent_of(spans.one("send"))}


async def test_a_call_that_fails_is_an_error_with_the_type_alone(traces: Traces) -> None:
    out = MemoryPublisher(most=1)
    producer = ManualProducer(sent("a"), sent("b"))
    async with running(Publishing(producer=producer, publishers={"out": out})) as clock:
        await clock.advance(30.0)
        producer.feed.end()

    fine, failed = traces.spans().named("send")
    assert not fine.is_error
    assert (failed.is_error, failed.said) == (True, "")
    assert str(failed.attributes["error.type"]).endswith("PublishUnavailable")


async def test_without_tracing_nothing_is_added_to_what_is_published(traces: Traces) -> None:
    class Plain(Publishing):
        tracing = False

    spans, (headers,) = await run(traces, Plain, sent("a"))

    assert (spans, headers) == ([], {})
    assert SPAN not in repr(headers)


class Sums(Aggregator[str, int, int]):
    """Adds all there is in a window."""

    window = Window.fixed(60, by=lambda message: float(message.data), delay=0, max_ahead=None)

    def key(self, message: Message[int]) -> str:
        return "one"

    def initial(self) -> int:
        return 0

    def add(self, acc: int, message: Message[int]) -> int:
        return acc + message.data


async def test_results_of_windows_begin_a_trace_also_if_the_program_is_in_a_span(traces: Traces) -> None:
    class Shop(Traced):
        state = "memory"

        async def handle_message(self, message: Message[Any]) -> None:
            message.batcher = "sums"

    out = MemoryPublisher()
    with trace.get_tracer("user").start_as_current_span("main"):
        pipeline = Shop(producer=MemoryProducer([1, 2]), aggregators={"sums": Sums(emit_to=out)})
        await finish(pipeline)

    spans = traces.spans()
    send = spans.one("send")
    assert (send.parent, send.attributes["messaging.system"]) == ("", "memory")
    assert parents_in([dict(message.trace_headers) for message in out.messages]) == [parent_of(send)]
