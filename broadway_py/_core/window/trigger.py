"""Triggers: when a window fires before it closes, and what each firing says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import Any

from broadway_py._core.window.effects import (
    Add,
    Close,
    Effect,
    Fire,
    FireKeys,
    FireLast,
    FireOnTime,
    KeyRecord,
    OpenWindow,
    SharedKeys,
)
from broadway_py._core.window.saved import SavedKey, SavedWindow
from broadway_py._core.window.spec import Window
from broadway_py.foreign import article, is_a

__all__ = ["Firings"]


class Firings:
    """Puts events into windows and says which of them fire.

    Args:
        window: the description, with all of its settings.
        by_key: the rules of aggregators: firings are named by what ended the window, a window without events is silent,
            and one that has fired on time fires again only if events came since.
        is_shared: the keys share a window, and each firing is for one of them.
    """

    def __init__(self, window: Window, *, by_key: bool, is_shared: bool) -> None:
        self._every = window.triggers.every
        self._custom = window.triggers.custom
        self._by_key = by_key
        self._is_shared = is_shared
        # Then a key may have fired before, and this does not say whether it has fired on time.
        self._fires_early = bool(window.triggers.every or window.triggers.custom or window.triggers.periodically)
        #: True if events may make a window fire at once.
        self.fires_at_events = self._every is not None or self._custom is not None
        #: The serial number of the next window.
        self.serial = 0
        #: The windows that changed since the last periodic trigger, if there is one.
        self._touched: dict[OpenWindow, None] | None = {} if window.triggers.periodically else None
        #: The windows with events that came after the firing on time, in aggregators.
        self._behind: dict[OpenWindow, None] = {}

    def open(
        self, start: int | None = None, end: int | None = None, *, key: Hashable = None, index: int | None = None
    ) -> OpenWindow:
        """Returns a new window, without events."""
        window = OpenWindow(self.serial, start, end, key=key, index=index, is_shared=self._is_shared)
        self.serial += 1
        if self._custom is not None:
            window.trigger_state = self._custom[0]()
        return window

    # --- events

    def add(
        self,
        windows: tuple[OpenWindow, ...],
        events: Sequence[Any],
        keys: Sequence[Hashable] | None,
        out: list[Effect],
    ) -> None:
        """Puts *events* into *windows*, and appends what follows to *out*."""
        if self._custom is not None:
            for window in windows:
                self._add_by_function(window, list(events), self._custom[1], out)
        elif self._every is None:
            for window in windows:
                if window.shared is not None and window.shared.firing is not None:
                    self._fire_before(window, window.shared, keys or (), out)
            out.append(Add(windows, events, keys, self._count(windows, len(events), keys)))
        elif self._is_shared and keys is not None:
            self._add_counting_keys(windows, events, keys, self._every, out)
        else:
            self._add_counting(windows, events, keys, self._every, out)

    def _count(
        self, windows: tuple[OpenWindow, ...], count: int, keys: Sequence[Hashable] | None
    ) -> tuple[list[KeyRecord], ...]:
        """Counts events. Returns the records of their keys, for each of *windows* if keys share them."""
        found: list[list[KeyRecord]] = []
        for window in windows:
            window.count += count
            window.changed = True
            notes_news = window.on_time or self._touched is not None
            if window.shared is not None and keys is not None:
                records = window.shared.count(keys)
                found.append(records)
                if notes_news:
                    window.shared.changed.update(dict.fromkeys(records))
            if notes_news:
                self._note_news(window)
        return tuple(found)

    def _add_counting(
        self,
        windows: tuple[OpenWindow, ...],
        events: Sequence[Any],
        keys: Sequence[Hashable] | None,
        every: int,
        out: list[Effect],
    ) -> None:
        begin = 0
        while begin < len(events):
            # Two sessions that merged may have more than *every* together; then the next event fires.
            step = max(1, every - max(window.since_trigger for window in windows))
            part = events[begin : begin + step]
            part_keys = None if keys is None else keys[begin : begin + step]
            begin += step
            out.append(Add(windows, part, part_keys, self._count(windows, len(part), part_keys)))
            for window in windows:
                window.since_trigger += len(part)
                if window.since_trigger >= every:
                    window.since_trigger = 0
                    self.fire(window, "every", out)

    def _add_counting_keys(
        self,
        windows: tuple[OpenWindow, ...],
        events: Sequence[Any],
        keys: Sequence[Hashable],
        every: int,
        out: list[Effect],
    ) -> None:
        for event, key in zip(events, keys, strict=True):
            found = self._count(windows, 1, (key,))
            out.append(Add(windows, (event,), (key,), found))
            for window, records in zip(windows, found, strict=True):
                if records[0].count % every == 0:
                    self._fire_keys(window, records, "every", out)

    def _add_by_function(
        self, window: OpenWindow, events: list[Any], function: Callable[[list[Any], Any], Any], out: list[Effect]
    ) -> None:
        took_nothing = False
        while events:
            name, before, after, window.trigger_state = _decision(function(events, window.trigger_state), events)
            if before:
                self._count((window,), len(before), None)
                out.append(Add((window,), before, None))
            if name is None:
                return
            self.fire(window, name, out)
            if len(after) < len(events):
                took_nothing = False
            elif took_nothing:
                raise ValueError("the trigger function took no event twice in a row; it would go on for ever")
            else:
                took_nothing = True
            events = after

    def take_back(self, window: OpenWindow, key: Hashable) -> None:
        """Takes an event of *key* out of the shared *window*, as if it had not come."""
        shared = window.shared
        if shared is None:
            raise TypeError("an event cannot be taken back from a window of one key: use peek() before feed()")
        window.count -= 1
        record = shared.records[key]
        record.count -= 1
        if record.count <= record.told:
            shared.changed.pop(record, None)
        if not record.count:
            del shared.records[key]

    # --- windows that were saved

    def reopen(self, saved: SavedWindow, *, on_time: bool) -> OpenWindow:
        """Returns a window with the facts of *saved*; the keys of a shared window follow."""
        facts = saved.facts
        window = OpenWindow(
            facts.serial, facts.start, facts.end, key=saved.key, index=facts.window_index, is_shared=self._is_shared
        )
        window.on_time = on_time
        window.first_start, window.replaces = facts.first_start, tuple(facts.replaces)
        if not self._is_shared:
            window.count, window.since_trigger, window.number = facts.events, facts.since_trigger, facts.firing
            window.changed = facts.has_news
            if window.changed:
                self._note_news(window)
        return window

    def restore_keys(self, window: OpenWindow, keys: Iterable[SavedKey]) -> None:
        """Gives the keys back to a shared *window*."""
        shared = window.shared
        if shared is None:
            return
        for key, count, number, has_news in keys:
            record = shared.records[key]
            window.count += count - record.count
            record.count = count
            if number:
                record.number, record.told = number, count - has_news
            if has_news:
                shared.changed[record] = None
            else:
                shared.changed.pop(record, None)
            if (number or has_news) and not window.on_time:
                shared.is_early = True
        if shared.changed:
            self._note_news(window)

    def _note_news(self, window: OpenWindow) -> None:
        """Notes that *window* has events since its last firing, where something may fire them before it closes."""
        if self._touched is not None:
            self._touched[window] = None
        if window.on_time and self._by_key:
            self._behind[window] = None

    # --- firings

    def fire(self, window: OpenWindow, trigger: str, out: list[Effect]) -> None:
        """Fires *window*, which stays open: each of its keys, if the keys share it."""
        if window.shared is None:
            self._fire(window, trigger, out, final=False)
        else:
            self._fire_keys(window, window.shared.records.values(), trigger, out)

    def fire_on_time(self, window: OpenWindow, reason: str, out: list[Effect]) -> None:
        """Fires *window* because the watermark has passed its end."""
        window.on_time = True
        # The process before may have had a trigger that this one does not have.
        if window.shared is None or self._fires_early or window.shared.is_early:
            self.fire(window, reason if self._by_key else "watermark", out)
        else:
            self._fire_on_time_in_parts(window, reason, window.shared.records.values(), out)

    def resume_on_time(self, window: OpenWindow, reason: str, out: list[Effect], *, in_parts: bool) -> None:
        """Fires those keys of *window*, which was restored, that had no result on time."""
        if window.shared is None or not window.on_time:
            return
        # The process before had no trigger if some are left. This one may have one.
        unfired = list(_unfired(window.shared))
        if self._fires_early or not in_parts:
            self._fire_keys(window, unfired, reason, out)
        else:
            self._fire_on_time_in_parts(window, reason, unfired, out)

    def _fire_before(self, window: OpenWindow, shared: SharedKeys, keys: Sequence[Hashable], out: list[Effect]) -> None:
        """Fires those of *keys* that have results on time, because events come now that these must not have."""
        found = dict.fromkeys(record for key in keys if (record := shared.records.get(key)) is not None)
        unfired = [record for record in found if not (record.number or record in shared.changed)]
        if shared.firing is not None:
            self._fire_keys(window, unfired, shared.firing, out)

    def _fire_on_time_in_parts(
        self, window: OpenWindow, reason: str, records: Iterable[KeyRecord], out: list[Effect]
    ) -> None:
        fire = FireOnTime(window, reason, list(records))
        if window.shared is not None and fire:
            window.shared.firing = reason
            out.append(fire)

    def fire_changed(self, out: list[Effect]) -> None:
        """Fires the windows that changed since they last fired, for a periodic trigger."""
        touched, self._touched = self._touched or {}, {}
        for window in _in_order(touched):
            self._fire_news(window, "periodic", out)

    def fire_late(self, out: list[Effect]) -> None:
        """Fires the windows to which events came after they had fired on time, in aggregators."""
        behind, self._behind = self._behind, {}
        for window in _in_order(behind):
            if window.on_time:  # else it is a session that goes on, and will fire on time
                self._fire_news(window, "late", out)

    def close(self, window: OpenWindow, reason: str, out: list[Effect]) -> None:
        """Closes *window*, and fires it for the last time where something is left to say."""
        self.forget(window)
        if not self._by_key:
            self._fire(window, "done", out, final=True)
        else:
            is_on_time = window.on_time
            trigger = "late" if is_on_time and reason not in ("end", "closed") else reason
            if window.shared is not None:
                if window.shared.firing is not None:
                    self._fire_keys(window, list(_unfired(window.shared)), window.shared.firing, out)
                last = FireLast(window, trigger, is_on_time)
                if len(last):
                    out.append(last)
                    return
            elif window.changed if is_on_time else window.count:
                self._fire(window, trigger, out, final=True)
        out.append(Close(window))

    def forget(self, window: OpenWindow) -> None:
        """Notes that *window* is no longer open."""
        window.closed = True
        self._behind.pop(window, None)
        if self._touched is not None:
            self._touched.pop(window, None)

    def merged(self, window: OpenWindow, absorbed: OpenWindow) -> None:
        """Adds the counts of the session *absorbed* to those of *window*."""
        window.count += absorbed.count
        window.since_trigger += absorbed.since_trigger
        window.replaces += absorbed.replaces if absorbed.number == 0 else (*absorbed.replaces, absorbed.id)
        window.changed = True
        if self._touched is not None:
            self._touched[window] = None
        self.forget(absorbed)

    def _fire_news(self, window: OpenWindow, trigger: str, out: list[Effect]) -> None:
        if window.shared is None:
            if window.changed:
                self._fire(window, trigger, out, final=False)
        else:
            self._fire_keys(window, list(window.shared.changed), trigger, out)

    def _fire(self, window: OpenWindow, trigger: str, out: list[Effect], *, final: bool) -> None:
        window.number += 1
        window.changed = False
        out.append(
            Fire(
                window,
                window.key,
                trigger,
                window.number,
                final,
                window.count,
                window.start,
                window.end,
                window.replaces,
            )
        )

    def _fire_keys(self, window: OpenWindow, records: Collection[KeyRecord], trigger: str, out: list[Effect]) -> None:
        shared = window.shared
        if shared is None or not records:
            return
        if not window.on_time:
            shared.is_early = True
        fired: list[tuple[KeyRecord, int, int]] = []
        for record in records:
            record.number += 1
            record.told = record.count
            fired.append((record, record.count, record.number))
        changed = shared.changed
        for record in records if changed else ():
            changed.pop(record, None)
        out.append(FireKeys(window, trigger, fired))


def _unfired(shared: SharedKeys) -> Iterable[KeyRecord]:
    """Yields the keys that have never fired. Those with news came later, and fire as late."""
    return (record for record in shared.records.values() if not (record.number or record in shared.changed))


def _in_order(windows: Iterable[OpenWindow]) -> list[OpenWindow]:
    return sorted(windows, key=lambda window: window.order)


def _decision(returned: Any, events: list[Any]) -> tuple[str | None, list[Any], list[Any], Any]:
    """Returns what a trigger function has said: the name of the trigger or None, before, after, and the state."""
    match returned:
        case ("cont", state):
            return None, events, [], state
        case ("cont", list(instead), state):
            return None, instead, [], state
        case ("trigger", str(name), list(before), list(after), state):
            return name, before, after, state
    kind = f"a tuple of {len(returned)}" if is_a(returned, tuple) else article(returned)
    raise ValueError(
        "expected ('cont', state), ('cont', events, state) or ('trigger', name, before, after, state) "
        f"from the trigger function, got {kind}"
    )
