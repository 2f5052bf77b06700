"""The span of a call that publishes messages, behind the port of :mod:`broadway_py.tracing`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from opentelemetry import trace
from opentelemetry.context.context import Context

from broadway_py.foreign import foreign_errors
from broadway_py.message import Message
from broadway_py.otel.carrying import headers_of
from broadway_py.otel.message_trace import span_context, trace_of
from broadway_py.otel.spans import error_type_of, mark_failed, note_fault, tell_id
from broadway_py.publisher import Outgoing
from broadway_py.tracing import Sending

__all__ = ["Sent"]


class Sent(Sending):
    """The span of one call.

    Args:
        span: the span, which has begun.
        context: the context with *span* in it.
        fields: the names of the headers that tell a trace.
        is_alone: True: the call has one message.
    """

    __slots__ = ("_context", "_fields", "_headers", "_is_alone", "_span", "_trace_id")

    def __init__(self, span: trace.Span, context: Context, fields: frozenset[str], *, is_alone: bool) -> None:
        self._span = span
        self._context = context
        self._fields = fields
        self._is_alone = is_alone
        self._trace_id = span.get_span_context().trace_id
        # Those of the messages that go on in the trace of this span. They are the same for all.
        self._headers: Mapping[str, str] | None = None

    def carry(self, message: Outgoing, origin: object = None) -> Outgoing:
        """Returns a copy of *message* with the headers of its trace.

        That is the trace of this span. If *origin* is a message of another trace, as in a batch of several traces, it
        is that one, and this span gets a link to it.
        """
        try:
            if not self._fields.isdisjoint(message.headers):
                return message
            if self._is_alone and message.message_id is not None:
                tell_id(self._span, message.message_id)
            return replace(message, trace_headers=self._headers_for(origin))
        except foreign_errors() as error:
            note_fault(error)
            return message

    def _headers_for(self, origin: object) -> Mapping[str, str]:
        of_origin = trace_of(origin) if isinstance(origin, Message) else None
        if of_origin is not None:
            its_span = span_context(of_origin.current)
            if its_span.is_valid and its_span.trace_id != self._trace_id:
                self._span.add_link(its_span)
                return headers_of(of_origin.current)
        if self._headers is None:
            self._headers = headers_of(self._context)
        return self._headers

    def end(self, error: BaseException | None) -> None:
        """Ends the span."""
        try:
            if error is not None:
                mark_failed(self._span, error_type_of(error))
            self._span.end()
        except foreign_errors() as fault:
            note_fault(fault)
