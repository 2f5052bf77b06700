"""Takes in the messages of ``submit``, ``submit_batch`` and ``push_messages``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from broadway_py.acknowledger import CallerAcknowledger
from broadway_py.errors import BatchFailed, PipelineNotRunning
from broadway_py.message import BatchMode, Message
from broadway_py.pipeline.lifecycle import LifeCycle

__all__ = ["Settled", "Submitter"]


@dataclass(frozen=True, slots=True)
class Settled:
    """The outcome of a submitted batch. Both lists are in the order of settlement."""

    successful: list[Message[Any]]
    failed: list[Message[Any]]

    def raise_for_failed(self) -> None:
        """Raise :class:`BatchFailed` if any message failed."""
        if self.failed:
            raise BatchFailed(self.failed, len(self.successful) + len(self.failed))


class Submitter:
    """Sends messages to the running stages.

    Args:
        life_cycle: the life cycle of the pipeline.
    """

    def __init__(self, life_cycle: LifeCycle) -> None:
        self._life_cycle = life_cycle

    async def submit(
        self, call: str, items: Sequence[Any], metadata: dict[str, Any] | None, batch_mode: BatchMode
    ) -> Settled:
        """Send *items* through the pipeline and wait until all are settled.

        *call* is the name of the method that the user called.
        """
        self._life_cycle.refuse_inside(call)
        return await self._life_cycle.unless_ended(call, self._submit(call, items, metadata, batch_mode))

    async def _submit(
        self, call: str, items: Sequence[Any], metadata: dict[str, Any] | None, batch_mode: BatchMode
    ) -> Settled:
        caller = CallerAcknowledger(len(items))
        messages: list[Message[Any]] = []
        for item in items:
            message = Message(item, dict(metadata or {}), caller.acknowledgement())
            message.batch_mode = batch_mode
            messages.append(message)
        await self._push(call, messages)
        return Settled(*await caller.settled())

    async def push(self, messages: Sequence[Message[Any]]) -> None:
        """Send *messages* into the pipeline. Returns when all were taken in."""
        self._life_cycle.refuse_inside("push_messages")
        for message in messages:
            if not isinstance(message, Message):
                raise TypeError(f"push_messages: expected Message objects, got {type(message).__name__}")
            if message._ledger_entry is not None:
                raise ValueError(f"push_messages: {message!r} is in a pipeline already")
        await self._life_cycle.unless_ended("push_messages", self._push("push_messages", messages))

    async def _push(self, call: str, messages: Sequence[Message[Any]]) -> None:
        run = self._life_cycle.needs_run(call)
        source = run.stages.submissions
        await source.live.opened.wait()
        if run.is_draining or source.live.copy is None:
            raise PipelineNotRunning(f"{call}(): {self._life_cycle.shown} and takes no messages")
        if run.services.tracer is not None:
            run.services.tracer.submit(messages)
        await source.live.copy.push(messages)
