"""Describes in words how a process ended."""

from __future__ import annotations

import signal

__all__ = ["exit_text"]


def exit_text(code: int) -> str:
    """Returns how a process with exit *code* ended, such as ``"killed by SIGABRT"`` or ``"exit code 3"``."""
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    return f"exit code {code}"
