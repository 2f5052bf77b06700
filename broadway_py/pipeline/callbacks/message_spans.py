"""Tells of the handling of single messages: to telemetry handlers, and to the tracer of the pipeline if it has one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from broadway_py import telemetry
from broadway_py.message import Failed, Message
from broadway_py.telemetry import Span, end_message_span, message_listeners
from broadway_py.tracing import HandlingSpan, Tracer

__all__ = ["MessageSpans", "TracedMessageSpans"]

BeginSpan = Callable[[Message[Any]], Span | None]


class MessageSpans:
    """Tells telemetry handlers. A runner asks before each chunk, so it costs nothing while nobody listens.

    Args:
        begin_span: tells telemetry that the handling of a message begins.
    """

    def __init__(self, begin_span: BeginSpan) -> None:
        self._begin_span = begin_span

    #: Returns True if the chunk runs in contexts of its own, because context variables may be set from outside.
    needs_contexts: Callable[[], bool] = staticmethod(telemetry.active)
    #: Returns True if messages are told of.
    are_wanted: Callable[[], bool] = staticmethod(message_listeners)

    def begin(self, message: Message[Any]) -> Any:
        """Tell that ``handle_message`` begins. Returns what :meth:`end` takes.

        Call it in the context of the callback, in which it may set variables.
        """
        return self._begin_span(message)

    def end(self, span: Any, message: Message[Any], failure: Failed | None, *, is_cut: bool = False) -> None:
        """Tell that ``handle_message`` has ended.

        *failure* is what it has made of the message. With *is_cut*, the drain has cut it off.
        """
        if span is not None:
            end_message_span(span, message, failure)

    def leave(self, span: Any, failure: Failed | None) -> None:
        """Tell that nobody waits any longer for ``handle_message``, which may still run in its thread.

        *failure* says why; None: the drain has cut it off.
        """

    def send_away(self, messages: Sequence[Message[Any]]) -> Sequence[Mapping[str, str]]:
        """Returns the headers by which a worker process goes on with the span of each message. Empty: there are none.

        For messages that a worker process handles, call it before their :meth:`begin_away`.
        """
        return ()

    def begin_away(self, message: Message[Any]) -> Any:
        """Works as :meth:`begin`, for a message that begins in a worker process."""
        return self._begin_span(message) if message_listeners() else None

    def end_away(self, span: Any, message: Message[Any]) -> None:
        """Works as :meth:`end`, for a message that has ended in a worker process, or before it got there."""
        self.end(span, message, message._status)

    def finish_away(self, messages: Sequence[Message[Any]]) -> None:
        """Tell that the call of :meth:`send_away` is over. Some of its *messages* may have no end yet."""


class TracedMessageSpans(MessageSpans):
    """Tells the tracer, too: each message has a span, in which its callback runs.

    Args:
        begin_span: tells telemetry that the handling of a message begins.
        tracer: makes the spans.
    """

    needs_contexts = staticmethod(lambda: True)
    are_wanted = staticmethod(lambda: True)

    def __init__(self, begin_span: BeginSpan, tracer: Tracer) -> None:
        super().__init__(begin_span)
        self._tracer = tracer
        # Of the messages in the worker process, by id().
        self._away: dict[int, HandlingSpan] = {}

    def begin(self, message: Message[Any]) -> Any:
        """Begin the span of *message* and enter it."""
        handling = self._tracer.handle(message)
        handling.enter()
        return handling, self._begin_span(message) if message_listeners() else None

    def end(self, span: Any, message: Message[Any], failure: Failed | None, *, is_cut: bool = False) -> None:
        """End the span of *message*."""
        if span is None:
            return
        handling: HandlingSpan
        handling, told = span
        super().end(told, message, failure)
        handling.end(() if failure is None else (failure,), is_cut=is_cut)

    def leave(self, span: Any, failure: Failed | None) -> None:
        """End the span. The thread does not return in time, and may never do."""
        if span is not None:
            span[0].end(() if failure is None else (failure,), is_cut=failure is None)

    def send_away(self, messages: Sequence[Message[Any]]) -> Sequence[Mapping[str, str]]:
        """Begin the span of each message: a worker process needs it before it begins with the message."""
        self._away = {id(message): self._tracer.handle(message) for message in messages}
        return [handling.headers() for handling in self._away.values()]

    def end_away(self, span: Any, message: Message[Any]) -> None:
        """End the span of *message*."""
        if span is not None:
            end_message_span(span, message, message._status)
        handling = self._away.pop(id(message), None)
        if handling is not None:
            handling.end(() if message._status is None else (message._status,))

    def finish_away(self, messages: Sequence[Message[Any]]) -> None:
        """End the spans that have not ended: of messages that never got there, were cut off, or were taken back."""
        for message in messages:
            handling = self._away.pop(id(message), None)
            if handling is not None:
                failure = message._status
                handling.end(() if failure is None else (failure,), is_cut=failure is None)
