"""What processors, batchers and batch processors have in common: messages in hand, callbacks, an end."""

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
        services: of the pipeline.
        layer: name of the layer it belongs to, for logs and metrics.
        index: position within the layer.
        meter: of the layer.
        timeout_s: how long one call of the layer's callback may take; None: as long as it likes.
    """

    def __init__(
        self, services: Services, layer: str, index: int, meter: Meter, timeout_s: float | None = None
    ) -> None:
        self.services = services
        self.layer = layer
        self.index = index
        self.meter = meter
        self.wake = Wake()
        #: Messages being worked on.
        self.held: Sequence[Message[Any]] = ()
        self.busy_since: float | None = None
        #: Where the layer's callback runs with ``executor="process"``; None: in this process.
        self.process = None if services.processes is None else services.processes.make(layer, self.name, timeout_s)
        #: What calls the layer's callback.
        self.call = services.make_call(self.wake, timeout_s)
        #: Keeps the journal of what is at work here; None: there is none.
        self.journal = self.call.journal
        self.conclusion = Conclusion(services, layer, index, meter, self.call)

    @property
    def name(self) -> str:
        """Unique within the pipeline."""
        return f"{self.services.name}.{self.layer}.{self.index}"

    async def run(self) -> None:
        """Work until every producer of this stage has ended, or until cut off."""
        raise NotImplementedError

    def take_all(self) -> list[Message[Any]]:
        """Take out everything that waits in this stage."""
        raise NotImplementedError

    def reset_after_crash(self) -> None:
        """After a crash: nothing is in hand any more, and no call is running."""
        self.held = ()
        self.busy_since = None
        self.call.reset_after_crash()
