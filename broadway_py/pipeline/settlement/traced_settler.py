"""Carries out settlements, with a span for each failed message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from broadway_py._core.settlement import Round
from broadway_py.clock import Clock
from broadway_py.message import Message, Outcome
from broadway_py.pipeline.settlement.failure_router import FailureRouter
from broadway_py.pipeline.settlement.settler import Settler, by_outcome
from broadway_py.tracing import Tracer

__all__ = ["TracedSettler"]

#: What the source itself does with a failed message, by the outcome.
_BY_SOURCE: Final[Mapping[Outcome, str]] = {
    "dead_lettered": "dead_letter",
    "dropped": "drop",
    "rejected": "reject",
    "retried": "retry",
}


class TracedSettler(Settler):
    """Works as :class:`Settler`. Messages that succeeded have no span of their settlement.

    Args:
        pipeline: the pipeline's name, for the log.
        clock: the clock for the ledgers.
        failures: decides what happens to failed messages; None leaves that to their acknowledgers.
        tracer: makes the spans.
    """

    def __init__(self, pipeline: str, clock: Clock, failures: FailureRouter | None, tracer: Tracer) -> None:
        super().__init__(pipeline, clock, failures)
        self._tracer = tracer

    async def _attempt(self, each: Round, delays_s: Mapping[int, float]) -> BaseException | None:
        told = _told(each)
        if not told:
            return await super()._attempt(each, delays_s)
        spans = [self._tracer.settle(messages, operation, delays_s) for operation, messages in told]
        error: BaseException | None = None
        try:
            error = await super()._attempt(each, delays_s)
        except BaseException as cut:
            error = cut
            raise
        finally:
            for span in spans:
                span.end(error)
        return error


def _told(each: Round) -> list[tuple[str, Sequence[Message[Any]]]]:
    """Returns the failed messages by what happens to them."""
    if each.kind == "release":
        return []  # they have not failed
    if each.kind != "ack":
        return [(each.kind, each.successful)]
    if not each.failed:
        return []
    return [
        (_BY_SOURCE.get(outcome, "settle"), messages) for outcome, messages in by_outcome(each, each.failed).items()
    ]
