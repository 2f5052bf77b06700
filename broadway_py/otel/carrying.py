"""Carries contexts in headers: reads them from what came, and writes them for what goes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from opentelemetry import context as contexts
from opentelemetry import propagate
from opentelemetry.context.context import Context

__all__ = ["EMPTY", "context_of", "enter_headers", "field_names", "headers_of"]

#: A context with nothing in it. What came without headers has it, whatever is current here.
EMPTY: Final = Context()


def field_names() -> frozenset[str]:
    """Returns the names of the headers that the global propagator writes: ``traceparent``, … by default."""
    return frozenset(propagate.get_global_textmap().fields)


def context_of(headers: Mapping[str, Any], fields: frozenset[str]) -> Context:
    """Returns the context that *headers* carry in *fields*. Headers that are not valid carry none."""
    carrier: dict[str, str] = {}
    for name in fields:
        value = headers.get(name)
        if isinstance(value, str):
            carrier[name] = value
        elif isinstance(value, bytes | bytearray):
            # Some clients of AMQP write texts as bytes.
            carrier[name] = value.decode("ascii", "replace")
    return propagate.extract(carrier, EMPTY) if carrier else EMPTY


def headers_of(context: Context) -> dict[str, str]:
    """Returns the headers that carry *context*. Empty if there is no trace and no baggage in it."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier, context)
    return carrier


def enter_headers(headers: Mapping[str, str]) -> None:
    """Makes the context that *headers* carry the current one of this thread or task."""
    contexts.attach(propagate.extract(headers, EMPTY))
