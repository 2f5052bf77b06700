"""What processors, batchers and batch processors have in common: messages in hand, callbacks, an end."""

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
from broadway_py._core.settlement import most_returned, will_be_stopped
from broadway_py.clock import Timer
from broadway_py.foreign import foreign_errors
from broadway_py.message import Failed, Message, Plain
from broadway_py.pipeline.contexts import awaited, drive, is_changed
from broadway_py.pipeline.poison.stage_journal import StageJournal
from broadway_py.pipeline.settlement.failure_log import Fate
from broadway_py.pipeline.settlement.failure_router import refuse_odd_values
from broadway_py.pipeline.stages.services import Meter, Services
from broadway_py.stage import Inlet, Wake
from broadway_py.telemetry import Span

__all__ = ["Worker"]


class Worker:
    """One stage with its own task. Subclasses implement :meth:`run` and :meth:`leftovers`.

    Args:
        services: of the pipeline.
        layer: name of the layer it belongs to, for logs and metrics.
        index: position within the layer.
        meter: of the layer.
        timeout_s: how long one call of the layer's callback may take; None: as long as it likes.
    """

    def __init__(
        self, services: Services, layer: str, index: int, meter: Meter, timeout_s: float | None = None
    ) -> None:
        self.services = services
        self.layer = layer
        self.index = index
        self.meter = meter
        self.wake = Wake()
        self.task: asyncio.Task[None] | None = None
        #: Messages being worked on.
        self.held: Sequence[Message[Any]] = ()
        self.busy_since: float | None = None
        #: True once the drain has run out of time: finish nothing more.
        self.cut = False
        #: Code of the user runs in our task: what cuts it off must cancel.
        self.in_callback = False
        self.timeout_s = timeout_s
        #: Where the layer's callback runs with ``executor="process"``; None: in this process.
        self.process = None if services.processes is None else services.processes.make(layer, self.name, timeout_s)
        # One deadline for the worker, moved along from call to call, and at most one timer behind it.
        self._deadline = math.inf
        self._timer: Timer | None = None
        self._timed_out = False
        #: A thread of ours is past its deadline and has not returned.
        self.stuck = False
        # The contexts of failed messages, by identity, where a callback has set something: for what is said of them.
        self.own_contexts: dict[int, Context] = {}
        # That of the last call, if it has set something.
        self._called_in: Context | None = None
        #: Keeps the journal of what is at work here; None: there is none.
        self.journal: StageJournal | None = None
        if services.isolation is not None:
            self.journal = StageJournal(
                services.isolation,
                pipeline=services.name,
                clock=services.clock,
                wake=self.wake,
                is_cut=lambda: self.cut,
            )

    @property
    def name(self) -> str:
        """Unique within the pipeline."""
        return f"{self.services.name}.{self.layer}.{self.index}"

    async def run(self) -> None:
        """Work until every producer of this stage has ended, or until :attr:`cut`."""
        raise NotImplementedError

    def leftovers(self) -> list[Message[Any]]:
        """Take out everything that waits in this stage."""
        raise NotImplementedError

    def forget(self) -> None:
        """After a crash: nothing is in hand any more, and no call is running."""
        self.held = ()
        self.own_contexts.clear()
        self.busy_since = None
        self.in_callback = False
        self._deadline = math.inf
        self._timed_out = False

    def cut_off(self) -> None:
        """Stop what user code is running here; a settlement under way is left alone."""
        self.cut = True
        self.wake.set()
        if self.in_callback and self.task is not None:
            self.task.cancel()

    def begin_call(self) -> None:
        """The callback is called: its time begins, if it has a limit."""
        if self.timeout_s is not None:
            self._deadline = self.services.clock.monotonic() + self.timeout_s
            if self._timer is None:
                self._timer = self.services.clock.call_at(self._deadline, self._look_at_deadline)

    def end_call(self) -> bool:
        """The callback has ended; True when that was too late."""
        self._deadline = math.inf
        late, self._timed_out = self._timed_out, False
        if late:
            # One that caught its cancellation and went on has left the request behind: the next one must not see it.
            self.was_cut()
        return late

    def current_deadline(self) -> float:
        """When the call that is running must have ended."""
        return self._deadline

    def _look_at_deadline(self) -> None:
        self._timer = None
        if self._deadline == math.inf:
            return  # no call is running
        deadline = self.current_deadline()
        if self.services.clock.monotonic() < deadline:
            self._timer = self.services.clock.call_at(deadline, self._look_at_deadline)
            return
        self._timed_out = True
        self._deadline = math.inf
        if self.task is not None:
            self.task.cancel()

    def leave_thread(self) -> None:
        """A thread is past its deadline: it cannot be stopped, and this worker's slot is taken until it returns."""
        # It may have returned at the very moment of its deadline.
        self.stuck = self.services.threads.is_out(self.came_back)

    def came_back(self) -> None:
        """The thread has returned: the slot is free."""
        self.stuck = False
        self.wake.set()

    async def wait_for_slot(self) -> bool:
        """Wait until the slot is free; False when the drain does not wait for that."""
        while self.stuck and not self.cut and not self.services.draining:
            await self.wake.wait()
        return not self.stuck

    async def wait_aside(self, inlet: Inlet[Any]) -> None:
        """Wait for the slot after *inlet* has stepped aside, and join again.

        The drain does not wait for the thread. Then this worker joins only where nobody else is left, so that what
        still comes is turned away rather than kept.
        """
        is_free = False
        try:
            is_free = await self.wait_for_slot()
        finally:
            inlet.rejoin(where_needed=not is_free)

    async def nothing_comes(self, inlet: Inlet[Any]) -> bool:
        """True when *inlet* is finished; else wait until something has changed."""
        if not inlet.finished:
            await self.wake.wait()
        return inlet.finished

    def timeout_failure(self) -> Failed:
        """The status of a message whose callback took too long."""
        return Failed("timeout", Plain(f"not finished within its time-out of {self.timeout_s:g} s"))

    def was_cut(self) -> bool:
        """True when a cancellation that a callback let out is the end that :meth:`cut_off` asked for.

        False: nobody asked for it (a client library, or the callback itself), so it belongs to the callback.
        """
        task = asyncio.current_task()
        asked = task is not None and task.cancelling() > 0
        while task is not None and task.cancelling():
            task.uncancel()
        return asked and self.cut

    def span(self, event: str, **metadata: Any) -> Span | None:
        """Begin a pair of telemetry events; None when nobody is attached to any, so that nobody pays."""
        if not telemetry.active():
            return None
        services = self.services
        return Span(
            event, metadata, clock=services.clock, pipeline=services.name, context=services.context, index=self.index
        )

    async def call(self, name: str, *arguments: Any) -> Any:
        """Run the user's callback *name* on a list of messages.

        In this task, or in a thread when it is a plain function; in a clean context. What it says of one failed
        message alone is said in that message's own.
        """
        callbacks = self.services.callbacks
        callback: Callable[..., Any] = getattr(callbacks, name)
        base = self.clean_context()
        if name == "handle_failed" and len(arguments[0]) == 1:
            base = self.own_contexts.get(id(arguments[0][0]), base)
        context = base.copy()
        self._called_in = None
        self.in_callback = True
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

            result = await self.services.threads.run(job, self.came_back, context)
            return await drive(awaited(result), context) if inspect.isawaitable(result) else result
        finally:
            self.in_callback = False
            if is_changed(context, base):
                self._called_in = context
            if self.journal is not None:
                self.journal.nothing_at_work()

    def clean_context(self) -> Context:
        """What a call of the user's code starts with; telemetry's handlers may have added to it for this chunk."""
        return copy_context() if telemetry.active() else self.services.base

    def note_context(self, messages: Sequence[Message[Any]]) -> None:
        """Those of *messages* that have failed did so in the last call, which may have set context variables."""
        if self._called_in is not None:
            for message in messages:
                if message._status is not None:
                    self.own_contexts[id(message)] = self._called_in

    def note_stopped(self, message: Message[Any]) -> None:
        """Count a message that fails because it cannot be given back."""
        self.meter.failed["stopped" if message.status is None else message.status.cause] += 1

    async def give_back(self, messages: Sequence[Message[Any]]) -> None:
        """Give *messages* back without a decision; those that cannot be given back fail here, as stopped."""
        for message in filter(will_be_stopped, messages):
            self.note_stopped(message)
        await self.services.settler.give_back(messages)

    async def conclude(
        self, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]], *, of_children: bool = False
    ) -> None:
        """The end of a round: ``handle_failed`` for the failed ones, then the settlement of both.

        With *of_children* they are parents, whose outcome is that of their children.
        """
        if failed:
            for message in failed:
                refuse_odd_values(message)
                self.meter.failed[message.status.cause] += 1  # type: ignore[union-attr]  # failed messages have a status
            statuses = [message.status for message in failed]
            try:
                if self.services.callbacks.handle_failed is not None:
                    told = failed if self.journal is None else self.journal.may_be_told(failed)
                    if told:
                        await self._handle_failed(told)
            except BaseException:
                self.note_failed(failed, statuses)
                raise
            # The line says what becomes of the message, which is decided with the settlement.
            await self.services.settler.settle(
                successful,
                failed,
                of_children=of_children,
                decided=lambda fate: self.note_failed(failed, statuses, fate),
                stage=self.layer,
            )
        else:
            await self.services.settler.settle(successful, of_children=of_children)

    def note_failed(
        self,
        failed: Sequence[Message[Any]],
        statuses: Sequence[Failed | None] | None = None,
        fate: Fate | None = None,
    ) -> None:
        """Log them, in their own contexts; see :meth:`FailureLog.note`."""
        try:
            self.services.failures.note(self.layer, failed, statuses, fate, contexts=self.own_contexts)
        except foreign_errors() as error:
            # An object of the user was asked for its name or its text. That must not keep anything from being settled.
            self.services.failures.cannot_be_told(self.layer, len(failed), error)

    async def _handle_failed(self, failed: Sequence[Message[Any]]) -> None:
        statuses = [message.status for message in failed]
        span = self.span("broadway.handle_failed", stage=self.layer, messages=list(failed))
        try:
            await self.call("handle_failed", list(failed))
        except foreign_errors() as error:
            # The messages are settled all the same.
            if span is not None:
                span.exception(error)
            self._log_handle_failed(error)
        except asyncio.CancelledError as cancelled:
            self.was_cut()
            if span is not None:
                span.exception(cancelled)
            self._log_handle_failed(cancelled)
        else:
            if span is not None:
                span.stop()
        for message, status in zip(failed, statuses, strict=True):
            # Turning one back to ok does not rescue it.
            if message._status is None:
                message._status = status

    def _log_handle_failed(self, error: BaseException) -> None:
        self.services.failures.callback_failed("handle_failed", self.layer, error)
