"""Programs with flows, for each runner: what they define goes over and comes back, and nothing outlives them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tests.flow.each_runner import each_runner, each_runner_with_workers
from tests.flow.support import leaves_nothing

#: Everything is defined in the program that is started, which has no ``if __name__ == "__main__"``.
DEFINES: Final = """
import sys
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
points = points.using(sys.argv[1], workers=2)

found = list(points.partition(key=lambda point: point.x).map(lambda point: Pair(point, point.color)))
print(sorted(pair.left.x for pair in found), {type(pair) is Pair and type(pair.left) is Point for pair in found})
print({pair.right is Color.RED for pair in found})

try:
    points.map(check).run()
except FlowFailed as failed:
    print(failed.element == Point(5), type(failed.__cause__) is Wrong, failed.__cause__.point == Point(50))

(back,) = Flow.from_iterable([Local(1)]).map(lambda each: each).using(sys.argv[1], workers=1)
print(type(back) is Local, back.number, Local.made)
"""


@each_runner
def test_what_a_program_defines_arrives_and_comes_back_as_itself(runner: Any, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(DEFINES)

    ran = subprocess.run([sys.executable, program, runner], capture_output=True, text=True, timeout=60, check=False)

    assert ran.stderr == ""
    assert ran.stdout.splitlines() == [
        "[0, 10, 20, 30, 40, 50, 60, 70] {True}",
        "{True}",
        "True True True",
        "True 1 7",
    ]


@each_runner
@pytest.mark.parametrize("last", ["next(results)", "for _ in results:\n    break\nraise SystemExit(0)"])
def test_a_program_that_ends_while_a_flow_runs_leaves_nothing(runner: Any, last: str) -> None:
    program = f"""
from itertools import count
from broadway_py import Flow

results = iter(Flow.from_iterable(count()).map(str).partition().map(str).using({runner!r}, workers=2))
{last}
"""
    with leaves_nothing(runner):
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


#: The second function fails in two processes at about the same time: one of them is told to leave before it can say so.
NOT_UNPICKLED: Final = """
import sys
from broadway_py import Flow, FlowFailed

class OneWay:
    def __reduce__(self):
        return int, ("no number",)

kept = OneWay()
numbers = Flow.from_iterable([1]).using(sys.argv[1], workers=2)
flows = [numbers.map(lambda number: kept)]
flows += [numbers.reduce(OneWay, lambda kept, number: kept, combine=lambda one, other: one).emit("state")] * 3
for flow in flows:
    try:
        flow.to_list()
    except FlowFailed as failed:
        print(type(failed.__cause__).__name__, failed.__cause__.__notes__[0])
"""


@each_runner_with_workers
def test_what_cannot_be_unpickled_is_told_once_by_the_error(runner: Any) -> None:
    program = [sys.executable, "-c", NOT_UNPICKLED, runner]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)

    functions, *elements = ran.stdout.splitlines()
    assert functions == (
        "ValueError This came up when the functions of the flow, and what they use, were unpickled in a worker process."
    )
    assert elements == ["ValueError This came up when a list of elements from another process was unpickled."] * 3
    assert (ran.returncode, ran.stderr) == (0, "")
