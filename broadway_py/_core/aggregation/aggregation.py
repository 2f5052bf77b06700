"""The windows of one aggregator, with their values and results. It decides; stages carry out."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from broadway_py._core.aggregation.changes import Changes, Entry, Part
from broadway_py._core.aggregation.outcome import Added, Checkpoint, Results
from broadway_py._core.aggregation.values import Failure, Functions, Holder, Values
from broadway_py._core.window.effects import (
    Add,
    Close,
    Effect,
    Fire,
    FireKeys,
    FireLast,
    FireOnTime,
    KeyRecord,
    Merge,
    OpenWindow,
    SideOutput,
)
from broadway_py._core.window.firing import MISSING
from broadway_py._core.window.keyed import KeyedEngine
from broadway_py._core.window.saved import EngineMemory, SavedWindow, WindowFacts
from broadway_py._core.window.shape import Count, Session
from broadway_py._core.window.spec import Window
from broadway_py._core.window.times import EventTime, Stamped
from broadway_py.foreign import foreign_errors

__all__ = ["Aggregation"]

#: How many windows are opened before others can run.
_AT_ONCE: Final = 2_000


class Aggregation:
    """Adds events to the windows of one aggregator, and keeps what changed since the last checkpoint.

    All times *now* are seconds of a clock that goes on over restarts and does not jump.

    Args:
        window: the description of the windows.
        functions: what the user has written.
        now: when the first window by the clock begins.
        is_stored: False: checkpoints need no parts, because the windows end with the process.
    """

    def __init__(self, window: Window, functions: Functions, now: float, *, is_stored: bool = True) -> None:
        self._functions = functions
        self._engine = KeyedEngine(window, now)
        self._is_shared = not isinstance(window.shape, Session | Count)
        # Events go in one by one where one event can make a window fire.
        self._one_by_one = not self._is_shared or window.triggers.every is not None
        self._values = Values(functions)
        self._changes: Changes | None = None
        if is_stored:
            self._changes = Changes(self._engine, functions.key_json, is_shared=self._is_shared)
        # The results of windows that stay open, or that are of one key each.
        self._results: list[Results] = []
        self._results_left = 0
        # What checkpoints take in parts, in this order: last results of closed windows, and results on time.
        self._in_parts: deque[FireLast | FireOnTime] = deque()
        self._in_parts_left = 0
        # The windows whose results on time are among them.
        self._on_time: dict[OpenWindow, FireOnTime] = {}
        self._sequence = 0
        #: How many results went into checkpoints since the start, by their trigger.
        self.results_by_trigger: Counter[str] = Counter()
        #: The number of the last checkpoint that was made.
        self.number = 0
        # While it is restored: the windows of one key each by their serial numbers, the ends of closed sessions, the
        # end up to which windows have closed, and the serial number that the next one gets.
        self._loaded: dict[int, tuple[WindowFacts, Entry]] = {}
        self._loaded_ends: dict[Hashable, int] = {}
        # The same of closed windows with results that are left: by their serial numbers, and their keys that are done.
        self._loaded_last: dict[int, tuple[str, bool]] = {}
        self._loaded_closed: dict[int, OpenWindow] = {}
        self._loaded_fired: dict[int, list[Hashable]] = {}
        self._closed_until: int | None = None
        self._next_serial = 0

    @property
    def open(self) -> int:
        """How many accumulators there are."""
        return self._values.open

    @property
    def watermark(self) -> int | None:
        """The watermark in microseconds since 1970; None while it is not known."""
        return self._engine.watermark

    @property
    def due(self) -> int:
        """How many results wait for a checkpoint."""
        return self._results_left + self._in_parts_left

    @property
    def has_parts(self) -> bool:
        """True if windows have results that checkpoints take in parts."""
        return bool(self._in_parts)

    @property
    def is_changed(self) -> bool:
        """True if a checkpoint would store accumulators or results, besides those that it takes in parts."""
        return bool(self._results) or (self._changes is not None and self._changes.has_any)

    @property
    def has_due(self) -> bool:
        """True if many windows are due, and :meth:`close_due` closes more of them."""
        return self._engine.has_due

    def next_due(self) -> int | None:
        """Returns the watermark at which a window may fire or close next; None if there is none."""
        return self._engine.next_due

    def shown(self, time: int | None) -> EventTime | None:
        """Returns a bound of a window in the kind that users know."""
        return None if time is None else self._engine.shown(time)

    def open_windows(self) -> Iterator[OpenWindow]:
        """Yields the open windows, in no order."""
        return self._engine.open_windows()

    # --- events

    def add(self, events: Sequence[Any], now: float, wall: float) -> Added:
        """Adds *events* to their windows.

        Args:
            events: in the order in which they came.
            now: what is due by the clock happens before.
            wall: seconds since 1970, for events that lie too far ahead.
        """
        out = Added([])
        stamped = self._engine.read(events)
        out.failed += [(refusal.event, refusal.error) for refusal in stamped.refused]
        stamped = self._with_keys(stamped, out)
        if not stamped.events:
            self._carry_out(self._engine.tick(now), out)
            return out
        if self._one_by_one:
            self._add_each(stamped, now, wall, out)
        else:
            self._carry_out(self._engine.feed(stamped, now, wall=wall), out)
        self._note_added(stamped, out)
        return out

    @property
    def checks_each(self) -> bool:
        """True between :meth:`check_each` and :meth:`checked`."""
        return self._values.checks_each

    def check_each(self) -> None:
        """Checks each value from now on. An event whose value cannot be stored fails, as if *add* had raised."""
        self._values.checks_each = True

    def checked(self) -> None:
        """Notes that all values could be stored: from now on, one of each type is checked."""
        self._values.checks_each = False

    def _with_keys(self, stamped: Stamped, out: Added) -> Stamped:
        """Returns *stamped* with the key of each event. Those without one fail."""
        key = self._functions.key
        try:
            keys = list(map(key, stamped.events))
            hash(tuple(keys))  # raises if one of them cannot be a key
        except foreign_errors(cancellations=True):
            pass  # one by one, it turns out whose key it is
        else:
            stamped.keys = keys
            return stamped
        keys, kept = [], []
        for place, event in enumerate(stamped.events):
            try:
                own = key(event)
                hash(own)
            except foreign_errors(cancellations=True) as error:
                out.failed.append((event, error))
            else:
                keys.append(own)
                kept.append(place)
        part = stamped.part(kept)
        part.keys = keys
        return part

    def _add_each(self, stamped: Stamped, now: float, wall: float, out: Added) -> None:
        """Adds events one by one, because one can make a window fire or join two. Functions are called first."""
        engine = self._engine
        self._carry_out(engine.tick(now), out)
        times: Sequence[int | None] = stamped.times() if stamped.raw else [None] * len(stamped.events)
        for event, time, key in zip(stamped.events, times, stamped.keys or (), strict=True):
            seen = engine.peek(key, time, wall=wall)
            holders = self._holders(seen.joins, key)
            values: list[Any] = []
            merges = not self._is_shared and len(holders) > 1
            if seen.cause is None:
                try:
                    if merges:
                        values = [self._values.merged_with_event(holders, event, key)]
                    else:
                        begins = seen.opens + len(seen.joins) - len(holders)
                        values = self._values.with_event(holders, begins, event, key)
                except foreign_errors(cancellations=True) as error:
                    out.failed.append((event, error))
                    continue
            one = Stamped([event], keys=[key])
            if time is not None:
                one = Stamped([event], time, time, [time], in_microseconds=True, keys=[key])
            for effect in engine.feed(one, now, wall=wall):
                if isinstance(effect, Add):
                    self._put(effect, holders, values, is_merged=merges)
                elif isinstance(effect, Merge):
                    self._forget(effect.absorbed, is_merged=True)
                else:
                    self._carry_out([effect], out)

    def _holders(self, windows: Sequence[OpenWindow], key: Hashable) -> Sequence[Holder]:
        """Returns what has the accumulators of *key* in *windows*, where it has one."""
        if not self._is_shared:
            return windows
        found = [window.shared.records.get(key) for window in windows if window.shared is not None]
        return [record for record in found if record is not None]

    def _put(self, add: Add, joined: Sequence[Holder], values: Sequence[Any], *, is_merged: bool) -> None:
        """Puts the *values* where *add* says: those that were computed for *joined*, then those of new accumulators."""
        known = {holder: values[0 if is_merged else place] for place, holder in enumerate(joined)}
        fresh = iter(values[len(joined) :])
        for place, window in enumerate(add.windows):
            holder: Holder = add.records[place][0] if add.records else window
            is_new = holder not in known
            value = next(fresh) if is_new else known[holder]
            self._values.put(holder, value, is_new=is_new, is_merged=is_merged)
            if self._changes is not None:
                touched = self._changes.touched(window)
                if isinstance(holder, KeyRecord):
                    touched[holder] = None

    def _note_added(self, stamped: Stamped, out: Added) -> None:
        """Sets those of *stamped* that are in windows now, with their times."""
        if out.failed or out.late or out.ahead:
            gone = {id(event) for event, _ in [*out.failed, *out.ahead]} | {id(event) for event in out.late}
            stamped = stamped.part([place for place, event in enumerate(stamped.events) if id(event) not in gone])
        out.added = stamped.events if isinstance(stamped.events, list) else list(stamped.events)
        if stamped.raw:
            out.stamped = stamped

    # --- time

    def advance(self, watermark: int, now: float) -> None:
        """Takes the watermark to *watermark*, in microseconds since 1970. It does not go back."""
        self._carry_out(self._engine.advance(watermark, now))

    def tick(self, now: float) -> None:
        """Does what is due *now* by the clock."""
        self._carry_out(self._engine.tick(now))

    def next_timer(self) -> float | None:
        """Returns when :meth:`tick` has something to do next; None if it waits for something else."""
        return self._engine.next_timer()

    def close_due(self, now: float) -> None:
        """Closes more of the windows that are due."""
        self._carry_out(self._engine.drain(now))

    def end(self, now: float) -> None:
        """Closes all windows, because the input has ended."""
        self._carry_out(self._engine.end(now))

    def close(self, before: int | None, now: float) -> None:
        """Closes the windows that end at *before* or earlier, because an operator wants it; None: all of them."""
        self._carry_out(self._engine.close(before, now))

    # --- effects

    def _carry_out(self, effects: Sequence[Effect], out: Added | None = None) -> None:
        for effect in effects:
            if isinstance(effect, Add):
                self._add_shared(effect, out)
            elif isinstance(effect, Fire):
                self._fire(effect)
            elif isinstance(effect, FireKeys):
                self._fire_keys(effect)
            elif isinstance(effect, FireOnTime):
                self._fire_on_time(effect)
            elif isinstance(effect, FireLast):
                self._fire_last(effect)
            elif isinstance(effect, Close):
                self._forget(effect.window)
            elif isinstance(effect, SideOutput) and out is not None:
                if effect.cause == "late":
                    out.late.append(effect.event)
                else:
                    out.ahead.append((effect.event, effect.time))

    def _add_shared(self, add: Add, out: Added | None) -> None:
        failed: list[Failure] = []
        self._values.add_list(add.records, add.events, failed)
        for event, key, error in failed:
            self._engine.take_back(add.windows, key)
            if out is not None:
                out.failed.append((event, error))
        if self._changes is None:
            return
        for window, records in zip(add.windows, add.records, strict=True):
            # What has no accumulator was taken back, with its only event.
            kept = [record for record in records if record.state is not MISSING] if failed else records
            touched = self._changes.touched(window)
            for record in kept:  # this is faster than to update it with another dict
                touched[record] = None

    def _fire(self, fire: Fire) -> None:
        window = fire.window
        entries: list[Entry] = [(fire.key, fire.count, fire.number, window.state)]
        if not fire.final:
            entries = self._values.frozen(entries)
            if self._changes is not None:
                self._changes.touched(window)
        self._add_results(Results(0, window.id, fire.start, fire.end, fire.trigger, fire.final, fire.replaces, entries))

    def _fire_keys(self, fire: FireKeys) -> None:
        window = fire.window
        entries = self._values.frozen(
            [(record.key, count, number, record.state) for record, count, number in fire.fired]
        )
        self._add_results(Results(0, window.id, window.start, window.end, fire.trigger, False, (), entries))
        if self._changes is not None:
            self._changes.touched(window).update((record, None) for record, _, _ in fire.fired)

    def _add_results(self, results: Results) -> None:
        self._results.append(results)
        self._results_left += len(results.entries)

    def _fire_on_time(self, fire: FireOnTime) -> None:
        self._in_parts_left += len(fire)
        self._in_parts.append(fire)
        self._on_time[fire.window] = fire

    def _end_on_time(self, window: OpenWindow) -> None:
        """Forgets the results on time of *window*, which has closed. Those that were left have been given."""
        fire = self._on_time.pop(window, None)
        if fire is not None:
            self._in_parts_left -= len(fire)
            self._in_parts.remove(fire)

    def _fire_last(self, fire: FireLast) -> None:
        self._end_on_time(fire.window)
        self._in_parts_left += len(fire)
        self._in_parts.append(fire)
        # They are kept for these results only.
        self._values.open -= _accumulators_of(fire.window)
        if self._changes is not None:
            self._changes.fire_last(fire.window)

    def _forget(self, window: OpenWindow, *, is_merged: bool = False) -> None:
        self._end_on_time(window)
        self._values.open -= _accumulators_of(window)
        if self._changes is not None:
            self._changes.close(window, is_merged=is_merged)

    # --- checkpoints

    def checkpoint(self, now: float, most_in_parts: int) -> Checkpoint:
        """Returns what must be stored now. What changes from now on belongs to the next checkpoint.

        Late events give their results here: one for each key and window, however many events came.

        Args:
            now: as for :meth:`tick`.
            most_in_parts: so many last results of closed windows, and results on time, at most; others follow with the
                next checkpoints.
        """
        self._carry_out(self._engine.fire_late(now))
        self.number += 1
        results, self._results, self._results_left = self._results, [], 0
        results += self._take_in_parts(most_in_parts)
        for one in results:
            one.sequence = self._sequence + 1
            self._sequence += len(one.entries)
            self.results_by_trigger[one.trigger] += len(one.entries)
        parts, dropped = ([], []) if self._changes is None else self._changes.take(self.number)
        self._values.stored()
        memory = {
            "engine": asdict(self._engine.memory()),
            "sequence": self._sequence,
            # Of results on time, the numbers of the keys' firings say which are left.
            "last": [
                (fire.window.serial, fire.trigger, fire.only_news)
                for fire in self._in_parts
                if isinstance(fire, FireLast)
            ],
        }
        return Checkpoint(self.number, memory, parts, dropped, results)

    def _take_in_parts(self, most: int) -> Iterator[Results]:
        """Yields last results of closed windows, and results on time, at most so many."""
        while self._in_parts and most:
            fire = self._in_parts[0]
            window = fire.window
            left = len(fire)
            records = fire.take(most)
            entries: list[Entry] = [(record.key, record.count, record.number, record.state) for record in records]
            most -= len(entries)
            self._in_parts_left -= left - len(fire)
            if not fire:
                self._in_parts.popleft()
            is_last = isinstance(fire, FireLast)
            if isinstance(fire, FireLast):
                self._note_last(fire, records)
            else:
                entries = self._values.frozen(entries)
                self._note_on_time(fire, records)
            if entries:
                yield Results(0, window.id, window.start, window.end, fire.trigger, is_last, (), entries)

    def _note_last(self, fire: FireLast, records: Sequence[KeyRecord]) -> None:
        if self._changes is not None and fire:
            self._changes.fire_last(fire.window, records)
        elif self._changes is not None:
            self._changes.close(fire.window)

    def _note_on_time(self, fire: FireOnTime, records: Sequence[KeyRecord]) -> None:
        if not fire:
            del self._on_time[fire.window]
        if self._changes is not None:
            self._changes.touched(fire.window).update(dict.fromkeys(records))

    # --- restoring

    def restore(self, memory: Mapping[str, Any], number: int) -> None:
        """Takes up what the checkpoint *number* stored. :meth:`reopen` for each part, in order, and :meth:`restored`
        follow.
        """
        self.number = number
        self._sequence = memory["sequence"]
        stored = dict(memory["engine"])
        self._closed_until, self._next_serial = stored["line"], stored["serial"]
        self._loaded_last = {serial: (trigger, only_news) for serial, trigger, only_news in memory.get("last", ())}
        window_ticks = stored["window_ticks"]
        stored["window_ticks"] = None if window_ticks is None else tuple(window_ticks)
        stored["trigger_ticks"] = tuple(tuple(ticks) for ticks in stored["trigger_ticks"])
        self._engine.restore(EngineMemory(**stored))

    def reopen(self, part: Part) -> None:
        """Takes up a stored *part*. It replaces the entries of the same keys that came before."""
        changes = self._stored_changes()
        changes.restored(part)
        for serial in part.closed:
            self._loaded.pop(serial, None)
        for key, end in part.ended:
            self._loaded_ends[key] = end
        if not self._is_shared:
            for facts, entry in zip(part.facts, part.entries, strict=True):
                self._loaded[facts.serial] = (facts, entry)
            return
        facts = part.facts[0]
        if facts.serial in self._loaded_last:
            self._reopen_closed(part)
            return
        if facts.end is not None and self._closed_until is not None and facts.end <= self._closed_until:
            return  # the window has closed, and its bucket was kept for another window with the same start
        if facts.end is None and facts.serial < self._next_serial:
            return  # the same of a global window: the open one has the next serial number
        window = self._engine.reopen(changes.saved(part))
        changes.reopened(window)
        self._values.open += _set_values(window, part)

    def _reopen_closed(self, part: Part) -> None:
        """Takes up a *part* of a closed window that has not given all of its last results."""
        changes, serial = self._stored_changes(), part.facts[0].serial
        window = self._engine.reopen_closed(changes.saved(part), self._loaded_closed.get(serial))
        self._loaded_closed[serial] = window
        _set_values(window, part)
        self._loaded_fired.setdefault(serial, []).extend(part.fired)

    def restored(self) -> Iterator[None]:
        """Opens the windows of one key each, after the last part. It stops now and then, so that others can run."""
        changes = self._stored_changes()
        for place, (facts, entry) in enumerate(self._loaded.values()):
            window = self._engine.reopen(SavedWindow(facts, key=entry[0]))
            window.state = entry[3]
            self._values.open += 1
            changes.reopened(window)
            if place % _AT_ONCE == 0:
                yield
        self._engine.reopen_ended(self._loaded_ends)
        for key, end in self._engine.ended().items():
            changes.remembered(key, end)
        for serial, (trigger, only_news) in self._loaded_last.items():
            window = self._loaded_closed[serial]
            fire = FireLast(window, trigger, only_news)
            fired = self._loaded_fired[serial]
            for first in range(0, len(fired), _AT_ONCE):
                fire.skip(fired[first : first + _AT_ONCE])
                yield
            self._values.open += _accumulators_of(window)
            self._fire_last(fire)
        self._carry_out(self._engine.resume_firings())
        self._loaded, self._loaded_ends = {}, {}
        self._loaded_last, self._loaded_closed, self._loaded_fired = {}, {}, {}

    def _stored_changes(self) -> Changes:
        if self._changes is None:
            raise TypeError("nothing was stored of these windows")
        return self._changes


def _accumulators_of(window: OpenWindow) -> int:
    return 1 if window.shared is None else len(window.shared.records)


def _set_values(window: OpenWindow, part: Part) -> int:
    """Gives the keys of *part* their stored values in *window*, which has these keys. Returns how many had none."""
    if window.shared is None:
        raise TypeError("a window of one key has no records of keys")
    records, begun = window.shared.records, 0
    for key, _, _, value in part.entries:
        record = records[key]
        begun += record.state is MISSING
        record.state = value
    return begun
