"""Calls the functions of an aggregator on its values. A raise leaves every value as it was."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from broadway_py._core.aggregation.changes import Entry
from broadway_py._core.window.firing import OpenWindow
from broadway_py.foreign import foreign_errors

__all__ = ["Failure", "Functions", "Values"]


class _Missing(Enum):
    """What stands for a value that is not there."""

    MISSING = "MISSING"


_MISSING: Final = _Missing.MISSING

#: An event that fails, its key, and the error that a function raised.
Failure = tuple[Any, Hashable, BaseException]


@dataclass(frozen=True, slots=True)
class Functions:
    """What the user has written, and what can be stored."""

    key: Callable[[Any], Any]
    initial: Callable[[], Any]
    add: Callable[[Any, Any], Any]
    #: None if the windows need none.
    merge: Callable[[Any, Any], Any] | None
    #: Raises if a key cannot be stored. It is called once for each key of a window.
    check_key: Callable[[Any], object]
    #: Raises if a value cannot be stored, given with its key. It is called once for each type that values have. What is
    #: inside of a value may still be wrong.
    check_value: Callable[[Any, Any], object]
    #: A key as JSON.
    key_json: Callable[[Any], str]
    #: True if *add* may change a value in place: then values are copied before it is called.
    in_place: bool


@dataclass(slots=True, eq=False)
class _Undo:
    """A value as it was before the first event since the last checkpoint, and the events since."""

    before: Any
    events: list[Any]


class Values:
    """The accumulators of one aggregator.

    They are in ``OpenWindow.state``: a dict by key if the keys share the window, else the accumulator itself.

    A value that *add* may change in place is copied before the first event after each checkpoint. If *add* raises, the
    copy and the events since then give the value back as it was. So *add* must give the same for the same events.

    Args:
        functions: what the user has written.
    """

    def __init__(self, functions: Functions) -> None:
        self._functions = functions
        #: How many accumulators there are.
        self.open = 0
        #: True: each value is checked, not only one of each type. It is slow.
        self.checks_each = False
        self._good_types: set[type] = set()
        self._undo: dict[OpenWindow, dict[Hashable, _Undo]] = {}

    # --- windows that keys share

    def add_list(
        self,
        windows: tuple[OpenWindow, ...],
        events: Sequence[Any],
        keys: Sequence[Hashable],
        failed: list[Failure],
        touched: Sequence[dict[Hashable, Any]] = (),
    ) -> None:
        """Adds each of *events* to its key in each of *windows*. Those for which a function raises go to *failed*.

        The new values go into *touched* too: a dictionary for each window, or none at all.
        """
        for window in windows:
            if window.state is None:
                window.state = {}
        if len(windows) > 1 or self._functions.in_place:
            for event, key in zip(events, keys, strict=True):
                error = self._add_to_each(windows, event, key)
                if error is not None:
                    failed.append((event, key, error))
            for window, news in zip(windows, touched, strict=False):
                news.update((key, window.state[key]) for key in keys if key in window.state)
            return
        state = windows[0].state
        get, add, missing = state.get, self._functions.add, _MISSING
        changed = touched[0] if touched else None
        before = len(state)
        # Neighbours mostly have the same type, so a comparison is enough.
        good: type | None = None
        for event, key in zip(events, keys, strict=True):
            value = get(key, missing)
            try:
                value = add(self._first(key) if value is missing else value, event)
                if type(value) is not good:
                    self._check(key, value)
                    good = None if self.checks_each else type(value)
            except foreign_errors(cancellations=True) as error:
                failed.append((event, key, error))
            else:
                state[key] = value
                if changed is not None:
                    changed[key] = value
        self.open += len(state) - before

    def _add_to_each(self, windows: tuple[OpenWindow, ...], event: Any, key: Hashable) -> BaseException | None:
        """Adds *event* to *key* in all of *windows*, or, if a function raises, in none. Returns the error."""
        try:
            values = self.with_event(windows, 0, event, key)
        except foreign_errors(cancellations=True) as error:
            return error
        for window, value in zip(windows, values, strict=True):
            self.put(window, key, value, is_new=False)
        return None

    def _first(self, key: Hashable) -> Any:
        """Returns the value of *key* before its first event."""
        self._functions.check_key(key)
        return self._functions.initial()

    def _check(self, key: Hashable, value: Any) -> None:
        if self.checks_each or type(value) not in self._good_types:
            self._functions.check_value(key, value)
            self._good_types.add(type(value))

    def _keep(self, window: OpenWindow, key: Hashable, value: Any) -> None:
        undo = self._undo.setdefault(window, {})
        if key not in undo:
            undo[key] = _Undo(value if value is _MISSING else deepcopy(value), [])

    # --- windows in which one event can make a window fire, or join two

    def with_event(self, windows: Sequence[OpenWindow], opens: int, event: Any, key: Hashable) -> list[Any]:
        """Returns the values that *key* has with *event*: in each of *windows*, then in each window that it opens.

        The windows do not have them yet: tell :meth:`put`.

        Raises:
            BaseException: what a function of the user raised. All values are as before.
        """
        functions = self._functions
        news: list[Any] = []
        try:
            for window in windows:
                value = self._own(window, key)
                if functions.in_place:
                    self._keep(window, key, value)
                value = functions.add(self._first(key) if value is _MISSING else value, event)
                self._check(key, value)
                news.append(value)
            for _ in range(opens):
                value = functions.add(self._first(key), event)
                self._check(key, value)
                news.append(value)
        except foreign_errors(cancellations=True):
            if functions.in_place:
                for window in windows[: len(news) + 1]:
                    self._restore(window, key)
            raise
        if functions.in_place:
            for window in windows:
                self._undo[window][key].events.append(event)
        return news

    def merged_with_event(self, windows: Sequence[OpenWindow], event: Any, key: Hashable) -> Any:
        """Returns the value that *windows* have together, merged in their order, and with *event*. It changes none.

        Raises:
            BaseException: what a function of the user raised.
        """
        functions = self._functions
        if functions.merge is None:
            raise TypeError("these windows need a function that merges two values")
        # Merges are rare. So the values are copied, and nothing need be undone.
        values = [
            deepcopy(self._own(window, key)) if functions.in_place else self._own(window, key) for window in windows
        ]
        whole = values[0]
        for value in values[1:]:
            whole = functions.merge(whole, value)
        whole = functions.add(whole, event)
        self._check(key, whole)
        return whole

    def put(self, window: OpenWindow, key: Hashable, value: Any, *, is_new: bool) -> None:
        """Makes *value* that of *key* in *window*. With *is_new* nothing that was before can be given back."""
        if window.shared is None:
            self.open += window.state is None
            window.state = value
        else:
            if window.state is None:
                window.state = {}
            self.open += key not in window.state
            window.state[key] = value
        if is_new:
            self._undo.get(window, {}).pop(key, None)

    def _own(self, window: OpenWindow, key: Hashable) -> Any:
        if window.shared is None:
            return window.state
        return _MISSING if window.state is None else window.state.get(key, _MISSING)

    def _restore(self, window: OpenWindow, key: Hashable) -> None:
        """Gives *key* in *window* the value that it had before the event that raised."""
        undo = self._undo.get(window, {}).get(key)
        if undo is None:
            return  # the error came before the value was touched
        if undo.before is _MISSING and not undo.events:
            return  # it has no value yet
        value = self._functions.initial() if undo.before is _MISSING else deepcopy(undo.before)
        for event in undo.events:
            value = self._functions.add(value, event)
        if window.shared is None:
            window.state = value
        else:
            window.state[key] = value

    # --- both

    def entries_of(
        self, window: OpenWindow, fired: Sequence[tuple[Hashable, int, int]], *, is_last: bool
    ) -> list[Entry]:
        """Returns what results are made of. Unless they are the last ones, later events do not change the values.

        Args:
            window: it fires.
            fired: each key, with its number of events and of the result.
            is_last: nothing is added to the window any more.
        """
        if window.shared is None:
            entries: list[Entry] = [(key, count, firing, window.state) for key, count, firing in fired]
        else:
            state = window.state
            entries = [(key, count, firing, state[key]) for key, count, firing in fired]
        if self._functions.in_place and not is_last:
            return [(key, count, firing, deepcopy(value)) for key, count, firing, value in entries]
        return entries

    def take_last(self, window: OpenWindow, taken: Sequence[tuple[Hashable, int, int]]) -> list[Entry]:
        """Takes out the values of keys of a closed *window*, for their last results.

        Args:
            window: the keys share it. :meth:`freeze` was called.
            taken: each key, with its number of events and of the result.
        """
        pop = window.state.pop
        return [(key, count, firing, pop(key)) for key, count, firing in taken]

    def freeze(self, window: OpenWindow) -> None:
        """Keeps the values of *window* for its last results only."""
        self.open -= len(window.state)
        self._undo.pop(window, None)

    def close(self, window: OpenWindow) -> None:
        """Forgets the values of *window*."""
        if window.state is not None:
            self.open -= 1 if window.shared is None else len(window.state)
        self._undo.pop(window, None)
        window.state = None

    def stored(self) -> None:
        """Notes that all values were read for a checkpoint: from now on, nothing before it need be undone."""
        self._undo.clear()
