"""The waits between two connects, as the settings have them."""

from __future__ import annotations

from typing import Final

from broadway_py._core.backoff import Backoff, BackoffKind

__all__ = ["Waits"]

#: Seconds. Without any wait at all, an absent broker would be knocked at, and a log line written, hundreds of times a
#: second; and what begins at 0 does not grow by doubling.
_SHORTEST_S: Final = 0.05


class Waits(Backoff):
    """A :class:`Backoff` that waits for a moment even where it was told to begin, or to end, at 0."""

    def __init__(self, first_s: float, most_s: float, kind: BackoffKind) -> None:
        super().__init__(max(first_s, _SHORTEST_S), max(most_s, _SHORTEST_S), kind=kind)

    def failed(self, lasted_s: float = 0.0, at_least_s: float = 0.0) -> float:
        """As that of :class:`Backoff`."""
        return max(_SHORTEST_S, super().failed(lasted_s, at_least_s))
