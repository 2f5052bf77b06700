"""What telemetry hears of one aggregator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from broadway_py import telemetry
from broadway_py._core.aggregation.outcome import Results
from broadway_py._core.aggregation.pending import DueResult
from broadway_py.message import Message
from broadway_py.pipeline.aggregation.held import Held
from broadway_py.pipeline.stages.services import Services
from broadway_py.telemetry import Span

__all__ = ["AggregatorEvents"]

_CHECKPOINT: Final = "broadway.aggregator.checkpoint"
_FIRED: Final = "broadway.aggregator.fired"
_LATE: Final = "broadway.aggregator.late"


class AggregatorEvents:
    """Sends the telemetry events of an aggregator. Without a handler it costs almost nothing.

    Args:
        services: the services of the pipeline.
        aggregator: its name.
        index: the index of its stage.
    """

    def __init__(self, services: Services, aggregator: str, index: int) -> None:
        self._services = services
        self._aggregator = aggregator
        self._index = index

    def checkpoint(self, number: int, held: Held) -> Span | None:
        """Begin the events of the checkpoint *number*, which stores the effect of *held*; None if nobody listens."""
        if not telemetry.active():
            return None
        messages = [*held.messages, *held.repeats]
        return self._services.span(
            _CHECKPOINT, self._index, aggregator=self._aggregator, number=number, messages=messages
        )

    def fired(self, number: int, results: Sequence[Results], due: Sequence[DueResult]) -> Callable[[], None] | None:
        """Returns what tells that the checkpoint *number* has stored *results* as *due*; None if nobody listens.

        It keeps no values: there may be many, and storing them takes a while.
        """
        if not due or not telemetry.listening(_FIRED):
            return None
        firings = (firing for one in results for _, _, firing, _ in one.entries)
        names = [f"{stored.window_id}#{firing}" for stored, firing in zip(due, firings, strict=True)]
        triggers = Counter[str]()
        for one in results:
            triggers[one.trigger] += len(one.entries)
        return lambda: self._tell(_FIRED, number=number, results=names, triggers=dict(triggers))

    def late(self, messages: Sequence[Message[Any]], why: str) -> None:
        """Tell that *messages* are late."""
        if telemetry.listening(_LATE):
            self._tell(_LATE, messages=list(messages), why=why)

    def _tell(self, event: str, **metadata: Any) -> None:
        self._services.tell(event, index=self._index, aggregator=self._aggregator, **metadata)
