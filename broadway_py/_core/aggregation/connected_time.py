"""Measures the time in which every source could have delivered a message again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["ConnectedTime"]


class ConnectedTime:
    """Counts seconds, but never faster than any source has been reading.

    A message that a source delivers again comes while the source is read. So what is kept for such messages is kept by
    this time: it stands still while a broker, or this program, is down.

    Args:
        seconds: what was counted before, for example before a restart.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._read: Mapping[Any, float] = {}

    def advance(self, read: Mapping[Any, float]) -> float:
        """Returns the seconds so far.

        Args:
            read: for how many seconds each source has been read until now. Leave out sources that have ended.
        """
        # A source that was read for less of the time since the last call limits all others.
        self._seconds += min(
            (seconds - self._read.get(source, seconds) for source, seconds in read.items()), default=0.0
        )
        self._read = dict(read)
        return self._seconds
