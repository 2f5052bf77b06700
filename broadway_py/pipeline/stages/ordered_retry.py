"""Retries that keep the order: a failed message is tried again in place, and later ones with its key wait for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broadway_py._core.settlement import can_give_back
from broadway_py.message import Message
from broadway_py.pipeline.settlement.fates import retry_words
from broadway_py.pipeline.stages.stage import PipelineStage

__all__ = ["called_off", "wait_and_retry_in_order"]


async def wait_and_retry_in_order(stage: PipelineStage, failed: Sequence[Message[Any]]) -> list[Message[Any]]:
    """Wait, then reset the messages of *failed* that *stage* is to try again. Returns those messages.

    Nothing is tried again once the drain has begun: messages that can be given back are given back, the others fail.
    """
    services = stage.services
    router, clock = services.router, services.clock
    if router is None or not router.ordered or services.is_stopping:
        return []
    delays = {id(message): router.in_place(message) for message in failed}
    again = [message for message in failed if delays[id(message)] is not None]
    if not again:
        return []
    stage.conclusion.note_failed(
        again, fate=lambda message: ("retry", f"{retry_words(delays[id(message)] or 0.0)}, in its place")
    )
    stage.call.own_contexts.clear()
    router.failed_in_place(again, stage.layer)
    until = clock.monotonic() + max(delays[id(message)] or 0.0 for message in again)
    while clock.monotonic() < until:
        if stage.call.cut or services.is_stopping:
            return []
        await stage.wake.wait_until(until, clock)
    if not await stage.call.wait_for_slot():
        return []
    for message in again:
        message.attempt = (message.attempt or 1) + 1
        message._status = None
        message._children = None
    return again


def called_off(stage: PipelineStage, failed: Sequence[Message[Any]]) -> list[Message[Any]]:
    """Returns those of *failed* that *stage* would try again if it did not drain, and that can be given back."""
    router = stage.services.router
    if router is None or not router.ordered or not (stage.call.cut or stage.services.is_stopping):
        return []
    return [message for message in failed if can_give_back(message) and router.in_place(message) is not None]
