"""The engine of a stage with windows. It gets events, the time and the ends of upstreams, and returns what follows."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from datetime import UTC
from typing import Any, cast

from broadway_py._core.window.aligned import AlignedWindows
from broadway_py._core.window.assign import assigner_of
from broadway_py._core.window.effects import Effect, Fire, OpenWindow, SideOutput
from broadway_py._core.window.firing import Firing
from broadway_py._core.window.session import SessionWindows
from broadway_py._core.window.shape import Calendar, Count, Fixed, Session, microseconds
from broadway_py._core.window.spec import Window
from broadway_py._core.window.ticks import Ticks
from broadway_py._core.window.timed import TimedParts, TimedWindows
from broadway_py._core.window.times import EventTime, EventTimes, Stamped
from broadway_py._core.window.trigger import Firings
from broadway_py._core.window.untimed import CountedByKey, SingleWindow
from broadway_py._core.window.watermark import Watermark

__all__ = ["Engine"]


class Engine:
    """The windows of one stage.

    The shell carries out the effects that each call returns, in their order. It keeps the accumulators, in
    ``OpenWindow.state``, and calls the functions of the user: the engine calls only ``by`` and the trigger function.
    Results do not depend on how events are cut into lists, unless a trigger function makes them so.

    In Flow, a window belongs to the stage (a session: to a key), and the events of the upstreams move the watermark.
    With *by_key*, as in aggregators, each firing is for one key, and :meth:`advance` moves the watermark. Unless each
    key has its own windows (sessions, count), the keys share a window; each then has its accumulator in
    ``KeyRecord.state``. Aggregators use a :class:`KeyedEngine`, which can also be saved.

    Args:
        window: what the user has described.
        now: seconds of any clock that does not jump; the same for all calls. Periodic windows and triggers begin now.
        by_key: the rules of aggregators.

    Raises:
        OptionsError: the window does not go with Flow, or not with aggregators.
    """

    def __init__(self, window: Window, now: float, *, by_key: bool = False) -> None:
        self.window = window = window.in_aggregator() if by_key else window.in_flow()
        #: How many events were too far ahead of the wall clock.
        self.ahead = 0
        shape = window.shape
        self._by_key = by_key
        self._needs_keys = by_key or isinstance(shape, Session)
        self._has_ended = False
        self._times = EventTimes(window.by, shape.tz if isinstance(shape, Calendar) else UTC)
        ahead = cast("float | None", window.max_ahead)
        self._max_ahead = None if window.by is None or ahead is None else microseconds(ahead)
        is_shared = by_key and not isinstance(shape, Session | Count)
        self._firings = Firings(window, by_key=by_key, is_shared=is_shared)
        self._ticks = [Ticks(now, interval) for interval in window.triggers.periodically]
        self._timed: TimedWindows | None = None
        self._untimed: SingleWindow | CountedByKey | None = None
        self._watermark = Watermark(0, None)
        if isinstance(shape, Fixed | Calendar | Session):
            if not by_key:
                delay, idle = cast("float", window.delay), cast("float | None", window.idle_timeout)
                self._watermark = Watermark(microseconds(delay), idle)
            self._timed = self._timed_windows(shape)
        elif by_key and isinstance(shape, Count):
            self._untimed = CountedByKey(shape.n, self._firings)
        else:
            self._untimed = SingleWindow(shape, self._firings, now)

    def _timed_windows(self, shape: Fixed | Calendar | Session) -> TimedWindows:
        parts = TimedParts(
            self._firings,
            self._watermark,
            self._times,
            microseconds(self.window.lateness),
            fires_on_time=self.window.triggers.on_time,
            is_given=self._by_key,
        )
        if isinstance(shape, Session):
            gap, longest = microseconds(shape.gap), None if shape.longest is None else microseconds(shape.longest)
            return SessionWindows(gap, longest, parts)
        return AlignedWindows(assigner_of(shape), parts)

    @property
    def watermark(self) -> int | None:
        """The watermark in microseconds since 1970; None while it is not known."""
        return self._watermark.value

    @property
    def late(self) -> int:
        """How many events were late."""
        return 0 if self._timed is None else self._timed.late

    @property
    def has_due(self) -> bool:
        """True if so many windows are due that not all have closed yet. No event goes into them. See :meth:`drain`."""
        return self._timed is not None and self._timed.has_due

    @property
    def next_due(self) -> int | None:
        """The watermark at which a window may fire or close next, in microseconds; None if there is none."""
        return None if self._timed is None else self._timed.next_due()

    @property
    def line(self) -> int | None:
        """Windows of event time that end here or earlier have closed, in microseconds; None: none has."""
        return None if self._timed is None else self._timed.line()

    def open_windows(self) -> Iterator[OpenWindow]:
        """Yields the open windows, in no order."""
        return (self._timed or cast("SingleWindow", self._untimed)).open_windows()

    def describe(self, fire: Fire) -> Firing:
        """Returns what users are told about a firing."""
        start, end = (None if time is None else self.shown(time) for time in (fire.start, fire.end))
        kind, index = self.window.kind, fire.window.index
        return Firing(kind, start, end, index, fire.key, fire.trigger, fire.number, fire.final, fire.count)

    def shown(self, time: int) -> EventTime:
        """Returns a bound of a window, in microseconds, in the kind that users know."""
        return time / 1_000_000 if self._timed is None else self._times.shown(time)

    # --- events

    def read(self, events: Sequence[Any]) -> Stamped:
        """Returns *events* with their times, for :meth:`feed`. Those without a usable time are in ``refused``.

        Sessions, and all windows with *by_key*, also need ``keys``: the shell sets them, one for each of ``events``.
        """
        return self._times.read(events)

    def feed(
        self, stamped: Stamped, now: float, *, upstream: Hashable = None, wall: float | None = None
    ) -> list[Effect]:
        """Puts events into their windows.

        Args:
            stamped: what :meth:`read` returned, or that of another engine with the same window.
            now: what is due by the clock happens before the events.
            upstream: where they come from; it has joined. Not used if the watermark comes from :meth:`advance`.
            wall: seconds since 1970; needed if ``max_ahead`` is set.
        """
        if self._needs_keys and (stamped.keys is None or len(stamped.keys) != len(stamped.events)):
            raise TypeError(f"these windows need a key for each of the {len(stamped.events)} events: set stamped.keys")
        out = self._pass_time(now)
        if self._times.kind is None:
            self._times.kind = stamped.kind
        if self._timed is not None and not self._by_key and (stamped.events or stamped.refused):
            self._watermark.hear(upstream, now)
        if self._max_ahead is not None:
            stamped = self._not_ahead(stamped, self._limit(wall), out)
        if not stamped.events:
            return out
        if self._timed is not None:
            self._timed.feed(upstream, stamped, out)
        elif self._untimed is not None:
            self._untimed.feed(stamped, out)
        return out

    def _limit(self, wall: float | None) -> int:
        """Returns the latest time that is not too far ahead."""
        if wall is None or self._max_ahead is None:
            raise TypeError("a window with max_ahead needs the wall clock, got none")
        return microseconds(wall) + self._max_ahead

    def _not_ahead(self, stamped: Stamped, limit: int, out: list[Effect]) -> Stamped:
        """Returns the events up to *limit*. The others go to the side, and have no other effect."""
        if not stamped.events or stamped.high <= limit:
            return stamped
        times = stamped.times()
        for event, time in zip(stamped.events, times, strict=True):
            if time > limit:
                self.ahead += 1
                out.append(SideOutput(event, self._times.shown(time), "future_event_time"))
        return stamped.part([place for place, time in enumerate(times) if time <= limit])

    def fire(self, trigger: str, now: float) -> list[Effect]:
        """Fires all open windows with a *trigger* of this name."""
        out = self._pass_time(now)
        for window in sorted(self.open_windows(), key=lambda window: window.order):
            self._firings.fire(window, trigger, out)
        return out

    def fire_late(self, now: float) -> list[Effect]:
        """Fires again what got events after it had fired on time; for aggregators, once a checkpoint."""
        out = self._pass_time(now)
        self._firings.fire_late(out)
        return out

    # --- upstreams and the watermark

    def join(self, upstream: Hashable, now: float) -> list[Effect]:
        """Adds *upstream*, which is asked for events from now on. It holds the watermark back until its first event."""
        out = self._pass_time(now)
        self._watermark.join(upstream, now)
        return out

    def leave(self, upstream: Hashable, now: float) -> list[Effect]:
        """Removes *upstream*, which has ended. The end of the last one is the end of the input."""
        out = self._pass_time(now)
        self._watermark.leave(upstream, now)
        if not self._watermark.has_upstreams:
            self._end(out)
        elif self._timed is not None:
            self._timed.drain(out)
        return out

    def observe(self, upstream: Hashable, time: int, now: float) -> list[Effect]:
        """Notes that *upstream* has had an event at *time*, in microseconds since 1970, which went to another stage."""
        out = self._pass_time(now)
        self._watermark.hear(upstream, now)
        if self._watermark.observe(upstream, time) and self._timed is not None:
            self._timed.drain(out)
        return out

    def hold(self, upstream: Hashable, now: float) -> list[Effect]:
        """Notes that *upstream* is not asked from now on, or waits for us. This time does not make it idle."""
        out = self._pass_time(now)
        self._watermark.hold(upstream, now)
        return out

    def resume(self, upstream: Hashable, now: float) -> list[Effect]:
        """Notes that *upstream* is asked for events again."""
        out = self._pass_time(now)
        self._watermark.resume(upstream, now)
        return out

    def advance(self, watermark: int, now: float) -> list[Effect]:
        """Takes the watermark to *watermark*, in microseconds since 1970. It does not go back."""
        out = self._pass_time(now)
        self._watermark.advance(watermark)
        if self._timed is not None:
            self._timed.drain(out)
        return out

    def drain(self, now: float) -> list[Effect]:
        """Closes more windows that are due, if :attr:`has_due`."""
        out = self._pass_time(now)
        if self._timed is not None:
            self._timed.drain(out)
        return out

    def end(self, now: float) -> list[Effect]:
        """Closes all windows, because the input has ended. If there are many, :meth:`drain` closes the others."""
        out = self._pass_time(now)
        self._end(out)
        return out

    def _end(self, out: list[Effect]) -> None:
        self._has_ended = True
        (self._timed or cast("SingleWindow", self._untimed)).end(out)

    # --- the clock

    def next_timer(self) -> float | None:
        """Returns when :meth:`tick` has something to do next, by the clock; None if it waits for something else."""
        if self._has_ended:
            return None
        moments = [ticks.next for ticks in self._ticks]
        if self._untimed is not None:
            moments += [moment for moment in (self._untimed.next_tick(),) if moment is not None]
        moments += [moment for moment in (self._watermark.next_idle(), self._next_reached()) if moment is not None]
        return min(moments, default=None)

    def tick(self, now: float) -> list[Effect]:
        """Does what is due *now*."""
        return self._pass_time(now)

    def _next_reached(self) -> float | None:
        """Returns when the watermark reaches the next window by the clock."""
        due = self.next_due
        return None if due is None else self._watermark.reaches(due)

    def _pass_time(self, now: float) -> list[Effect]:
        """Does what is due, in the order in which it became due."""
        out: list[Effect] = []
        while (moment := self.next_timer()) is not None and moment <= now:
            idle = self._watermark.next_idle()
            if idle is not None and idle <= moment:
                self._watermark.pass_idle(moment)
            reached = self._next_reached()
            if reached is not None and reached <= moment and self._timed is not None:
                self._watermark.run(moment, at_least=self._timed.next_due())
            if self._timed is not None:
                self._timed.drain(out)
            for ticks in self._ticks:
                if ticks.next <= moment:
                    ticks.reach(now)
                    self._firings.fire_changed(out)
            tick = None if self._untimed is None else self._untimed.next_tick()
            if self._untimed is not None and tick is not None and tick <= moment:
                self._untimed.tick(now, out)
        if self._watermark.run(now) and self._timed is not None:
            self._timed.drain(out)
        return out
