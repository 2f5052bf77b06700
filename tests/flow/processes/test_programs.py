"""Programs whose flows run in worker processes: what they define goes over, and nothing outlives them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

#: Everything is defined in the program that is started, which has no ``if __name__ == "__main__"``.
DEFINES: Final = """
from collections import namedtuple
from dataclasses import dataclass
from enum import Enum

from broadway_py import Flow, FlowFailed

Pair = namedtuple("Pair", "left right")
FACTOR = 10

class Color(Enum):
    RED = 1

@dataclass(frozen=True)
class Point:
    x: int
    color: Color = Color.RED

    def scaled(self):
        return Point(self.x * FACTOR, self.color)

class Wrong(Exception):
    def __init__(self, point, why):
        super().__init__(why)
        self.point = point

def check(point):
    if point.x == 50:
        raise Wrong(point, "it is 50")
    return point

def local():
    class Local:
        made = 0
        def __init__(self, number):
            self.number = number
    return Local

Local = local()
Local.made = 7
points = Flow.from_iterable([Point(n) for n in range(8)], max_demand=2).map(lambda point: point.scaled())
points = points.using("processes", workers=2)

found = list(points.partition(key=lambda point: point.x).map(lambda point: Pair(point, point.color)))
print(sorted(pair.left.x for pair in found), {type(pair) is Pair and type(pair.left) is Point for pair in found})
print({pair.right is Color.RED for pair in found})

try:
    points.map(check).run()
except FlowFailed as failed:
    print(failed.element == Point(5), type(failed.__cause__) is Wrong, failed.__cause__.point == Point(50))

(back,) = Flow.from_iterable([Local(1)]).map(lambda each: each).using("processes", workers=1)
print(type(back) is Local, back.number, Local.made)
"""


def test_what_a_program_defines_arrives_and_comes_back_as_itself(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(DEFINES)

    ran = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60, check=False)

    assert ran.stderr == ""
    assert ran.stdout.splitlines() == [
        "[0, 10, 20, 30, 40, 50, 60, 70] {True}",
        "{True}",
        "True True True",
        "True 1 7",
    ]


#: Two workers call a function that does not return.
BLOCKS: Final = """
import os, threading
from itertools import count
from broadway_py import Flow

def endless():
    try:
        yield from count()
    finally:
        print("closed", flush=True)

def block(number):
    os.write(2, b"blocked\\n")  # in one piece
    threading.Event().wait()

Flow.from_iterable(endless(), max_demand=1).map(block).using("processes", workers=2).run()
"""


@pytest.mark.parametrize(
    ("signals", "code"),
    [([signal.SIGINT], -signal.SIGINT), ([signal.SIGINT] * 2, -signal.SIGINT), ([signal.SIGKILL], -signal.SIGKILL)],
    ids=["ctrl-c", "ctrl-c-twice", "kill"],
)
def test_no_worker_outlives_its_program(signals: list[signal.Signals], code: int) -> None:
    program = [sys.executable, "-c", BLOCKS]
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert [running.stderr.readline() for _ in range(2)] == ["blocked\n"] * 2
        for number, each in enumerate(signals):
            # As the terminal does it: to all processes.
            os.killpg(running.pid, each) if each is signal.SIGINT else os.kill(running.pid, each)
            if each is signal.SIGINT and not number:
                assert running.stdout.readline() == "closed\n"
        # The workers have this pipe, too. So it ends when all of them have.
        told = running.stderr.read()
        running.wait()

    assert running.returncode == code
    assert "blocked" not in told
    assert told.count("KeyboardInterrupt") == (len(signals) if each is signal.SIGINT else 0)


#: Ctrl-C comes at a chosen event of the interpreter: an import, a file, a socket, a process, a thread, in any thread.
INTERRUPTED: Final = """
import os, signal, sys
from itertools import count
from broadway_py import Flow

left = int(sys.argv[1])

def hear(event, arguments):
    global left
    if not left:
        return  # it was sent, or this is the end of the interpreter, which takes the names away
    left -= 1
    if not left:
        os.killpg(0, signal.SIGINT)

flow = Flow.from_iterable(count()).map(str).partition().map(str).using("processes", workers=2)
sys.addaudithook(hear)
for _ in flow:
    if left:
        left = 1
        hear("a result", ())
"""


@pytest.mark.faults
@pytest.mark.parametrize("moment", [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 10_000])
def test_ctrl_c_at_any_moment_of_the_start_ends_the_program_and_its_workers(moment: int) -> None:
    program = [sys.executable, "-c", INTERRUPTED, str(moment)]
    # The workers have the pipe of the errors, too. So this returns when all of them have ended.
    ran = subprocess.run(program, stderr=subprocess.PIPE, text=True, timeout=60, check=False, start_new_session=True)

    assert ran.stderr.splitlines()[-1:] == ["KeyboardInterrupt"]
    assert ran.returncode == -signal.SIGINT
    assert ran.stderr.count("Traceback") == 1, ran.stderr


@pytest.mark.parametrize("last", ["next(results)", "for _ in results:\n    break\nraise SystemExit(0)"])
def test_a_program_that_ends_while_a_flow_runs_leaves_no_worker(last: str) -> None:
    program = f"""
from itertools import count
from broadway_py import Flow

results = iter(Flow.from_iterable(count()).map(str).partition().map(str).using("processes", workers=2))
{last}
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


#: The second function fails in two processes at about the same time: one of them is told to leave before it can say so.
NOT_UNPICKLED: Final = """
from broadway_py import Flow, FlowFailed

class OneWay:
    def __reduce__(self):
        return int, ("no number",)

kept = OneWay()
numbers = Flow.from_iterable([1]).using("processes", workers=2)
flows = [numbers.map(lambda number: kept)]
flows += [numbers.reduce(OneWay, lambda kept, number: kept, combine=lambda one, other: one).emit("state")] * 3
for flow in flows:
    try:
        flow.to_list()
    except FlowFailed as failed:
        print(type(failed.__cause__).__name__, failed.__cause__.__notes__[0])
"""


def test_what_cannot_be_unpickled_is_told_once_by_the_error() -> None:
    ran = subprocess.run([sys.executable, "-c", NOT_UNPICKLED], capture_output=True, text=True, timeout=60, check=False)

    functions, *elements = ran.stdout.splitlines()
    assert functions == (
        "ValueError This came up when the functions of the flow, and what they use, were unpickled in a worker process."
    )
    assert elements == ["ValueError This came up when a list of elements from another process was unpickled."] * 3
    assert (ran.returncode, ran.stderr) == (0, "")
