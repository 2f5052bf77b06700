"""Goes on with spans in a worker process: the span itself stays in the parent."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from broadway_py.log import carry_fields
from broadway_py.otel.carrying import enter_headers
from broadway_py.otel.log_fields import add_ids

__all__ = ["new_entry"]


def new_entry() -> Callable[[Mapping[str, str]], None]:
    """Returns what makes the span with given headers the current one, as parent of what begins here."""
    carry_fields(add_ids)
    return enter_headers
