"""Runs flows: in the event loop of the caller, or in a thread with an event loop of its own while the caller waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterator
from types import TracebackType
from typing import Any, Final, Self

from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.flow.description.layers import Layer
from broadway_py.flow.description.settings import RunSettings
from broadway_py.flow.report import FlowReport
from broadway_py.flow.running.loop_thread import LoopThread
from broadway_py.flow.running.one_run import Consumers, FlowRun, end_task

__all__ = ["RunningFlow", "aiterate", "iterate", "run", "run_async", "start", "to_list", "to_list_async"]


#: The flows that were started: an event loop does not keep its tasks alive.
_running: Final[set[asyncio.Task[FlowReport]]] = set()


class RunningFlow:
    """A flow that runs in the event loop of the caller. ``start`` returns it.

    Leaving its ``async with`` block stops it.
    """

    def __init__(self, run: FlowRun, main: Coroutine[Any, Any, FlowReport]) -> None:
        self._run = run
        self._task = asyncio.create_task(main, name="flow")
        _running.add(self._task)
        self._task.add_done_callback(_running.discard)

    async def wait(self) -> FlowReport:
        """Returns when the flow has ended, also if it was stopped. A cancellation of this call does not end the flow.

        Raises:
            FlowFailed: it has failed.
        """
        await asyncio.wait({self._task})
        return self._run.report() if self._task.cancelled() else self._task.result()

    async def stop(self) -> None:
        """Ends the flow, and returns when nothing of it is left. What is on its way is lost."""
        await end_task(self._task)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()


# --- in the loop of the caller


async def aiterate(layer: Layer, settings: RunSettings, clock: Clock = SYSTEM_CLOCK) -> AsyncGenerator[Any]:
    """Yields the results of a flow.

    Raises:
        FlowFailed: a function of the user, or a source, has failed.
    """
    run = FlowRun(layer, settings, clock)
    task = asyncio.create_task(run.main(), name="flow")
    result = run.result
    task.add_done_callback(lambda _: result.wake.set())
    try:
        while not (task.done() and (result.has_ended or task.exception() is not None)):
            if (taken := result.take()) is None:
                await result.wake.wait()
                continue
            elements, edge = taken
            for element in elements:
                yield element
            edge.ask(1)
    finally:
        await end_task(task)
    task.result()


async def run_async(layer: Layer, settings: RunSettings, clock: Clock = SYSTEM_CLOCK) -> FlowReport:
    """Runs a flow, and keeps nothing of its results.

    Raises:
        FlowFailed: a function of the user, or a source, has failed.
    """
    return await FlowRun(layer, settings, clock).consume(_ignore)


async def to_list_async(layer: Layer, settings: RunSettings, clock: Clock = SYSTEM_CLOCK) -> list[Any]:
    """Runs a flow, and returns its results.

    Raises:
        FlowFailed: a function of the user, or a source, has failed.
    """
    found: list[Any] = []
    await FlowRun(layer, settings, clock).consume(found.extend)
    return found


def start(layer: Layer, settings: RunSettings, consumers: Consumers = (), clock: Clock = SYSTEM_CLOCK) -> RunningFlow:
    """Starts a flow in the running event loop.

    Args:
        layer: the last layer.
        settings: how it is run.
        consumers: the running stages that get the results; without any, nothing is kept of them.
        clock: for timers and waits.
    """
    run = FlowRun(layer, settings, clock)
    chosen = list(consumers)
    main = run.main(chosen) if chosen else run.consume(_ignore)
    return RunningFlow(run, main)


# --- in a thread, for a caller that waits


def iterate(layer: Layer, settings: RunSettings) -> Iterator[Any]:
    """Yields the results of a flow, which runs in a thread with a loop of its own while the caller waits.

    Raises:
        FlowFailed: a function of the user, or a source, has failed.
    """
    with LoopThread(layer, settings) as thread:
        while (taken := thread.next()) is not None:
            elements, edge = taken
            yield from elements
            thread.ask(edge)


def run(layer: Layer, settings: RunSettings) -> FlowReport:
    """Runs a flow in a thread with a loop of its own, and waits. Nothing is kept of its results.

    Raises:
        FlowFailed: a function of the user, or a source, has failed.
    """
    with LoopThread(layer, settings, _ignore) as thread:
        return thread.report()


def to_list(layer: Layer, settings: RunSettings) -> list[Any]:
    """Runs a flow in a thread with a loop of its own, waits, and returns its results.

    Raises:
        FlowFailed: a function of the user, or a source, has failed.
    """
    found: list[Any] = []
    with LoopThread(layer, settings, found.extend) as thread:
        thread.report()
    return found


def _ignore(elements: list[Any]) -> None:
    """Keeps nothing of the results."""
