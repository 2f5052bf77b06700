"""What processors, batchers and batch processors have in common: messages in hand, callbacks, an end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from broadway_py import telemetry
from broadway_py._core.settlement import will_be_stopped
from broadway_py.foreign import foreign_errors
from broadway_py.message import Failed, Message
from broadway_py.pipeline.callbacks.call import Call
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
        #: Messages being worked on.
        self.held: Sequence[Message[Any]] = ()
        self.busy_since: float | None = None
        #: Where the layer's callback runs with ``executor="process"``; None: in this process.
        self.process = None if services.processes is None else services.processes.make(layer, self.name, timeout_s)
        #: Keeps the journal of what is at work here; None: there is none.
        self.journal: StageJournal | None = None
        if services.isolation is not None:
            self.journal = StageJournal(
                services.isolation,
                pipeline=services.name,
                clock=services.clock,
                wake=self.wake,
                is_cut=lambda: self.call.cut,
            )
        #: What calls the layer's callback.
        self.call = Call(
            services.callbacks,
            services.threads,
            services.clock,
            services.base,
            wake=self.wake,
            is_draining=lambda: services.draining,
            timeout_s=timeout_s,
            journal=self.journal,
        )

    @property
    def name(self) -> str:
        """Unique within the pipeline."""
        return f"{self.services.name}.{self.layer}.{self.index}"

    async def run(self) -> None:
        """Work until every producer of this stage has ended, or until cut off."""
        raise NotImplementedError

    def leftovers(self) -> list[Message[Any]]:
        """Take out everything that waits in this stage."""
        raise NotImplementedError

    def forget(self) -> None:
        """After a crash: nothing is in hand any more, and no call is running."""
        self.held = ()
        self.busy_since = None
        self.call.reset_after_crash()

    async def wait_aside(self, inlet: Inlet[Any]) -> None:
        """Wait for the slot after *inlet* has stepped aside, and join again.

        The drain does not wait for the thread. Then this worker joins only where nobody else is left, so that what
        still comes is turned away rather than kept.
        """
        is_free = False
        try:
            is_free = await self.call.wait_for_slot()
        finally:
            inlet.rejoin(where_needed=not is_free)

    async def nothing_comes(self, inlet: Inlet[Any]) -> bool:
        """True when *inlet* is finished; else wait until something has changed."""
        if not inlet.finished:
            await self.wake.wait()
        return inlet.finished

    def span(self, event: str, **metadata: Any) -> Span | None:
        """Begin a pair of telemetry events; None when nobody is attached to any, so that nobody pays."""
        if not telemetry.active():
            return None
        services = self.services
        return Span(
            event, metadata, clock=services.clock, pipeline=services.name, context=services.context, index=self.index
        )

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
            self.services.failures.note(self.layer, failed, statuses, fate, contexts=self.call.own_contexts)
        except foreign_errors() as error:
            # An object of the user was asked for its name or its text. That must not keep anything from being settled.
            self.services.failures.cannot_be_told(self.layer, len(failed), error)

    async def _handle_failed(self, failed: Sequence[Message[Any]]) -> None:
        statuses = [message.status for message in failed]
        span = self.span("broadway.handle_failed", stage=self.layer, messages=list(failed))
        try:
            await self.call.run("handle_failed", list(failed))
        except foreign_errors() as error:
            # The messages are settled all the same.
            if span is not None:
                span.exception(error)
            self._log_handle_failed(error)
        except asyncio.CancelledError as cancelled:
            self.call.was_cut()
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
