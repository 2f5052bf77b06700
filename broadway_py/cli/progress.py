"""Shows on a terminal how far a command is that takes long."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Drawn
    from rich.progress import TaskID

__all__ = ["Progress"]


class Progress:
    """A line on standard error while the ``with`` block runs, with a count and its rate; nothing without a terminal.

    The line goes away with the block, and by :meth:`clear`.

    Args:
        what: what is counted, such as ``lines sent``.
        size: of how many bytes it is said how many are done. None: this is not known, so there is no share.
    """

    def __init__(self, what: str, size: int | None = None) -> None:
        #: How far it is.
        self.count = 0
        self._what = what
        self._size = size
        self._drawn: tuple[Drawn, TaskID] | None = None

    def __enter__(self) -> Self:
        """Begins to show the line."""
        if sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in {"dumb", "unknown"}:
            from rich.console import Console  # noqa: PLC0415  # few commands need it, and it is slow to import
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn  # noqa: PLC0415  # the same

            share = [] if self._size is None else [BarColumn(bar_width=20), TaskProgressColumn()]
            drawn = Progress(
                TextColumn("{task.fields[told]}", markup=False),
                *share,
                console=Console(stderr=True, highlight=False, markup=False, emoji=False),
                transient=True,
                refresh_per_second=5,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._drawn = drawn, drawn.add_task("", total=self._size, told=self._told(None))
            drawn.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Removes the line."""
        self.clear()

    def reached(self, count: int, done: int = 0) -> None:
        """Notes the new count, and how many bytes are done."""
        self.count = count
        if self._drawn is not None:
            drawn, task = self._drawn
            began = drawn.tasks[0].elapsed
            drawn.update(task, completed=done, told=self._told(began))

    def clear(self) -> None:
        """Removes the line, so that something else can be written."""
        shown, self._drawn = self._drawn, None
        if shown is not None:
            shown[0].stop()

    def _told(self, elapsed_s: float | None) -> str:
        rate = f", {self.count / elapsed_s:,.0f} a second" if elapsed_s else ""
        return f"{self.count:,} {self._what}{rate}"
