"""The first half of a reduction by key with ``combine``: accumulators are combined before they travel."""

from __future__ import annotations

from typing import Any, Final

from broadway_py.flow.frames import Frame
from broadway_py.flow.work.panes import Pane, Panes
from broadway_py.flow.work.stage_windows import StageWindows

__all__ = ["KeyCombiner"]

#: The accumulators of so many keys are kept before they are sent to the stages that own the keys.
_MOST_KEYS: Final = 100_000


class KeyCombiner(StageWindows):
    """Keeps an accumulator for each key, and emits pairs of a key and an accumulator: at the end, or when it has many.

    If that saves nothing, because it has more than half as many keys as elements, it emits the pairs of each list at
    once. It looks again with each list.

    Args:
        panes: work on the elements.
        most_keys: of how many keys it keeps accumulators.
    """

    def __init__(self, panes: Panes, most_keys: int = _MOST_KEYS) -> None:
        super().__init__()
        self.is_async = panes.is_async
        self._panes = panes
        self._most_keys = most_keys
        self._pane = Pane()
        self._reduced = 0
        self._saves = True

    async def start(self, now: float) -> None:
        """Begins with no keys."""
        self._pane = await self._panes.opened()

    async def feed(self, frame: Frame, now: float, wall: float | None, out: list[Any]) -> None:
        """Works on a list."""
        elements: list[Any] = frame.elements
        if self._panes.joins:
            elements = [(frame.side, element) for element in elements]
        await self._panes.add((self._pane,), elements, out)
        keys = len(self._pane.accumulator)
        if keys >= self._most_keys or (keys and not self._saves):
            reduced = self._panes.reduced - self._reduced
            self._reduced = self._panes.reduced
            self._saves = keys * 2 <= reduced
            self._send(out)

    async def end(self, now: float, out: list[Any]) -> None:
        """Emits the pairs that are left."""
        await self._panes.add_unmatched(self._pane, out)
        self._send(out)

    def _send(self, out: list[Any]) -> None:
        out += self._pane.accumulator.items()
        self._pane.accumulator = {}
