"""What the stages of one running pipeline share: its services, and the figures of a layer."""

from __future__ import annotations

from collections import Counter
from contextvars import copy_context
from typing import Final

from broadway_py._core.histogram import BATCH_SIZE_BOUNDS, SECONDS_BOUNDS, Histogram
from broadway_py._core.ledger import Ledger
from broadway_py.clock import Clock
from broadway_py.message import BatchTrigger, Cause
from broadway_py.pipeline.callbacks.definition import Callbacks
from broadway_py.pipeline.callbacks.threads import CallbackThreads
from broadway_py.pipeline.poison.isolation import Isolation
from broadway_py.pipeline.processes.callback_process import CallbackProcesses
from broadway_py.pipeline.settlement.failure_log import FailureLog
from broadway_py.pipeline.settlement.failure_router import FailureDesk
from broadway_py.pipeline.settlement.settler import Settler

__all__ = ["SUBMITTED", "Meter", "Services"]

#: Name of the producer of submitted messages.
SUBMITTED: Final = "push"


class Services:
    """What all stages of one running pipeline use."""

    def __init__(
        self,
        name: str,
        callbacks: Callbacks,
        clock: Clock,
        context: object,
        desk: FailureDesk | None,
        *,
        isolation: Isolation | None = None,
    ) -> None:
        self.name = name
        self.callbacks = callbacks
        self.clock = clock
        self.context = context
        self.desk = desk
        self.settler = Settler(name, clock, desk)
        #: Of spawned messages, which are no deliveries of any producer.
        self.children = Ledger("", self.settler)
        self.failures = FailureLog(name, clock)
        self.threads = CallbackThreads(name)
        #: Context variables as ``setup`` has left them: what each call of the user's code starts with.
        self.base = copy_context()
        #: None when no callback runs in a worker process.
        self.processes: CallbackProcesses | None = None
        #: True once a stop was asked for: what was not started and can be given back is not started any more.
        self.draining = False
        #: Of the daemon's worker; None in a process that nobody watches.
        self.isolation = isolation


class Meter:
    """Figures of one layer, summed over its workers."""

    def __init__(self) -> None:
        self.busy_seconds = 0.0
        self.backpressure_seconds = 0.0
        self.failed: Counter[Cause] = Counter()
        self.duration = Histogram(SECONDS_BOUNDS)
        self.batches: Counter[BatchTrigger] = Counter()
        self.batch_sizes = Histogram(BATCH_SIZE_BOUNDS)
