"""A consumer that runs a task for each event."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from broadway_py._core.children import Places
from broadway_py._core.demand import WholeLists
from broadway_py._core.restarts import Restarts
from broadway_py._core.subscription import End
from broadway_py.arguments import Arguments, checked_by, one_of, seconds, whole_number
from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.error_text import name_of, place_of
from broadway_py.errors import OptionsError, StageDown
from broadway_py.foreign import article, foreign_errors
from broadway_py.log import logger
from broadway_py.stage.consuming import ConsumingStage
from broadway_py.stage.edge import Edge
from broadway_py.stage.settings import SubscriptionOptions

__all__ = ["ConsumerSupervisor"]

log = logger("broadway_py.stage")

T = TypeVar("T")

#: ``"temporary"``: a child is never started again. ``"transient"``: it is, if it has raised.
Restart = Literal["temporary", "transient"]


@dataclass(frozen=True, init=False)
class _SupervisorOptions(Arguments):
    restart: Restart = field(default="temporary", metadata=checked_by(one_of("temporary", "transient")))
    max_restarts: int = field(default=3, metadata=checked_by(whole_number(at_least=0)))
    max_seconds: float = field(default=5.0, metadata=checked_by(seconds(above=0)))
    shutdown: float = field(default=5.0, metadata=checked_by(seconds(at_least=0)))


class ConsumerSupervisor(ConsumingStage[T]):
    """A consumer that runs a task, a child, for each event.

    ``max_demand`` of a subscription is the most children that run for it at the same time. ``min_demand`` is what it is
    for every consumer: the supervisor asks again when so many or fewer run. It defaults to ``max_demand - 1`` here.
    Children outlive the producer of their event. A child that cannot start, or that ends, gives its place back. The
    children of a subscription that has ended take places of the next one that the supervisor makes, so a supervisor
    that subscribes again does not run more children than before.

    Args:
        start: a coroutine function, called with the event.
        restart: ``"temporary"``: a child that raises has ended. ``"transient"``: it is started again with the same
            event, and keeps its place meanwhile, unless it was cancelled.
        max_restarts: how many restarts within *max_seconds* are allowed. One more ends the supervisor.
        max_seconds: seconds in which restarts are counted.
        shutdown: when the supervisor ends, it cancels all children and waits so many seconds for them. ``"kill"``
            waits for none. A child that ignores its cancellation is named in the log and left behind.
        clock: the clock for *max_seconds* and *shutdown*.
        unknown: refused.

    Raises:
        OptionsError: an option is wrong or unknown.
    """

    def __init__(
        self,
        start: Callable[[T], Coroutine[Any, Any, Any]],
        *,
        restart: Restart = "temporary",
        max_restarts: int = 3,
        max_seconds: float = 5.0,
        shutdown: float | Literal["kill"] = 5.0,
        clock: Clock = SYSTEM_CLOCK,
        **unknown: Any,
    ) -> None:
        super().__init__(clock=clock)
        if not callable(start):
            raise OptionsError(("start",), f"expected a coroutine function, got {article(start)}")
        options = _SupervisorOptions(
            restart=restart,
            max_restarts=max_restarts,
            max_seconds=max_seconds,
            shutdown=0.0 if shutdown == "kill" else shutdown,
            **unknown,
        )
        self._start = start
        self._restart = options.restart
        self._restarts = Restarts(options.max_restarts, options.max_seconds)
        self._shutdown_s = options.shutdown
        # Of each subscription that asks by itself, also of one that has ended until its last event has begun.
        self._places: dict[Edge[T], Places[Edge[T]]] = {}
        self._children: dict[asyncio.Task[None], Places[Edge[T]] | None] = {}
        self._given_up: StageDown | None = None
        # The children are being cancelled. One that started now would be left behind.
        self._is_closing = False

    @property
    def children(self) -> list[asyncio.Task[None]]:
        """The tasks of the children that run, oldest first."""
        return list(self._children)

    def count_children(self) -> int:
        """Returns the number of children that run, with those that are started again."""
        return len(self._children)

    def start_child(self, event: T) -> asyncio.Task[None]:
        """Starts a child for *event*, which takes no place of a subscription. Returns its task.

        Raises:
            StageDown: the supervisor has ended, or is cancelling its children because it ends.
        """
        self._refuse_if_ended()
        if self._is_closing:
            raise StageDown(f"{self.name} is ending, so it starts no more children") from self._error
        return self._begin(event, None)

    def terminate_child(self, child: asyncio.Task[None]) -> asyncio.Future[bool]:
        """Cancels *child*. The future is done when it has ended; its result is False if there was no such child.

        It waits for ``shutdown`` seconds at most.
        """
        known = child in self._children
        if known:
            child.cancel()
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[bool] = loop.create_future()
        if not known:
            ended.set_result(False)
            return ended
        timer = self._clock.call_at(
            self._clock.monotonic() + self._shutdown_s, lambda: None if ended.done() else ended.set_result(True)
        )

        def finish(_: object) -> None:
            timer.cancel()
            if not ended.done():
                ended.set_result(True)

        child.add_done_callback(finish)
        return ended

    def _credit(self, options: SubscriptionOptions) -> WholeLists[T]:
        return WholeLists(options.max_demand)

    def _first_demand(self, edge: Edge[T], options: SubscriptionOptions) -> int:
        orphans = [child for child, places in self._children.items() if _has_ended(places)]
        waiting = [chunk for chunk in self.inlet.chunks if _has_ended(self._places.get(chunk[0]))]
        places = Places(
            edge,
            options.max_demand,
            options.max_demand - 1 if options.min_demand is None else options.min_demand,
            running=len(orphans),
            waiting=sum(len(events) for _, events, _ in waiting),
        )
        self._children.update(dict.fromkeys(orphans, places))
        self._places.update({former: places for former, _, _ in waiting})
        self._places[edge] = places
        return places.ask()

    async def _pass(self, mark: Any) -> None:
        if isinstance(mark, tuple) and isinstance(mark[1], End):
            self._places.pop(mark[0], None)
        await super()._pass(mark)

    async def _run(self) -> None:
        inlet = self.inlet
        while not self._is_stopping:
            if self._given_up is not None:
                raise self._given_up
            if (mark := inlet.next_mark()) is not None:
                await self._pass(mark)
            elif inlet:
                edge, events, _ = inlet.take()
                if (places := self._places.get(edge)) is not None:
                    places.begin(len(events))
                for event in events:
                    self._begin(event, places)
            else:
                await self._wake.wait()

    def _begin(self, event: T, places: Places[Edge[T]] | None) -> asyncio.Task[None]:
        loop = asyncio.get_running_loop()
        child = loop.create_task(self._live_child(event), name=f"{self.name} child")
        self._children[child] = places
        child.add_done_callback(self._end_child)
        return child

    def _end_child(self, child: asyncio.Task[None]) -> None:
        places = self._children.pop(child)
        if not child.cancelled() and (error := child.exception()) is not None and self._given_up is None:
            # Only what ends everything comes as far as this, such as Ctrl-C.
            self._given_up = StageDown(f"{self.name}: a child was ended by {name_of(error)}")
            self._given_up.__cause__ = error
            self._wake.set()
        if places is not None and not self._has_ended and (count := places.end()):
            places.subscription.ask(count)

    async def _live_child(self, event: T) -> None:
        while True:
            try:
                started = self._start(event)
                if not inspect.isawaitable(started):
                    raise TypeError(f"start returned {article(started)}; expected a coroutine function")
                await started
            except foreign_errors() as error:
                if not self._starts_again(error):
                    return
            else:
                return

    def _starts_again(self, error: BaseException) -> bool:
        # The text of the error is left out: it may quote the event.
        log.warning("a child has died", stage=self.name, exception=name_of(error), at=place_of(error))
        if self._restart == "temporary" or self._is_stopping or self._is_cancelled():
            return False
        if self._restarts.crashed(self._clock.monotonic()):
            return True
        self._given_up = StageDown(f"{self.name}: its children were started again more often than max_restarts allows")
        self._given_up.__cause__ = error
        self._wake.set()
        return False

    @staticmethod
    def _is_cancelled() -> bool:
        """True if the child that calls this was cancelled: it has raised in place of the cancellation, or after it."""
        child = asyncio.current_task()
        return child is not None and child.cancelling() > 0

    async def _close(self) -> None:
        self._is_closing = True
        children = self.children
        for child in children:
            child.cancel()
        if not children:
            return
        done = asyncio.get_running_loop().create_future()
        left = len(children)

        def finish(_: object) -> None:
            nonlocal left
            left -= 1
            if not left and not done.done():
                done.set_result(None)

        for child in children:
            child.add_done_callback(finish)
        timer = self._clock.call_at(
            self._clock.monotonic() + self._shutdown_s, lambda: None if done.done() else done.set_result(None)
        )
        try:
            await done
        finally:
            timer.cancel()
        if stuck := [child for child in children if not child.done()]:
            log.warning("children ignore their cancellation and are left behind", stage=self.name, children=len(stuck))


def _has_ended(places: Places[Edge[T]] | None) -> bool:
    """Returns True if the subscription of *places* has ended, and no other one has taken its children over."""
    return places is not None and places.subscription.end is not None
