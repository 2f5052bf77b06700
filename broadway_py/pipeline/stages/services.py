"""The objects that the stages of one running pipeline share: its services, and the figures of a layer."""

from __future__ import annotations

from collections import Counter
from contextvars import copy_context
from typing import Any, Final

from broadway_py import telemetry
from broadway_py._core.histogram import BATCH_SIZE_BOUNDS, SECONDS_BOUNDS, Histogram
from broadway_py._core.ledger import Ledger
from broadway_py.clock import Clock
from broadway_py.message import BatchTrigger, Cause
from broadway_py.pipeline.callbacks.call import Call
from broadway_py.pipeline.callbacks.definition import Callbacks
from broadway_py.pipeline.callbacks.threads import CallbackThreads
from broadway_py.pipeline.deduplication.deduplication import Deduplication
from broadway_py.pipeline.poison.isolation import Isolation
from broadway_py.pipeline.poison.stage_journal import StageJournal
from broadway_py.pipeline.processes.callback_process import CallbackProcesses
from broadway_py.pipeline.settlement.failure_log import FailureLog
from broadway_py.pipeline.settlement.failure_router import FailureRouter
from broadway_py.pipeline.settlement.settler import Settler
from broadway_py.pipeline.settlement.traced_settler import TracedSettler
from broadway_py.stage import Wake
from broadway_py.telemetry import Span
from broadway_py.tracing import Tracer

__all__ = ["SUBMITTED", "Meter", "Services"]

#: Name of the producer of submitted messages.
SUBMITTED: Final = "push"


class Services:
    """The services that all stages of one running pipeline use. They are made in its own task, after ``setup``.

    Args:
        name: the pipeline's name.
        callbacks: the callbacks of the pipeline.
        clock: the pipeline's clock.
        context: the pipeline's ``context``, for telemetry.
        router: decides what happens to failed messages; None if their sources decide.
        threads: the threads in which plain callbacks run.
        processes: makes the worker processes of the stages; None if no callback runs in a worker process.
        isolation: the isolation of the daemon's worker; None in a process that no daemon watches.
        tracer: makes the spans of the pipeline; None without tracing.
    """

    def __init__(
        self,
        name: str,
        callbacks: Callbacks,
        clock: Clock,
        context: object,
        router: FailureRouter | None,
        *,
        threads: CallbackThreads,
        processes: CallbackProcesses | None,
        isolation: Isolation | None,
        tracer: Tracer | None = None,
    ) -> None:
        self.name = name
        self.callbacks = callbacks
        self.clock = clock
        self.context = context
        self.router = router
        self.tracer = tracer
        self.settler = Settler(name, clock, router) if tracer is None else TracedSettler(name, clock, router, tracer)
        #: The ledger of spawned messages, which are not deliveries of a producer.
        self.children = Ledger("", self.settler)
        self.failures = FailureLog(name, clock)
        self.threads = threads
        #: The context variables as ``setup`` has left them. Each call of user code starts with them.
        self.base = copy_context()
        self.processes = processes
        #: True once a stop was asked for; not when the sources have ended by themselves. Messages that were not started
        #: and can be given back are not started then. The drain sets it.
        self.is_stopping = False
        self.isolation = isolation
        #: Recognises messages that were handled before; None without ``deduplicate_by``.
        self.deduplication: Deduplication | None = None

    def make_call(self, wake: Wake, timeout_s: float | None = None) -> Call:
        """Returns the object that calls the callbacks of one stage and keeps its journal, if there is one.

        *wake* wakes the stage.
        """
        journal = None
        if self.isolation is not None:
            journal = StageJournal(
                self.isolation, pipeline=self.name, clock=self.clock, wake=wake, is_cut=lambda: call.cut
            )
        call = Call(
            self.callbacks,
            self.threads,
            self.clock,
            self.base,
            wake=wake,
            is_stopping=lambda: self.is_stopping,
            timeout_s=timeout_s,
            journal=journal,
        )
        return call

    def span(self, event: str, index: int, **metadata: Any) -> Span | None:
        """Begin a pair of telemetry events in the stage *index*.

        Returns None if no telemetry handler is attached, so telemetry then costs nothing.
        """
        if not telemetry.active():
            return None
        return Span(event, metadata, clock=self.clock, pipeline=self.name, context=self.context, index=index)

    def tell(self, event: str, **metadata: Any) -> None:
        """Send one telemetry event, which is no part of a pair."""
        measured = {"system_time": self.clock.wall(), "monotonic_time": self.clock.monotonic()}
        telemetry.execute(event, measured, {"pipeline": self.name, "context": self.context, **metadata})


class Meter:
    """The figures of one layer, summed over its stages."""

    def __init__(self) -> None:
        self.busy_seconds = 0.0
        self.backpressure_seconds = 0.0
        self.failed: Counter[Cause] = Counter()
        self.duration = Histogram(SECONDS_BOUNDS)
        self.batches: Counter[BatchTrigger] = Counter()
        self.batch_sizes = Histogram(BATCH_SIZE_BOUNDS)
