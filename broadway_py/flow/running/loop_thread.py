"""A flow that runs in a thread with an event loop of its own, and a caller that waits for it."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Final, Self

from broadway_py.clock import SYSTEM_CLOCK
from broadway_py.errors import FlowFailed
from broadway_py.flow.description.layers import Layer
from broadway_py.flow.description.settings import RunSettings
from broadway_py.flow.frames import Frame
from broadway_py.flow.report import FlowReport
from broadway_py.flow.running.one_run import FlowRun, end_task
from broadway_py.flow.stages.in_thread import PATIENCE_S
from broadway_py.stage import Edge

__all__ = ["LoopThread"]

_Taken = tuple[list[Any], Edge[Frame]]

#: The most seconds of a wait. A signal that arrives between the last look of the interpreter and the wait of the system
#: does not end the wait: Ctrl-C is noticed when the wait has ended.
_NOTICE_S: Final = 0.5


class LoopThread:
    """Runs a flow in a thread. Its ``with`` block waits until nothing of the flow is left.

    Args:
        layer: the last layer of the flow.
        settings: how it is run.
        give: called in the thread with each list of results; None: the caller takes them with :meth:`next`.
    """

    def __init__(self, layer: Layer, settings: RunSettings, give: Callable[[list[Any]], object] | None = None) -> None:
        self._layer = layer
        self._settings = settings
        self._give = give
        # Lists of results, as many as the last layer was asked for; None at the end.
        self._results: SimpleQueue[_Taken | None] = SimpleQueue()
        self._report: FlowReport | None = None
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_wanted: asyncio.Event | None = None
        self._must_stop = False
        # The task that waits, if the caller is in an event loop. That loop's Ctrl-C cancels it, and raises nothing.
        self._caller = _current_task()
        self._cancellations = 0 if self._caller is None else self._caller.cancelling()
        # The loop has seen that it must stop, or has ended: no function of the user blocks it.
        self._is_ending = threading.Event()
        self._is_given_up = False
        self._run: FlowRun | None = None
        # A daemon: else a program whose last statement is a break would never end.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._live,), name="flow", daemon=True)

    def __enter__(self) -> Self:
        # At the end of the program, while threads still run.
        atexit.register(self._close_soon)
        try:
            self._thread.start()
        except BaseException:
            atexit.unregister(self._close_soon)
            self._close_soon()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        atexit.unregister(self._close_soon)
        if kind is not None and issubclass(kind, KeyboardInterrupt | asyncio.CancelledError):
            self._close_soon()
        else:
            self._close()

    def next(self) -> _Taken | None:
        """Waits for the next list of results, and returns it with whom to ask for another one; None: it was the last.

        Raises:
            FlowFailed: the flow has failed.
            CancelledError: the task of the caller was cancelled, as Ctrl-C does it.
        """
        while True:
            if self._caller is not None and self._caller.cancelling() > self._cancellations:
                raise asyncio.CancelledError
            try:
                taken = self._results.get(timeout=_NOTICE_S)
            except Empty:
                continue
            if taken is None and (error := self._error) is not None:
                # Its cause leads to the user's function. The way through the stages says nothing to a user.
                raise error.with_traceback(None) if isinstance(error, FlowFailed) else error
            return taken

    def ask(self, edge: Edge[Frame]) -> None:
        """Says that a list is used up."""
        self._call(edge.ask, 1)

    def report(self) -> FlowReport:
        """Waits for the end, and returns what the flow has done.

        Raises:
            FlowFailed: the flow has failed.
        """
        while self.next() is not None:
            continue
        assert self._report is not None  # noqa: S101  # it has ended without an error
        return self._report

    def _close(self) -> None:
        """Ends the flow, and waits for it, unless this is called in its own thread, by the garbage collector."""
        self._stop()
        if self._thread.ident is not None and threading.current_thread() is not self._thread and not self._is_given_up:
            while self._thread.is_alive():
                self._thread.join(_NOTICE_S)

    def _close_soon(self) -> None:
        """Ends the flow. If a function of the user blocks the loop, nobody waits for it, because a person wants to go.

        The flow ends when the function returns, or with the program.
        """
        self._stop()
        self._is_given_up = self._thread.ident is not None and not self._is_ending.wait(PATIENCE_S)
        if self._is_given_up and self._run is not None:
            self._run.end_progress()
        self._close()

    def _stop(self) -> None:
        self._must_stop = True
        if self._stop_wanted is not None:
            self._call(self._stop_wanted.set)

    def _call(self, call: Any, *arguments: Any) -> None:
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            return  # the loop has closed: the flow has ended

    # --- in the thread

    def _live(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001  # next() raises it again
            self._error = error
        finally:
            self._is_ending.set()
            self._results.put(None)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop_wanted = asyncio.Event()
        if self._must_stop:
            return
        self._run = run = FlowRun(self._layer, self._settings, SYSTEM_CLOCK)
        main = self._pass_on(run) if self._give is None else run.consume(self._give)
        task = asyncio.create_task(main, name="flow.results")
        stop = asyncio.create_task(self._stop_wanted.wait(), name="flow.stop")
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            self._is_ending.set()
        finally:
            await end_task(stop)
            await end_task(task)
        if not task.cancelled():
            self._report = task.result()

    async def _pass_on(self, run: FlowRun) -> FlowReport:
        task = asyncio.create_task(run.main(), name="flow")
        result = run.result
        result.passed_on = self._results.qsize
        task.add_done_callback(lambda _: result.wake.set())
        try:
            while not (task.done() and (result.has_ended or task.exception() is not None)):
                if (taken := result.take()) is None:
                    await result.wake.wait()
                else:
                    self._results.put(taken)
        finally:
            await end_task(task)
        return task.result()


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # there is no event loop in this thread
        return None
