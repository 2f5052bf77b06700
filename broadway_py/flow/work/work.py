"""One copy of a layer as a plain state machine: frames go in, and frames come out.

A :class:`Work` has no loop, no task and no clock. Where a function of the user is ``async def``, its methods return
coroutines instead of frames; so the caller writes ::

    frames = work.feed(frame, now, wall)
    if not isinstance(frames, list):
        frames = await frames

The order of calls: ``start``, then ``feed``, ``tick``, ``pause``, ``resume``, ``source_ended`` and ``partition_ended``
as they come, and at last ``end``. There is one call at a time. Frames of a source come in the order of its numbers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from broadway_py.flow.description.layers import Layer
from broadway_py.flow.description.operators import KeyedReduction, Reduction
from broadway_py.flow.description.settings import OnError
from broadway_py.flow.frames import Frame, Origin
from broadway_py.flow.operator_errors import OperatorErrors
from broadway_py.flow.work.after import After
from broadway_py.flow.work.calls import UserFunction, finished, function_label
from broadway_py.flow.work.combiner import KeyCombiner
from broadway_py.flow.work.emitter import Batch
from broadway_py.flow.work.global_window import GlobalWindow
from broadway_py.flow.work.layer_functions import LayerFunctions, Part
from broadway_py.flow.work.panes import Panes
from broadway_py.flow.work.stage_windows import StageWindows

if TYPE_CHECKING:
    from broadway_py.flow.work.gathering import Gatherer

__all__ = ["Reply", "Work"]

Reply = list[Frame] | Coroutine[Any, Any, list[Frame]]


class Work:
    """The work of one stage.

    Args:
        layer: what the stage does.
        index: of the stage in its layer.
        copies: how many stages the layer has.
        part: ``whole``, unless the reduction of the layer has a ``combine`` and two layers of stages share the work:
            the first one is ``partial``, and the second one, which has the same description, is ``merged``. Of a
            reduction by key, the first one sends pairs (key, accumulator), and its window is the whole input. Of
            another reduction, the second one gathers.
        is_gathered: the next stage gathers: elements of frames are :class:`~broadway_py.flow.frames.Fired` and
            :class:`~broadway_py.flow.frames.Passed`.
        on_error: what happens when a function fails on an element. Functions that do not work on one element, such as
            that of ``on_trigger``, always end the flow.
        sources: what the ``origin`` of frames names as sources. Windows of event time wait for each of them until it
            has ended. Empty: the lists that come in are those of one source.
        partitions: if this stage gathers: how many stages it gathers from.
        number: what this stage is called as a source. Then its frames are numbered from 0, and empty ones are left out.
            None: each frame that comes in gives one frame of the same origin; if it has none, an empty one is left out.
        functions: those of the layer, of the same *part* and *on_error*, if it has several stages; None: they are made
            here.

    Raises:
        OperatorError: by each method with a reply: a function of the user has raised. The work is over then.
    """

    def __init__(
        self,
        layer: Layer,
        *,
        index: int = 0,
        copies: int = 1,
        part: Part = "whole",
        is_gathered: bool = False,
        on_error: OnError = "raise",
        sources: Sequence[int] = (),
        partitions: int = 1,
        number: int | None = None,
        functions: LayerFunctions | None = None,
    ) -> None:
        self.errors = OperatorErrors(on_error)
        functions = functions or LayerFunctions(layer, part, on_error)
        #: How many elements have come in and gone out.
        self.taken = 0
        self.given = 0
        on_init, label = layer.on_init, function_label(f"{layer.label}, on_init", layer.on_init)
        self._on_init = None if on_init is None else UserFunction(label, on_init)
        self._place = index, copies
        self._number = number
        self._frames_given = 0
        #: The wall clock, as it was with the last list.
        self._wall: float | None = None
        self._batches = tuple(Batch(each, self.errors) for each in layer.mappers if each.kind == "map_batch")
        self._gatherer: Gatherer | None = None
        self._windows = StageWindows()
        if part == "merged" and isinstance(layer.reduction, Reduction):
            # What few flows have is loaded here: so worker processes start faster.
            from broadway_py.flow.work.gathering import AccumulatorGatherer  # noqa: PLC0415

            self._gatherer = AccumulatorGatherer(layer, partitions, index, is_gathered=is_gathered)
        else:
            if layer.departition is not None and part != "merged":
                from broadway_py.flow.work.gathering import DepartitionGatherer  # noqa: PLC0415  # as above

                self._gatherer = DepartitionGatherer(layer.departition, partitions)
            panes = Panes(layer, functions, index, self.errors, part=part, is_gathered=is_gathered)
            if part == "partial" and isinstance(layer.reduction, KeyedReduction):
                self._windows = KeyCombiner(panes)
            elif layer.is_windowed:
                from broadway_py.flow.work.windows import EngineWindows  # noqa: PLC0415  # as above

                self._windows = EngineWindows(
                    layer, panes, index, self.errors, sources=sources, is_gathered=is_gathered
                )
            else:
                self._windows = GlobalWindow(panes, index, is_gathered=is_gathered)
        self._after = After(functions.after, self.errors) if functions.after else None
        parts = (self._on_init, *self._batches, self._gatherer, self._windows, self._after)
        #: True if the methods return coroutines.
        self.is_async = any(each is not None and each.is_async for each in parts)
        #: Takes lists without a coroutine, if nothing else is to be done.
        self._direct: GlobalWindow | None = None
        has_more = self.is_async or self._gatherer is not None or self._batches or self._after is not None
        if isinstance(self._windows, GlobalWindow) and self._windows.is_direct and not has_more:
            self._direct = self._windows

    @property
    def late(self) -> int:
        """How many elements were late."""
        return self._windows.late

    @property
    def ahead(self) -> int:
        """How many elements lay too far ahead of the wall clock."""
        return self._windows.ahead

    @property
    def windows_opened(self) -> int:
        """How many windows were opened. Sessions that became one count as one."""
        return self._windows.opened

    @property
    def windows_closed(self) -> int:
        """How many windows were closed."""
        return self._windows.closed

    # --- calls

    def start(self, now: float) -> Reply:
        """Begins: timers run from *now*. It calls ``on_init``."""
        return self._reply(self._start(now))

    def feed(self, frame: Frame, now: float, wall: float | None = None) -> Reply:
        """Works on a list.

        Args:
            frame: the list.
            now: seconds of a clock that does not jump.
            wall: seconds since 1970; needed if the window has ``max_ahead``.
        """
        if self._direct is not None:
            # Most lists go here, and coroutines cost as much as some elements.
            out: list[Any] = []
            self.feed_directly(frame, out)
            return self._framed(out, frame.origin)
        return self._reply(self._feed(frame, now, wall))

    @property
    def is_direct(self) -> bool:
        """True if lists may be given to :meth:`feed_directly`."""
        return self._direct is not None

    def feed_directly(self, frame: Frame, out: list[Any]) -> None:
        """Does the same as :meth:`feed`, if :attr:`is_direct`. *out* gets what comes out, for :meth:`framed`."""
        assert self._direct is not None  # noqa: S101  # it is direct
        self.taken += len(frame.elements)
        self.errors.frame = frame
        self._direct.feed_directly(frame.elements, out)

    def framed(self, out: list[Any]) -> list[Frame]:
        """Returns what has come out of several lists without origins as one list, unless it is nothing."""
        return self._framed(out, None)

    def tick(self, now: float) -> Reply:
        """Does what is due by the clock."""
        return self._reply(self._doing(lambda out: self._windows.tick(now, out)))

    def pause(self, now: float) -> Reply:
        """Notes that the stage asks for nothing from now on. Then no source counts as silent (``idle_timeout``)."""
        return self._reply(self._doing(lambda out: self._windows.pause(now, out)))

    def resume(self, now: float) -> Reply:
        """Notes that the stage asks for lists again."""
        return self._reply(self._doing(lambda out: self._windows.resume(now, out)))

    def source_ended(self, source: int, now: float) -> Reply:
        """Notes that no lists of *source* follow, so windows do not wait for it."""
        return self._reply(self._doing(lambda out: self._windows.source_ended(source, now, out)))

    def partition_ended(self, partition: int, now: float) -> Reply:
        """Notes that a stage from which this one gathers has ended, so windows do not wait for it."""
        return self._reply(self._doing(lambda out: self._note_partition_end(partition, now, out)))

    def end(self, now: float) -> Reply:
        """Lets windows fire for the last time, because the input has ended."""
        return self._reply(self._doing(lambda out: self._end(now, out)))

    def next_timer(self) -> float | None:
        """Returns when :meth:`tick` has something to do next, by the clock of *now*; None: it waits for events."""
        return self._windows.next_timer()

    def _reply(self, coroutine: Coroutine[Any, Any, list[Frame]]) -> Reply:
        return coroutine if self.is_async else finished(coroutine)

    # --- what they do

    async def _start(self, now: float) -> list[Frame]:
        if self._on_init is not None:
            await self._on_init(*self._place)
        await self._windows.start(now)
        return []

    async def _feed(self, frame: Frame, now: float, wall: float | None) -> list[Frame]:
        self.taken += len(frame.elements)
        self._wall = wall
        out: list[Any] = []
        if self._gatherer is None:
            self.errors.frame = frame
            if self._batches:
                frame = await self._batched(frame)
            await self._windows.feed(frame, now, wall, out)
        else:
            gathered: list[Any] = []
            await self._gatherer.feed(frame.elements, gathered)
            await self._work_on_gathered(gathered, now, out)
        return await self._frames(out, frame.origin)

    async def _work_on_gathered(self, gathered: list[Any], now: float, out: list[Any]) -> None:
        self.errors.frame = None
        if gathered:
            frame = await self._batched(Frame(gathered))
            await self._windows.feed(frame, now, self._wall, out)

    async def _batched(self, frame: Frame) -> Frame:
        """Returns what each ``map_batch`` makes of *frame*."""
        if not self._batches:
            return frame
        self.errors.frame = None
        elements = list(frame.elements)
        for batch in self._batches:
            elements = await batch.run(elements) if elements else elements
        return Frame(elements, origin=frame.origin, side=frame.side)

    async def _note_partition_end(self, partition: int, now: float, out: list[Any]) -> None:
        if self._gatherer is not None:
            gathered: list[Any] = []
            await self._gatherer.partition_ended(partition, gathered)
            await self._work_on_gathered(gathered, now, out)

    async def _end(self, now: float, out: list[Any]) -> None:
        if self._gatherer is not None:
            gathered: list[Any] = []
            await self._gatherer.end(gathered)
            await self._work_on_gathered(gathered, now, out)
        await self._windows.end(now, out)

    async def _doing(self, act: Callable[[list[Any]], Awaitable[None]]) -> list[Frame]:
        """Does what is not about a list that came in."""
        self.errors.frame = None
        out: list[Any] = []
        await act(out)
        return await self._frames(out)

    async def _frames(self, out: list[Any], origin: Origin | None = None) -> list[Frame]:
        if out and self._after is not None:
            out = await self._after.mapped(out)
        return self._framed(out, origin)

    def _framed(self, out: list[Any], origin: Origin | None) -> list[Frame]:
        self.given += len(out)
        if self._number is None:
            return [Frame(out, origin=origin)] if out or origin is not None else []
        if not out:
            return []
        self._frames_given += 1
        return [Frame(out, origin=Origin(self._number, self._frames_given - 1))]
