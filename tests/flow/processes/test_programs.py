"""Programs whose flows run in worker processes: nothing outlives them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Final

import pytest

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
