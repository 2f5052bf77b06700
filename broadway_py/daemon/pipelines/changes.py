"""Changes of pipelines while they run: the rate limit, and the number of processors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from broadway_py.errors import PipelineNotRunning
from broadway_py.pipeline import Pipeline
from broadway_py.pipeline.runtime.live_changes import resized

__all__ = ["BEFORE", "Change", "ConcurrencyChange", "RateChange", "apply"]

#: States of a pipeline whose stages do not exist yet. They are built with what was changed before.
BEFORE: Final = ("new", "starting")
_AFTER: Final = ("stopped", "crashed")


@dataclass(frozen=True, slots=True)
class RateChange:
    """Another rate limit."""

    allowed_messages: int
    #: Seconds. None: it stays as it is.
    interval: float | None = None
    #: Whether a new interval begins at once.
    reset: bool = False


@dataclass(frozen=True, slots=True)
class ConcurrencyChange:
    """Another number of processors."""

    processors: int


Change = RateChange | ConcurrencyChange


def apply(pipeline: Pipeline[Any], change: Change) -> None:
    """Changes *pipeline*. One that has not started yet starts with the new value.

    Raises:
        OptionsError: it cannot be changed: it has no rate limit, or its processors are partitioned.
        PipelineNotRunning: it has ended, or is draining.
    """
    if pipeline.phase in _AFTER:
        raise PipelineNotRunning(f"pipeline {pipeline.name!r} is {pipeline.phase}")
    if isinstance(change, RateChange):
        pipeline.update_rate_limit(
            allowed_messages=change.allowed_messages, interval=change.interval, reset=change.reset
        )
    elif pipeline.phase in BEFORE:
        pipeline.processors = resized(pipeline.processors, change.processors, pipeline.partition_by)
    else:
        pipeline.set_concurrency(processors=change.processors)
