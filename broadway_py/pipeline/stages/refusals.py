"""Settles the messages that an aggregator does not add: they failed, lie too far ahead of the clock, or are late."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from broadway_py._core.aggregation.outcome import Added
from broadway_py.foreign import foreign_errors
from broadway_py.message import Failed, Message, Plain
from broadway_py.pipeline.callbacks.aggregators import AggregatorDefinition
from broadway_py.pipeline.callbacks.call import Call
from broadway_py.pipeline.contexts import drive
from broadway_py.pipeline.settlement.failures import fail, failure_from
from broadway_py.pipeline.stages.conclusion import Conclusion
from broadway_py.pipeline.stages.services import Services

__all__ = ["Refusals"]

_LATE: Final = Failed("late", Plain("its windows have closed"))


class Refusals:
    """Settles what one aggregator does not add.

    Args:
        services: the services of the pipeline.
        definition: the aggregator.
        conclusion: settles failed messages.
        call: calls the code of the user.
    """

    def __init__(
        self, services: Services, definition: AggregatorDefinition, conclusion: Conclusion, call: Call
    ) -> None:
        self._services = services
        self._definition = definition
        self._conclusion = conclusion
        self._call = call
        most: Any = definition.window.max_ahead
        if not isinstance(most, float):
            most = 0.0  # nothing is too far ahead
        self._ahead = Failed(
            "future_event_time", Plain(f"its event time lies more than {most:g} s (max_ahead) ahead of the clock")
        )

    async def settle(self, out: Added) -> None:
        """Settle those of *out* that are in no window."""
        for message, error in out.failed:
            message._status = failure_from(error)
        ahead = [message for message, _ in out.ahead]
        fail(ahead, self._ahead)
        if out.failed or ahead:
            await self._fail([*(message for message, _ in out.failed), *ahead])
        if out.late:
            await self._turn_away(out.late)

    async def _turn_away(self, late: list[Message[Any]]) -> None:
        """Give *late* messages to the user's ``late``; without one they fail."""
        if not self._definition.has("late"):
            fail(late, _LATE)
            await self._fail(late)
            return
        call = self._call
        try:
            with call.in_callback:
                async with self._services.clock.timeout(self._definition.options.emit_timeout):
                    await drive(self._definition.aggregator.late(list(late)), call.clean_context().copy())
        except foreign_errors() as error:
            fail(late, failure_from(error))
            await self._fail(late)
        except asyncio.CancelledError as cancelled:
            if call.was_cut():
                await self._conclusion.give_back(late)
                return
            fail(late, failure_from(cancelled))
            await self._fail(late)
        else:
            await self._services.settler.settle(late)

    async def _fail(self, failed: Sequence[Message[Any]]) -> None:
        await self._conclusion.conclude((), failed)
