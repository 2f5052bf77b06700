"""Logs which code blocks the event loop, while it blocks."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from broadway_py.error_text import place_of_stack
from broadway_py.log import ALL, logger

__all__ = ["BlockWatch"]

log = logger("broadway_py.daemon")

#: Seconds between two questions. A loop that has not answered after this time is blocked. It is logged again after
#: twice, four times, … this time.
EVERY_S: Final = 1.0
#: A process that was stopped from outside and continues has this many seconds to answer before it counts as blocked.
_PATIENCE_S: Final = 0.05


class BlockWatch:
    """Asks an event loop each second whether it still runs. The watch has its own thread.

    Args:
        ask: called with a function that the loop must call. Nothing happens once the loop has ended.
        thread_id: returns the id of the loop's thread, or None before it runs.
        every_s: seconds between two questions.
    """

    def __init__(
        self,
        ask: Callable[[Callable[[], object]], object],
        thread_id: Callable[[], int | None],
        every_s: float = EVERY_S,
    ) -> None:
        self._ask = ask
        self._thread_id = thread_id
        self._every_s = every_s
        self._ended = threading.Event()

    def start(self) -> None:
        """Starts the watch."""
        threading.Thread(target=self._watch, name="broadway-loop-watch", daemon=True).start()

    def stop(self) -> None:
        """Ends the watch."""
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(self._every_s):
            answered = threading.Event()
            asked_at = time.monotonic()
            self._ask(answered.set)
            told_after, blocked = self._every_s, False
            while not self._is_over(answered, told_after - (time.monotonic() - asked_at)):
                blocked = True
                log.warning(
                    "code blocks the event loop; no message is handled until it returns",
                    seconds=round(time.monotonic() - asked_at, 1),
                    at=place_of_stack(sys._current_frames().get(self._thread_id() or 0)),
                    **{ALL: True},
                )
                told_after *= 2
            if blocked and not self._ended.is_set():
                log.warning("the event loop runs again", seconds=round(time.monotonic() - asked_at, 1), **{ALL: True})

    def _is_over(self, answered: threading.Event, seconds: float) -> bool:
        """Waits *seconds* for an answer. Returns True if it has come, or if the watch has ended."""
        return answered.wait(max(0.0, seconds)) or answered.wait(_PATIENCE_S) or self._ended.is_set()
