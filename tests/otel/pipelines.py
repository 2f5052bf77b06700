"""Pipelines with tracing. Worker processes import this module."""

from __future__ import annotations

from typing import Any

from opentelemetry import baggage, trace

from broadway_py import Batcher, BatchInfo, FailurePolicy, Message, Pipeline, Processors
from tests.support.traces import provider_for

__all__ = ["Base", "Traced", "TracedFar", "TracedThread", "inner"]


def inner(name: str = "inner") -> None:
    """Make a span, as an instrumented client that the handler uses makes one."""
    with trace.get_tracer("user").start_as_current_span(name) as span:
        for key, value in baggage.get_all().items():
            span.set_attribute(f"baggage.{key}", str(value))


def do(data: Any) -> None:
    """Make a span, and do what *data* says."""
    inner()
    if data == "raise":
        raise ValueError("a secret of the payload")


class Base(Pipeline[Any]):
    """What the pipelines here have in common."""

    name = "orders"
    tracing = True
    processors = Processors(concurrency=1, max_demand=10, min_demand=0)
    failure: FailurePolicy | None = None


class Traced(Base):
    """The handler makes a span; ``"raise"`` raises, ``"fail"`` is marked as failed."""

    async def handle_message(self, message: Message[Any]) -> None:
        do(message.data)
        if message.data == "fail":
            message.fail("a secret")

    async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        inner("inner of the batch")
        if messages[0].data == "raise in the batch":
            raise OSError("a secret of the batch")


class TracedThread(Base):
    """The same with plain functions, which run in threads."""

    def handle_message(self, message: Message[Any]) -> None:
        do(message.data)

    def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        inner("inner of the batch")


class TracedFar(Base):
    """The same in worker processes; ``context`` is the address of the collector."""

    processors = Processors(concurrency=1, max_demand=10, min_demand=0, executor="process")
    batchers = {"default": Batcher(batch_size=2, executor="process")}  # noqa: RUF012  # never changed

    def setup_worker(self) -> None:
        provider = provider_for(self.context, "worker")
        trace.set_tracer_provider(provider)
        self.provider = provider

    def handle_message(self, message: Message[Any]) -> None:
        do(message.data)
        self.provider.force_flush()

    def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        inner("inner of the batch")
        self.provider.force_flush()
