"""The part of a stage that takes events: its inlet, and what its producers tell it."""

from __future__ import annotations

from functools import partial
from typing import Any, Generic, TypeVar

from broadway_py._core.demand import Credit, WholeLists
from broadway_py._core.subscription import Cancellation, End, lives_on
from broadway_py.error_text import name_of
from broadway_py.errors import StageDown
from broadway_py.foreign import shown
from broadway_py.stage.base import Stage, required_arguments
from broadway_py.stage.edge import Edge
from broadway_py.stage.links import Inlet
from broadway_py.stage.settings import SubscriptionOptions

__all__ = ["ConsumingStage", "producer_down"]

T = TypeVar("T")


class ConsumingStage(Stage, Generic[T]):
    """A stage that can subscribe to others.

    Args:
        options: those of every stage: ``clock``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        #: The events for this stage arrive here.
        self.inlet: Inlet[T] = Inlet(self._wake)

    def handle_events(self, *args: Any, **kwargs: Any) -> Any:
        """``handle_events(events)``: called with a list of events, which is never empty.

        With two arguments, the method gets ``(events, subscription)``.
        """
        raise NotImplementedError(f"{self.name} has no handle_events")

    def _credit(self, options: SubscriptionOptions) -> Credit[T] | WholeLists[T]:
        if options.mode == "manual":
            return WholeLists(options.max_demand)
        return Credit(options.max_demand, options.refill_at)

    def _first_demand(self, edge: Edge[T], options: SubscriptionOptions) -> int:
        """Returns the number of events that the new subscription *edge* asks for at once, if it asks by itself."""
        return options.max_demand

    def _take_info(self, info: Any) -> None:
        self.inlet.mark(partial(self._tell_info, info))

    def _takes_subscription(self) -> bool:
        return required_arguments(self.handle_events, 1) > 1

    async def _pass(self, mark: Any) -> None:
        """Does what a mark between the chunks says: call a method, or end a subscription."""
        if not isinstance(mark, tuple):
            await mark()
            return
        edge, end = mark
        if not end.never_began:
            await self._tell_cancelled(end.cancellation, edge.owner)
        if lives_on(edge.cancel_mode, end):
            return
        if end.cancellation.reason is None and not end.never_began:
            self._end_quietly()
        else:
            raise producer_down(self.name, edge, end)

    def _end_quietly(self) -> None:
        """Ends the stage, because a producer that it cannot do without has ended quietly."""
        self._is_stopping = True

    def _leave(self, cancellation: Cancellation) -> None:
        for edge in list(self.inlet.edges):
            edge.outlet.unsubscribe(edge, End(cancellation))


def producer_down(who: str, edge: Edge[Any], end: End) -> StageDown:
    """Returns what a consumer dies of after *end*. Its cause is the error of the producer, if there is one."""
    producer, reason = edge.owner.producer.name, end.cancellation.reason
    if end.never_began:
        down = StageDown(f"{who}: the producer {producer} had ended before the subscription")
        down.__cause__ = edge.owner.producer._error
    elif end.cancellation.kind == "cancel":
        why = name_of(reason) if isinstance(reason, BaseException) else shown(reason)
        down = StageDown(f"{who}: the subscription to {producer} was cancelled: {why}")
    elif isinstance(reason, BaseException):
        down = StageDown(f"{who}: the producer {producer} died of {name_of(reason)}")
    else:
        down = StageDown(f"{who}: the producer {producer} has ended")
    if isinstance(reason, BaseException):
        down.__cause__ = reason
    return down
