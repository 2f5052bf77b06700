"""Whatever goes wrong, wherever and whenever: a flow has one outcome, says what it was, and leaves nothing.

What is left is looked at from outside: the processes of the session, and the descriptors and threads of the program.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.support.eventually import PATIENCE, eventually

pytestmark = pytest.mark.faults

PROGRAM: Final = "from tests.flow.processes.faulty import main; main()"

SHARED_MEMORY: Final = Path("/dev", "shm")


class Left(NamedTuple):
    """What there is of a program."""

    processes: set[int]
    descriptors: set[str]
    threads: int
    shared_memory: set[str]


class Program:
    """A running ``faulty.py``, in a session of its own."""

    def __init__(self) -> None:
        self._running = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self.pid = self._running.pid
        self._selector = selectors.DefaultSelector()
        self._text = {1: b"", 2: b""}
        assert self._running.stdout is not None
        assert self._running.stderr is not None
        self._selector.register(self._running.stdout, selectors.EVENT_READ, 1)
        self._selector.register(self._running.stderr, selectors.EVENT_READ, 2)
        self.line_of_output()

    def write(self, line: str) -> None:
        assert self._running.stdin is not None
        self._running.stdin.write(line.encode() + b"\n")

    def line_of_output(self) -> str | None:
        """The next line of the standard output; None: there is none, because the program has ended."""
        return self._next(1, lambda: b"\n" in self._text[1], lambda: self._taken(1))

    def reached(self) -> int:
        """The process that has got to the chosen point."""
        found = self._next(2, lambda: re.search(rb"reached (\d+)\n", self._text[2]) is not None, lambda: "")
        assert found is not None, f"the point was not reached; {self._text}"
        match = re.search(rb"reached (\d+)\n", self._text[2])
        assert match is not None
        self._text[2] = self._text[2].replace(match[0], b"")
        return int(match[1])

    def told(self) -> str:
        """What else was on the standard error."""
        told, self._text[2] = self._text[2].decode(), b""
        return told

    def exit(self) -> int:
        """Waits for the end of the program, and returns its exit code."""
        while self._selector.get_map():
            self._read()
        return self._running.wait(PATIENCE)

    def _taken(self, which: int) -> str:
        line, _, self._text[which] = self._text[which].partition(b"\n")
        return line.decode()

    def _next(self, which: int, is_there: Callable[[], bool], take: Callable[[], str]) -> str | None:
        while not is_there():
            if which not in {key.data for key in self._selector.get_map().values()}:
                return None
            self._read()
        return take()

    def _read(self) -> None:
        ready = self._selector.select(2 * PATIENCE)
        assert ready, f"the program says nothing any more; before: {self._text}; its state is {state_of(self.pid)}"
        for key, _ in ready:
            if data := os.read(key.fd, 65_536):
                self._text[key.data] += data
            else:
                self._selector.unregister(key.fileobj)

    def left(self) -> Left:
        """What there is of it, seen from outside."""
        folder = Path(f"/proc/{self.pid}")
        is_there = state_of(self.pid) not in (None, "Z")
        return Left(
            processes_of(self.pid),
            {each.name for each in (folder / "fd").iterdir()} if is_there else set(),
            len(list((folder / "task").iterdir())) if is_there else 0,
            {each.name for each in SHARED_MEMORY.iterdir()},
        )

    def close(self) -> None:
        for pid in processes_of(self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._running.wait()
        for each in (self._running.stdin, self._running.stdout, self._running.stderr):
            assert each is not None
            each.close()
        self._selector.close()


def state_of(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


def processes_of(session: int) -> set[int]:
    """The processes of a session, also those whose parent is gone, except for those that only wait to be collected."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, *fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if int(fields[2]) == session and state != "Z":
            found.add(int(folder.name))
    return found


class Programs:
    """A program for one case after the other, and another one when it was killed."""

    def __init__(self) -> None:
        self._program: Program | None = None

    def get(self) -> Program:
        if self._program is None:
            self._program = Program()
        return self._program

    def drop(self) -> None:
        if self._program is not None:
            self._program.close()
        self._program = None


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    several = Programs()
    yield several
    several.drop()


# --- what goes wrong, and what is said of it

DIED: Final = r"FlowFailed: worker process [01] has died: killed by SIGKILL; perhaps memory ran out <- WorkerError"
FROM: Final = "failed with LookupError in stage [01]"

#: What is said if something raises, by what and when. The errors of whoever takes the results are its own.
SENTENCES: Final = {
    ("source", "start"): f"FlowFailed: from_iterable {FROM} at element 0 of source 0 <- LookupError",
    ("source", "first"): f"FlowFailed: from_iterable {FROM} at element 0 of source 0 <- LookupError",
    ("source", "end"): f"FlowFailed: from_iterable {FROM} at element 200 of source 0 <- LookupError",
    ("source", "close"): "ended",
    ("mapper", "start"): f"FlowFailed: from_iterable, on_init: mapper_starts {FROM} <- LookupError",
    # Whichever of the two is there first.
    ("mapper", "first"): f"FlowFailed: map 1: mapped {FROM} at element [0-9]+ of source 0 <- LookupError",
    ("mapper", "end"): f"FlowFailed: map 1: mapped {FROM} at element 199 of source 0 <- LookupError",
    ("mapper", "result"): f"FlowFailed: map 1: mapped {FROM} <- LookupError",
    ("reducer", "start"): f"FlowFailed: emit_and_reduce 3, init: start {FROM} <- LookupError",
    ("reducer", "first"): f"FlowFailed: emit_and_reduce 3: reduced {FROM} <- LookupError",
    ("reducer", "end"): f"FlowFailed: on_trigger 4: ended {FROM} <- LookupError",
    ("reducer", "result"): f"FlowFailed: on_trigger 4: ended {FROM} <- LookupError",
    ("parent", "start"): "LookupError: ",
    ("parent", "first"): "LookupError: ",
    ("parent", "credit"): "LookupError: ",
    ("parent", "result"): f"FlowFailed: on_trigger 4: ended {FROM} <- LookupError",
    ("parent", "end"): "LookupError: ",
}
#: What the log says of an error while the flow is closed.
LOGGED: Final = f"a flow has failed while it was ended error='from_iterable {FROM} at element [0-9]+ of source 0'\n"

WHERE: Final = [
    *(("source", point) for point in ("start", "first", "end", "close")),
    *((component, point) for component in ("mapper", "reducer") for point in ("start", "first", "end", "result")),
    *(("parent", point) for point in ("start", "first", "credit", "result", "end")),
    # Whoever takes the results waits, and so all others do, when something is done to a worker from outside.
    ("worker", "credit"),
]
WHAT: Final = ("raise", "kill", "stop", "leave", "interrupt")


class Case(NamedTuple):
    """What goes wrong where, and when."""

    runner: str
    component: str
    point: str
    what: str

    def __str__(self) -> str:
        return "-".join(self)

    @property
    def ends_the_program(self) -> bool:
        """Whether nobody is there who could be told."""
        return self.what in {"kill", "stop"} and self.component in {"source", "parent"}

    @property
    def makes_sense(self) -> bool:
        if self.component == "worker" and self.what in {"raise", "interrupt"}:
            return False
        # In one process, there is nothing else to kill, and nothing is pickled.
        is_of_processes = self.what in {"kill", "stop"} or self.point == "result" or self.component == "worker"
        if self.runner != "processes" and (is_of_processes or self[1:3] == ("parent", "start")):
            return False
        if self.what != "leave":
            return True
        # The loop of whoever wants to leave must not be blocked.
        blocks = self[1:3] in {("parent", "start"), ("parent", "result")}
        blocks = blocks or (self.runner == "tasks" and self.component in {"mapper", "reducer"})
        return not blocks and self.point != "close"

    @property
    def outcome(self) -> str:
        """What whoever runs the flow is told, as a pattern."""
        if self.what in {"kill", "stop"}:
            return DIED
        told = {"leave": "CancelledError: ", "interrupt": "KeyboardInterrupt: "}
        return told.get(self.what) or SENTENCES[self.component, self.point]


CASES: Final = [
    case
    for runner in ("tasks", "threads", "processes")
    for where in WHERE
    for what in WHAT
    if (case := Case(runner, *where, what)).makes_sense
]


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_fault_has_one_outcome_and_leaves_nothing(case: Case, programs: Programs, tmp_path: Path) -> None:
    program = programs.get()
    before = program.left()
    try:
        program.write(json.dumps({**case._asdict(), "flag": str(tmp_path / "flag")}))
        await act(program, program.reached(), case)
        if case.ends_the_program:
            assert program.line_of_output() is None
            assert program.exit() == -signal.SIGKILL
            await eventually(lambda: not program.left().processes, what="no process of the program was left")
            assert program.told() == ""
            programs.drop()
            return
        line = program.line_of_output()
        assert line is not None, f"the program has ended: {program.told()}"
        answer = json.loads(line)
        await nothing_is_left(program, before)
        assert re.fullmatch(case.outcome, answer["outcome"]), answer
        assert answer["closed"] == answer["begun"]
        assert re.fullmatch(LOGGED if case[2:] == ("close", "raise") else "", program.told())
    except BaseException:
        programs.drop()
        raise


async def nothing_is_left(program: Program, before: Left) -> None:
    try:
        await eventually(lambda: program.left() == before, what="nothing of the flow was left")
    except AssertionError as error:
        raise AssertionError(f"{error}; there was {before}, and there is {program.left()}") from None


async def act(program: Program, reached: int, case: Case) -> None:
    """Does from outside what belongs to *case*, when the process *reached* has got to the point."""
    if case.component == "worker":
        worker = min(processes_of(program.pid) - {program.pid})
        if case.what != "kill":
            os.kill(worker, signal.SIGSTOP)
            await eventually(lambda: state_of(worker) == "T", what="the worker process was stopped")
        if case.what != "leave":
            os.kill(worker, signal.SIGKILL)
        program.write("")
    elif case.what == "stop":
        await eventually(lambda: state_of(reached) == "T", what="the process was stopped")
        os.kill(reached, signal.SIGKILL)
    elif case.what == "leave":
        program.write("")
    elif case.what == "interrupt":
        # As the terminal does it: to all processes.
        os.killpg(program.pid, signal.SIGINT)
