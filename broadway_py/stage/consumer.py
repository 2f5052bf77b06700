"""Stages that take events and emit none."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

from broadway_py.stage.consuming import ConsumingStage

__all__ = ["ConsumerStage"]

T = TypeVar("T")


class ConsumerStage(ConsumingStage[T]):
    """A stage that takes events. Subclass it and write ``handle_events(events)``; subscribe it to its producers.

    Args:
        options: those of every stage: ``clock``, the clock for everything that takes time.

    Raises:
        OptionsError: an option is unknown.
    """

    async def _run(self) -> None:
        inlet, wake, handle_events = self.inlet, self._wake, self.handle_events
        marks, chunks, takes_subscription = inlet.marks, inlet.chunks, self._takes_subscription()
        while not self._is_stopping:
            if marks and (mark := inlet.next_mark()) is not None:
                await self._pass(mark)
            elif chunks:
                edge, chunk, ask = inlet.take() if marks else chunks.popleft()
                events = chunk if type(chunk) is list else list(chunk)
                returned: Any = handle_events(events, edge.owner) if takes_subscription else handle_events(events)
                if returned is not None:
                    if inspect.isawaitable(returned):
                        returned = await returned
                    if returned is not None:
                        self._take_events(returned, "handle_events")
                if ask and edge.active:
                    edge.outlet.ask(edge, ask)
            else:
                await wake.arm()
                wake.future = None
                wake.is_set = False
