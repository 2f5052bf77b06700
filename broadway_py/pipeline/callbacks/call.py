"""Calls a stage's callbacks, and handles context, time-out, cancellation and threads that do not return."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from itertools import islice
from types import GeneratorType
from typing import Any

from broadway_py import telemetry
from broadway_py._core.settlement import most_returned
from broadway_py.clock import Clock, Timer
from broadway_py.message import Failed, Message, Plain
from broadway_py.pipeline.callbacks.definition import Callbacks
from broadway_py.pipeline.callbacks.threads import CallbackThreads
from broadway_py.pipeline.contexts import awaited, drive, is_changed
from broadway_py.pipeline.poison.stage_journal import StageJournal
from broadway_py.stage import Wake

__all__ = ["Call", "InCallback"]


def _unknown() -> None:
    """Returns None: all messages of the call have one time-out together, or each message is a call of its own."""


class InCallback:
    """Marks that user code runs in the stage's own task, so that cutting off the stage must cancel the task.

    Use it in a ``with`` block. Code that runs for each chunk sets :attr:`is_on` by hand, which saves the calls.
    """

    __slots__ = ("is_on",)

    def __init__(self) -> None:
        self.is_on = False

    def __enter__(self) -> None:
        self.is_on = True

    def __exit__(self, *_: object) -> None:
        self.is_on = False


class Call:
    """Calls the callbacks for one stage, one call at a time.

    Args:
        callbacks: the callbacks of the pipeline.
        threads: the threads in which plain functions run.
        clock: the pipeline's clock.
        base: the context variables that each call starts with.
        wake: wakes the stage.
        is_stopping: returns True once a stop was asked for.
        timeout_s: seconds that one call of the layer's callback may take; None for no limit.
        journal: the journal of the messages that callbacks work on; None if there is none.
    """

    def __init__(
        self,
        callbacks: Callbacks,
        threads: CallbackThreads,
        clock: Clock,
        base: Context,
        *,
        wake: Wake,
        is_stopping: Callable[[], bool],
        timeout_s: float | None,
        journal: StageJournal | None,
    ) -> None:
        self.callbacks = callbacks
        self.threads = threads
        self.clock = clock
        self.base = base
        self.timeout_s = timeout_s
        self.journal = journal
        #: The stage's own task; None before it runs.
        self.task: asyncio.Task[None] | None = None
        #: True once the drain has run out of time; then nothing more is finished.
        self.cut = False
        self.in_callback = InCallback()
        #: True while a thread of this stage is past its deadline and has not returned.
        self.stuck = False
        #: The contexts of failed messages, by ``id()``, if a callback has set variables: their log lines are written
        #: in them.
        self.own_contexts: dict[int, Context] = {}
        self._wake = wake
        self._is_stopping = is_stopping
        # The stage has one deadline, which each call moves, and at most one timer for it.
        self._deadline = math.inf
        self._began_at: Callable[[], float | None] = _unknown
        self._timer: Timer | None = None
        self._timed_out = False
        # The context of the last call, if that call has set a variable.
        self._called_in: Context | None = None

    async def run(self, name: str, *arguments: Any, enter: Callable[[], None] | None = None) -> Any:
        """Run the user's callback *name* on a list of messages. Returns its result.

        It runs in a clean context: in this task, or in a thread if it is a plain function. ``handle_failed`` for a
        single message runs in a copy of the context in which that message failed, if there is one. *enter* is called
        first in that context.
        """
        callbacks = self.callbacks
        callback: Callable[..., Any] = getattr(callbacks, name)
        base = self.clean_context()
        if name == "handle_failed" and len(arguments[0]) == 1:
            base = self.own_contexts.get(id(arguments[0][0]), base)
        context = base.copy()
        if enter is not None:
            context.run(enter)
        self._called_in = None
        # Set by hand, not by a with block: this runs for each batch.
        self.in_callback.is_on = True
        if self.journal is not None:
            self.journal.at_work(arguments[0])
        try:
            if callbacks.is_async[name]:
                return await drive(callback(*arguments), context)

            def job() -> Any:
                returned = callback(*arguments)
                # The body of a generator is user code, so it must run in this thread, not in the event loop.
                if type(returned) is GeneratorType:
                    return list(islice(returned, most_returned(len(arguments[0])) + 1))
                return returned

            result = await self.threads.run(job, self.came_back, context)
            return await drive(awaited(result), context) if inspect.isawaitable(result) else result
        finally:
            self.in_callback.is_on = False
            if is_changed(context, base):
                self._called_in = context
            if self.journal is not None:
                self.journal.nothing_at_work()

    def clean_context(self) -> Context:
        """Returns the context that a call of user code starts with, with what telemetry handlers set for the chunk."""
        return copy_context() if telemetry.active() else self.base

    def note_context(self, messages: Sequence[Message[Any]]) -> None:
        """Keep the context of the last call for those of *messages* that failed in it, if it has set variables."""
        if self._called_in is not None:
            for message in messages:
                if message._status is not None:
                    self.own_contexts[id(message)] = self._called_in

    # --- time-out

    def begin(self, began_at: Callable[[], float | None] = _unknown) -> None:
        """Start the time-out of a callback, if it has one.

        *began_at* returns when the thread began its current message, if each message has its own time-out.
        """
        if self.timeout_s is not None:
            self._began_at = began_at
            self._deadline = self.clock.monotonic() + self.timeout_s
            if self._timer is None:
                self._timer = self.clock.call_at(self._deadline, self._look_at_deadline)

    def end(self) -> bool:
        """Note that the callback has ended. Returns True if it ended too late."""
        self._deadline = math.inf
        late, self._timed_out = self._timed_out, False
        if late:
            # A callback that caught its cancellation leaves the request in the task. The next callback must not see it.
            self.was_cut()
        return late

    def _look_at_deadline(self) -> None:
        self._timer = None
        if self._deadline == math.inf:
            return  # no call is running
        deadline = self._deadline
        began_at = self._began_at()
        if began_at is not None and self.timeout_s is not None:
            deadline = began_at + self.timeout_s
        if self.clock.monotonic() < deadline:
            self._timer = self.clock.call_at(deadline, self._look_at_deadline)
            return
        self._timed_out = True
        self._deadline = math.inf
        if self.task is not None:
            self.task.cancel()

    def timeout_failure(self) -> Failed:
        """Returns the status of a message whose callback took too long."""
        return Failed("timeout", Plain(f"the callback did not finish within its time-out of {self.timeout_s:g} s"))

    # --- cancellation

    def cut_off(self) -> None:
        """Stop the user code that runs here. A settlement that has begun is not stopped."""
        self.cut = True
        self._wake.set()
        if self.in_callback.is_on and self.task is not None:
            self.task.cancel()

    def was_cut(self) -> bool:
        """Returns True if the cancellation that a callback raised comes from :meth:`cut_off`.

        Returns False if it comes from elsewhere, such as a client library or the callback itself. Then it counts as an
        error of the callback.
        """
        task = asyncio.current_task()
        asked = task is not None and task.cancelling() > 0
        while task is not None and task.cancelling():
            task.uncancel()
        return asked and self.cut

    def reset_after_crash(self) -> None:
        """Forget the running call. Called after a crash of the stage."""
        self.own_contexts.clear()
        self.in_callback.is_on = False
        self._deadline = math.inf
        self._timed_out = False

    # --- threads that do not return

    def leave_thread(self) -> None:
        """Stop waiting for a thread that is past its deadline. It keeps the slot until it returns."""
        # The thread may have returned exactly at its deadline.
        self.stuck = self.threads.is_out(self.came_back)

    def came_back(self) -> None:
        """Free the slot: the thread has returned."""
        self.stuck = False
        self._wake.set()

    async def wait_for_slot(self) -> bool:
        """Wait until the slot is free. Returns False if a drain ended the wait."""
        while self.stuck and not self.cut and not self._is_stopping():
            await self._wake.wait()
        return not self.stuck
