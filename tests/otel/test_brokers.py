"""Traces through the sources: how a context comes in, and that retries and dead letters carry it on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from broadway_py import Batcher, BatchInfo, FailurePolicy, Message, SQSSink
from broadway_py.producers import MemoryProducer, QueueProducer, RabbitMQPublisher, SQSProducer, SQSPublisher
from broadway_py.publisher import Outgoing
from broadway_py.queue import Queue
from tests.integration.failing_pipelines import dead_letters, source
from tests.otel.pipelines import Traced, inner
from tests.pipeline.support import logged
from tests.support.collector import Spans
from tests.support.localstack import REGION, SQS
from tests.support.rabbitmq import RabbitMQ
from tests.support.traces import PARENT, SPAN, TRACE, Traces

#: The second attempt comes soon.
QUICK = FailurePolicy(attempts=2, backoff=(0.1, 0.1), breaker=None)


class Stopping(Traced):
    """Raises for ``"bad"``, and at the first attempt for ``"again"``. Stops once so many messages have ended."""

    failure: FailurePolicy | None = QUICK
    context = 1

    async def handle_message(self, message: Message[Any]) -> None:
        await super().handle_message(message)
        if message.data == b"bad" or (message.data == b"again" and message.attempt == 1):
            if message.data == b"bad" and message.attempt == 2:
                self.request_stop()
            raise ValueError("a secret")
        self.request_stop()


async def run(traces: Traces, pipeline: Traced) -> Spans:
    async with asyncio.timeout(60), pipeline:
        await pipeline.wait()
    return traces.spans()


# --- RabbitMQ ---------------------------------------------------------------------------------------------------------


@pytest.mark.integration
@pytest.mark.any_broker
async def test_rabbitmq_headers_carry_the_trace_through_a_retry(traces: Traces, rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    headers = {"traceparent": PARENT, "baggage": "tenant=blue"}
    await rabbitmq.publish([b"again"], headers=headers, message_id="m-1")

    spans = await run(traces, Stopping(producer=source(rabbitmq)))

    first, second = spans.named("process work")
    assert [span.parent for span in (first, second)] == [SPAN, SPAN]
    assert [span.is_error for span in (first, second)] == [True, False]
    assert [span.attributes["broadway.message.attempt"] for span in (first, second)] == [1, 2]
    assert first.attributes["messaging.system"] == "rabbitmq"
    assert first.attributes["messaging.message.id"] == "m-1"
    assert spans.one("retry work").parent == first.id
    assert [span.attributes["baggage.tenant"] for span in spans.named("inner")] == ["blue", "blue"]
    assert {span.links for span in spans.named("receive work")} == {((TRACE, SPAN),)}


@pytest.mark.integration
@pytest.mark.any_broker
async def test_dead_letters_of_rabbitmq_carry_the_trace_on(traces: Traces, rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await rabbitmq.publish([b"bad"], headers={"traceparent": PARENT, "tracestate": "a=b"})

    spans = await run(traces, Stopping(producer=source(rabbitmq)))

    (letter,) = await dead_letters(rabbitmq)
    assert (letter.headers["traceparent"], letter.headers["tracestate"]) == (PARENT, "a=b")
    assert spans.of_trace(TRACE).above(spans.one("dead_letter work")) == ["process work"]


@pytest.mark.integration
@pytest.mark.any_broker
@pytest.mark.parametrize(
    "headers", [{}, {"traceparent": "nonsense"}, {"traceparent": bytearray(b"\xff")}, {"traceparent": [1]}]
)
async def test_a_message_of_rabbitmq_without_a_valid_context_begins_a_trace(
    traces: Traces, rabbitmq: RabbitMQ, headers: dict[str, Any]
) -> None:
    await rabbitmq.declare()
    await rabbitmq.publish([b"a"], headers=headers)

    spans = await run(traces, Stopping(producer=source(rabbitmq)))

    assert spans.one("process work").parent == ""


@pytest.mark.integration
@pytest.mark.any_broker
async def test_messages_of_rabbitmq_that_are_acked_when_sent_have_spans_too(traces: Traces, rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await rabbitmq.publish([b"a"], headers={"traceparent": PARENT})

    spans = await run(traces, Stopping(producer=source(rabbitmq, consume_options={"no_ack": True}), failure=None))

    assert spans.one("process work").parent == SPAN


# --- SQS --------------------------------------------------------------------------------------------------------------


def text(value: str) -> dict[str, str]:
    return {"DataType": "String", "StringValue": value}


@pytest.mark.integration
async def test_message_attributes_of_sqs_carry_the_trace_through_a_retry(traces: Traces, sqs: SQS) -> None:
    queue = await sqs.queue("work")
    attributes = {"traceparent": text(PARENT), "baggage": text("tenant=blue"), "other": text("o")}
    await queue.send(["again"], MessageAttributes=attributes)

    spans = await run(traces, Stopping(producer=SQSProducer(queue.url, REGION, sqs.endpoint, wait_time_seconds=1)))

    first, second = spans.named(f"process {queue.name}")
    assert [span.parent for span in (first, second)] == [SPAN, SPAN]
    assert first.attributes["messaging.system"] == "aws_sqs"
    assert spans.one(f"retry {queue.name}").parent == first.id
    assert [span.attributes["baggage.tenant"] for span in spans.named("inner")] == ["blue", "blue"]


@pytest.mark.integration
async def test_dead_letters_of_sqs_carry_the_trace_on(traces: Traces, sqs: SQS) -> None:
    queue, dead = await sqs.queue("work"), await sqs.queue("dead")
    await queue.send(["bad"], MessageAttributes={"traceparent": text(PARENT)})
    producer = SQSProducer(queue.url, REGION, sqs.endpoint, wait_time_seconds=1, dead_letter_queue=dead.url)

    spans = await run(traces, Stopping(producer=producer))

    (letter,) = await dead.take()
    assert letter["MessageAttributes"]["traceparent"]["StringValue"] == PARENT
    assert spans.of_trace(TRACE).above(spans.one(f"dead_letter {queue.name}")) == [f"process {queue.name}"]


FULL = {"traceparent": PARENT, "tracestate": "a=b", "baggage": "tenant=blue"}


@pytest.mark.integration
@pytest.mark.parametrize(
    ("headers", "carried"),
    [
        (7, {"traceparent", "tracestate", "baggage"}),
        (8, {"traceparent", "tracestate"}),
        (9, {"traceparent"}),
        (10, set()),
    ],
)
async def test_a_message_for_sqs_without_room_for_ten_attributes_goes_without_its_trace(
    sqs: SQS, caplog: pytest.LogCaptureFixture, headers: int, carried: set[str]
) -> None:
    queue = await sqs.queue("out")
    publisher = SQSSink(queue.url, REGION, sqs.endpoint).create("a test")
    own = {f"h{number}": "v" for number in range(headers)}

    await publisher.publish([Outgoing(data=b"x", headers=own, trace_headers=FULL)], timeout=30.0)
    await publisher.publish([Outgoing(data=b"y", headers=own, trace_headers=FULL)], timeout=30.0)
    await publisher.close()

    for message in [*await queue.take(1), *await queue.take(1)]:
        assert set(message["MessageAttributes"]) == {*own, *carried}
    lines = [line for line in logged(caplog) if "trace" in line["event"]]
    assert [line["messages"] for line in lines] == ([] if headers == 7 else [1])  # the second within the same minute


@pytest.mark.integration
async def test_a_message_for_sqs_that_is_too_long_with_its_trace_goes_without(sqs: SQS) -> None:
    queue = await sqs.queue("out", MaximumMessageSize="1024")
    publisher = SQSSink(queue.url, REGION, sqs.endpoint).create("a test")
    large = Outgoing(data=b"x" * 1_000, trace_headers=FULL)

    await publisher.publish([large, Outgoing(data=b"y", trace_headers=FULL)], timeout=30.0)
    await publisher.close()

    came = {message["Body"][0]: set(message.get("MessageAttributes", {})) for message in await queue.take()}
    assert came == {"x": set(), "y": set(FULL)}


# --- all of it --------------------------------------------------------------------------------------------------------


class Shipping(Traced):
    """Fails at the first attempt. Publishes what is in its batches."""

    name = "shipping"
    failure: FailurePolicy | None = QUICK
    batchers = {"default": Batcher(batch_size=1)}  # noqa: RUF012  # never changed

    async def handle_message(self, message: Message[Any]) -> None:
        inner("stock")
        if message.attempt == 1:
            raise ConnectionError("a secret")

    async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        await self.publishers["out"].publish_many(messages)
        self.request_stop()


@pytest.mark.integration
@pytest.mark.any_broker
@pytest.mark.delivery_path("fast")
async def test_one_trace_leads_from_a_publisher_through_rabbitmq_a_retry_and_a_batch_to_sqs(
    traces: Traces, rabbitmq: RabbitMQ, sqs: SQS
) -> None:
    await rabbitmq.declare("orders")
    invoices = await sqs.queue("invoices")

    class Shop(Traced):
        async def handle_message(self, message: Message[Any]) -> None:
            await self.publishers["orders"].publish(message.data, message_id="order-1")

    web = MemoryProducer([Message("an order", {"baggage": "tenant=blue"})], name="web")
    to_orders = RabbitMQPublisher(rabbitmq.url, queue="orders")
    await run(traces, Shop(producer=web, publishers={"orders": to_orders}))
    to_invoices = SQSPublisher(invoices.url, REGION, sqs.endpoint)
    await run(traces, Shipping(producer=source(rabbitmq, "orders"), publishers={"out": to_invoices}))
    from_invoices = SQSProducer(invoices.url, REGION, sqs.endpoint, wait_time_seconds=1)
    spans = await run(traces, Stopping(producer=from_invoices))

    whole = spans.of_trace(spans.one("process web").trace)
    assert sorted(span.name for span in whole) == sorted(
        [
            *("process web", "send orders"),
            *("process orders", "stock", "retry orders"),
            *("process orders", "stock", "process_batch orders", f"send {invoices.name}"),
            *(f"process {invoices.name}", "inner"),
        ]
    )
    assert whole.above(whole.one("inner")) == [
        f"process {invoices.name}",
        f"send {invoices.name}",
        "process_batch orders",
        "process orders",
        "send orders",
        "process web",
    ]
    assert whole.above(whole.one("retry orders")) == ["process orders", "send orders", "process web"]
    assert whole.one("inner").attributes == {"baggage.tenant": "blue"}
    assert [span.name for span in whole if span.is_error] == ["process orders"]
    assert "secret" not in repr(spans)


# --- the embedded queue -----------------------------------------------------------------------------------------------


async def test_metadata_of_the_embedded_queue_carry_the_trace_through_a_retry_to_the_dead_letters(
    traces: Traces, tmp_path: Path
) -> None:
    path = tmp_path / "queue.db"
    async with Queue(path, "work") as queue:
        await queue.put(b"bad", {"traceparent": PARENT})

        spans = await run(traces, Stopping(producer=QueueProducer(path, "work")))

        (letter,) = await queue.dead_letters()
    assert letter.metadata["traceparent"] == PARENT
    first, second = spans.named("process work")
    assert [span.parent for span in (first, second)] == [SPAN, SPAN]
    assert first.attributes["messaging.system"] == "broadway_queue"
    assert spans.one("retry work").parent == first.id
    assert spans.one("dead_letter work").parent == second.id


async def test_what_the_embedded_queue_itself_does_with_a_failed_message_is_named(
    traces: Traces, tmp_path: Path
) -> None:
    path = tmp_path / "queue.db"
    async with Queue(path, "work") as queue:
        await queue.put(b"bad")

        spans = await run(traces, Once(producer=QueueProducer(path, "work"), failure=None))

    assert spans.above(spans.one("dead_letter work")) == ["process work"]


class Once(Stopping):
    """Stops after the first message."""

    async def handle_message(self, message: Message[Any]) -> None:
        self.request_stop()
        raise ValueError
