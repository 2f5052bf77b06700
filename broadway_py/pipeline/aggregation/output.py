"""Where the results of one aggregator go: to the user's ``emit``, to a sink, or to both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from broadway_py._core.aggregation.pending import DueResult
from broadway_py._core.window.times import EventTime
from broadway_py.clock import Clock
from broadway_py.pipeline.aggregation.records import Records
from broadway_py.pipeline.callbacks.aggregators import AggregatorDefinition
from broadway_py.publisher import Publisher
from broadway_py.result_message import result_message

__all__ = ["Output"]


class Output:
    """Hands out results.

    Args:
        pipeline: the pipeline's name.
        definition: the aggregator.
        records: reads stored results.
        shown: gives bounds of windows as users know them.
        clock: the clock of a sink.
    """

    def __init__(
        self,
        pipeline: str,
        definition: AggregatorDefinition,
        records: Records,
        shown: Callable[[int | None], EventTime | None],
        *,
        clock: Clock,
    ) -> None:
        self._definition = definition
        self._records = records
        self._shown = shown
        sink = definition.options.emit_to
        self._publisher: Publisher | None = (
            None if sink is None else sink.create(f"{pipeline}.{definition.name}", clock)
        )

    async def emit(self, taken: Sequence[DueResult]) -> None:
        """Hand out *taken*. Returns when all of them were taken.

        Raises:
            Exception: some were not; it may be none of them.
        """
        results = self._records.read_results(taken, self._shown)
        if self._publisher is not None:
            messages = [result_message(result, *self._records.texts(result)) for result in results]
            await self._publisher.publish(messages, timeout=self._definition.options.emit_timeout)
        if self._definition.has("emit"):
            user: Any = self._definition.aggregator
            await user.emit(results)

    async def close(self) -> None:
        """Close the sink. Nothing is handed out any more."""
        if self._publisher is not None:
            await self._publisher.close()
