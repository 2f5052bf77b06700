"""The collector, and the SDK that exports to it."""

from __future__ import annotations

from tests.support.traces import collector, traces

__all__ = ["collector", "traces"]
