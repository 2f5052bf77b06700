"""The spans of failed messages when their source is told."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import pytest

from broadway_py import FailurePolicy, Message, Reject, SettleError
from tests.otel.pipelines import Traced
from tests.pipeline.support import ManualProducer, Recorder, running, soon
from tests.support.collector import Spans
from tests.support.traces import PARENT, TRACE, Traces


class Retrying(Recorder):
    """Takes retries and dead letters, too. *fault* is raised by them."""

    abilities = Recorder.abilities | {"retry", "dead_letter"}

    def __init__(self, fault: Exception | None = None) -> None:
        super().__init__()
        self.trouble = fault

    async def retry(self, ref: Hashable, messages_and_delays: Sequence[tuple[Message[Any], float]]) -> None:
        if self.trouble is not None:
            raise self.trouble

    async def dead_letter(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        if self.trouble is not None:
            raise self.trouble


async def spans_of(traces: Traces, acknowledger: Retrying, *data: Any, attempts: int) -> Spans:
    producer = ManualProducer(*(acknowledger.message(each, traceparent=PARENT) for each in data))
    policy = FailurePolicy(attempts=attempts, backoff=(2.0, 2.0), breaker=None)
    pipeline = Traced(producer=producer, failure=policy)
    async with running(pipeline):
        producer.feed.end()
        await soon(pipeline.wait())
    return traces.spans()


async def test_a_retry_is_a_span_below_that_of_the_attempt(traces: Traces) -> None:
    spans = await spans_of(traces, Retrying(), "raise", "a", attempts=5)

    retry = spans.one("retry manual")
    assert (retry.trace, retry.kind, retry.is_error) == (TRACE, "CLIENT", False)
    assert retry.parent == next(span.id for span in spans.named("process manual") if span.is_error)
    assert retry.attributes["messaging.operation.type"] == "settle"
    assert retry.attributes["broadway.failure.cause"] == "raised"
    delay_s = retry.attributes["broadway.retry.delay"]
    assert isinstance(delay_s, float)
    assert 0.0 <= delay_s <= 2.0


async def test_a_dead_letter_is_a_span_below_that_of_the_attempt(traces: Traces) -> None:
    spans = await spans_of(traces, Retrying(), "raise", attempts=1)

    letter = spans.one("dead_letter manual")
    assert spans.above(letter) == ["process manual"]
    assert "broadway.retry.delay" not in letter.attributes


@pytest.mark.parametrize("attempts", [1, 5])
async def test_a_settlement_that_fails_is_an_error_with_the_type_alone(traces: Traces, attempts: int) -> None:
    spans = await spans_of(traces, Retrying(SettleError("a secret", unsettled=())), "raise", attempts=attempts)

    span = spans.one("dead_letter manual" if attempts == 1 else "retry manual")
    assert (span.is_error, span.attributes["error.type"]) == (True, "broadway_py.errors.SettleError")
    assert "secret" not in repr(spans)


async def test_messages_that_succeed_have_no_span_of_their_settlement(traces: Traces) -> None:
    spans = await spans_of(traces, Retrying(), "a", "b", attempts=1)

    assert {span.name for span in spans} == {"receive manual", "process manual", "inner"}


async def test_what_the_source_itself_decides_is_a_span_too(traces: Traces) -> None:
    recorder = Recorder()
    producer = ManualProducer(recorder.message("raise"))
    pipeline = Traced(producer=producer, failure=None)
    async with running(pipeline):
        producer.feed.end()
        await soon(pipeline.wait())

    assert traces.spans().one("reject manual").attributes["broadway.failure.cause"] == "raised"


def test_the_error_of_a_handler_has_its_full_name() -> None:
    from broadway_py.otel.spans import error_type_of  # noqa: PLC0415

    assert error_type_of(Reject("no")) == "broadway_py.errors.Reject"
    assert error_type_of(ValueError("no")) == "ValueError"
