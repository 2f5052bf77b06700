"""Stages that make events."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

from broadway_py._core.accumulate import Accumulated
from broadway_py._core.buffer import Keep
from broadway_py.stage.emitting import EmittingStage
from broadway_py.stage.settings import UNSET, DemandMode, DemandOption, Unset

__all__ = ["ProducerStage"]

T = TypeVar("T")


class ProducerStage(EmittingStage[T]):
    """A stage that makes events. Subclass it and write :meth:`handle_demand`.

    Args:
        demand: ``"accumulate"`` holds back the demand of consumers, and the events that are emitted, until
            :attr:`demand` is set to ``"forward"``.
        options: those of every stage that emits: ``dispatcher``, ``buffer_size`` (here 10,000 by default),
            ``buffer_keep``, ``on_discard``, ``clock``.

    Raises:
        OptionsError: an option is wrong or unknown.
    """

    _options: tuple[str, ...] = (*EmittingStage._options, "demand")

    buffer_size = 10_000
    buffer_keep: Keep = "last"

    def __init__(self, *, demand: DemandMode | Unset = UNSET, **options: Any) -> None:
        super().__init__(**options)
        chosen = self._first_mode if demand is UNSET else demand
        self._mode: DemandMode = DemandOption(demand=chosen).demand
        self._held: Accumulated[T] = Accumulated(self.buffer_size, self.buffer_keep)
        self.outlet.on_demand = self._todo.append if self._mode == "forward" else self._held.ask

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # ``demand = "accumulate"`` in a class body is an option. It must not hide the property.
        if not isinstance(chosen := cls.__dict__.get("demand", cls.demand), property):
            cls._first_mode = chosen
            del cls.demand

    _first_mode: Any = "forward"

    def handle_demand(self, demand: int) -> Any:
        """Called when consumers have asked for *demand* more events, at least 1. Returns a list of events.

        The list may have any number of events. If there are fewer than *demand*, remember the rest: it is not asked for
        again. :meth:`emit` hands out events later. None means that there are no more events: the stage ends once its
        consumers have what was emitted.
        """
        raise NotImplementedError(f"{self.name} has no handle_demand")

    @property
    def demand(self) -> DemandMode:
        """``"forward"``, or ``"accumulate"`` while demand and events are held back. Setting it switches."""
        return self._mode

    @demand.setter
    def demand(self, mode: DemandMode) -> None:
        self._mode = DemandOption(demand=mode).demand
        if self._mode == "accumulate":
            self.outlet.on_demand = self._held.ask
        else:
            # What was held comes first, so what comes now waits behind it.
            self._let_demand_through()
            self._wake.set()

    def _let_demand_through(self) -> None:
        if not self._held:
            self.outlet.on_demand = self._todo.append

    def _take_events(self, events: Any, method: str) -> None:
        if self._mode == "forward" and not self._held:
            super()._take_events(events, method)
        elif discarded := self._held.emit(self._checked(events, method)):
            self._discarded(discarded)

    async def _run(self) -> None:
        todo, held, outlet, wake, handle_demand = self._todo, self._held, self.outlet, self._wake, self.handle_demand
        while not self._is_stopping:
            if todo:
                task: Any = todo.popleft()
            elif held and self._mode == "forward":
                task = held.replay_next()
                self._let_demand_through()
            elif self._is_ending and not outlet.backlog and not held.events:
                return
            else:
                await wake.arm()
                wake.future = None
                wake.is_set = False
                continue
            if type(task) is not int:
                await self._do(task)
            elif not self._is_ending:
                events = handle_demand(task)
                if type(events) is not list and inspect.isawaitable(events):
                    events = await events
                if type(events) is not list or self._mode == "accumulate":
                    self._take_made(events)
                elif events:
                    outlet.dispatch(events)

    async def _do(self, task: Any) -> None:
        """Emits events that were held back, or calls a method."""
        if isinstance(task, list):
            self.outlet.dispatch(task)
        else:
            await task()

    def _take_made(self, events: Any) -> None:
        """Emits what :meth:`handle_demand` has returned, which may be anything."""
        if events is None:
            self._is_ending = True
        elif self._mode == "accumulate":
            self._take_events(events, "handle_demand")
        elif self._checked(events, "handle_demand"):
            self.outlet.dispatch(events)

    def _take_info(self, info: Any) -> None:
        self.outlet.info(info)
