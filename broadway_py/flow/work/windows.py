"""The windows of a stage. The engine says which elements go into which of them, and which of them fire."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from broadway_py._core.window.effects import Add, Close, Effect, Fire, Merge, OpenWindow, SideOutput
from broadway_py._core.window.engine import Engine
from broadway_py._core.window.shape import Session
from broadway_py._core.window.times import Stamped
from broadway_py.flow.description.layers import ByKey, Layer
from broadway_py.flow.frames import Fired, Frame, Passed
from broadway_py.flow.operator_errors import Failed, OperatorError, OperatorErrors, errors_of_functions
from broadway_py.flow.work.calls import elements_of, function_label, gives_coroutine
from broadway_py.flow.work.panes import Pane, Panes
from broadway_py.flow.work.stage_windows import StageWindows

__all__ = ["EngineWindows"]


class EngineWindows(StageWindows):
    """Puts elements into windows, and emits what these give when they fire.

    Args:
        layer: the windows are of it.
        panes: work on the elements.
        index: of the stage.
        errors: what happens when a function fails on an element.
        sources: what the ``origin`` of frames names as sources. Each of them holds windows of event time back.
        is_gathered: the firings are for a stage that gathers.
    """

    def __init__(
        self,
        layer: Layer,
        panes: Panes,
        index: int,
        errors: OperatorErrors,
        *,
        sources: Sequence[int],
        is_gathered: bool,
    ) -> None:
        super().__init__()
        self._window = layer.window
        self._label = layer.label
        self._panes = panes
        self._index = index
        self._errors = errors
        self._is_gathered = is_gathered
        #: The sources that have not ended. Frames without an origin are of the source None.
        self._sources: dict[int | None, None] = dict.fromkeys(sources) if sources else {None: None}
        self._key_of = layer.route.key if isinstance(layer.route, ByKey) else None
        self._on_late = layer.on_late
        self._awaits_late = layer.on_late is not None and gives_coroutine(layer.on_late)
        self.is_async = panes.is_async or self._awaits_late
        self._engine: Engine | None = None
        # Where elements go through if windows keep nothing.
        self._through = Pane()
        #: Up to where the stage that gathers was told that windows have passed.
        self._passed: int | None = None

    @property
    def late(self) -> int:
        """How many elements were late."""
        return 0 if self._engine is None else self._engine.late

    @property
    def ahead(self) -> int:
        """How many elements lay too far ahead of the wall clock."""
        return 0 if self._engine is None else self._engine.ahead

    @property
    def opened(self) -> int:
        """How many windows were opened. Sessions that became one count as one."""
        return self.closed + (0 if self._engine is None else sum(1 for _ in self._engine.open_windows()))

    async def start(self, now: float) -> None:
        """Begins. Timers run from *now*."""
        self._effects(lambda: self._begin(now))
        for source in self._sources:
            self._begun.join(source, now)

    def _begin(self, now: float) -> list[Effect]:
        self._engine = Engine(self._window, now)
        return []

    async def feed(self, frame: Frame, now: float, wall: float | None, out: list[Any]) -> None:
        """Works on a list."""
        engine, stamped = self._begun, frame.stamped
        self._errors.frame = None  # the lists of windows are not the list that came in
        if stamped is None:
            stamped = self._read(frame)
        if self._panes.joins:
            stamped = replace(stamped, events=[(frame.side, event) for event in stamped.events])
        source = None if frame.origin is None or None in self._sources else frame.origin.source
        await self._carry_out(lambda: engine.feed(stamped, now, upstream=source, wall=wall), out)
        high = frame.high
        if high is not None and not (stamped.events and high <= stamped.high):
            await self._carry_out(lambda: engine.observe(source, high, now), out)

    async def tick(self, now: float, out: list[Any]) -> None:
        """Does what is due by the clock."""
        engine = self._begun
        await self._carry_out(lambda: engine.tick(now), out)

    async def pause(self, now: float, out: list[Any]) -> None:
        """Notes that no source is asked from now on. This time makes none of them idle."""
        engine = self._begun
        for source in self._sources:
            await self._carry_out(partial(engine.hold, source, now), out)

    async def resume(self, now: float, out: list[Any]) -> None:
        """Notes that the sources are asked again."""
        engine = self._begun
        for source in self._sources:
            await self._carry_out(partial(engine.resume, source, now), out)

    async def source_ended(self, source: int, now: float, out: list[Any]) -> None:
        """Notes that nothing more comes from *source*. It does not hold windows back any more."""
        if source in self._sources:
            await self._leave(source, now, out)

    async def end(self, now: float, out: list[Any]) -> None:
        """Lets all windows fire that are left, because the input has ended."""
        for source in list(self._sources):
            await self._leave(source, now, out)

    async def _leave(self, source: int | None, now: float, out: list[Any]) -> None:
        engine = self._begun
        del self._sources[source]
        await self._carry_out(lambda: engine.leave(source, now), out)

    def next_timer(self) -> float | None:
        """Returns when :meth:`tick` has something to do next."""
        return None if self._engine is None else self._engine.next_timer()

    @property
    def _begun(self) -> Engine:
        if self._engine is None:
            raise TypeError("the windows were not started: call start() first")
        return self._engine

    # --- event times and keys

    def _read(self, frame: Frame) -> Stamped:
        """Returns the elements of *frame* with their times, which were not read before they were sent."""
        stamped = self._begun.read(frame.elements)
        for event, error in stamped.refused:
            self._errors.element_failed(function_label(f"{self._label}, window", self._window.by), error, event)
        if isinstance(self._window.shape, Session):
            places, keys = [], []
            for place, event in enumerate(stamped.events):
                try:
                    key = event if self._key_of is None else self._key_of(event)
                    hash(key)
                except errors_of_functions() as error:
                    self._errors.element_failed(function_label(f"{self._label}, key", self._key_of), error, event)
                else:
                    places.append(place)
                    keys.append(key)
            stamped = stamped.part(places)
            stamped.keys = keys
        return stamped

    # --- what the engine says

    def _effects(self, call: Callable[[], list[Effect]]) -> list[Effect]:
        """Returns what follows from *call*, which may call the trigger function."""
        custom = self._window.triggers.custom
        if custom is None:
            return call()
        try:
            return call()
        except errors_of_functions() as error:
            raise OperatorError(Failed(function_label(f"{self._label}, trigger", custom[1]), error)) from error

    async def _carry_out(self, call: Callable[[], list[Effect]], out: list[Any]) -> None:
        """Does what the engine says to *call*, in order."""
        passed = self._passed
        for effect in self._effects(call):
            match effect:
                case Add():
                    await self._add(effect, out)
                case Fire():
                    await self._fire(effect, out)
                case Merge(window, absorbed):
                    await self._panes.merge(await self._pane_of(window), await self._pane_of(absorbed), out)
                    absorbed.state = None
                case Close(window):
                    window.state = None
                    self.closed += 1
                case SideOutput():
                    await self._put_aside(effect, out)
                case _:
                    raise TypeError(f"a flow cannot do {type(effect).__name__}")
        if self._is_gathered and self._window.by is not None and not isinstance(self._window.shape, Session):
            self._passed = self._begun.line
        if self._is_gathered and self._passed is not None and self._passed != passed:
            out.append(Passed(self._index, self._passed))

    async def _add(self, effect: Add, out: list[Any]) -> None:
        panes = [self._through]
        if self._panes.has_state:
            panes = [await self._pane_of(window) for window in effect.windows]
        await self._panes.add(panes, effect.events, out)

    async def _pane_of(self, window: OpenWindow) -> Pane:
        pane: Pane | None = window.state
        if pane is None:
            pane = window.state = await self._panes.opened()
        return pane

    async def _fire(self, effect: Fire, out: list[Any]) -> None:
        if not self._panes.fires:
            return
        window, firing = effect.window, self._begun.describe(effect)
        emitted = await self._panes.fire(await self._pane_of(window), firing, out)
        if not self._is_gathered:
            out += emitted
            return
        until = effect.end if window.index is None else window.index + 1
        if isinstance(self._window.shape, Session):
            # Each session is of one stage only.
            own, replaces = f"{self._index}/{window.id}", tuple(f"{self._index}/{each}" for each in effect.replaces)
            out.append(Fired(self._index, own, until, firing, emitted, replaces))
            return
        out.append(Fired(self._index, window.id if window.index is None else str(window.index), until, firing, emitted))
        if window.index is not None and firing.final:
            self._passed = until

    async def _put_aside(self, effect: SideOutput, out: list[Any]) -> None:
        """Emits what the function of ``on_late`` returns for an element that goes into no window."""
        fn = self._on_late
        if fn is None:
            return
        element = effect.event[1] if self._panes.joins else effect.event
        try:
            result = fn(element, SideOutput(element, effect.time, effect.cause))
            emitted = list(elements_of(await result if self._awaits_late else result))
        except errors_of_functions(is_async=self._awaits_late) as error:
            self._errors.element_failed(function_label(f"{self._label}, on_late", fn), error, element)
        else:
            out += emitted
