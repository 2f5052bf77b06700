"""What telemetry hears of one run of a flow."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, Final

from broadway_py import telemetry
from broadway_py.clock import Clock
from broadway_py.flow.description.settings import RunSettings
from broadway_py.flow.plan import Plan
from broadway_py.flow.report import FlowReport, StageReport

__all__ = ["FlowEvents"]

_START: Final = "broadway.flow.start"
_STOP: Final = "broadway.flow.stop"
_STAGE_STOP: Final = "broadway.flow.stage.stop"

#: Runs are counted, because flows have no names.
_numbers: Final = count(1)


class FlowEvents:
    """Sends the telemetry events of a run. Nothing is sent for single elements or lists.

    Args:
        plan: what runs.
        settings: how it is run.
        clock: measures.
    """

    def __init__(self, plan: Plan, settings: RunSettings, clock: Clock) -> None:
        self._plan = plan
        self._clock = clock
        self._started = clock.monotonic()
        #: The number of the run in this program, from 1.
        self.number = next(_numbers)
        self._metadata = {"flow": self.number, "runner": settings.runner}

    def start(self) -> None:
        """The run begins."""
        self._started = self._clock.monotonic()
        if telemetry.listening(_START):
            measured = {"system_time": self._clock.wall(), "monotonic_time": self._started}
            layers = tuple((layer.name, layer.stages) for layer in self._plan.layers)
            telemetry.execute(_START, measured, {**self._metadata, "layers": layers})

    def stage_stopped(self, stage: StageReport) -> None:
        """A stage has ended, or was ended. What a worker process does not tell before it dies is not told."""
        if telemetry.listening(_STAGE_STOP):
            self._stop(_STAGE_STOP, {"layer": stage.layer, "index": stage.index, "report": stage})

    def stop(self, report: Callable[[], FlowReport], error: BaseException | None = None) -> None:
        """The run has ended, and nothing of it is left; *error* says why if it was before its time."""
        if telemetry.listening(_STOP):
            self._stop(_STOP, {"report": report(), "exception": error})

    def _stop(self, event: str, more: dict[str, Any]) -> None:
        now = self._clock.monotonic()
        measured = {"duration": now - self._started, "monotonic_time": now}
        telemetry.execute(event, measured, {**self._metadata, **more})
