"""OpenTelemetry's SDK for tests. A process has one for its whole life, so its sampler and processor are exchanged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, Sampler, SamplingResult

from tests.support.collector import Collector, Spans, running_collector

__all__ = ["PARENT", "SPAN", "TRACE", "Traces", "provider_for"]

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
#: A ``traceparent`` as a publisher sends it: the trace is sampled.
PARENT = f"00-{TRACE}-{SPAN}-01"


def provider_for(collector_endpoint: str, service: str) -> TracerProvider:
    """A provider that exports to the collector, as a program of a user sets one up."""
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=collector_endpoint)))
    return provider


class _Sampler(Sampler):
    current: Sampler = DEFAULT_ON

    def should_sample(self, *arguments: Any, **more: Any) -> SamplingResult:
        return self.current.should_sample(*arguments, **more)

    def get_description(self) -> str:
        return "the one of the test"


class _Processor(SpanProcessor):
    current: SpanProcessor | None = None

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if self.current is not None:
            self.current.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        if self.current is not None:
            self.current.on_end(span)


class _Sdk:
    """The SDK of this process."""

    def __init__(self) -> None:
        self.sampler, self.processor = _Sampler(), _Processor()
        provider = TracerProvider(self.sampler, Resource.create({"service.name": "tests"}))
        provider.add_span_processor(self.processor)
        trace.set_tracer_provider(provider)


_made: list[_Sdk] = []


def _sdk() -> _Sdk:
    if not _made:
        _made.append(_Sdk())
    return _made[0]


class Traces:
    """What a test exports, and the sampler that decides on it."""

    def __init__(self, collector: Collector, processor: BatchSpanProcessor) -> None:
        self.collector = collector
        self._processor = processor

    def spans(self) -> Spans:
        """Returns all spans that have ended."""
        assert self._processor.force_flush()
        return self.collector.spans

    @contextmanager
    def sampled_by(self, sampler: Sampler) -> Iterator[None]:
        """Lets *sampler* decide which spans are kept."""
        _sdk().sampler.current = sampler
        try:
            yield
        finally:
            _sdk().sampler.current = DEFAULT_ON

    @contextmanager
    def processed_by(self, processor: SpanProcessor) -> Iterator[None]:
        """Gives the spans to *processor* alone."""
        mine, _sdk().processor.current = _sdk().processor.current, processor
        try:
            yield
        finally:
            _sdk().processor.current = mine


def names(spans: Sequence[Any]) -> list[str]:
    """Returns the names of *spans*."""
    return [span.name for span in spans]


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """A collector that runs for the whole session."""
    with running_collector() as collector:
        yield collector


@pytest.fixture
def traces(collector: Collector) -> Iterator[Traces]:
    """Exports the spans of this test to the collector."""
    collector.forget()
    processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=collector.endpoint))
    _sdk().processor.current = processor
    try:
        yield Traces(collector, processor)
    finally:
        _sdk().processor.current = None
        processor.shutdown()  # type: ignore[no-untyped-call]  # the SDK has not typed it
