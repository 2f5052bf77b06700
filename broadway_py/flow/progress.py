"""How far a flow is, for a person who waits for it: what to draw is decided in plain functions, and tqdm draws it."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Sized
from contextvars import ContextVar
from importlib import import_module
from threading import RLock
from typing import Any, Final, NamedTuple, Protocol, TextIO

from broadway_py.clock import Clock, Timer
from broadway_py.flow.counts import Counts, is_hidden
from broadway_py.flow.description.layers import FromFiles, FromIterable
from broadway_py.flow.plan import Plan
from broadway_py.foreign import foreign_errors, is_a

__all__ = ["Drawing", "Expected", "Progress", "drawing_of", "expected_of"]

#: Seconds between two drawings on a terminal or in a notebook.
_DRAWING_S: Final = 0.2
#: Seconds between two lines elsewhere. They are counted more often, because worker processes answer for the next time.
_LINE_S: Final = 10.0
_COUNT_S: Final = 1.0
#: What stands beside the bar of bytes. The rate is that of the elements, which stand behind it.
_BYTES: Final = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


#: Several flows may draw at a time.
_LOCK: Final = RLock()
#: What is shown of the flow in whose stages this code runs.
_current: Final[ContextVar[Progress | None]] = ContextVar("progress", default=None)


# --- what to draw


class Expected(NamedTuple):
    """How much all sources have, if it is known. Bytes are known if all are files."""

    elements: int | None = None
    read_bytes: int | None = None


def expected_of(plan: Plan) -> Expected:
    """Returns how much the sources of *plan* have."""
    sources = [each.source for each in plan.sources]
    try:
        if all(isinstance(each, FromFiles) for each in sources):
            return Expected(read_bytes=_bytes_of(each for each in sources if isinstance(each, FromFiles)))
        lengths = [_length_of(each) for each in sources]
    except foreign_errors():  # of the user's own code; or a file is gone, which ends the flow
        return Expected()
    known = [each for each in lengths if each is not None]
    return Expected(sum(known)) if len(known) == len(lengths) else Expected()


def _bytes_of(sources: Iterable[FromFiles]) -> int | None:
    known = [os.stat(path) for each in sources for path in each.paths]  # noqa: PTH116  # workers need no pathlib
    # Pipes and devices have no size.
    return sum(each.st_size for each in known) if all(stat.S_ISREG(each.st_mode) for each in known) else None


def _length_of(source: object) -> int | None:
    if isinstance(source, FromIterable) and is_a(source.items, Sized):
        return len(source.items)  # type: ignore[arg-type]  # is_a narrows nothing
    return None


class Drawing(NamedTuple):
    """What is drawn."""

    #: How much is done of what is expected.
    done: int
    #: What else is told.
    text: str


def drawing_of(counts: Counts, expected: Expected, seconds: float) -> Drawing:
    """Returns what is drawn if *counts* were reached in so many seconds."""
    waiting = ", ".join(f"{label}={count:,}" for label, count in counts.waiting.items() if count)
    told = [f"waiting: {waiting}"] if waiting else []
    if expected.read_bytes is None:
        return Drawing(counts.elements_in, ", ".join(told))
    rate = [f"{_short(counts.elements_in / seconds)}/s"] if seconds > 0 else []
    return Drawing(counts.read_bytes, ", ".join([f"{_short(counts.elements_in)} elements", *rate, *told]))


def _short(number: float) -> str:
    """Returns *number* with three digits."""
    for unit in ("", "k", "M", "G"):
        if number < 999.5:
            return f"{number:.3g}{unit}"
        number /= 1_000
    return f"{number:,.0f}T"


# --- drawing


class _Display(Protocol):
    """Shows drawings."""

    #: Seconds between two drawings.
    interval: float

    def draw(self, drawing: Drawing, seconds: float) -> None:
        """Shows what was drawn after so many seconds."""

    def close(self, drawing: Drawing, seconds: float) -> None:
        """Shows the last drawing, and leaves it there."""


class _Bar:
    """A bar on a terminal or in a notebook, drawn again and again in its place."""

    interval = _DRAWING_S

    def __init__(self, kind: Any, expected: Expected, file: TextIO) -> None:
        # Flows inside of a flow have bars below its own, and leave nothing there (leave=None).
        look = {"file": file, "dynamic_ncols": True, "leave": None, "mininterval": 0, "miniters": 0}
        form = None if expected.read_bytes is None else _BYTES
        self._bar = kind(**_units(expected), bar_format=form, **look)

    def draw(self, drawing: Drawing, _: float) -> None:
        self._bar.set_postfix_str(drawing.text, refresh=False)
        self._bar.update(max(0, drawing.done - self._bar.n))

    def close(self, drawing: Drawing, seconds: float) -> None:
        self.draw(drawing, seconds)
        self._bar.close()


class _Lines:
    """A line from time to time, where nothing can be drawn again: in a file, for example."""

    interval = _COUNT_S

    def __init__(self, kind: Any, expected: Expected, file: TextIO) -> None:
        self._format = kind.format_meter
        self._units = _units(expected)
        self._file = file
        # When the next line is due.
        self._due = _LINE_S

    def draw(self, drawing: Drawing, seconds: float) -> None:
        if seconds >= self._due:
            self._due = seconds + _LINE_S
            self.close(drawing, seconds)

    def close(self, drawing: Drawing, seconds: float) -> None:
        line = self._format(n=drawing.done, elapsed=seconds, postfix=drawing.text, ncols=0, **self._units)
        self._file.write(f"{line}\n")
        self._file.flush()


def _units(expected: Expected) -> dict[str, Any]:
    """Returns the arguments with which tqdm shows elements, or bytes."""
    if expected.read_bytes is None:
        is_long = expected.elements is None or expected.elements >= 10_000
        return {"total": expected.elements, "unit": " elements", "unit_scale": is_long}
    return {"total": expected.read_bytes, "unit": "B", "unit_scale": True}


def _display(expected: Expected) -> _Display | None:
    """Returns what shows drawings here; None: there is nothing to show them on."""
    if (file := sys.stderr) is None:
        return None
    kind = import_module("tqdm.auto").tqdm
    in_notebook = any(each.__module__ == "tqdm.notebook" for each in kind.__mro__)
    if not in_notebook and not file.isatty():
        return _Lines(kind, expected, file)
    attributes: dict[str, Any] = {"monitor_interval": 0}  # a thread that lives on, and draws what we draw
    if not hasattr(kind, "_lock"):
        # The usual one is a lock between processes, for which another process may be started.
        attributes["_lock"] = _LOCK
    return _Bar(type("FlowBar", (kind,), attributes), expected, file)


class Progress:
    """Shows how far a flow is, on the standard error, from now on until :meth:`close`. Make it in the task of the flow.

    If nothing can be shown any more, because the terminal is gone, for example, it ends in silence.

    Args:
        count: returns what was done so far. It is called in the event loop.
        expected: how much there is to do.
        clock: says when it is drawn.
    """

    def __init__(self, count: Callable[[], Counts], expected: Expected, clock: Clock) -> None:
        self._count = count
        self._expected = expected
        self._clock = clock
        self._started = clock.monotonic()
        self._timer: Timer | None = None
        self._display: _Display | None = None
        # What is shown of the flows that functions of this one run meanwhile.
        self._inner: set[Progress] = set()
        self._outer = _current.get()
        if self._outer is not None:
            self._outer._inner.add(self)
        _current.set(self)
        try:
            self._display = None if is_hidden.get() else _display(expected)
        except foreign_errors():
            return
        self._plan_next()

    def close(self) -> None:
        """Shows how far the flow has come, and leaves it there. It may be called again, and from another thread.

        Flows that run inside of this one show nothing from now on: nobody waits for them.
        """
        for each in list(self._inner):
            each.close()
        if self._outer is not None:
            self._outer._inner.discard(self)
        display, self._display = self._display, None
        if self._timer is not None:
            self._timer.cancel()
        if display is not None:
            self._show(display.close)

    def _plan_next(self) -> None:
        if self._display is not None:
            self._timer = self._clock.call_at(self._clock.monotonic() + self._display.interval, self._draw)

    def _draw(self) -> None:
        if self._display is not None:
            self._show(self._display.draw)
            self._plan_next()

    def _show(self, show: Callable[[Drawing, float], object]) -> None:
        seconds = self._clock.monotonic() - self._started
        try:
            show(drawing_of(self._count(), self._expected, seconds), seconds)
        except foreign_errors():
            self._display = None
