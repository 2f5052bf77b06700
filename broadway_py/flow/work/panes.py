"""The accumulators of windows: what goes into them, and what they give when their window fires."""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from broadway_py._core.window.firing import Firing
from broadway_py._core.window.shape import Session
from broadway_py.flow.description.layers import Layer
from broadway_py.flow.description.operators import Reduction
from broadway_py.flow.operator_errors import OperatorErrors
from broadway_py.flow.work.calls import UserFunction, combining, function_label
from broadway_py.flow.work.emitter import Emitter
from broadway_py.flow.work.joins import Joiner, Sides
from broadway_py.flow.work.layer_code import CountingCode, LayerCode
from broadway_py.flow.work.layer_functions import LayerFunctions, Part

__all__ = ["Pane", "Panes"]

#: An accumulator of these types may change after it was emitted, so a copy is emitted.
_CONTAINERS: Final = (dict, list, set, bytearray, deque)


class Pane:
    """What a stage keeps for one window."""

    __slots__ = ("_sides", "accumulator", "kept", "seen")

    def __init__(self, accumulator: Any = None, seen: Sequence[set[Any]] = (), kept: list[Any] | None = None) -> None:
        #: None if there is no reduction.
        self.accumulator = accumulator
        #: For each ``uniq``, what it has seen.
        self.seen = seen
        #: The elements that the accumulator is made of, if they may be needed again.
        self.kept = kept
        self._sides: Sides | None = None

    @property
    def sides(self) -> Sides:
        """What has come on the two sides of a join."""
        if self._sides is None:
            self._sides = Sides()
        return self._sides


class Panes:
    """Makes the panes of a stage, puts elements into them, and lets them fire.

    Args:
        layer: the reduction and the join are of it.
        functions: of the layer, with the same *part*.
        index: of the stage.
        errors: what happens when a function raises.
        part: what the stage does of a reduction with ``combine``.
        is_gathered: another stage takes the firings.
    """

    def __init__(
        self,
        layer: Layer,
        functions: LayerFunctions,
        index: int,
        errors: OperatorErrors,
        *,
        part: Part = "whole",
        is_gathered: bool = False,
    ) -> None:
        self._errors = errors
        reduction = layer.reduction
        self._mapping = None if functions.mapping is None else LayerCode(functions.mapping, errors)
        self._adding: LayerCode | CountingCode
        if functions.adding is not None:
            self._adding = LayerCode(functions.adding, errors)
        else:
            assert reduction is not None  # noqa: S101  # it counts
            self._adding = CountingCode(reduction.label, errors)
        self._emits_at_once = reduction is None or (isinstance(reduction, Reduction) and reduction.emits)
        self._initial: UserFunction | None = None
        self._combine: UserFunction | None = None
        self._emitter: Emitter | None = None
        #: A partial accumulator is sent once: the next one begins anew.
        self._begins_anew = part == "partial"
        if isinstance(reduction, Reduction):
            where = f"{reduction.kind} {reduction.number}, init"
            self._initial = UserFunction(function_label(where, reduction.init), reduction.init)
            if reduction.combine is not None and not self._adding.sets:
                self._combine = combining(reduction)
        if reduction is not None:
            emission = None if part == "partial" else layer.emission
            self._emitter = Emitter(reduction, emission, index, gives_accumulators=is_gathered)
        self.has_reduction = reduction is not None
        self._joiner = None if layer.join is None else Joiner(layer.join, errors)
        #: True: an element is a pair of a side and what has come on it.
        self.joins = self._joiner is not None
        #: True: windows give something when they fire.
        self.fires = self.has_reduction or self.joins
        #: False: windows keep nothing, so it does not matter into which of them an element goes.
        self.has_state = self.fires or self._adding.sets > 0
        # Without combine, the accumulators of two sessions are joined by reducing the elements of the later one again.
        self._keeps_elements = isinstance(layer.window.shape, Session) and self.has_reduction and self._combine is None
        parts = (self._mapping, self._joiner, self._initial, self._combine, self._emitter)
        self.is_async = self._adding.is_async or any(each is not None and each.is_async for each in parts)
        # True: to put elements into one pane is one call.
        self._is_one_call = self._mapping is None and self._joiner is None and not self._keeps_elements

    @property
    def reduced(self) -> int:
        """How many elements have gone into a reduction by key, if this is a part of it."""
        return self._adding.reduced

    @property
    def is_direct(self) -> bool:
        """True if elements go into a pane by one call of a plain function."""
        return self._is_one_call and not self._adding.is_async

    async def opened(self) -> Pane:
        """Returns a pane for a new window."""
        seen = tuple(set[Any]() for _ in range(self._adding.sets))
        return Pane(await self._new_accumulator(), seen, [] if self._keeps_elements else None)

    async def _new_accumulator(self) -> Any:
        if self._initial is not None:
            return await self._initial()
        return {} if self.has_reduction else None

    def add_directly(self, pane: Pane, elements: Sequence[Any], out: list[Any]) -> None:
        """Does the same as :meth:`add` for one pane, if :attr:`is_direct`."""
        pane.accumulator = self._adding.run(elements, out, pane.accumulator, pane.seen)

    def add(self, panes: Sequence[Pane], elements: Sequence[Any], out: list[Any]) -> Coroutine[Any, Any, None]:
        """Returns a coroutine that puts *elements* into each of *panes*. *out* gets what is emitted at once."""
        if self._is_one_call and len(panes) == 1:
            # While functions wait, there is nothing around them that they do not need.
            return _run(self._adding, panes[0], elements, out)
        return self._add(panes, elements, out)

    async def _add(self, panes: Sequence[Pane], elements: Sequence[Any], out: list[Any]) -> None:
        if self._joiner is None:
            await self._reduce(panes, elements, out)
            return
        self._errors.frame = None  # rows are no elements of the list that came in
        # What is emitted must be in the order of the elements, however many of them come together.
        parts = [elements] if len(panes) == 1 else [(element,) for element in elements]
        for part in parts:
            for pane in panes:
                await self._reduce((pane,), await self._joiner.add(pane.sides, part), out)

    async def _reduce(self, panes: Sequence[Pane], elements: Sequence[Any], out: list[Any]) -> None:
        """Puts *elements* through the mappers into each of *panes*."""
        if self._mapping is not None:
            mapped: list[Any] = []
            await _run(self._mapping, Pane(), elements, mapped)
            elements = mapped
            self._errors.frame = None  # these are no elements of the list that came in
        if self._emits_at_once and len(panes) > 1:
            for element in elements:
                for pane in panes:
                    await _run(self._adding, pane, (element,), out)
            return
        for pane in panes:
            await _run(self._adding, pane, elements, out)
            if pane.kept is not None:
                pane.kept += elements

    async def add_unmatched(self, pane: Pane, out: list[Any]) -> None:
        """Puts the rows of a join that have found no partner into *pane*, because no more elements come for it."""
        if self._joiner is not None:
            await self._reduce((pane,), await self._joiner.unmatched(pane.sides), out)

    async def fire(self, pane: Pane, firing: Firing, out: list[Any]) -> Sequence[Any]:
        """Returns what the window of *pane* gives with this *firing*. *out* gets what is emitted before."""
        if firing.final:
            await self.add_unmatched(pane, out)
        if self._emitter is None:
            return ()
        emitted, accumulator = await self._emitter.fire(pane.accumulator, firing)
        if self._begins_anew and not firing.final:
            accumulator = await self._new_accumulator()
        if pane.kept is not None and accumulator is not pane.accumulator:
            pane.kept.clear()  # they are in what was emitted
        pane.accumulator = accumulator
        return emitted

    async def merge(self, pane: Pane, absorbed: Pane, out: list[Any]) -> None:
        """Puts what is in *absorbed* into *pane*: two sessions have become one. *out* gets what is emitted."""
        if self._combine is not None:
            pane.accumulator = await self._combine(pane.accumulator, absorbed.accumulator)
        elif pane.kept is not None and absorbed.kept is not None:
            await _run(self._adding, pane, absorbed.kept, [])
            pane.kept += absorbed.kept
        for own, others in zip(pane.seen, absorbed.seen, strict=True):
            own.update(others)
        if self._joiner is not None:
            await self._reduce((pane,), await self._joiner.merge(pane.sides, absorbed.sides), out)


async def _run(code: LayerCode | CountingCode, pane: Pane, elements: Sequence[Any], out: list[Any]) -> None:
    result: Any = code.run(elements, out, pane.accumulator, pane.seen)
    pane.accumulator = await result if code.is_async else result
