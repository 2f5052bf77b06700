"""Names the code that keeps the event loop from answering, while it does."""

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

#: Seconds between two questions, and after which a loop that has not answered is blocked. Told again at twice, four
#: times, … as many.
EVERY_S: Final = 1.0
#: A process that was stopped from outside and goes on has this long to answer before it is thought to be blocked.
_PATIENCE_S: Final = 0.05


class BlockWatch:
    """Asks an event loop each second, from a thread of its own, whether it still runs.

    Args:
        ask: called with a function that the loop is to call; nothing happens once the loop has ended.
        thread_id: identifies the loop's thread; None before that runs.
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
        """Watch from now on."""
        threading.Thread(target=self._watch, name="broadway-loop-watch", daemon=True).start()

    def stop(self) -> None:
        """Watch no more."""
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
                    "the event loop is blocked by what runs in it; no message is handled meanwhile",
                    seconds=round(time.monotonic() - asked_at, 1),
                    at=place_of_stack(sys._current_frames().get(self._thread_id() or 0)),
                    **{ALL: True},
                )
                told_after *= 2
            if blocked and not self._ended.is_set():
                log.warning("the event loop goes on", seconds=round(time.monotonic() - asked_at, 1), **{ALL: True})

    def _is_over(self, answered: threading.Event, seconds: float) -> bool:
        """Wait so long for an answer; True when it has come, or nobody waits for it any more."""
        return answered.wait(max(0.0, seconds)) or answered.wait(_PATIENCE_S) or self._ended.is_set()
