"""Stages that take events and emit others."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from broadway_py._core.subscription import Cancellation
from broadway_py.stage.consuming import ConsumingStage
from broadway_py.stage.edge import Edge
from broadway_py.stage.emitting import EmittingStage
from broadway_py.stage.links import Inlet
from broadway_py.stage.wake import Wake

__all__ = ["ProducerConsumerStage"]

T = TypeVar("T")
U = TypeVar("U")


class ListInlet(Inlet[T]):
    """An inlet that knows which chunks have arrived as one list."""

    __slots__ = ("lists",)

    def __init__(self, wake: Wake) -> None:
        super().__init__(wake)
        #: The places of the first chunk of a list, and behind its last one. Lists of one chunk are left out.
        self.lists: deque[tuple[int, int]] = deque()

    def arrived(self, edge: Edge[T], events: Sequence[T]) -> None:
        """Takes *events* from the producer of *edge*."""
        count, credit = len(events), edge.credit
        if count <= credit.chunk:
            # The same as in every inlet, without a detour: this is called for each list.
            self._items.append((edge, events, credit.ask_after(count)))
            # This is wake.set() without a call.
            wake = self._wake
            if (future := wake.future) is None:
                wake.is_set = True
            elif not future.done():
                future.set_result(None)
        else:
            first = self._taken + len(self._items)
            super().arrived(edge, events)
            self.lists.append((first, self._taken + len(self._items)))

    def take(self) -> tuple[Edge[T], Sequence[T], int]:
        """Returns the next chunk with its subscription, and how much to ask for there once the chunk is handled."""
        self._taken += 1
        if (lists := self.lists) and lists[0][1] <= self._taken:
            lists.popleft()
        return self._items.popleft()

    @property
    def is_inside_list(self) -> bool:
        """True if the next chunk belongs to the same list as the one that was taken last."""
        lists = self.lists
        return bool(lists) and lists[0][0] < self._taken


class ProducerConsumerStage(EmittingStage[U], ConsumingStage[T], Generic[T, U]):
    """A stage that takes events and emits others. Subclass it and write ``handle_events(events)``.

    That method returns a list of the events to emit, of any length. A list that has arrived is begun only while
    consumers want events, and is then handled to its end. So a stage without demand holds no more than it has asked
    for. When a list makes more events than are wanted, the others wait in the buffer, which has no limit unless
    ``buffer_size`` sets one.

    Args:
        options: those of every stage that emits: ``dispatcher``, ``buffer_size``, ``buffer_keep``, ``on_discard``,
            ``clock``.

    Raises:
        OptionsError: an option is wrong or unknown.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.inlet: ListInlet[T] = ListInlet(self._wake)

    async def _run(self) -> None:
        todo, inlet, outlet, wake, handle_events = self._todo, self.inlet, self.outlet, self._wake, self.handle_events
        marks, lists, chunks, takes_subscription = inlet.marks, inlet.lists, inlet.chunks, self._takes_subscription()
        while not self._is_stopping:
            if todo:
                await todo.popleft()()  # type: ignore[operator]  # here it holds only methods
            elif self._is_ending:
                if not outlet.backlog:
                    return
                await wake.wait()
            elif marks and (mark := inlet.next_mark()) is not None:
                await self._pass(mark)
            elif chunks and (outlet.demand > 0 or (lists and inlet.is_inside_list)):
                edge, chunk, ask = inlet.take() if marks or lists else chunks.popleft()
                events = chunk if type(chunk) is list else list(chunk)
                returned: Any = handle_events(events, edge.owner) if takes_subscription else handle_events(events)
                if type(returned) is not list and inspect.isawaitable(returned):
                    returned = await returned
                if type(returned) is not list:
                    self._take_events(returned, "handle_events")
                elif returned:
                    outlet.dispatch(returned)
                if ask and edge.active:
                    edge.outlet.ask(edge, ask)
            else:
                await wake.arm()
                wake.future = None
                wake.is_set = False

    def _take_info(self, info: Any) -> None:
        # Behind the events that were not handled yet, and then behind those that were not asked for yet.
        self.inlet.mark(partial(self._pass_info_on, info))

    async def _pass_info_on(self, info: Any) -> None:
        self.outlet.info(info)

    def _end_quietly(self) -> None:
        """Takes nothing more, and ends when the consumers have taken what was emitted."""
        self._is_ending = True
        ConsumingStage._leave(self, Cancellation("down"))

    def _leave(self, cancellation: Cancellation) -> None:
        ConsumingStage._leave(self, cancellation)
        EmittingStage._leave(self, cancellation)
