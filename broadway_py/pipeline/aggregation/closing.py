"""An operator's wish to close windows. It stands in what an aggregator has stored, and comes true with the next start.

The next checkpoint has the results of the closed windows, and the wish no more. Until then it comes true again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from broadway_py.errors import OptionsError

__all__ = ["asked_to_close", "with_wish"]

_WISH: Final = "close"


def with_wish(memory: bytes, before: int | None) -> bytes:
    """Returns the stored *memory* of an aggregator with the wish to close windows. It replaces a former wish.

    Args:
        memory: what the last checkpoint stored.
        before: only windows that end then or earlier, in microseconds since 1970; None: all.

    Raises:
        OptionsError: such windows cannot be closed, or have no end.
    """
    stored = json.loads(memory)
    kind = stored["engine"]["shape"].partition("(")[0]
    if kind == "periodic":
        raise OptionsError((), "periodic windows close by the clock; nothing was changed")
    if kind == "global":
        raise OptionsError((), "the global window closes only when all sources have ended; nothing was changed")
    if kind == "count" and before is not None:
        raise OptionsError(("--before",), "windows of count have no end: leave it out; nothing was changed")
    stored[_WISH] = {"before": before}
    return json.dumps(stored, separators=(",", ":")).encode()


def asked_to_close(memory: Mapping[str, Any]) -> tuple[bool, int | None]:
    """Returns whether *memory* has a wish to close windows, and before which end; None: all of them."""
    wish = memory.get(_WISH)
    return (False, None) if wish is None else (True, wish["before"])
