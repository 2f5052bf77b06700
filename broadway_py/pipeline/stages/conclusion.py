"""The end of a round: reports failed messages to ``handle_failed`` and the log, then settles or gives back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from broadway_py._core.settlement import will_be_stopped
from broadway_py.foreign import foreign_errors
from broadway_py.message import Failed, Message
from broadway_py.pipeline.callbacks.call import Call
from broadway_py.pipeline.settlement.failure_log import Fate
from broadway_py.pipeline.settlement.failure_router import refuse_odd_values
from broadway_py.pipeline.stages.services import Meter, Services

__all__ = ["Conclusion"]


class Conclusion:
    """Ends each round of a stage: calls ``handle_failed`` for failed messages, then settles.

    Args:
        services: the services of the pipeline.
        layer: the layer of the stage.
        index: position of the stage within the layer.
        meter: the figures of the layer.
        call: calls ``handle_failed``.
    """

    def __init__(self, services: Services, layer: str, index: int, meter: Meter, call: Call) -> None:
        self._services = services
        self._layer = layer
        self._index = index
        self._meter = meter
        self._call = call

    async def conclude(
        self, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]], *, of_children: bool = False
    ) -> None:
        """Call ``handle_failed`` for the failed messages, then settle all.

        With *of_children* they are parents, whose outcome is that of their children.
        """
        if failed:
            for message in failed:
                refuse_odd_values(message)
                self._meter.failed[message.status.cause] += 1  # type: ignore[union-attr]  # failed messages have a status
            statuses = [message.status for message in failed]
            try:
                if self._services.callbacks.handle_failed is not None:
                    journal = self._call.journal
                    told = failed if journal is None else journal.may_be_told(failed)
                    if told:
                        await self._handle_failed(told)
            except BaseException:
                self.note_failed(failed, statuses)
                raise
            # The log line says what happens to the message, which the settlement decides.
            await self._services.settler.settle(
                successful,
                failed,
                of_children=of_children,
                decided=lambda fate: self.note_failed(failed, statuses, fate),
                stage=self._layer,
            )
        else:
            await self._services.settler.settle(successful, of_children=of_children)

    async def give_back(self, messages: Sequence[Message[Any]]) -> None:
        """Give *messages* back without a decision. Those that cannot be given back fail as stopped."""
        for message in filter(will_be_stopped, messages):
            self.note_stopped(message)
        await self._services.settler.give_back(messages)

    def note_stopped(self, message: Message[Any]) -> None:
        """Count a message that fails because it cannot be given back."""
        self._meter.failed["stopped" if message.status is None else message.status.cause] += 1

    def note_failed(
        self,
        failed: Sequence[Message[Any]],
        statuses: Sequence[Failed | None] | None = None,
        fate: Fate | None = None,
    ) -> None:
        """Log the failed messages in their own contexts; see :meth:`FailureLog.note`."""
        try:
            self._services.failures.note(self._layer, failed, statuses, fate, contexts=self._call.own_contexts)
        except foreign_errors() as error:
            # An object of the user raised when it was asked for its name or text. The messages are settled anyway.
            self._services.failures.cannot_be_told(self._layer, len(failed), error)

    async def _handle_failed(self, failed: Sequence[Message[Any]]) -> None:
        statuses = [message.status for message in failed]
        span = self._services.span("broadway.handle_failed", self._index, stage=self._layer, messages=list(failed))
        try:
            await self._call.run("handle_failed", list(failed))
        except foreign_errors() as error:
            # The messages are settled anyway.
            if span is not None:
                span.exception(error)
            self._log_handle_failed(error)
        except asyncio.CancelledError as cancelled:
            self._call.was_cut()
            if span is not None:
                span.exception(cancelled)
            self._log_handle_failed(cancelled)
        else:
            if span is not None:
                span.stop()
        for message, status in zip(failed, statuses, strict=True):
            # A message that handle_failed set back to ok stays failed.
            if message._status is None:
                message._status = status

    def _log_handle_failed(self, error: BaseException) -> None:
        self._services.failures.callback_failed("handle_failed", self._layer, error)
