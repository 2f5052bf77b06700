"""The window that lasts until the end of the input, without triggers. It needs no engine."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from broadway_py._core.window.firing import Firing
from broadway_py.flow.frames import Fired, Frame
from broadway_py.flow.work.panes import Pane, Panes
from broadway_py.flow.work.stage_windows import StageWindows

__all__ = ["GlobalWindow"]


class GlobalWindow(StageWindows):
    """Puts each list into the only pane, which fires at the end.

    Args:
        panes: work on the elements.
        index: of the stage.
        is_gathered: the firing is for a stage that gathers.
    """

    def __init__(self, panes: Panes, index: int, *, is_gathered: bool) -> None:
        super().__init__()
        self.is_async = panes.is_async
        self._panes = panes
        self._index = index
        self._is_gathered = is_gathered
        self._pane = Pane()
        self._count = 0

    @property
    def opened(self) -> int:
        """How many windows were opened."""
        return 1

    async def start(self, now: float) -> None:
        """Opens the window."""
        self._pane = await self._panes.opened()

    @property
    def is_direct(self) -> bool:
        """True if lists may be given to :meth:`feed_directly`."""
        return self._panes.is_direct

    def feed_directly(self, elements: list[Any], out: list[Any]) -> None:
        """Works on a list without a coroutine."""
        self._count += len(elements)
        self._panes.add_directly(self._pane, elements, out)

    def feed(self, frame: Frame, now: float, wall: float | None, out: list[Any]) -> Coroutine[Any, Any, None]:
        """Returns a coroutine that works on a list."""
        elements = frame.elements
        self._count += len(elements)
        if self._panes.joins:
            elements = [(frame.side, element) for element in elements]
        return self._panes.add((self._pane,), elements, out)

    async def end(self, now: float, out: list[Any]) -> None:
        """Lets the window fire, also if nothing has come in."""
        self.closed = 1
        if not self._panes.fires:
            return
        firing = Firing("global", None, None, None, None, "done", 1, final=True, count=self._count)
        emitted = await self._panes.fire(self._pane, firing, out)
        if self._is_gathered:
            out.append(Fired(self._index, "0", None, firing, emitted))
        else:
            out += emitted
