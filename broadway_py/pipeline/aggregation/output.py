"""Where the results of one aggregator go: to the user's ``emit``, to a sink, or to both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from broadway_py._core.aggregation.pending import DueResult
from broadway_py._core.window.times import EventTime
from broadway_py.clock import Clock
from broadway_py.errors import PublishError
from broadway_py.pipeline.aggregation.records import Records
from broadway_py.pipeline.callbacks.aggregators import AggregatorDefinition
from broadway_py.publisher import Outgoing, Publisher
from broadway_py.result_message import result_message
from broadway_py.tracing import Sending, Tracer

__all__ = ["Output", "Untaken"]

#: A sink gets this part of ``emit_timeout``. So it can say what it has not confirmed before the whole call is cut off.
_SHARE_OF_TIME: Final = 0.9


@dataclass(frozen=True, slots=True)
class Untaken:
    """Results that a sink has not confirmed, and its error."""

    results: list[DueResult]
    error: PublishError


class Output:
    """Hands out results.

    Args:
        pipeline: the pipeline's name.
        definition: the aggregator.
        records: reads stored results.
        shown: gives bounds of windows as users know them.
        clock: the clock of a sink.
        tracer: makes a span of each call of a sink; None without tracing.
    """

    def __init__(
        self,
        pipeline: str,
        definition: AggregatorDefinition,
        records: Records,
        shown: Callable[[int | None], EventTime | None],
        *,
        clock: Clock,
        tracer: Tracer | None = None,
    ) -> None:
        self._definition = definition
        self._records = records
        self._shown = shown
        self._tracer = tracer
        self._sink = sink = definition.options.emit_to
        self._publisher: Publisher | None = (
            None if sink is None else sink.create(f"{pipeline}.{definition.name}", clock)
        )

    @property
    def called(self) -> str:
        """What hands out the results, as sentences call it."""
        if self._publisher is None:
            return "emit"
        return "emit_to and emit together" if self._definition.has("emit") else "emit_to"

    async def emit(self, taken: Sequence[DueResult]) -> Untaken | None:
        """Hand out *taken*. Returns those that were not taken; None: all of them were.

        Raises:
            Exception: it may be that none was taken.
        """
        results = self._records.read_results(taken, self._shown)
        if self._publisher is not None:
            messages = [result_message(result, *self._records.texts(result)) for result in results]
            sending = self._begin_span(len(messages))
            if sending is not None:
                messages = list(map(sending.carry, messages))
            try:
                await self._publish(self._publisher, messages, sending)
            except PublishError as error:
                if self._definition.has("emit"):
                    raise
                return Untaken(_unpublished(taken, messages, error), error)
        if self._definition.has("emit"):
            user: Any = self._definition.aggregator
            await user.emit(results)
        return None

    def _begin_span(self, count: int) -> Sending | None:
        if self._tracer is None or self._sink is None:
            return None
        # Results are made of many messages, so they go on in the trace of none.
        return self._tracer.send(self._sink.trace_place, count, begins_trace=True)

    async def _publish(self, publisher: Publisher, messages: Sequence[Outgoing], sending: Sending | None) -> None:
        error: BaseException | None = None
        try:
            await publisher.publish(messages, timeout=self._definition.options.emit_timeout * _SHARE_OF_TIME)
        except BaseException as raised:
            error = raised
            raise
        finally:
            if sending is not None:
                sending.end(error)

    async def close(self) -> None:
        """Close the sink. Nothing is handed out any more."""
        if self._publisher is not None:
            await self._publisher.close()


def _unpublished(taken: Sequence[DueResult], messages: Sequence[Outgoing], error: PublishError) -> list[DueResult]:
    """Returns those of *taken* that come again: what is not confirmed, and the later firings of the same windows."""
    missing = set(map(id, error.unpublished))
    left: list[DueResult] = []
    windows: set[str] = set()
    for result, message in zip(taken, messages, strict=True):
        if id(message) in missing or result.window_id in windows:
            windows.add(result.window_id)
            left.append(result)
    # A sink of the user may say that it has failed, and name none of these.
    return left or list(taken)
