"""How far a flow is, drawn on a real terminal: it is left as it should be, however the flow ends."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any, Final

import pytest

from broadway_py.flow import Flow
from tests.flow.each_runner import IN_PROGRAM, each_runner, each_runner_in_program
from tests.flow.processes import works
from tests.flow.support import leaves_nothing

#: What the programs below begin with. A line that reads "ready" says that a bar is drawn and the flow is at work.
HEAD: Final = """
import asyncio, sys, threading
from itertools import count, islice
from broadway_py import Flow

def ready(number):
    if number == 100:
        print("ready", flush=True)
    return number
"""


def opened_terminal() -> tuple[int, int]:
    """The two ends of a terminal with 24 lines of 120 characters: ours, and that of a program."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    return ours, theirs


class Terminal:
    """Runs a program whose standard error, and no more, is a terminal of its own."""

    def __init__(self, program: str) -> None:
        self._ours, theirs = opened_terminal()
        self.running = subprocess.Popen(
            [sys.executable, "-c", HEAD + program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=theirs,
            env={**os.environ, "PYTHON_COLORS": "0"},  # later Pythons write tracebacks in colours
            text=True,
            start_new_session=True,
        )
        os.close(theirs)

    def interrupt(self) -> None:
        """Sends Ctrl-C as soon as the program is at work."""
        assert self.running.stdout is not None
        assert self.running.stdout.readline() == "ready\n"
        os.killpg(self.running.pid, signal.SIGINT)

    def end(self) -> tuple[int, str, str]:
        """Returns the exit code, what the program has printed, and what went to the terminal."""
        drawn = b""
        try:
            # All worker processes have the terminal too. So this ends when they have.
            while block := os.read(self._ours, 1 << 16):
                drawn += block
        except OSError:  # nobody has the other end any more
            pass
        os.close(self._ours)
        told, _ = self.running.communicate(timeout=60)
        return self.running.returncode, told, drawn.decode()


def on_screen(drawn: str) -> list[str]:
    """What a terminal shows in the end: its lines, without the spaces at their ends."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[A|\r|\n|[^\x1b\r\n]+", drawn):
        if part == "\x1b[A":
            row -= 1
        elif part == "\r":
            column = 0
        elif part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        else:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + part + line[column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines]


def is_bar(line: str, amount: str) -> bool:
    return re.fullmatch(rf".*\b{amount} (elements )?\[\d\d:\d\d.*\]", line) is not None


def bars_on(screen: list[str]) -> int:
    # The rate of a slow flow is in seconds for each element.
    return sum("elements/s" in line or "s/ elements" in line for line in screen)


def ends_with_interrupt(screen: list[str]) -> bool:
    """True if a bar, the traceback and nothing else is on the screen."""
    bar, traceback, *_, last, rest = screen
    is_told = traceback.startswith("Traceback") and (last, rest) == ("KeyboardInterrupt", "")
    return is_told and is_bar(bar, r"[\d.]+k?") and bars_on(screen) == 1


@each_runner
def test_a_bar_is_left_as_one_line_with_all_elements(runner: str) -> None:
    code, told, drawn = Terminal(
        f"print(len(Flow.from_iterable(range(500)).map(str).using({runner!r}, workers=2, progress=True).to_list()))"
    ).end()

    assert (code, told) == (0, "500\n")
    bar, rest = on_screen(drawn)
    assert bar.startswith("100%|")
    assert is_bar(bar, "500/500")
    assert rest == ""


def test_a_bar_of_files_shows_bytes(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("1234567\n" * 2_000)

    code, _, drawn = Terminal(f"Flow.from_files({str(path)!r}).map(len).using(progress=True).run()").end()

    bar, rest = on_screen(drawn)
    assert (code, rest) == (0, "")
    assert is_bar(bar, r"16\.0k/16\.0k")
    assert "2k elements" in bar


@each_runner
def test_an_error_stands_below_the_bar(runner: str) -> None:
    _, _, drawn = Terminal(
        "numbers = Flow.from_iterable(count(), max_demand=1).map(lambda n: 1 // (n - 50))\n"
        f"numbers.using({runner!r}, workers=2, progress=True).run()"
    ).end()

    bar, traceback, *_ = screen = on_screen(drawn)
    assert is_bar(bar, r"\d\d\.\d")
    # The cause of the error has no traceback here if it comes from a worker process.
    assert traceback.startswith("Traceback" if runner in IN_PROGRAM else "ZeroDivisionError")
    assert bars_on(screen) == 1


@each_runner
def test_what_is_broken_out_of_leaves_its_bar(runner: str) -> None:
    code, told, drawn = Terminal(
        f"numbers = Flow.from_iterable(count()).map(str).using({runner!r}, workers=1, progress=True)\n"
        "print(list(islice(numbers, 3)))"
    ).end()

    assert (code, told) == (0, "['0', '1', '2']\n")
    bar, rest = on_screen(drawn)
    assert is_bar(bar, r"[\d.]+k?")
    assert rest == ""


@pytest.mark.faults
@each_runner_in_program
def test_ctrl_c_leaves_the_bar_above_the_traceback(runner: str) -> None:
    terminal = Terminal(f"Flow.from_iterable(count()).map(ready).using({runner!r}, progress=True).run()")
    terminal.interrupt()

    code, _, drawn = terminal.end()

    assert code == -signal.SIGINT
    assert ends_with_interrupt(on_screen(drawn))


@pytest.mark.faults
def test_ctrl_c_leaves_the_bar_of_worker_processes_above_the_traceback() -> None:
    # What the functions of worker processes print is not for the standard output.
    terminal = Terminal(
        "numbers = Flow.from_iterable(map(ready, count()), max_demand=2).map(str)\n"
        "numbers.using('processes', workers=2, progress=True).run()"
    )
    terminal.interrupt()

    code, _, drawn = terminal.end()

    assert code == -signal.SIGINT
    assert ends_with_interrupt(on_screen(drawn))


@pytest.mark.faults
@each_runner_in_program
def test_ctrl_c_leaves_the_bar_also_if_a_function_does_not_return(runner: str) -> None:
    terminal = Terminal(
        "def block(number):\n"
        "    if ready(number) == 100:\n"
        "        threading.Event().wait()\n"
        f"Flow.from_iterable(count(), stages=1, max_demand=1).map(block).using({runner!r}, progress=True).run()"
    )
    terminal.interrupt()

    code, _, drawn = terminal.end()

    assert code == -signal.SIGINT
    assert ends_with_interrupt(on_screen(drawn))


@pytest.mark.faults
def test_ctrl_c_leaves_the_bar_of_a_flow_in_the_loop_of_its_caller() -> None:
    terminal = Terminal("asyncio.run(Flow.from_iterable(count()).map(ready).using(progress=True).run_async())")
    terminal.interrupt()

    code, _, drawn = terminal.end()

    bar, traceback, *_, last, rest = on_screen(drawn)
    assert code == -signal.SIGINT
    assert is_bar(bar, r"[\d.]+k?")
    assert traceback.startswith("Traceback")
    assert (last, rest) == ("KeyboardInterrupt", "")


NESTED: Final = """
def inner(number):
    return Flow.from_iterable(range(10)).map(str).using(progress=True).run().elements_out

def inner_that_blocks(number):
    return Flow.from_iterable(count(100), stages=1, max_demand=1).map(ready).using(progress=True).run().elements_out
"""


@each_runner_in_program
def test_flows_inside_of_a_flow_leave_nothing(runner: str) -> None:
    code, told, drawn = Terminal(
        f"{NESTED}\nprint(sum(Flow.from_iterable(range(3)).map(inner).using({runner!r}, progress=True)))"
    ).end()

    assert (code, told) == (0, "30\n")
    assert drawn.count("0/10") > 1
    bar, *rest = on_screen(drawn)
    assert is_bar(bar, "3/3")
    assert set(rest) == {""}


@pytest.mark.faults
@each_runner_in_program
def test_ctrl_c_removes_the_bars_of_flows_inside_of_a_flow(runner: str) -> None:
    terminal = Terminal(
        f"{NESTED}\nnumbers = Flow.from_iterable(range(3), stages=1).map(inner_that_blocks)\n"
        f"numbers.using({runner!r}, progress=True).run()"
    )
    terminal.interrupt()

    code, _, drawn = terminal.end()

    assert code == -signal.SIGINT
    assert ends_with_interrupt(on_screen(drawn))


def test_a_bar_leaves_no_thread_and_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = opened_terminal()
    with os.fdopen(theirs, "w") as file:
        monkeypatch.setattr(sys, "stderr", file)
        flow: Flow[Any] = Flow.from_iterable([1, 2]).map(works.same).using(progress=True)
        flow.run()  # tqdm is loaded now
        with leaves_nothing():
            flow.run()
            for _ in flow:
                break
    os.close(ours)
