"""What all public stages share: the task, its beginning and its end, and the calls of the user's methods."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal, Self

from broadway_py._core.subscription import Cancellation
from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.error_text import name_of, place_of
from broadway_py.errors import OptionsError, StageDown, did_you_mean
from broadway_py.foreign import article, foreign_errors
from broadway_py.log import logger
from broadway_py.stage.wake import Wake

__all__ = ["Other", "Stage", "required_arguments"]

log = logger("broadway_py.stage")

#: The most infos that wait in a stage.
_MOST_INFOS: Final = 10_000

#: What the stage at the other end of a subscription is.
Other = Literal["producer", "consumer"]


class Stage:
    """A stage: one task, which lives as long as the ``async with`` block of the stage, or shorter.

    Its methods are plain or async. A plain method runs in the event loop, so it must not block. All methods of a stage
    run in its task, one after the other. A stage whose method raises dies of that error; :meth:`wait` raises it.

    A stage runs once. It ends when its block is left, when :meth:`stop` is called, or by itself. When it ends, what it
    still holds is lost, and the stages that have subscribed to it are told.

    Args:
        clock: the clock for everything that takes time.
        unknown: refused.

    Raises:
        OptionsError: an option is unknown.
    """

    #: The name in logs, errors and of the task; by default that of the class. A stage may set its own.
    name: str = ""

    #: The names of the arguments, for the sentence about an unknown one.
    _options: tuple[str, ...] = ("clock",)

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK, **unknown: Any) -> None:
        for name in unknown:
            known = sorted(self._options)
            hint = did_you_mean(name, known)
            raise OptionsError((name,), f"unknown setting; known here: {', '.join(known)}{hint}")
        self.name = self.name or type(self).__name__
        self._clock = clock
        self._wake = Wake()
        self._task: asyncio.Task[None] | None = None
        self._is_ready = asyncio.Event()
        # How many infos wait, and whether more may.
        self._infos = 0
        self._has_room = asyncio.Event()
        self._has_begun = False
        self._is_running = False
        self._is_stopping = False
        self._has_ended = False
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        state = "ended" if self._has_ended else "new" if self._task is None else "running"
        return f"<{self.name} {state}>"

    # --- what users may write -----------------------------------------------------------------------------------------

    def setup(self) -> Any:
        """Called once in the task of the stage, before everything else. A stage whose setup raises does not start."""

    def teardown(self) -> Any:
        """Called once after everything else, also if setup has failed half-way."""

    def handle_info(self, info: Any) -> Any:
        """Called with what :meth:`info` was given. A stage that emits events may return some.

        The default ignores it, with a warning in the log.
        """
        log.warning("a stage has no handle_info, so an info was ignored", stage=self.name)

    def handle_subscribe(self, *args: Any, **kwargs: Any) -> Any:
        """``handle_subscribe(other, subscription)``: called when a subscription begins, in both of its stages.

        *other* says what the stage at the other end is: ``"producer"`` or ``"consumer"``. With three arguments, the
        method gets ``(other, options, subscription)``, with one only the subscription.
        """

    def handle_cancel(self, *args: Any, **kwargs: Any) -> Any:
        """``handle_cancel(cancellation, subscription)``: called when a subscription has ended, in both of its stages.

        *cancellation* is a pair: ``("cancel", reason)`` if it was cancelled, ``("down", reason)`` if the stage at the
        other end has ended. The reason is None after a quiet end. The second argument may be left out.
        """

    # --- what users call ----------------------------------------------------------------------------------------------

    async def info(self, info: Any) -> None:
        """Hands *info* to :meth:`handle_info`, behind the events that the stage holds now.

        It returns when the info has its place, not when it was handled. While 10,000 others wait, it waits for room,
        unless it is called by a method of the stage itself.

        Raises:
            StageDown: the stage has ended.
        """
        self._refuse_if_ended()
        while self._infos >= _MOST_INFOS and asyncio.current_task() is not self._task:
            self._has_room.clear()
            await self._has_room.wait()
            self._refuse_if_ended()
        self._infos += 1
        self._take_info(info)

    def stop(self) -> None:
        """Ends the stage quietly, after the method that runs now. What the stage still holds is lost."""
        self._is_stopping = True
        self._wake.set()

    async def wait(self) -> None:
        """Returns when the stage has ended. Raises what it died of.

        Raises:
            RuntimeError: the stage has not started, or the call comes from one of its own methods.
        """
        task = self._started()
        if task is asyncio.current_task():
            raise RuntimeError(f"{self.name}.wait() was awaited in a method of this stage, which would wait for itself")
        await asyncio.wait({task})
        if self._error is not None:
            raise self._error

    def _started(self) -> asyncio.Task[None]:
        if self._task is None:
            raise RuntimeError(f"{self.name} has not started: use it in an `async with` block")
        return self._task

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise RuntimeError(f"{self.name} has started before, and a stage runs once: make another one")
        self._task = asyncio.get_running_loop().create_task(self._live(), name=self.name)
        try:
            await self._is_ready.wait()
        except asyncio.CancelledError:
            await self._end_task()
            raise
        if not self._has_begun and self._error is not None:
            raise self._error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._end_task()

    # --- the task -----------------------------------------------------------------------------------------------------

    async def _end_task(self) -> None:
        """Ends the task and waits for it, also if this call is cancelled meanwhile."""
        task = self._started()
        self.stop()
        if not self._is_ready.is_set() or self._is_running:
            task.cancel()
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError as again:
                cancelled = again
                task.cancel()
        if cancelled is not None:
            raise cancelled

    async def _live(self) -> None:
        """The whole life of the stage."""
        task = self._started()
        cancelled_before = task.cancelling()
        try:
            # Not in a coroutine of its own: each step of a stage passes through all coroutines that await it.
            try:
                await self._call(self.setup)
                self._has_begun = self._is_running = True
                self._is_ready.set()
                await self._run()
            except foreign_errors(cancellations=True) as error:
                self._note_end(error, cancelled_before)
            self._is_running = False
            for last in (self._close, partial(self._call, self.teardown)):
                cancelled_before = task.cancelling()
                try:
                    await last()
                except foreign_errors(cancellations=True) as error:
                    self._note_end(error, cancelled_before)
        finally:
            self._is_running = False
            self._has_ended = True
            if self._error is not None:
                self._log_death(self._error)
            self._leave(Cancellation("down", self._error))
            self._wake.close()
            self._is_ready.set()
            self._has_room.set()

    def _note_end(self, error: BaseException, cancelled_before: int) -> None:
        """Keeps the first error of the life. A cancellation by the stage itself ends only the part of it that runs."""
        if isinstance(error, asyncio.CancelledError):
            is_of_task = self._started().cancelling() > cancelled_before
            if is_of_task and self._is_stopping:
                return
            cancelled = error
            what = "its task" if is_of_task else "a method"
            error = StageDown(f"{self.name}: {what} was cancelled, but not by the stage")
            error.__cause__ = cancelled
        if self._error is None:
            self._error = error

    def _log_death(self, error: BaseException) -> None:
        # The text of the error is left out: it may quote an event.
        say = log.warning if isinstance(error, StageDown) else log.error
        say("a stage died", stage=self.name, exception=name_of(error), at=place_of(error))

    async def _run(self) -> None:
        """Works until the stage has nothing more to do, or is told to stop."""
        raise NotImplementedError

    async def _close(self) -> None:
        """Ends what else belongs to the stage, before teardown."""

    def _leave(self, cancellation: Cancellation) -> None:
        """Ends all subscriptions. The stages at their other ends are told *cancellation*."""
        raise NotImplementedError

    def _take_info(self, info: Any) -> None:
        """Puts *info* behind the events that the stage holds."""
        raise NotImplementedError

    def _refuse_if_ended(self) -> None:
        if self._has_ended:
            raise StageDown(f"{self.name} has ended") from self._error

    async def _call(self, method: Callable[..., Any], *arguments: Any) -> None:
        """Calls a method of the user, and emits the events that it returns."""
        returned = method(*arguments)
        if inspect.isawaitable(returned):
            returned = await returned
        if returned is not None:
            self._take_events(returned, getattr(method, "__name__", "a method"))

    def _take_events(self, events: object, method: str) -> None:
        """Emits the events that *method* has returned. A stage that emits none allows an empty list only."""
        if not isinstance(events, list | tuple):
            raise TypeError(f"{self.name}.{method} returned {article(events)}; expected nothing, or a list of events")
        if events:
            raise TypeError(
                f"{self.name}.{method} returned {len(events)} events; a consumer has nobody to give them to"
            )

    async def _tell_info(self, info: Any) -> None:
        self._infos -= 1
        self._has_room.set()
        await self._call(self.handle_info, info)

    async def _tell_subscribed(self, other: Other, subscription: Any) -> None:
        method = self.handle_subscribe
        all_of_them = (other, subscription.options, subscription)
        count = required_arguments(method, 2)
        await self._call(method, *{1: (subscription,), 3: all_of_them}.get(count, (other, subscription)))

    async def _tell_cancelled(self, cancellation: Cancellation, subscription: Any) -> None:
        method = self.handle_cancel
        await self._call(method, *(cancellation, subscription)[: required_arguments(method, 2)])


def required_arguments(method: Callable[..., Any], otherwise: int) -> int:
    """Returns how many positional arguments *method* requires; *otherwise* if it takes any number."""
    parameters = inspect.signature(method).parameters.values()
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return otherwise
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in places and parameter.default is parameter.empty for parameter in parameters)
