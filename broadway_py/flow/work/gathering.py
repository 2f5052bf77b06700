"""One stage behind many: it merges what their windows emit, and completes a window when all of them have passed it."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from broadway_py._core.window.firing import MISSING, Firing
from broadway_py.flow.description.layers import Layer
from broadway_py.flow.description.operators import Departition, Reduction
from broadway_py.flow.frames import Fired, Passed
from broadway_py.flow.work.calls import UserFunction, combining, function_label
from broadway_py.flow.work.emitter import Emitter

__all__ = ["AccumulatorGatherer", "DepartitionGatherer", "Gathered", "Gatherer"]


class Gathered:
    """What is known of a window that some stages have not passed."""

    __slots__ = ("counts", "firing", "kept", "merged", "number", "serial", "until", "window")

    def __init__(self, fired: Fired, serial: int) -> None:
        self.window = fired.window
        self.until = fired.until
        #: Counts the windows in the order in which they came.
        self.serial = serial
        #: The last firing, and that with which a stage has closed the window if there is one.
        self.firing = fired.firing
        #: How many elements are in the window, by stage.
        self.counts: dict[int, int] = {}
        #: What was merged; MISSING: nothing was.
        self.merged: Any = MISSING
        #: What was emitted and not merged: that of sessions, which may still become one.
        self.kept: list[Any] = []
        #: How often the window has fired here.
        self.number = 0

    def note(self, fired: Fired) -> None:
        """Notes one more firing."""
        self.until = fired.until
        self.counts[fired.partition] = fired.firing.count
        if fired.firing.final or not self.firing.final:
            self.firing = fired.firing

    def next_firing(self, *, final: bool) -> Firing:
        """Returns the next firing of all stages together."""
        self.number += 1
        count = sum(self.counts.values())
        trigger = self.firing.trigger if not final or self.firing.final else "done"
        return replace(self.firing, trigger=trigger, number=self.number, final=final, count=count)


class Gatherer:
    """Decides when windows are complete.

    A window of event time is complete when the watermark of each stage has passed its end; a count window or a periodic
    one when each stage has closed it or a later one; a session when its only stage has closed it; the global window at
    the end. A stage that has ended holds nothing back.

    Args:
        partitions: how many stages there are.
    """

    def __init__(self, partitions: int) -> None:
        # Up to where the windows of each stage have passed; None: none has.
        self._lines: dict[int, int | None] = dict.fromkeys(range(partitions))
        self._windows: dict[str, Gathered] = {}
        self._due: list[tuple[int, int, Gathered]] = []
        self._line: int | None = None
        self._serial = 0

    async def feed(self, elements: list[Any], out: list[Any]) -> None:
        """Takes what stages have emitted. *out* gets what is emitted."""
        for element in elements:
            if type(element) is Fired:
                await self._note(element, out)
            elif type(element) is Passed:
                self._lines[element.partition] = element.until
                await self._complete_due(out)
            else:
                out.append(element)  # it stands for a late one, and is in no window

    async def partition_ended(self, partition: int, out: list[Any]) -> None:
        """Notes that a stage has ended."""
        self._lines.pop(partition, None)
        await self._complete_due(out)

    async def end(self, out: list[Any]) -> None:
        """Completes the windows that are left, because all stages have ended."""
        self._lines.clear()
        await self._complete_due(out)

    async def merge(self, gathered: Gathered, fired: Fired, out: list[Any]) -> None:
        """Merges what a stage has emitted for a window."""
        raise NotImplementedError

    async def absorb(self, gathered: Gathered, absorbed: Gathered) -> None:
        """Merges what was emitted for a session that went into another one."""
        raise NotImplementedError

    async def complete(self, gathered: Gathered, out: list[Any]) -> None:
        """Emits the result of a window."""
        raise NotImplementedError

    async def _note(self, fired: Fired, out: list[Any]) -> None:
        gathered = self._windows.get(fired.window)
        if gathered is None:
            gathered = self._windows[fired.window] = Gathered(fired, self._serial)
            self._serial += 1
            if fired.until is not None and fired.firing.kind != "session":
                heapq.heappush(self._due, (fired.until, gathered.serial, gathered))
        for other in fired.replaces:
            if (absorbed := self._windows.pop(other, None)) is not None:
                await self.absorb(gathered, absorbed)
        gathered.note(fired)
        await self.merge(gathered, fired, out)
        if fired.firing.kind == "session" and fired.firing.final:
            del self._windows[fired.window]
            await self.complete(gathered, out)

    async def _complete_due(self, out: list[Any]) -> None:
        lines = self._lines.values()
        if not lines:
            left = sorted(self._windows.values(), key=lambda each: (each.until is None, each.until, each.serial))
            self._windows.clear()
            self._due.clear()
            for gathered in left:
                await self.complete(gathered, out)
            return
        if None in lines:
            return
        self._line = min(line for line in lines if line is not None)
        while self._due and self._due[0][0] <= self._line:
            gathered = heapq.heappop(self._due)[-1]
            del self._windows[gathered.window]
            await self.complete(gathered, out)


class DepartitionGatherer(Gatherer):
    """Merges what windows emit, with the functions of the user.

    Args:
        departition: what the user has described.
        partitions: how many stages there are.
    """

    def __init__(self, departition: Departition, partitions: int) -> None:
        super().__init__(partitions)
        self._init, self._merge, self._done = (
            UserFunction(_label(departition, name, fn), fn)
            for name, fn in (("init", departition.init), ("merge", departition.merge), ("done", departition.done))
        )
        self._takes = departition.takes
        self.is_async = self._init.is_async or self._merge.is_async or self._done.is_async

    async def merge(self, gathered: Gathered, fired: Fired, out: list[Any]) -> None:
        """Merges each element that a stage has emitted for a window."""
        if fired.firing.kind == "session":
            gathered.kept += fired.elements
        else:
            await self._merge_all(gathered, fired.elements)

    async def absorb(self, gathered: Gathered, absorbed: Gathered) -> None:
        """Puts what was emitted for the earlier session first."""
        gathered.kept[:0] = absorbed.kept

    async def complete(self, gathered: Gathered, out: list[Any]) -> None:
        """Emits what ``done`` returns."""
        await self._merge_all(gathered, gathered.kept)
        arguments = (gathered.merged, gathered.next_firing(final=True))[: self._takes]
        out.append(await self._done(*arguments))

    async def _merge_all(self, gathered: Gathered, elements: Any) -> None:
        if gathered.merged is MISSING:
            gathered.merged = await self._init()
        for element in elements:
            gathered.merged = await self._merge(gathered.merged, element)


class AccumulatorGatherer(Gatherer):
    """Combines the accumulators of windows, and emits what the windows give.

    Each time a stage's window fires, it sends the accumulator of what came since. So the window fires here, too.

    Args:
        layer: its reduction has ``combine``; the emission is of it.
        partitions: how many stages there are.
        index: of this stage.
        is_gathered: the firings are for another stage that gathers.
    """

    def __init__(self, layer: Layer, partitions: int, index: int, *, is_gathered: bool) -> None:
        super().__init__(partitions)
        reduction = layer.reduction
        if not isinstance(reduction, Reduction) or reduction.combine is None:
            raise TypeError("a gatherer of accumulators needs a reduction with combine")
        self._combine = combining(reduction)
        self._emitter = Emitter(reduction, layer.emission, index, gives_accumulators=is_gathered)
        self._index = index
        self._is_gathered = is_gathered
        self._passed: int | None = None
        self.is_async = self._combine.is_async or self._emitter.is_async

    async def feed(self, elements: list[Any], out: list[Any]) -> None:
        """Takes what stages have emitted. *out* gets what is emitted."""
        await super().feed(elements, out)
        self._note_passed(out)

    async def partition_ended(self, partition: int, out: list[Any]) -> None:
        """Notes that a stage has ended."""
        await super().partition_ended(partition, out)
        self._note_passed(out)

    def _note_passed(self, out: list[Any]) -> None:
        if self._is_gathered and self._line is not None and self._line != self._passed:
            self._passed = self._line
            out.append(Passed(self._index, self._line))

    async def merge(self, gathered: Gathered, fired: Fired, out: list[Any]) -> None:
        """Combines the accumulator of a stage with those of the others. The window fires if it stays open there."""
        for accumulator in fired.elements:
            if gathered.merged is MISSING:
                gathered.merged = accumulator
            else:
                gathered.merged = await self._combine(gathered.merged, accumulator)
        if not fired.firing.final:
            await self._fire(gathered, out, final=False)

    async def absorb(self, gathered: Gathered, absorbed: Gathered) -> None:
        """Combines the accumulators of two sessions."""
        if gathered.merged is MISSING:
            gathered.merged = absorbed.merged
        else:
            gathered.merged = await self._combine(absorbed.merged, gathered.merged)

    async def complete(self, gathered: Gathered, out: list[Any]) -> None:
        """Lets the window fire for the last time."""
        await self._fire(gathered, out, final=True)

    async def _fire(self, gathered: Gathered, out: list[Any], *, final: bool) -> None:
        firing = gathered.next_firing(final=final)
        emitted, gathered.merged = await self._emitter.fire(gathered.merged, firing)
        if self._is_gathered:
            out.append(Fired(self._index, gathered.window, gathered.until, firing, emitted))
        else:
            out += emitted


def _label(departition: Departition, argument: str, fn: Callable[..., Any]) -> str:
    """Returns what names a function of a departition in errors. Those of ``take_sort`` are not of the user."""
    if departition.kind != "departition":
        return departition.label
    return function_label(f"{departition.kind} {departition.number}, {argument}", fn)
