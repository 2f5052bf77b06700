"""Puts the ids of the current span into lines of the log."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from opentelemetry import trace

__all__ = ["add_ids"]


def add_ids(event: MutableMapping[str, Any]) -> None:
    """Adds ``trace_id`` and ``span_id`` to *event*, if there is a current span."""
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        event.setdefault("trace_id", trace.format_trace_id(span.trace_id))
        event.setdefault("span_id", trace.format_span_id(span.span_id))
