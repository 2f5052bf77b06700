"""The call of a stage's callback: its context, its time-out, its cancellation, and the thread that does not return."""

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


class InCallback:
    """Marks that code of the user runs in the stage's own task: what cuts the stage off must cancel it then.

    A block; where one is entered for each chunk, :attr:`is_on` is set by hand, which costs no call.
    """

    __slots__ = ("is_on",)

    def __init__(self) -> None:
        self.is_on = False

    def __enter__(self) -> None:
        self.is_on = True

    def __exit__(self, *_: object) -> None:
        self.is_on = False


class Call:
    """Of one stage, which makes one call at a time.

    Args:
        callbacks: of the pipeline.
        threads: where plain functions run.
        clock: of the pipeline.
        base: the context variables that each call starts with.
        wake: the stage waits for it.
        is_draining: True once a stop was asked for.
        timeout_s: how long one call of the layer's callback may take; None: as long as it likes.
        journal: of what is at work here; None: there is none.
    """

    def __init__(
        self,
        callbacks: Callbacks,
        threads: CallbackThreads,
        clock: Clock,
        base: Context,
        *,
        wake: Wake,
        is_draining: Callable[[], bool],
        timeout_s: float | None,
        journal: StageJournal | None,
    ) -> None:
        self.callbacks = callbacks
        self.threads = threads
        self.clock = clock
        self.base = base
        self.timeout_s = timeout_s
        self.journal = journal
        #: The stage's own; None before it runs.
        self.task: asyncio.Task[None] | None = None
        #: True once the drain has run out of time: finish nothing more.
        self.cut = False
        self.in_callback = InCallback()
        #: A thread of ours is past its deadline and has not returned.
        self.stuck = False
        #: When the message that a thread is at was begun, where each has a time-out of its own; None: of none.
        self.began_at: Callable[[], float | None] = _unknown
        #: The contexts of failed messages, by identity, where a callback has set something: for what is said of them.
        self.own_contexts: dict[int, Context] = {}
        self._wake = wake
        self._is_draining = is_draining
        # One deadline for the stage, moved along from call to call, and at most one timer behind it.
        self._deadline = math.inf
        self._timer: Timer | None = None
        self._timed_out = False
        # The context of the last call, if it has set something.
        self._called_in: Context | None = None

    async def run(self, name: str, *arguments: Any) -> Any:
        """Run the user's callback *name* on a list of messages.

        In this task, or in a thread when it is a plain function; in a clean context. What it says of one failed
        message alone is said in that message's own.
        """
        callbacks = self.callbacks
        callback: Callable[..., Any] = getattr(callbacks, name)
        base = self.clean_context()
        if name == "handle_failed" and len(arguments[0]) == 1:
            base = self.own_contexts.get(id(arguments[0][0]), base)
        context = base.copy()
        self._called_in = None
        # By hand: it is on the way of each batch.
        self.in_callback.is_on = True
        if self.journal is not None:
            self.journal.at_work(arguments[0])
        try:
            if callbacks.is_async[name]:
                return await drive(callback(*arguments), context)

            def job() -> Any:
                returned = callback(*arguments)
                # A generator's body is the callback's: it must not run in the event loop.
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
        """What a call of the user's code starts with; telemetry's handlers may have added to it for this chunk."""
        return copy_context() if telemetry.active() else self.base

    def note_context(self, messages: Sequence[Message[Any]]) -> None:
        """Those of *messages* that have failed did so in the last call, which may have set context variables."""
        if self._called_in is not None:
            for message in messages:
                if message._status is not None:
                    self.own_contexts[id(message)] = self._called_in

    # --- its time

    def begin(self) -> None:
        """The callback is called: its time begins, if it has a limit."""
        if self.timeout_s is not None:
            self._deadline = self.clock.monotonic() + self.timeout_s
            if self._timer is None:
                self._timer = self.clock.call_at(self._deadline, self._look_at_deadline)

    def end(self) -> bool:
        """The callback has ended; True when that was too late."""
        self._deadline = math.inf
        late, self._timed_out = self._timed_out, False
        if late:
            # One that caught its cancellation and went on has left the request behind: the next one must not see it.
            self.was_cut()
        return late

    def _look_at_deadline(self) -> None:
        self._timer = None
        if self._deadline == math.inf:
            return  # no call is running
        deadline = self._deadline
        began_at = self.began_at()
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
        """The status of a message whose callback took too long."""
        return Failed("timeout", Plain(f"not finished within its time-out of {self.timeout_s:g} s"))

    # --- its cancellation

    def cut_off(self) -> None:
        """Stop what user code is running here; a settlement under way is left alone."""
        self.cut = True
        self._wake.set()
        if self.in_callback.is_on and self.task is not None:
            self.task.cancel()

    def was_cut(self) -> bool:
        """True when a cancellation that a callback let out is the end that :meth:`cut_off` asked for.

        False: nobody asked for it (a client library, or the callback itself), so it belongs to the callback.
        """
        task = asyncio.current_task()
        asked = task is not None and task.cancelling() > 0
        while task is not None and task.cancelling():
            task.uncancel()
        return asked and self.cut

    def reset_after_crash(self) -> None:
        """No call is running any more."""
        self.own_contexts.clear()
        self.in_callback.is_on = False
        self._deadline = math.inf
        self._timed_out = False

    # --- its thread

    def leave_thread(self) -> None:
        """A thread is past its deadline: it cannot be stopped, and this stage's slot is taken until it returns."""
        # It may have returned at the very moment of its deadline.
        self.stuck = self.threads.is_out(self.came_back)

    def came_back(self) -> None:
        """The thread has returned: the slot is free."""
        self.stuck = False
        self._wake.set()

    async def wait_for_slot(self) -> bool:
        """Wait until the slot is free; False when the drain does not wait for that."""
        while self.stuck and not self.cut and not self._is_draining():
            await self._wake.wait()
        return not self.stuck


def _unknown() -> None:
    """All messages of the call have one time-out together, or each is called by itself."""
