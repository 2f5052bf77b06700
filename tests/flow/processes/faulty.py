"""The program of ``test_faults.py``: it runs flows in which something goes wrong at a chosen point.

It reads a case from each line of its standard input, and answers each with a line. Worker processes import it too.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

__all__ = ["ELEMENTS", "Fault", "main"]

#: How many elements the source has: more than can be on their way at once.
ELEMENTS: Final = 200
#: Seconds in the place of one second.
_PATIENCE_S: Final = 0.1
#: Seconds after which a wait looks whether there was a signal.
_STEP_S: Final = 0.5
#: Set when the flow has ended: what blocks in this process returns.
_released: Final = threading.Event()
#: What the source of the case has read, and whether it was begun and closed.
_read: Final[list[int]] = []
_begun: Final[list[str]] = []
_closed: Final[list[str]] = []


@dataclass(frozen=True)
class Fault:
    """What goes wrong, where, and when. Its methods are the functions of the flow."""

    #: ``raise``, ``kill`` and ``stop`` (of the process that gets there), or something that the test does from outside
    #: while the function blocks: ``leave``, ``interrupt``.
    what: str
    component: str
    point: str
    #: A file that does not exist: only the first who gets to the point makes it.
    flag: str

    def at(self, component: str, point: str) -> None:
        """Goes wrong if this is the place."""
        is_first = self.reached(component, point)
        # What does not pickle is pickled again, to find out what it is.
        is_again = point == "result" and (component, point) == (self.component, self.point)
        if self.what == "raise" and (is_first or is_again):
            raise LookupError
        if not is_first:
            return
        if self.what in ("kill", "stop"):
            os.kill(os.getpid(), signal.SIGKILL if self.what == "kill" else signal.SIGSTOP)
        else:
            # In steps: Python notices a signal that comes just before a wait only when the wait ends.
            while not _released.wait(_STEP_S):
                pass

    def reached(self, component: str, point: str) -> bool:
        """Whether this is the place; if so, the test is told."""
        if (component, point) != (self.component, self.point):
            return False
        try:
            os.close(os.open(self.flag, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        # The standard error of worker processes is that of the program.
        os.write(2, f"reached {os.getpid()}\n".encode())
        return True

    # --- the functions of the flow

    def mapper_starts(self, _index: int, _stages: int) -> None:
        self.at("mapper", "start")

    def mapped(self, number: int) -> Any:
        self.at("mapper", "first")
        if number == ELEMENTS - 1:
            self.at("mapper", "end")
        # Those of both stages behind are in the other process for one of the mappers.
        return Sent(number, self, "mapper")

    def key(self, sent: Sent) -> int:
        return sent.number

    def start(self) -> int:
        self.at("reducer", "start")
        return 0

    def reduced(self, total: int, sent: Sent) -> tuple[list[Sent], int]:
        self.at("reducer", "first")
        return [Sent(sent.number, self, "reducer")], total + 1

    def ended(self, total: int) -> tuple[list[int], int]:
        self.at("reducer", "end")
        return [total], total


class Sent:
    """An element. It may go wrong when it leaves a process, or when it comes into the program."""

    def __init__(self, number: int, fault: Fault, component: str) -> None:
        self.number = number
        self.fault = fault
        self.component = component

    def __reduce__(self) -> Any:
        self.fault.at(self.component, "result")
        return _received, (self.number, self.fault, self.component)


def _received(number: int, fault: Fault, component: str) -> Sent:
    if component == "reducer":
        fault.at("parent", "result")
    return Sent(number, fault, component)


class _Source:
    """An iterable that has no length, so it is read in a thread."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault

    def __iter__(self) -> Iterator[int]:
        self._fault.at("source", "start")
        return self._numbers()

    def _numbers(self) -> Iterator[int]:
        _begun.append("source")
        try:
            self._fault.at("source", "first")
            for number in range(ELEMENTS) if self._fault.point != "close" else count():
                _read.append(number)
                yield number
            self._fault.at("source", "end")
        finally:
            _closed.append("source")
            self._fault.at("source", "close")


def _flow(fault: Fault, runner: Any) -> Any:
    from broadway_py import Flow  # noqa: PLC0415  # worker processes import this module: they need less

    return (
        Flow.from_iterable(_Source(fault), stages=2, max_demand=2, on_init=fault.mapper_starts)
        .map(fault.mapped)
        .partition(stages=2, max_demand=2, key=fault.key)
        .emit_and_reduce(fault.start, fault.reduced)
        .on_trigger(fault.ended)
        .using(runner, workers=2)
    )


# --- whoever takes the results


@dataclass
class _Reader:
    """Takes the results, and may go wrong itself."""

    fault: Fault
    taken: int = 0

    def points(self) -> Iterator[str]:
        """Yields the points at which the reader is after a result."""
        self.taken += 1
        if self.taken == 1:
            yield "first"
        if self.taken == ELEMENTS + 2:  # and the totals of two stages
            yield "end"

    def read(self, flow: Any) -> None:
        elements = iter(flow)
        for _ in elements:
            for point in self.points():
                self.fault.at("parent", point)
            if self.taken == 1 and self.fault.point == "credit":
                while not _is_full():
                    time.sleep(0.05)
                self.fault.at("parent", "credit")
                if self.fault.reached("worker", "credit"):
                    os.read(0, 1)  # the test has done something to a worker process
            if self.fault.point == "close":
                # A break would do it too, but Python tells nobody of an error of its close().
                elements.close()

    async def read_async(self, flow: Any) -> None:
        async for _ in flow:
            for point in self.points():
                if self.fault.reached("parent", point):
                    await asyncio.Event().wait()
            if self.taken == 1 and self.fault.point == "credit":
                while not _is_full():
                    await asyncio.sleep(0.05)
                if self.fault.reached(self.fault.component, "credit"):
                    await asyncio.Event().wait()


_looked: list[int] = []


def _is_full() -> bool:
    """Whether the source was not asked for anything for some looks."""
    _looked.append(len(_read))
    return len(_looked) > 4 and len(set(_looked[-4:])) == 1


async def _leave_when_told(fault: Fault, flow: Any) -> None:
    """Reads, until the test writes a line."""
    task = asyncio.create_task(_Reader(fault).read_async(flow))
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(0, told.set)
    waiting = asyncio.create_task(told.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    loop.remove_reader(0)
    os.read(0, 1)
    waiting.cancel()
    task.cancel()
    await task


# --- the program


def _change_the_package() -> None:
    from broadway_py.flow.running import loop_thread  # noqa: PLC0415  # as above
    from broadway_py.flow.running.runners import processes  # noqa: PLC0415  # as above
    from broadway_py.flow.stages import in_thread  # noqa: PLC0415  # as above
    from broadway_py.process.worker_process import WorkerProcess  # noqa: PLC0415  # as above

    class Observed(WorkerProcess):
        def __init__(self, *arguments: Any) -> None:
            # One was started before.
            if _case is not None and arguments[1][0].place == 1:
                _case.at("parent", "start")
            super().__init__(*arguments)

    vars(processes)["WorkerProcess"] = Observed
    # Most of what blocks here does so until nobody waits for it any more.
    for module, name in ((loop_thread, "PATIENCE_S"), (in_thread, "PATIENCE_S"), (processes, "_END_S")):
        vars(module)[name] = _PATIENCE_S


_case: Fault | None = None


def _outcome(fault: Fault, runner: str) -> str:
    """Runs a case, and returns what came of it, in a line."""
    flow = _flow(fault, runner)
    try:
        if fault.what == "leave":
            asyncio.run(_leave_when_told(fault, flow))
        else:
            _Reader(fault).read(flow)
    except BaseException as error:  # noqa: BLE001  # the test says which it must be
        cause = error.__cause__
        return f"{type(error).__name__}: {error}" + (f" <- {type(cause).__name__}" if cause else "")
    return "ended"


def main() -> None:
    """Runs cases until there are no more."""
    global _case  # noqa: PLW0603  # the class above sees it
    _change_the_package()
    # Without a buffer: nothing of a case is read before it is its turn.
    lines = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115  # as long as the program
    print("ready", flush=True)
    while line := lines.readline().strip():
        case = json.loads(line)
        runner = case.pop("runner")
        _case = fault = Fault(**case)
        for each in (_read, _begun, _closed, _looked):
            each.clear()
        _released.clear()
        outcome = _outcome(fault, runner)
        _released.set()
        for thread in threading.enumerate():
            if thread.name.startswith("flow"):
                thread.join()
        print(json.dumps({"outcome": outcome, "closed": _closed, "begun": _begun}), flush=True)
