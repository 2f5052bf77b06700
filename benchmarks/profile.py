"""Where the time of a row goes: ``python -m benchmarks.profile ROW``.

A timer interrupts ours each time it has used some milliseconds of processor time, and notes the stack. Unlike a tracing
profiler this bends the figures little, but Python looks at its signals only between some instructions: trust functions
more than lines. Only what happens inside the event loop counts, not the imports and the reading of settings.
"""

from __future__ import annotations

import argparse
import runpy
import signal
import sys
import time
from collections import defaultdict
from contextlib import ExitStack
from operator import itemgetter
from pathlib import Path
from types import FrameType
from typing import Final

from benchmarks.broker import running_broker
from benchmarks.rabbitmq_queue import fill
from benchmarks.rows import ROWS, row_named

__all__: list[str] = []

_ROOT: Final = Path(__file__).parent.parent
_QUEUE: Final = "profile"
_INTERVAL_S: Final = 0.001
#: The event loop's outermost function in every measured program.
_INSIDE: Final = "run_async"


class Sampler:
    """Samples by function and by line: in itself, and with all that it calls."""

    def __init__(self) -> None:
        self.samples = 0
        self.seconds = 0.0
        self.own: dict[str, float] = defaultdict(float)
        self.lines: dict[str, float] = defaultdict(float)
        self.total: dict[str, float] = defaultdict(float)
        self._last = 0.0

    def __enter__(self) -> None:
        signal.signal(signal.SIGPROF, self._note)
        self._last = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, _INTERVAL_S, _INTERVAL_S)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)

    def _note(self, _: int, frame: FrameType | None) -> None:
        # Kernels round the interval up to their own tick, so each sample weighs what was really used.
        now = time.process_time()
        used, self._last = now - self._last, now
        stack = []
        while frame is not None and frame.f_code.co_name != _INSIDE:
            stack.append(frame)
            frame = frame.f_back
        if frame is None or not stack:
            return
        self.samples += 1
        self.seconds += used
        self.own[_function(stack[0])] += used
        self.lines[_place(stack[0], stack[0].f_lineno)] += used
        for function in {_function(frame) for frame in stack}:
            self.total[function] += used

    def print(self, messages: int, top: int) -> None:
        """The *top* entries of each kind, with the processor time per message."""
        print(f"\n{self.seconds / messages * 1e6:.3f} us of processor time per message, {self.samples:,} samples")
        titles = ("in the function itself", "in the line itself", "in the function and what it calls")
        for title, used in zip(titles, (self.own, self.lines, self.total), strict=True):
            print(f"\n{title}")
            for name, seconds in sorted(used.items(), key=itemgetter(1), reverse=True)[:top]:
                print(f"  {seconds / self.seconds:6.1%}  {seconds / messages * 1e6:6.3f} us  {name}")


def _function(frame: FrameType) -> str:
    return _place(frame, frame.f_code.co_firstlineno)


def _place(frame: FrameType, line: int | None) -> str:
    code = frame.f_code
    file = Path(code.co_filename)
    # Of foreign modules the last two parts say enough.
    shown = file.relative_to(_ROOT) if file.is_relative_to(_ROOT) else Path(*file.parts[-2:])
    return f"{code.co_qualname} {shown}:{line or code.co_firstlineno}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", choices=[row.name for row in ROWS])
    parser.add_argument("--program", default="ours", help="whose time; its name in the row (ours)")
    parser.add_argument("--scale", type=float, default=4.0, help="times the row's number of messages (4)")
    parser.add_argument("--top", type=int, default=20, help="entries of each list (20)")
    asked = parser.parse_args()
    row = row_named(asked.row)
    messages = round(row.messages * asked.scale)
    program = next((program for program in row.programs if program.name == asked.program), None)
    if program is None or program.environment != "ours":
        known = ", ".join(program.name for program in row.programs if program.environment == "ours")
        parser.error(f"--program: expected one of: {known}; got {asked.program!r}")
    sys.argv = [program.module, *program.arguments, f"--messages={messages}"]
    sampler = Sampler()
    with ExitStack() as stack:
        if row.needs_broker:
            url = stack.enter_context(running_broker("rabbitmq"))
            fill(url, _QUEUE, messages)
            sys.argv += ["--url", url, "--queue", _QUEUE]
        stack.enter_context(sampler)
        runpy.run_module(program.module, run_name="__main__", alter_sys=True)
    sampler.print(messages, asked.top)


if __name__ == "__main__":
    main()
