"""What becomes of messages that an aggregator does not add: they fail, or are handed on because they are late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from broadway_py._core.aggregation.outcome import Added
from broadway_py.message import Failed, Message, Plain
from broadway_py.pipeline.callbacks.aggregators import AggregatorDefinition
from broadway_py.pipeline.settlement.failures import fail, failure_from
from broadway_py.pipeline.stages.conclusion import Conclusion
from broadway_py.pipeline.stages.late_stage import LateStage

__all__ = ["Refusals"]

_LATE: Final = Failed("late", Plain("its windows have closed"))


class Refusals:
    """Settles what one aggregator does not add.

    Args:
        definition: the aggregator.
        conclusion: settles failed messages.
        late: takes late messages; None: they fail.
    """

    def __init__(self, definition: AggregatorDefinition, conclusion: Conclusion, late: LateStage | None) -> None:
        self._conclusion = conclusion
        self._late = late
        most: Any = definition.window.max_ahead
        if not isinstance(most, float):
            most = 0.0  # nothing is too far ahead
        self._ahead = Failed(
            "future_event_time", Plain(f"its event time lies more than {most:g} s (max_ahead) ahead of the clock")
        )

    async def settle(self, out: Added) -> None:
        """Settle those of *out* that are in no window, or hand them on."""
        for message, error in out.failed:
            message._status = failure_from(error)
        ahead = [message for message, _ in out.ahead]
        fail(ahead, self._ahead)
        if out.failed or ahead:
            await self._fail([*(message for message, _ in out.failed), *ahead])
        if out.late and self._late is not None:
            self._late.add(out.late)
        elif out.late:
            fail(out.late, _LATE)
            await self._fail(out.late)

    async def _fail(self, failed: Sequence[Message[Any]]) -> None:
        await self._conclusion.conclude((), failed)
