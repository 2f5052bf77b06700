"""What processors, batchers and batch processors have in common: messages in hand, callbacks, an end."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from broadway_py import telemetry
from broadway_py._core.histogram import BATCH_SIZE_BOUNDS, SECONDS_BOUNDS, Histogram
from broadway_py.clock import Clock
from broadway_py.message import BatchTrigger, Cause, Failed, Message
from broadway_py.pipeline.failure_desk import FailureDesk
from broadway_py.pipeline.failure_log import FailureLog
from broadway_py.pipeline.settler import Settler
from broadway_py.pipeline.threads import CallbackThreads
from broadway_py.stage import Wake

if TYPE_CHECKING:
    from broadway_py.pipeline.definition import Callbacks

__all__ = ["Meter", "Shared", "Worker", "failure_from"]


class Shared:
    """What all stages of one running pipeline use."""

    def __init__(
        self, name: str, callbacks: Callbacks, clock: Clock, context: object, desk: FailureDesk | None
    ) -> None:
        self.name = name
        self.callbacks = callbacks
        self.clock = clock
        self.context = context
        self.desk = desk
        self.settler = Settler(name, clock, desk)
        self.failures = FailureLog(name, clock)
        self.threads = CallbackThreads(name)
        #: True once a stop was asked for: what was not started and can be given back is not started any more.
        self.draining = False


class Meter:
    """Figures of one layer, summed over its workers."""

    def __init__(self) -> None:
        self.busy_seconds = 0.0
        self.backpressure_seconds = 0.0
        self.failed: Counter[Cause] = Counter()
        self.duration = Histogram(SECONDS_BOUNDS)
        self.batches: Counter[BatchTrigger] = Counter()
        self.batch_sizes = Histogram(BATCH_SIZE_BOUNDS)


class Worker:
    """One stage with its own task. Subclasses implement :meth:`run` and :meth:`leftovers`.

    Args:
        shared: of the pipeline.
        layer: name of the layer it belongs to, for logs and metrics.
        index: position within the layer.
        meter: of the layer.
    """

    def __init__(self, shared: Shared, layer: str, index: int, meter: Meter) -> None:
        self.shared = shared
        self.layer = layer
        self.index = index
        self.meter = meter
        self.wake = Wake()
        self.task: asyncio.Task[None] | None = None
        #: Messages being worked on.
        self.held: Sequence[Message[Any]] = ()
        self.busy_since: float | None = None
        #: True once the drain has run out of time: finish nothing more.
        self.cut = False
        self._in_callback = False

    @property
    def name(self) -> str:
        """Unique within the pipeline."""
        return f"{self.shared.name}.{self.layer}.{self.index}"

    async def run(self) -> None:
        """Work until every producer of this stage has ended, or until :attr:`cut`."""
        raise NotImplementedError

    def leftovers(self) -> list[Message[Any]]:
        """Take out everything that waits in this stage."""
        raise NotImplementedError

    def forget(self) -> None:
        """After a crash: nothing is in hand any more."""
        self.held = ()
        self.busy_since = None
        self._in_callback = False

    def cut_off(self) -> None:
        """Stop what user code is running here; a settlement under way is left alone."""
        self.cut = True
        self.wake.set()
        if self._in_callback and self.task is not None:
            self.task.cancel()

    def was_cut(self) -> bool:
        """True when a cancellation that a callback let out is the end that :meth:`cut_off` asked for.

        False: nobody asked for it (a client library, or the callback itself), so it belongs to the callback.
        """
        task = asyncio.current_task()
        asked = task is not None and task.cancelling() > 0
        if asked and task is not None:
            task.uncancel()
        return asked and self.cut

    def span(self, event: str, **metadata: Any) -> Span | None:
        """Begin a pair of telemetry events; None when nobody is attached to any, so that nobody pays."""
        return Span(self, event, metadata) if telemetry.active() else None

    async def call(self, name: str, *arguments: Any) -> Any:
        """Run the user's callback *name*: in this task, or in a thread when it is a plain function."""
        callbacks = self.shared.callbacks
        callback: Callable[..., Any] = getattr(callbacks, name)
        self._in_callback = True
        try:
            if callbacks.is_async[name]:
                return await callback(*arguments)
            result = await self.shared.threads.run(lambda: callback(*arguments))
            return await result if inspect.isawaitable(result) else result
        finally:
            self._in_callback = False

    async def conclude(self, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """The end of a round: ``handle_failed`` for the failed ones, then the settlement of both."""
        if failed:
            for message in failed:
                self.meter.failed[message.status.cause] += 1  # type: ignore[union-attr]  # failed messages have a status
            self.shared.failures.note(self.layer, failed)
            if self.shared.callbacks.handle_failed is not None:
                await self._handle_failed(failed)
        await self.shared.settler.settle(successful, failed)

    async def _handle_failed(self, failed: Sequence[Message[Any]]) -> None:
        statuses = [message.status for message in failed]
        span = self.span("broadway.handle_failed", stage=self.layer, messages=list(failed))
        try:
            await self.call("handle_failed", list(failed))
        except Exception as error:  # noqa: BLE001  # code of the user: the messages are settled all the same
            if span is not None:
                span.exception(error)
            self._log_handle_failed(error)
        except asyncio.CancelledError as cancelled:
            self.was_cut()
            if span is not None:
                span.exception(cancelled)
            self._log_handle_failed(cancelled)
        else:
            if span is not None:
                span.stop()
        for message, status in zip(failed, statuses, strict=True):
            # Turning one back to ok does not rescue it.
            if message._status is None:
                message._status = status

    def _log_handle_failed(self, error: BaseException) -> None:
        self.shared.failures.callback_failed("handle_failed", self.layer, error)


class Span:
    """A pair of telemetry events around a piece of work."""

    __slots__ = ("_event", "_metadata", "_shared", "_started")

    def __init__(self, worker: Worker, event: str, metadata: dict[str, Any]) -> None:
        shared = self._shared = worker.shared
        self._event = event
        self._started = shared.clock.monotonic()
        self._metadata = {"pipeline": shared.name, "index": worker.index, "context": shared.context, **metadata}
        telemetry.execute(
            f"{event}.start", {"system_time": shared.clock.wall(), "monotonic_time": self._started}, self._metadata
        )

    def stop(self, **results: Any) -> None:
        """The work ended."""
        self._end("stop", results)

    def exception(self, error: BaseException) -> None:
        """The work raised."""
        self._end("exception", {"exception": error})

    def _end(self, kind: str, more: dict[str, Any]) -> None:
        now = self._shared.clock.monotonic()
        measured = {"duration": now - self._started, "monotonic_time": now}
        telemetry.execute(f"{self._event}.{kind}", measured, {**self._metadata, **more})


def failure_from(error: BaseException) -> Failed:
    """The status of a message whose callback let *error* out."""
    if isinstance(error, asyncio.CancelledError):
        return Failed("cancelled", "the callback was cancelled, and not by the pipeline", error)
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # an error that cannot say what it is
        text = "(its text cannot be shown)"
    return Failed("raised", f"{type(error).__name__}: {text}", error)
