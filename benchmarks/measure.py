"""What every measured program shares: arguments, the event loop, and the one line of JSON it prints.

Only the standard library is imported here: peers run this module in environments of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import resource
import sys
import time
from collections.abc import Callable, Coroutine
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["Ids", "Meter", "arguments", "run_async"]


def run_async(main: Coroutine[Any, Any, None]) -> None:
    """Run *main* on uvloop when it can be imported, else on asyncio's own loop: in every program alike."""
    with asyncio.Runner(loop_factory=_new_loop()) as runner:
        runner.run(main)


def _new_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415  # optional: nobody needs it to measure
    except ImportError:
        return None
    return uvloop.new_event_loop


def arguments(description: str, *, broker: bool = False) -> argparse.ArgumentParser:
    """A parser with what every program takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--messages", type=int, required=True, help="how many messages to handle")
    parser.add_argument("--gate", action="store_true", help="say 'ready', then wait for a line before the work begins")
    if broker:
        parser.add_argument("--url", required=True, help="URL of the broker")
        parser.add_argument("--queue", required=True, help="a full queue")
        parser.add_argument("--prefetch", type=int, default=500, help="how many unsettled messages at most (500)")
    return parser


class Ids:
    """Which ids a handler has seen: each of 0 … count-1 must come exactly once."""

    __slots__ = ("seen",)

    def __init__(self, count: int) -> None:
        # One byte an id; a 256th visit raises, so nothing wraps round to "once".
        self.seen = bytearray(count)

    def check(self) -> None:
        """Raises RuntimeError when an id is missing or came more than once."""
        once = self.seen.count(1)
        if once != len(self.seen):
            missing = self.seen.count(0)
            raise RuntimeError(
                f"expected each of {len(self.seen)} ids once; {missing} never came, "
                f"{len(self.seen) - once - missing} came more than once"
            )


class Meter:
    """Wall and CPU time of the measured part, and the line of JSON that tells them.

    Processor time is that of the program and of the processes that it has started and waited for. So is memory.
    """

    def __init__(self, *, gate: bool = False) -> None:
        """*gate* waits for a line on standard input first, so that several processes can begin together."""
        if gate:
            print("ready", flush=True)
            sys.stdin.readline()
        self._seconds: float | None = None
        self._cpu = _cpu_seconds()
        self._start = time.perf_counter()

    def stop(self) -> None:
        """Stop the clock. The processor time goes on until the report: until the processes have been waited for."""
        self._seconds = time.perf_counter() - self._start

    def report(self, program: str, messages: int, *packages: str, start_s: float = 0.0, **figures: float) -> None:
        """Print the measurement with the versions of *packages*; *figures* are the row's own.

        Unless the clock was stopped before, it stops now. *start_s* are the seconds of a start that does not count.
        """
        seconds = (time.perf_counter() - self._start if self._seconds is None else self._seconds) - start_s
        used = _cpu_seconds() - self._cpu
        print(
            json.dumps(
                {
                    "program": program,
                    "messages": messages,
                    "seconds": round(seconds, 6),
                    "cpu_seconds": round(used, 6),
                    **{name: round(figure, 6) for name, figure in figures.items()},
                    "peak_rss_bytes": _peak_bytes(),
                    # Of the largest of them; not less than this process had when it started them. 0: there were none.
                    "children_peak_rss_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
                    "versions": {
                        "python": platform.python_version(),
                        "uvloop": _version("uvloop"),
                        **{package: _version(package) for package in packages},
                    },
                }
            ),
            flush=True,
        )


def _cpu_seconds() -> float:
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in both)


def _peak_bytes() -> int:
    # Linux has two figures. ``ru_maxrss`` has the memory of whoever started this program, if that was larger.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) * 1024


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
