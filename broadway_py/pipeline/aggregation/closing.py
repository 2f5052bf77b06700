"""Which windows an operator can close."""

from __future__ import annotations

import json

from broadway_py.errors import OptionsError

__all__ = ["refuse_close"]


def refuse_close(memory: bytes, before: int | None) -> None:
    """Refuses to close windows of a kind that does not allow it.

    Args:
        memory: what the last checkpoint of the aggregator stored.
        before: only windows that end then or earlier, in microseconds since 1970; None: all.

    Raises:
        OptionsError: such windows cannot be closed, or have no end.
    """
    kind = json.loads(memory)["engine"]["shape"].partition("(")[0]
    if kind == "periodic":
        raise OptionsError((), "periodic windows close by the clock; nothing was changed")
    if kind == "count" and before is not None:
        raise OptionsError(("--before",), "windows of count have no end: leave it out; nothing was changed")
