"""The spans of handlers and of settlements, behind the port of :mod:`broadway_py.tracing`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context.context import Context

from broadway_py.error_text import clipped, name_of
from broadway_py.foreign import foreign_errors
from broadway_py.log import logger
from broadway_py.message import Failed
from broadway_py.otel import attributes as names
from broadway_py.otel.carrying import headers_of
from broadway_py.tracing import HandlingSpan, SettlingSpan

__all__ = ["Handling", "Settling", "error_type_of", "mark_failed", "note_fault", "tell_id"]

log = logger("broadway_py.tracing")

#: What the end of a call that the drain has cut off is called as an error.
_CUT: Final = "stopped"
_LONGEST: Final = 200


def note_fault(error: BaseException) -> None:
    """Logs that code which the program has given to OpenTelemetry raised *error*. The messages go on without a span."""
    log.warning("tracing raised an error; the messages are handled all the same", exception=name_of(error))


def error_type_of(error: BaseException) -> str:
    """Returns the full name of the type of *error*. Its text is not shown: it may quote the message."""
    kind = type(error)
    module = kind.__module__
    name = kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
    return clipped(name, _LONGEST)


def mark_failed(span: trace.Span, error_type: str) -> None:
    """Sets the status of *span*."""
    span.set_attribute(names.ERROR_TYPE, error_type)
    span.set_status(trace.StatusCode.ERROR)


def tell_id(span: trace.Span, message_id: str) -> None:
    """Sets the id of the message of *span*."""
    span.set_attribute(names.MESSAGE_ID, clipped(message_id, _LONGEST))


def _type_of(failure: Failed) -> str:
    return str(failure.cause) if failure.exception is None else error_type_of(failure.exception)


class Handling(HandlingSpan):
    """The span of a call of the user's code.

    Args:
        span: the span, which has begun.
        context: the context with *span* in it.
        of: how many messages the call has.
    """

    __slots__ = ("_has_ended", "_of", "_span", "context")

    def __init__(self, span: trace.Span, context: Context, of: int) -> None:
        self.context = context
        self._span = span
        self._of = of
        self._has_ended = False

    def enter(self) -> None:
        """Makes it the current span of the context in which this is called."""
        contexts.attach(self.context)

    def headers(self) -> Mapping[str, str]:
        """Returns the headers by which another process can go on with it."""
        try:
            return headers_of(self.context)
        except foreign_errors() as error:
            note_fault(error)
            return {}

    def end(self, failures: Sequence[Failed], *, is_cut: bool = False) -> None:
        """Ends it. It has failed if all of its messages have."""
        if self._has_ended:
            return
        # Before the rest: the loop ends it if a thread does not return in time, and then the thread may return.
        self._has_ended = True
        try:
            if is_cut:
                mark_failed(self._span, _CUT)
            elif failures:
                if self._of > 1:
                    self._span.set_attribute(names.FAILED_COUNT, len(failures))
                if len(failures) >= self._of:
                    self._span.set_attribute(names.CAUSE, failures[0].cause)
                    mark_failed(self._span, _type_of(failures[0]))
            self._span.end()
        except foreign_errors() as error:
            note_fault(error)


class Settling(SettlingSpan):
    """The spans of failed messages that are being settled.

    Args:
        spans: the spans, which have begun.
    """

    __slots__ = ("_spans",)

    def __init__(self, spans: Sequence[trace.Span]) -> None:
        self._spans = spans

    def end(self, error: BaseException | None) -> None:
        """Ends them."""
        try:
            for span in self._spans:
                if error is not None:
                    mark_failed(span, error_type_of(error))
                span.end()
        except foreign_errors() as fault:
            note_fault(fault)
