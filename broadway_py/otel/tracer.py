"""Makes the spans of a pipeline with OpenTelemetry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context.context import Context
from opentelemetry.util.types import AttributeValue

from broadway_py.error_text import clipped
from broadway_py.foreign import foreign_errors
from broadway_py.log import carry_fields
from broadway_py.message import BatchInfo, Message
from broadway_py.otel import attributes as names
from broadway_py.otel.carrying import EMPTY, context_of, field_names
from broadway_py.otel.log_fields import add_ids
from broadway_py.otel.message_trace import MessageTrace, span_context, trace_of
from broadway_py.otel.sending import Sent
from broadway_py.otel.spans import Handling, Settling, note_fault
from broadway_py.trace_place import TracePlace, TraceSource
from broadway_py.tracing import HandlingSpan, Sending, SettlingSpan, Tracer

__all__ = ["OpenTelemetryTracer"]

_LONGEST_ID: Final = 200
_MOST_PLACES: Final = 1_000
#: The place of messages that were submitted, and of those that no producer has brought.
_NOWHERE: Final = TracePlace("broadway_py", None)


class OpenTelemetryTracer(Tracer):
    """Makes spans by the semantic conventions for messaging.

    Errors in what the program has given to OpenTelemetry (samplers, propagators, span processors) are logged. The
    messages are handled all the same.

    Args:
        pipeline: the pipeline's name.
    """

    def __init__(self, pipeline: str) -> None:
        self._pipeline = pipeline
        self._tracer = trace.get_tracer("broadway_py", schema_url=names.SCHEMA_URL)
        self.fields = field_names()
        # The name and the attributes of the spans of messages, by where they come from.
        self._of_messages: dict[TracePlace, tuple[str, Mapping[str, AttributeValue]]] = {}
        carry_fields(add_ids)

    def submit(self, messages: Sequence[Message[Any]]) -> None:
        """Lets *messages* go on from the current span of the caller."""
        current = contexts.get_current()
        for message in messages:
            message._trace = MessageTrace(current, _NOWHERE, None)

    def receive(self, messages: Sequence[Message[Any]], source: TraceSource, *, spanned: bool) -> None:
        """Reads the contexts that came with *messages*. With *spanned*, makes a span with links to them."""
        traces = [self._arrived(message, source) for message in messages]
        if not spanned or not traces:
            return
        try:
            place = _common_place(traces)
            span = self._tracer.start_span(
                _named("receive", place),
                EMPTY,
                trace.SpanKind.CLIENT,
                {**self._about("receive", "receive", place), names.MESSAGE_COUNT: len(traces)},
                _links(one.came for one in traces),
            )
            received = span.get_span_context()
            span.end()
        except foreign_errors() as error:
            note_fault(error)
            return
        if received.is_valid:
            for one in traces:
                one.received = received

    def _arrived(self, message: Message[Any], source: TraceSource) -> MessageTrace:
        known = trace_of(message)
        if known is not None:
            return known  # it was submitted
        try:
            place = source.place_of(message)
        except foreign_errors():
            place = _NOWHERE
        try:
            came = context_of(source.headers_of(message, self.fields), self.fields)
        except foreign_errors():
            came = EMPTY  # the metadata does not decode, for example; the message itself will say so
        message._trace = made = MessageTrace(came, place, None)
        return made

    def handle(self, message: Message[Any]) -> HandlingSpan:
        """Begins the span of ``handle_message``. Its parent is the span that has sent the message."""
        of_message = trace_of(message) or MessageTrace(EMPTY, _NOWHERE, None)
        links = [] if of_message.received is None else [trace.Link(of_message.received)]
        # Not made anew for each message.
        kind = self._of_messages.get(of_message.place)
        if kind is None:
            kind = _named("process", of_message.place), self._about("process", "process", of_message.place)
            if len(self._of_messages) < _MOST_PLACES:
                self._of_messages[of_message.place] = kind
        name, attributes = kind
        span = self._begun(name, of_message.came, trace.SpanKind.CONSUMER, attributes, links)
        if span.is_recording():
            _tell_message(span, message)
        of_message.current = trace.set_span_in_context(span, of_message.came)
        return Handling(span, of_message.current, 1)

    def handle_batch(self, messages: Sequence[Message[Any]], info: BatchInfo) -> HandlingSpan:
        """Begins the span of ``handle_batch``.

        Its parent is the span of the first message if all messages are of one trace. Else it begins a trace.
        """
        traces = [of_message for message in messages if (of_message := trace_of(message)) is not None]
        place = _common_place(traces)
        attributes = self._about("process_batch", "process", place)
        attributes[names.MESSAGE_COUNT] = len(messages)
        attributes[names.BATCHER] = info.batcher
        attributes[names.BATCH_TRIGGER] = info.trigger
        parent = traces[0].current if len(traces) == len(messages) and _is_one_trace(traces) else EMPTY
        links = _links(of_message.current for of_message in traces)
        span = self._begun(_named("process_batch", place), parent, trace.SpanKind.CONSUMER, attributes, links)
        return Handling(span, trace.set_span_in_context(span, parent), len(messages))

    def settle(self, messages: Sequence[Message[Any]], operation: str, delays_s: Mapping[int, float]) -> SettlingSpan:
        """Begins a span for each of *messages*, as a child of the span in which it was handled last."""
        spans: list[trace.Span] = []
        for message in messages:
            of_message = trace_of(message) or MessageTrace(EMPTY, _NOWHERE, None)
            attributes = self._about(operation, "settle", of_message.place)
            if message._status is not None:
                attributes[names.CAUSE] = message._status.cause
            if (delay_s := delays_s.get(id(message))) is not None and operation == "retry":
                attributes[names.DELAY_S] = delay_s
            name = _named(operation, of_message.place)
            span = self._begun(name, of_message.current, trace.SpanKind.CLIENT, attributes, ())
            if span.is_recording():
                _tell_message(span, message)
            spans.append(span)
        return Settling(spans)

    def send(self, place: TracePlace, count: int, *, begins_trace: bool = False) -> Sending:
        """Begins the span of a call that publishes *count* messages."""
        current = EMPTY if begins_trace else contexts.get_current()
        attributes = self._about("send", "send", place)
        if count != 1:
            attributes[names.MESSAGE_COUNT] = count
        span = self._begun(_named("send", place), current, trace.SpanKind.PRODUCER, attributes, ())
        return Sent(span, trace.set_span_in_context(span, current), self.fields, is_alone=count == 1)

    def _begun(
        self,
        name: str,
        parent: Context,
        kind: trace.SpanKind,
        attributes: Mapping[str, AttributeValue],
        links: Sequence[trace.Link],
    ) -> trace.Span:
        try:
            return self._tracer.start_span(name, parent, kind, attributes, links)
        except foreign_errors() as error:
            note_fault(error)
            # What begins in it is a child of the parent.
            return trace.NonRecordingSpan(span_context(parent))

    def _about(self, operation: str, kind: str, place: TracePlace) -> dict[str, AttributeValue]:
        attributes: dict[str, AttributeValue] = {
            names.SYSTEM: place.system,
            names.OPERATION_NAME: operation,
            names.OPERATION_TYPE: kind,
            names.PIPELINE: self._pipeline,
        }
        if place.destination is not None:
            attributes[names.DESTINATION] = place.destination
        return attributes


def _named(operation: str, place: TracePlace) -> str:
    return operation if place.destination is None else f"{operation} {place.destination}"


def _tell_message(span: trace.Span, message: Message[Any]) -> None:
    # Only if somebody gets to see it: a message of RabbitMQ is decoded for that.
    try:
        attributes: dict[str, AttributeValue] = {names.BODY_SIZE: message._size}
        if (message_id := message.id) is not None:
            attributes[names.MESSAGE_ID] = clipped(message_id, _LONGEST_ID)
        if type(message.attempt) is int:
            attributes[names.ATTEMPT] = message.attempt
        span.set_attributes(attributes)
    except foreign_errors():
        return  # a handler has deleted the attribute, or put an object of its own there


def _common_place(traces: Sequence[MessageTrace]) -> TracePlace:
    """Returns where all come from; without the destination if they come from several."""
    places = {one.place for one in traces}
    if len(places) == 1:
        return places.pop()
    systems = {place.system for place in places}
    return TracePlace(systems.pop(), None) if len(systems) == 1 else _NOWHERE


def _links(of: Iterable[Context]) -> list[trace.Link]:
    """Returns a link to the span of each context that has one, each span once."""
    spans = {span.span_id: span for span in map(span_context, of) if span.is_valid}
    return [trace.Link(span) for span in spans.values()]


def _is_one_trace(traces: Sequence[MessageTrace]) -> bool:
    ids = {span_context(one.current).trace_id for one in traces}
    return len(ids) == 1 and ids != {0}
