"""What the windows of a stage have in common, whatever kind they are."""

from __future__ import annotations

from typing import Any

from broadway_py.flow.frames import Frame

__all__ = ["StageWindows"]


class StageWindows:
    """The windows of a stage, and what goes into them. *out* always gets what is emitted.

    This one has none: it emits what comes in. Others override what they need.
    """

    #: True if a function of the user is ``async def``.
    is_async = False

    def __init__(self) -> None:
        #: How many windows were closed.
        self.closed = 0

    @property
    def opened(self) -> int:
        """How many windows were opened. Sessions that became one count as one."""
        return 0

    @property
    def late(self) -> int:
        """How many elements were late."""
        return 0

    @property
    def ahead(self) -> int:
        """How many elements lay too far ahead of the wall clock."""
        return 0

    async def start(self, now: float) -> None:
        """Begins. Timers run from *now*."""

    async def feed(self, frame: Frame, now: float, wall: float | None, out: list[Any]) -> None:
        """Works on a list."""
        out += frame.elements

    async def tick(self, now: float, out: list[Any]) -> None:
        """Does what is due by the clock."""

    async def pause(self, now: float, out: list[Any]) -> None:
        """Notes that no source is asked from now on. This time makes none of them idle."""

    async def resume(self, now: float, out: list[Any]) -> None:
        """Notes that the sources are asked again."""

    async def source_ended(self, source: int, now: float, out: list[Any]) -> None:
        """Notes that nothing more comes from *source*. It does not hold windows back any more."""

    async def end(self, now: float, out: list[Any]) -> None:
        """Lets the windows fire that are left, because the input has ended."""

    def next_timer(self) -> float | None:
        """Returns when :meth:`tick` has something to do next, by the clock; None: it waits for something else."""
        return None
