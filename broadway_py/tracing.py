"""The port for traces: what a pipeline tells of its messages, so that each has a span.

A pipeline with ``tracing=True`` uses it, and :mod:`broadway_py.otel` implements it with OpenTelemetry. Without tracing
there is no tracer, and nothing here is called.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

from broadway_py.message import BatchInfo, Failed, Message
from broadway_py.publisher import Outgoing
from broadway_py.trace_place import TracePlace, TraceSource

__all__ = ["HandlingSpan", "Sending", "SettlingSpan", "Tracer"]


class HandlingSpan(abc.ABC):
    """The span of one call of ``handle_message`` or ``handle_batch``. No method raises."""

    @abc.abstractmethod
    def enter(self) -> None:
        """Makes it the current span of the context in which this is called. What begins there is its child."""

    @abc.abstractmethod
    def headers(self) -> Mapping[str, str]:
        """Returns the headers by which another process can go on with it."""

    @abc.abstractmethod
    def end(self, failures: Sequence[Failed], *, is_cut: bool = False) -> None:
        """Ends it. A second call does nothing.

        Args:
            failures: the statuses of the messages that failed.
            is_cut: True: the drain has cut the call off, so it has no result.
        """


class SettlingSpan(abc.ABC):
    """The spans of failed messages while their source is told. No method raises."""

    @abc.abstractmethod
    def end(self, error: BaseException | None) -> None:
        """Ends them. *error* is what the acknowledger raised."""


class Sending(abc.ABC):
    """The span of one call that publishes messages. No method raises."""

    @abc.abstractmethod
    def carry(self, message: Outgoing, origin: object = None) -> Outgoing:
        """Returns a copy of *message* that carries the trace on (:attr:`Outgoing.trace_headers`).

        If it has headers of a trace already, they stay as they are.

        Args:
            message: what is published.
            origin: what it was made from. If that is a message of a pipeline, it goes on in the trace of that message.
        """

    @abc.abstractmethod
    def end(self, error: BaseException | None) -> None:
        """Ends the span. *error* is what the call raised."""


class Tracer(abc.ABC):
    """Makes the spans of one pipeline. It is made after ``setup``. No method raises."""

    #: The names of the headers that say which trace a message belongs to.
    fields: frozenset[str]

    @abc.abstractmethod
    def submit(self, messages: Sequence[Message[Any]]) -> None:
        """Notes that the caller submits *messages*: their traces go on from its current span."""

    @abc.abstractmethod
    def receive(self, messages: Sequence[Message[Any]], source: TraceSource, *, spanned: bool) -> None:
        """Notes that *messages* came in together. With *spanned*, the list gets a span of its own."""

    @abc.abstractmethod
    def handle(self, message: Message[Any]) -> HandlingSpan:
        """Begins the span of ``handle_message`` for *message*."""

    @abc.abstractmethod
    def handle_batch(self, messages: Sequence[Message[Any]], info: BatchInfo) -> HandlingSpan:
        """Begins the span of ``handle_batch`` for *messages*, with links to those of the messages."""

    @abc.abstractmethod
    def settle(self, messages: Sequence[Message[Any]], operation: str, delays_s: Mapping[int, float]) -> SettlingSpan:
        """Begins a span for each of *messages*, which failed.

        Args:
            messages: the messages.
            operation: what their source is told, such as ``retry``.
            delays_s: the seconds until a retry, by the ``id()`` of the message.
        """

    @abc.abstractmethod
    def send(self, place: TracePlace, count: int, *, begins_trace: bool = False) -> Sending:
        """Begins a span around the publishing of *count* messages to *place*.

        It is a child of the current span. With *begins_trace* it is not.
        """
