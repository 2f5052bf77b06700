"""Where order counts: a failed message is tried again where it is, and the later ones of its key wait for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broadway_py._core.settlement import can_give_back
from broadway_py.message import Message
from broadway_py.pipeline.settlement.fates import retry_words
from broadway_py.pipeline.stages.stage import Worker

__all__ = ["called_off", "retry_in_place"]


async def retry_in_place(worker: Worker, failed: Sequence[Message[Any]]) -> list[Message[Any]]:
    """Wait, and make those of *failed* fresh that *worker* is to try again; those.

    Nothing is tried again once the drain has begun: what can be given back is, the rest fails.
    """
    services = worker.services
    desk, clock = services.desk, services.clock
    if desk is None or not desk.ordered or services.draining:
        return []
    delays = {id(message): desk.in_place(message) for message in failed}
    again = [message for message in failed if delays[id(message)] is not None]
    if not again:
        return []
    worker.note_failed(
        again, fate=lambda message: ("retry", f"{retry_words(delays[id(message)] or 0.0)}, in its place")
    )
    worker.call.own_contexts.clear()
    desk.failed_in_place(again, worker.layer)
    until = clock.monotonic() + max(delays[id(message)] or 0.0 for message in again)
    while clock.monotonic() < until:
        if worker.call.cut or services.draining:
            return []
        await worker.wake.wait_until(until, clock)
    if not await worker.call.wait_for_slot():
        return []
    for message in again:
        message.attempt = (message.attempt or 1) + 1
        message._status = None
        message._children = None
    return again


def called_off(worker: Worker, failed: Sequence[Message[Any]]) -> list[Message[Any]]:
    """Those of *failed* that the drain keeps from being tried again by *worker*, and that can be given back."""
    desk = worker.services.desk
    if desk is None or not desk.ordered or not (worker.call.cut or worker.services.draining):
        return []
    return [message for message in failed if can_give_back(message) and desk.in_place(message) is not None]
