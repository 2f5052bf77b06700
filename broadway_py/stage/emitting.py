"""The part of a stage that emits events: its outlet, its buffer, and what its consumers tell it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from broadway_py._core.buffer import Buffer, Keep
from broadway_py._core.dispatch import DemandDispatcher, Dispatcher
from broadway_py._core.subscription import Cancellation, End
from broadway_py.errors import OptionsError
from broadway_py.foreign import article
from broadway_py.log import logger
from broadway_py.stage.base import Stage
from broadway_py.stage.edge import Edge, Receiver
from broadway_py.stage.links import Outlet
from broadway_py.stage.settings import UNSET, BufferOptions, Unset

__all__ = ["EmittingStage", "StageOutlet"]

log = logger("broadway_py.stage")

T = TypeVar("T")

#: What a stage is asked for (a number of events), or a method to call.
Todo = int | Callable[[], Any]


class StageOutlet(Outlet[T]):
    """The outlet of a public stage. Its buffer has a limit, and its stage hears of demand, infos and losses.

    Args:
        stage: the stage.
        dispatcher: decides which consumer gets which events.
        buffer: keeps the events that nobody has asked for.
    """

    __slots__ = ("_failed", "_holds_infos", "_stage", "_takers", "on_demand")

    def __init__(self, stage: EmittingStage[T], dispatcher: Dispatcher[Edge[T], T], buffer: Buffer[T]) -> None:
        super().__init__(dispatcher, stage._wake, buffer)
        self._stage = stage
        self._holds_infos = False
        # Subscriptions that must end, with the errors of their selectors.
        self._failed: dict[Edge[T], BaseException] = {}
        # The consumers, if one may subscribe only once.
        self._takers: set[Receiver[T]] = set()
        #: Called with the number of events that consumers want in addition; None if the stage looks at ``demand``.
        self.on_demand: Callable[[int], object] | None = None

    def ask(self, edge: Edge[T], count: int) -> None:
        """Notes that the consumer of *edge* wants *count* more events, and sends it those that wait."""
        before = self.demand
        if self._kept or self._dispatcher.queued or self._holds_infos:
            super().ask(edge, count)
            self._tell(before)
            return
        # The same with nothing that waits, without detours: this is called for each chunk.
        new, _ = self._dispatcher.ask(edge, count)
        self.demand = after = before + new
        if self.on_demand is not None and after > 0 and new:
            self.on_demand(after if before < 0 else new)
        # This is wake.set() without a call.
        wake = self._wake
        if (future := wake.future) is None:
            wake.is_set = True
        elif not future.done():
            future.set_result(None)

    def suspend(self, edge: Edge[T]) -> None:
        """Suspends a consumer. Its open demand is kept for the next consumer that asks."""
        before = self.demand
        super().suspend(edge)
        self._tell(before)

    def dispatch(self, events: Sequence[T]) -> None:
        """Sends *events* to the consumers. Events without demand stay in the buffer, as far as there is room."""
        count = len(events)
        # The usual case of Outlet.dispatch, without a call: with single events, the call costs 4 % of the time.
        if type(events) is list and (only := self._dispatcher.take_whole(count)) is not None:
            self.demand -= count
            if count:
                only.inlet.arrived(only, events)
            return
        before = self.demand - count
        super().dispatch(events)
        if self._dispatcher.queued:
            self._limit_queues()
        if self.demand > before or self._holds_infos:
            self._tell(before)

    def _limit_queues(self) -> None:
        """Discards what is too much in the queues of partitions. They count towards the limit of the buffer."""
        most = self._buffer.size
        if most is not None and self._dispatcher.queued > most:
            self._discard(self._dispatcher.discard(self._dispatcher.queued - most, self._buffer.keep), ())

    def _tell(self, before: int) -> None:
        """Tells the stage of the demand that has become open since it was *before*, and of infos."""
        if self._holds_infos:
            self._deliver_infos(self._dispatcher.released())
        if self.on_demand is not None and self.demand > max(0, before):
            self.on_demand(self.demand - max(0, before))
            self._wake.set()

    def _keep(self, events: Sequence[T]) -> None:
        """Keeps *events*, which nobody has asked for."""
        self._discard(*self._buffer.store(events))

    def _discard(self, count: int, infos: Sequence[Any]) -> None:
        if count:
            self.demand += self._dispatcher.lost(count)
            self._stage._discarded(count)
        self._deliver_infos(infos)

    def info(self, info: Any) -> None:
        """Puts *info* behind the events that wait here; hands it over at once if none waits."""
        if self._dispatcher.hold(info):
            self._holds_infos = True
        elif not self._buffer.hold(info):
            self._deliver_infos((info,))

    def _deliver_infos(self, infos: Sequence[Any]) -> None:
        for info in infos:
            self._stage._todo.append(partial(self._stage._tell_info, info))
            self._wake.set()

    def check_options(self, partition: Hashable, selector: Any) -> None:
        """Raises OptionsError if no consumer can subscribe with these options."""
        self._dispatcher.check(partition, selector)

    def check(self, edge: Edge[T], partition: Hashable, selector: Any) -> None:
        """Raises OptionsError if the consumer of *edge* cannot subscribe with these options."""
        self.check_options(partition, selector)
        if edge.inlet in self._takers:
            raise OptionsError(
                ("to",), "expected a producer that this consumer has not subscribed to, because it sends all to all"
            )

    def connect(self, edge: Edge[T], partition: Hashable = None, selector: Callable[[T], object] | None = None) -> None:
        """Adds the consumer of *edge*, which has not asked for anything yet."""
        super().connect(edge, partition, selector)
        if self._dispatcher.exclusive:
            self._takers.add(edge.inlet)

    def unsubscribe(self, edge: Edge[T], end: End | None = None) -> None:
        """Removes a consumer, and tells both stages."""
        self._takers.discard(edge.inlet)
        super().unsubscribe(edge, end)
        if end is not None:
            self._stage._todo.append(partial(self._stage._tell_cancelled, end.cancellation, edge.owner))
            self._wake.set()
            self._stage._consumer_left()

    def fail(self, edge: Edge[T], error: BaseException) -> None:
        """Ends *edge*, because its selector has raised *error*.

        The dispatcher is at work then, so it ends a moment later. It does not wait until the method in which the
        producer is has returned, but it ends before the producer does.
        """
        if not self._failed:
            asyncio.get_running_loop().call_soon(self._end_failed)
        self._failed.setdefault(edge, error)

    def _end_failed(self) -> None:
        # The end of one lets events through to the others, whose selectors may raise then.
        while self._failed:
            edge = next(iter(self._failed))
            error = self._failed.pop(edge)
            if edge.end is None:
                self.unsubscribe(edge, End(Cancellation("cancel", error)))

    def close(self, end: End | None = None) -> None:
        """Tells the consumers that no more events will come."""
        self._end_failed()
        super().close(end)
        for edge in self._edges:
            edge.active = False
        self._edges.clear()
        self._takers.clear()
        self.take_backlog()


class EmittingStage(Stage, Generic[T]):
    """A stage that other stages can subscribe to. Options are arguments or class attributes.

    Args:
        dispatcher: which consumer gets which events; by default, whoever has demand.
        buffer_size: the most events that are kept while nobody has asked for them. 0 keeps none; None is no limit.
        buffer_keep: which events stay when there are too many, the ``"first"`` or the ``"last"``.
        on_discard: called with the number of events, in place of the method of this name.
        options: those of every stage: ``clock``. Others are refused.

    Raises:
        OptionsError: an option is wrong or unknown.
    """

    _options: tuple[str, ...] = ("buffer_keep", "buffer_size", "clock", "dispatcher", "on_discard")

    #: The most events that are kept while nobody has asked for them. 0 keeps none; None is no limit.
    buffer_size: int | None = None
    #: Which events stay when there are too many.
    buffer_keep: Keep = "last"
    #: A dispatcher, or the class of one.
    dispatcher: Any = DemandDispatcher

    def __init__(
        self,
        *,
        dispatcher: Any = UNSET,
        buffer_size: float | Unset | None = UNSET,
        buffer_keep: Keep | Unset = UNSET,
        on_discard: Callable[[int], object] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if on_discard is not None and not callable(on_discard):
            raise OptionsError(("on_discard",), f"expected a function of a number of events, got {article(on_discard)}")
        buffer = BufferOptions(
            buffer_size=self.buffer_size if buffer_size is UNSET else buffer_size,
            buffer_keep=self.buffer_keep if buffer_keep is UNSET else buffer_keep,
        )
        self.buffer_size, self.buffer_keep = buffer.buffer_size, buffer.buffer_keep
        self._on_discard = self.on_discard if on_discard is None else on_discard
        # What the task has to do, in order. Consumers ask for at most their demand, so their asks are bounded.
        self._todo: deque[Todo] = deque()
        #: The events of this stage leave here.
        self.outlet: StageOutlet[T] = StageOutlet(
            self,
            _dispatcher(self.dispatcher if dispatcher is UNSET else dispatcher),
            Buffer(self.buffer_size, self.buffer_keep),
        )
        # No more events will be made. What the outlet still has is waiting for its consumers.
        self._is_ending = False

    def on_discard(self, count: int) -> object:
        """Called when *count* events were lost, because the buffer is full.

        If it returns False, no warning is logged.
        """

    def emit(self, events: Sequence[T]) -> None:
        """Hands out *events*, also without demand. Call it in the event loop.

        Raises:
            StageDown: the stage has ended.
            TypeError: *events* is no list.
        """
        self._refuse_if_ended()
        self._take_events(events[:] if type(events) is list else events, "emit")

    def estimate_buffered_count(self) -> int:
        """Returns the number of events that wait for the demand of a consumer."""
        return self.outlet.backlog

    def _consumer_left(self) -> None:
        """Called when a subscription has ended, also while a method of the stage runs."""

    def _take_events(self, events: Any, method: str) -> None:
        if self._checked(events, method):
            self.outlet.dispatch(events)

    def _checked(self, events: Any, method: str) -> Sequence[T]:
        kind = type(events)
        if kind is not list and not issubclass(kind, list | tuple | range):
            what = "was given" if method == "emit" else "returned"
            raise TypeError(f"{self.name}.{method} {what} {article(events)}; expected a list of events")
        checked: Sequence[T] = events
        return checked

    def _discarded(self, count: int) -> None:
        if self._on_discard(count) is not False:
            log.warning("a stage has discarded events from its buffer", stage=self.name, events=count)

    def _leave(self, cancellation: Cancellation) -> None:
        self.outlet.close(End(cancellation))
        self._todo.clear()


def _dispatcher(given: Any) -> Any:
    """Returns an unused dispatcher like *given*, which may be a class."""
    dispatcher = given() if isinstance(given, type) else given
    if not callable(getattr(dispatcher, "fresh", None)):
        raise OptionsError(
            ("dispatcher",),
            f"expected a DemandDispatcher, BroadcastDispatcher or PartitionDispatcher, got {article(given)}",
        )
    return dispatcher.fresh()
