"""What is kept with a message of its trace, from its arrival to its end."""

from __future__ import annotations

from typing import Any

from opentelemetry import trace
from opentelemetry.context.context import Context

from broadway_py.message import Message, Spawned
from broadway_py.trace_place import TracePlace

__all__ = ["MessageTrace", "span_context", "trace_of"]


class MessageTrace:
    """What is kept with a message: where it comes from, and its contexts."""

    __slots__ = ("came", "current", "place", "received")

    def __init__(self, came: Context, place: TracePlace, received: trace.SpanContext | None) -> None:
        #: The context that came with the message. Each attempt begins from it.
        self.came = came
        #: The context of the last span of the message.
        self.current = came
        self.place = place
        #: The span of the list with which it came in.
        self.received = received


def trace_of(message: Message[Any]) -> MessageTrace | None:
    """Returns what is kept with *message*, or with the message that it was spawned from; None: nothing is."""
    found: MessageTrace | None = getattr(message, "_trace", None)
    if found is None and isinstance(data := message._acknowledgement.data, Spawned):
        return trace_of(data.parent)
    return found


def span_context(context: Context) -> trace.SpanContext:
    """Returns the span that is the current one in *context*. It is not valid if there is none."""
    return trace.get_current_span(context).get_span_context()
