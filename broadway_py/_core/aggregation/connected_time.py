"""Measures how long all sources together have been able to bring messages."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

__all__ = ["ConnectedTime"]


class ConnectedTime:
    """Counts the seconds during which every source was connected and was asked for messages.

    A message that a source delivers again comes while the source is connected. So what is kept for such a message is
    kept by this time: it does not grow while a broker, or this program, is down.

    Args:
        sources: what can be connected: one name for each copy of each producer. All of them are disconnected at first.
        seconds: what was counted before, for example before a restart.
    """

    def __init__(self, sources: Iterable[Hashable], seconds: float = 0.0) -> None:
        self._away = set(sources)
        self._counted = seconds
        self._since: float | None = None

    def connected(self, source: Hashable, now: float) -> None:
        """Notes that *source* brings messages from *now* on, by a clock that does not jump. It may be told twice."""
        self._away.discard(source)
        if not self._away and self._since is None:
            self._since = now

    def disconnected(self, source: Hashable, now: float) -> None:
        """Notes that *source* brings no messages: it is lost, paused, or held back. It may be told twice."""
        self._counted = self.seconds(now)
        self._since = None
        self._away.add(source)

    def ended(self, source: Hashable, now: float) -> None:
        """Notes that *source* will never bring a message again. From now on it does not matter."""
        self.connected(source, now)

    def seconds(self, now: float) -> float:
        """Returns the seconds that were counted until *now*."""
        return self._counted if self._since is None else self._counted + max(0.0, now - self._since)
