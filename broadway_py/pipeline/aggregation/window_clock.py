"""The time of one aggregator: the clock of its windows, its watermark, and for how long its sources were read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from broadway_py._core.aggregation.aggregation import Aggregation
from broadway_py._core.aggregation.connected_time import ConnectedTime
from broadway_py._core.aggregation.event_clock import EventClock
from broadway_py._core.aggregation.outcome import Added
from broadway_py._core.aggregation.progress import Progress
from broadway_py._core.aggregation.saved_holds import SavedHold
from broadway_py._core.aggregation.tracked_ledger import arrive, progress_identity
from broadway_py._core.ledger import Run, runs_of
from broadway_py._core.window.spec import Window
from broadway_py.clock import Clock
from broadway_py.message import Message

__all__ = ["WindowClock"]

#: More than the rounding of seconds since 1970.
_ROUNDING_S: Final = 1e-6

#: While so many results wait for a checkpoint, no more windows close than those that the watermark reaches.
_MOST_DUE: Final = 10_000

#: So many seconds before a hold is over, what waits is added. So what waits in the processors can follow.
_SOON_S: Final = 1.0


class WindowClock:
    """Says what time it is for the windows of one aggregator, and lets it pass. :meth:`start` comes first.

    The clock of the windows is the wall clock at the start, and goes on with the monotonic clock. It begins no earlier
    than where it was when the last checkpoint was stored. So windows by the clock keep their bounds over a restart.

    Args:
        clock: the pipeline's clock.
        window: the windows of the aggregator.
        progresses: what the producers have delivered.
        changed: called when the watermark may have moved for another reason than the time.
    """

    def __init__(
        self, clock: Clock, window: Window, progresses: Sequence[Progress], *, changed: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._window = window
        self._progresses = progresses
        self._changed = changed
        # How far the clock of the windows is ahead of the monotonic clock, in seconds.
        self._ahead_s = clock.wall() - clock.monotonic()
        self._connected = ConnectedTime()
        # Moves the watermark; None if the windows have no event time.
        self._event_clock: EventClock | None = None
        self._is_blocked = False

    # --- the start

    def not_before(self, now: float) -> None:
        """Go on from *now*, where the clock of the windows was when the last checkpoint was stored, or from later."""
        self._ahead_s = max(self._ahead_s, now - self._clock.monotonic())

    def memory(self) -> dict[str, Any]:
        """Returns what :meth:`start` needs in the next process, as JSON has it."""
        return {} if self._event_clock is None else dict(self._event_clock.saved(self._clock.monotonic()))

    @property
    def is_settled(self) -> bool:
        """True if nothing that the sources have delivered is in work or lost."""
        return all(one.is_settled for one in self._progresses)

    def start(self, connected_s: float, watermark: int | None, memory: Mapping[str, Any]) -> None:
        """Begin.

        Args:
            connected_s: for how many seconds the sources were read before this start.
            watermark: the stored watermark, in microseconds since 1970; None: there is none.
            memory: what :meth:`memory` has returned.
        """
        self._connected = ConnectedTime(connected_s)
        _ = self.connected_s  # it counts from now on
        if self._window.by is None:
            return
        settings: Any = self._window
        self._event_clock = EventClock(
            self._progresses,
            self._clock.monotonic(),
            delay=settings.delay,
            hold_timeout=settings.hold_timeout,
            idle_timeout=settings.idle_timeout,
            watermark=watermark,
            saved={name: [SavedHold.of(one) for one in holds] for name, holds in memory.items()},
            changed=self._changed,
        )

    # --- the time

    @property
    def now(self) -> float:
        """The clock of the windows, in seconds."""
        return self._clock.monotonic() + self._ahead_s

    @property
    def connected_s(self) -> float:
        """For how many seconds all sources that have not ended were connected together, since the first start."""
        now = self._clock.monotonic()
        return self._connected.advance({one: one.active(now) for one in self._progresses if not one.has_ended})

    def pass_time(self, aggregation: Aggregation) -> None:
        """Let *aggregation* do what is due, and take its watermark to where it is now."""
        if self._event_clock is not None:
            watermark = self._event_clock.watermark(self._clock.monotonic(), self._clock.wall())
            if watermark is not None and watermark != aggregation.watermark:
                aggregation.advance(watermark, self.now)
                return
        due = aggregation.next_timer()
        if due is not None and due <= self.now:
            aggregation.tick(self.now)
        if self.goes_on(aggregation):
            aggregation.close_due(self.now)

    @staticmethod
    def goes_on(aggregation: Aggregation) -> bool:
        """Returns True if :meth:`pass_time` is to be called again soon: it has closed some of many windows."""
        return aggregation.has_due and aggregation.due < _MOST_DUE

    def next_change(self, aggregation: Aggregation) -> float | None:
        """Returns when :meth:`pass_time` has something to do next, by the monotonic clock; None: not by time alone."""
        due = aggregation.next_timer()
        # The two clocks are rounded differently, so it is a little later: not too early in any case.
        moments = [] if due is None else [due - self._ahead_s + _ROUNDING_S]
        if self._event_clock is not None:
            now, wall = self._clock.monotonic(), self._clock.wall()
            next_due = None if aggregation.has_due else aggregation.next_due()
            change = self._event_clock.next_change(now, wall, next_due)
            if change is not None:
                moments.append(change)
        return min(moments, default=None)

    # --- what moves and holds the watermark

    def note_added(self, out: Added, runs: Sequence[Run] | None) -> None:
        """Note which times were added, and that no watermark waits for these messages any more.

        Args:
            out: what was added.
            runs: those of the added messages; None: not known yet.
        """
        if runs is None:
            runs = runs_of(out.added)
        event_clock, stamped = self._event_clock, out.stamped
        if event_clock is not None and stamped is not None:
            # This must be known before the messages count as arrived.
            for entry, first, until in runs:
                event_clock.note(entry, stamped.high_of(first, until))
        arrive(out.added, self._clock.monotonic(), runs)

    def arrive(self, messages: Sequence[Message[Any]]) -> None:
        """Note that no watermark waits for *messages* any more."""
        arrive(messages, self._clock.monotonic())

    def was_held_too_long(self, message: Message[Any]) -> bool:
        """Returns True if the watermark did not wait for *message*, because its hold ran out. Ask before it arrives."""
        if self._event_clock is None:
            return False
        return self._event_clock.was_held_too_long(message._ledger_entry, partial(progress_identity, message))

    def hold_ends_at(self, messages: Iterable[Message[Any]]) -> float | None:
        """Returns when the watermark soon waits no longer for one of *messages*; None: not by time alone."""
        if self._event_clock is None:
            return None
        now = self._clock.monotonic()
        entries = {message._ledger_entry for message in messages}
        ends = [end for entry in entries if (end := self._event_clock.hold_ends_at(entry, now)) is not None]
        return min(ends) - _SOON_S if ends else None

    def note_blocked(self, *, is_blocked: bool) -> None:
        """Note whether the store, ``emit`` or ``late`` lets nothing be added now. No message is late by such a wait."""
        if is_blocked == self._is_blocked:
            return
        self._is_blocked = is_blocked
        for progress in self._progresses:
            progress.note_blocked(self._clock.monotonic(), is_blocked=is_blocked)

    def held_seconds(self, now: float) -> dict[str, float]:
        """Returns what holds the watermark, each with the seconds for which it has done so; 0: it does not."""
        if self._event_clock is None:
            return {}
        return {str(holder): seconds for holder, seconds in self._event_clock.held(now).items()}
