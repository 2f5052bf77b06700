"""Flows for tests: how they are run, what is left of them, and the hash that the original's numbers come from."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from broadway_py.flow import Flow
from broadway_py.flow.description.settings import RunSettings
from broadway_py.flow.report import FlowReport
from broadway_py.flow.running import run as flow_run
from tests.flow.processes import works
from tests.support.eventually import PATIENCE, eventually_sync
from tests.support.ray_cluster import living_actors

__all__ = [
    "SECTION_8",
    "Closed",
    "by_phash2",
    "iterated",
    "leaves_nothing",
    "phash2",
    "report_of",
    "results",
    "results_async",
]

_MASK: Final = 0xFFFFFFFF

#: The values that the contract gives for words, modulo 4.
SECTION_8: Final = {
    "roses": 2,
    "are": 0,
    "red": 2,
    "violets": 1,
    "blue": 1,
    "the": 3,
    "quick": 0,
    "brown": 0,
    "fox": 0,
}


def phash2(number: int, stages: int) -> int:
    """Erlang's phash2 of a small number: a round of Jenkins' mix, which is in the public domain."""
    a, b, c = (0x9E3779B9 + number) & _MASK, 0x9E3779B9, 0
    for right, left, last in ((13, 8, 13), (12, 16, 5), (3, 10, 15)):
        a = ((a - b - c) & _MASK) ^ (c >> right)
        b = ((b - c - a) & _MASK) ^ ((a << left) & _MASK)
        c = ((c - a - b) & _MASK) ^ (b >> last)
    return c % stages


def by_phash2(stages: int) -> Any:
    """A ``hash`` for ``partition`` that sends numbers where the original sends them."""
    return lambda number: (number, phash2(number, stages))


def _of(flow: Flow[Any]) -> tuple[Any, RunSettings]:
    return flow._layer, flow._settings or RunSettings()


class Closed:
    """Endless sources that note when they are closed.

    Args:
        on_read: called with each number that the async source gives.
    """

    def __init__(self, on_read: Callable[[int], object] = str) -> None:
        self.names: list[str] = []
        self._on_read = on_read

    def endless(self, name: str = "plain") -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            self.names.append(name)

    async def endless_async(self, name: str = "async") -> AsyncIterator[int]:
        try:
            for number in itertools.count():
                self._on_read(number)
                yield number
                await asyncio.sleep(0)
        finally:
            self.names.append(name)

    def flow(self, runner: Any = "tasks") -> Flow[int]:
        sources: list[Any] = [self.endless(), self.endless_async()]
        flow: Flow[int] = Flow.from_iterables(sources, stages=2, max_demand=5).map(works.same)
        return flow.partition(stages=2).map(works.same).using(runner, workers=2)

    def failing(self, runner: Any = "tasks") -> Flow[int]:
        return self.flow(runner).map(works.refuse)


def iterated(flow: Flow[Any]) -> Iterator[Any]:
    return flow_run.iterate(*_of(flow))


def results(flow: Flow[Any]) -> list[Any]:
    return list(flow_run.iterate(*_of(flow)))


async def results_async(flow: Flow[Any]) -> list[Any]:
    return [element async for element in flow_run.aiterate(*_of(flow))]


def report_of(flow: Flow[Any]) -> FlowReport:
    return flow_run.run(*_of(flow))


@contextmanager
def leaves_nothing(runner: str = "tasks") -> Iterator[None]:
    """Fails if a thread, a task or a descriptor is left that was not there before; on a Ray cluster, an actor.

    Ray keeps connections of the program to the cluster, and opens and closes them when it likes. The thread that has
    disconnected a flow ends a moment after the flow.
    """
    before = _what_there_is()
    yield
    left = [here - there for here, there in zip(_what_there_is(), before, strict=True)]
    if runner == "ray":
        eventually_sync(lambda: not living_actors(), what="no actor lives")
        for thread in left[0]:
            thread.join(PATIENCE)
        left = [{thread for thread in left[0] if thread.is_alive()}, left[1], set()]
    assert left == [set()] * 3, left


def _what_there_is() -> list[set[Any]]:
    try:
        tasks: set[Any] = asyncio.all_tasks()
    except RuntimeError:  # there is no loop
        tasks = set()
    return [set(threading.enumerate()), tasks, {file.name for file in Path("/proc/self/fd").iterdir()}]
