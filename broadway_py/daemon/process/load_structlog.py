"""Imports structlog for a daemon, without what only its pictures of tracebacks need."""

from __future__ import annotations

import sys
from typing import Final

__all__ = ["load_structlog"]

#: structlog imports it, if it is installed, to draw tracebacks. The daemon's log has plain ones.
_RICH: Final = "rich"


def load_structlog() -> None:
    """Imports structlog as if rich were not installed: that takes a tenth less processor time to start a process.

    Whoever needs rich itself can import it afterwards. A process that has imported it before keeps it.
    """
    if _RICH not in sys.modules:
        sys.modules[_RICH] = None  # type: ignore[assignment]  # this makes the import fail, as Python documents
        try:
            import structlog  # noqa: F401, PLC0415  # only here is rich hidden
        finally:
            del sys.modules[_RICH]
