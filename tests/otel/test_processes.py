"""Worker processes go on with the spans of their messages and batches."""

from __future__ import annotations

import asyncio

from broadway_py import FailurePolicy, Message
from broadway_py.producers import MemoryProducer
from tests.otel.pipelines import TracedFar
from tests.support.traces import PARENT, SPAN, TRACE, Traces


async def test_what_a_worker_process_begins_is_a_child_of_the_span_of_its_message_or_batch(traces: Traces) -> None:
    messages = [Message(data, {"traceparent": PARENT, "baggage": "tenant=blue"}) for data in ("a", "raise", "b")]
    pipeline = TracedFar(
        producer=MemoryProducer(messages, name="shop"), context=traces.collector.endpoint, failure=FailurePolicy()
    )

    async with asyncio.timeout(60), pipeline:
        await pipeline.wait()

    spans = traces.spans()
    handled, batch = spans.named("process shop"), spans.one("process_batch shop")
    far = [span for span in spans if span.service == "worker"]
    assert sorted(span.parent for span in far) == sorted([*(span.id for span in handled), batch.id])
    assert {span.trace for span in far} == {TRACE}
    assert {span.attributes["baggage.tenant"] for span in far} == {"blue"}
    assert [span.parent for span in handled] == [SPAN] * 3
    assert [span.attributes.get("error.type") for span in handled] == [None, "ValueError", None]


async def test_what_never_gets_to_the_worker_process_has_a_span_that_ends(traces: Traces) -> None:
    messages = [Message(data, {"traceparent": PARENT}) for data in ("a", lambda: None)]
    pipeline = TracedFar(
        producer=MemoryProducer(messages, name="shop"), context=traces.collector.endpoint, failure=FailurePolicy()
    )

    async with asyncio.timeout(60), pipeline:
        await pipeline.wait()

    handled = traces.spans().named("process shop")
    assert sorted(str(span.attributes.get("broadway.failure.cause")) for span in handled) == ["None", "raised"]
