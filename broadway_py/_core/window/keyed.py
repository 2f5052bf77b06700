"""The engine of an aggregator: it can be saved and restored, asked before it acts, and an event can be taken back."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import cast

from broadway_py._core.window.aligned import AlignedWindows
from broadway_py._core.window.effects import Effect, OpenWindow, Peek, SharedKeys
from broadway_py._core.window.engine import Engine
from broadway_py._core.window.saved import EngineMemory, SavedKey, SavedWindow, WindowFacts, text_of_shape
from broadway_py._core.window.session import SessionWindows
from broadway_py._core.window.spec import Window
from broadway_py._core.window.ticks import Ticks
from broadway_py._core.window.untimed import CountedByKey, SingleWindow
from broadway_py.errors import OptionsError

__all__ = ["KeyedEngine"]


class KeyedEngine(Engine):
    """The windows of one aggregator: an :class:`Engine` with the rules ``by_key``.

    The shell saves it in pieces: :meth:`memory`, :meth:`saved` for each open window that has changed, and of sessions
    also :meth:`ended`. An engine that gets all of it back goes on as if it had never stopped. Only the order of firings
    of one window may differ, which is the order in which its keys came back.

    Args:
        window: what the user has described.
        now: seconds of a clock that does not jump, and that goes on over restarts; the same for all calls.

    Raises:
        OptionsError: the window does not go with aggregators.
    """

    def __init__(self, window: Window, now: float) -> None:
        super().__init__(window, now, by_key=True)
        self._shape = self._restored_shape = text_of_shape(window.shape)

    # --- before and after an event

    def peek(self, key: Hashable, time: int | None, *, wall: float | None = None) -> Peek:
        """Returns what :meth:`feed` of one event would do, without doing it.

        This holds if nothing else happens before that call. So call :meth:`tick` with the same ``now`` first.

        Args:
            key: of the event.
            time: of the event, in microseconds since 1970; not used if the window has no event time.
            wall: seconds since 1970; needed if ``max_ahead`` is set.
        """
        if self._timed is None:
            return cast("SingleWindow | CountedByKey", self._untimed).peek(key)
        if time is None:
            raise TypeError("a window of event time needs the time of the event, got None")
        if self._max_ahead is not None and time > self._limit(wall):
            return Peek("future_event_time")
        return self._timed.peek(key, time)

    def take_back(self, windows: Sequence[OpenWindow], key: Hashable) -> None:
        """Takes one event of *key* out of the *windows* into which the last :meth:`feed` has counted it.

        All counts, and what has news, are as if the event had not come. A window without events may stay open; it gives
        no result. Only the order of the keys of a window may differ.

        This is for windows that the keys share, without ``trigger_every``. In others an event may fire, close or merge
        at once; use :meth:`peek` there.

        Raises:
            TypeError: a window is of one key.
        """
        for window in windows:
            self._firings.take_back(window, key)

    # --- operators

    def close(self, before: int | None, now: float) -> list[Effect]:
        """Closes open windows, because an operator wants it. Events that come for them later are late.

        Windows of count have no end, so *before* does not matter for them. The global window and periodic ones stay
        open: an event that comes later would open the same window again.

        Args:
            before: only windows that end then or earlier, in microseconds since 1970; None: all.
            now: as for :meth:`tick`.
        """
        out = self._pass_time(now)
        if self._timed is not None:
            self._timed.close(before, out)
        elif isinstance(self._untimed, CountedByKey):
            self._untimed.close(out)
        return out

    # --- saving

    def memory(self) -> EngineMemory:
        """Returns what must be stored apart from windows. It is small; store all of it with each checkpoint."""
        timed, untimed = self._timed, self._untimed
        return EngineMemory(
            shape=self._shape,
            watermark=self.watermark,
            line=None if timed is None else timed.line(),
            times=self._times.kind,
            serial=untimed.next_serial() if isinstance(untimed, SingleWindow) else self._firings.serial,
            index=untimed.opened if isinstance(untimed, CountedByKey) else 0,
            late=self.late,
            ahead=self.ahead,
            window_ticks=untimed.saved_ticks() if isinstance(untimed, SingleWindow) else None,
            trigger_ticks=tuple(ticks.saved for ticks in self._ticks),
        )

    def saved(self, window: OpenWindow, keys: Iterable[Hashable] | None = ()) -> SavedWindow:
        """Returns what must be stored of an open *window*. The cost is in proportion to the *keys*.

        Args:
            window: it is open.
            keys: those of a shared window that the caller wants; None: all of them. Keys without events, because all of
                them were taken back, are left out.
        """
        return SavedWindow(_facts_of(window), window.key, [] if window.shared is None else _kept(window.shared, keys))

    def ended(self) -> Mapping[Hashable, int]:
        """Returns the end of the last closed session of each key that is still remembered, in microseconds.

        A key is forgotten once the line is the gap past this end. It changes with the effect ``Close``, and needs to be
        stored then. Other kinds of windows remember nothing.
        """
        return self._timed.ended() if isinstance(self._timed, SessionWindows) else {}

    # --- restoring

    def restore(self, memory: EngineMemory) -> None:
        """Takes up *memory*. The engine is new; :meth:`reopen` and :meth:`reopen_ended` follow, in any order.

        Settings may have changed meanwhile. A window that has closed stays closed, even if ``lateness`` is longer now.
        One that should have closed, because ``lateness`` is shorter now, does so at the next :meth:`advance`. Timers of
        triggers begin anew if their intervals are others.
        """
        self._restored_shape = memory.shape
        self.ahead = memory.ahead
        self._times.kind = memory.times
        self._firings.serial = memory.serial
        if memory.watermark is not None:
            self._watermark.advance(memory.watermark)
        if [ticks.saved[1] for ticks in self._ticks] == [interval for _, interval, _ in memory.trigger_ticks]:
            self._ticks = [Ticks(*ticks) for ticks in memory.trigger_ticks]
        if self._timed is not None:
            self._timed.late, self._timed.closed_until = memory.late, memory.line
        elif isinstance(self._untimed, CountedByKey):
            self._untimed.opened = memory.index
        elif self._untimed is not None:
            self._untimed.restore(memory.window_ticks if memory.shape == self._shape else None)

    def reopen(self, saved: SavedWindow) -> OpenWindow:
        """Opens a window as it was saved, and returns it, without accumulators: the shell sets them.

        A shared window may come in parts: then each call adds keys. If a key comes twice, the last one holds.

        Raises:
            OptionsError: it was saved by windows of another kind or size.
        """
        self._refuse_another_shape()
        return (self._timed or cast("SingleWindow | CountedByKey", self._untimed)).reopen(saved)

    def reopen_closed(self, saved: SavedWindow, window: OpenWindow | None = None) -> OpenWindow:
        """Returns a shared window as it was saved, which has closed and has not given all of its last results.

        It stays closed. As with :meth:`reopen` it may come in parts.

        Args:
            saved: a part of it.
            window: what this method has returned for the first part; None: this is the first one.

        Raises:
            OptionsError: it was saved by windows of another kind or size.
        """
        self._refuse_another_shape()
        if window is None:
            window = self._firings.reopen(saved, on_time=False)
        self._firings.restore_keys(window, saved.keys)
        self._firings.forget(window)
        return window

    def resume_firings(self) -> list[Effect]:
        """Goes on with the results on time of windows that were restored. Call it after the last of them."""
        out: list[Effect] = []
        if isinstance(self._timed, AlignedWindows):
            self._timed.resume(out)
        return out

    def _refuse_another_shape(self) -> None:
        if self._restored_shape != self._shape:
            raise OptionsError(
                ("window",),
                f"expected {self._restored_shape}, of which windows are open, got {self._shape}: "
                "let the open windows close with the old settings first",
            )

    def reopen_ended(self, ended: Mapping[Hashable, int]) -> None:
        """Remembers the ends of the last closed session of each key, as :meth:`ended` gave them.

        Ends that would already be forgotten may be among them. Windows that are no sessions ignore all of them.
        """
        if isinstance(self._timed, SessionWindows):
            self._timed.reopen_ended(ended)


def _facts_of(window: OpenWindow) -> WindowFacts:
    return WindowFacts(
        window.start,
        window.end,
        window.index,
        window.serial,
        window.first_start,
        window.count,
        window.since_trigger,
        window.number,
        window.changed and window.shared is None,
        window.replaces,
    )


def _kept(shared: SharedKeys, keys: Iterable[Hashable] | None) -> list[SavedKey]:
    records, changed = shared.records, shared.changed
    wanted = records.values() if keys is None else (records[key] for key in keys if key in records)
    return [(record.key, record.count, record.number, record in changed) for record in wanted]
