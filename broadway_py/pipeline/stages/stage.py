"""The common part of all stages: the messages being worked on, the callbacks, the end of each round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broadway_py.message import Message
from broadway_py.pipeline.stages.conclusion import Conclusion
from broadway_py.pipeline.stages.services import Meter, Services
from broadway_py.stage import Wake

__all__ = ["PipelineStage"]


class PipelineStage:
    """One stage with its own task. Subclasses implement :meth:`run` and :meth:`take_all`.

    Args:
        services: the services of the pipeline.
        layer: name of the layer, for logs and metrics.
        index: position within the layer.
        meter: the figures of the layer.
        timeout_s: seconds that one call of the layer's callback may take; None for no limit.
    """

    def __init__(
        self, services: Services, layer: str, index: int, meter: Meter, timeout_s: float | None = None
    ) -> None:
        self.services = services
        self.layer = layer
        self.index = index
        self.meter = meter
        self.wake = Wake()
        #: The messages that the stage is working on.
        self.held: Sequence[Message[Any]] = ()
        self.busy_since: float | None = None
        #: For how long this stage was busy, without the work in hand. Only stages that handle messages count it.
        self.busy_seconds = 0.0
        #: The worker process for the layer's callback with ``executor="process"``; None if it runs in this process.
        self.process = None if services.processes is None else services.processes.make(layer, self.name, timeout_s)
        #: Calls the layer's callback.
        self.call = services.make_call(self.wake, timeout_s)
        #: The journal of the messages that callbacks work on; None if there is none.
        self.journal = self.call.journal
        self.conclusion = Conclusion(services, layer, index, meter, self.call)

    @property
    def name(self) -> str:
        """Returns the name of the stage, unique within the pipeline."""
        return f"{self.services.name}.{self.layer}.{self.index}"

    async def run(self) -> None:
        """Work until every stage that feeds this one has ended, or until cut off."""
        raise NotImplementedError

    def take_all(self) -> list[Message[Any]]:
        """Take out and return all messages that wait in this stage."""
        raise NotImplementedError

    def reset_after_crash(self) -> None:
        """Forget the messages in hand and the running call. Called after a crash."""
        self.held = ()
        self.busy_since = None
        self.call.reset_after_crash()
