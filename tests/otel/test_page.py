"""The page docs/tracing.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace

from broadway_py import Message, Pipeline
from broadway_py.otel import attributes
from broadway_py.producers import MemoryProducer
from tests.pipeline.support import finish
from tests.support.collector import Collector
from tests.support.traces import TRACE

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "tracing.md").read_text()


def block(with_word: str) -> str:
    """The only block of Python on the page that has *with_word*."""
    (found,) = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if with_word in block]
    return str(found)


def test_the_page_names_every_attribute_of_our_own() -> None:
    ours = {value for value in vars(attributes).values() if isinstance(value, str) and value.startswith("broadway.")}

    assert ours == set(re.findall(r"`(broadway\.[a-z_.]+)`", PAGE))
    assert attributes.SCHEMA_URL.rpartition("/")[2] in PAGE


async def test_setup_as_the_page_has_it_exports_spans(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", collector.endpoint)
    shown: dict[str, Any] = {"Pipeline": Pipeline, "Order": int}
    exec(block("def setup"), shown)  # noqa: S102  # our own page
    # A process has one provider, and that of the tests is set.
    monkeypatch.setattr(trace, "set_tracer_provider", lambda _: None)
    base: Any = shown["Orders"]

    class Orders(base):  # type: ignore[misc]  # it is known when the page was run
        async def handle_message(self, message: Message[int]) -> None:
            with self.provider.get_tracer("user").start_as_current_span("on the page"):
                pass

    collector.forget()
    await finish(Orders(producer=MemoryProducer([1])))

    assert [span.name for span in collector.spans] == ["on the page"]


def test_the_processor_of_the_page_adds_the_ids_of_the_current_span() -> None:
    shown: dict[str, Any] = {}
    exec(block("def add_ids"), shown)  # noqa: S102  # as above
    here = trace.SpanContext(int(TRACE, 16), 7, is_remote=False)

    assert shown["add_ids"](None, "", {}) == {}
    with trace.use_span(trace.NonRecordingSpan(here)):
        assert shown["add_ids"](None, "", {}) == {"trace_id": TRACE, "span_id": f"{7:016x}"}
