"""Calls the functions of an aggregator on its values. A raise leaves every value as it was."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from broadway_py._core.aggregation.changes import Entry
from broadway_py._core.window.effects import KeyRecord, OpenWindow
from broadway_py._core.window.firing import MISSING
from broadway_py.foreign import foreign_errors

__all__ = ["Failure", "Functions", "Holder", "Values"]

#: What has an accumulator in its ``state``: the record of a key, if keys share the window, else the window itself.
Holder = KeyRecord | OpenWindow

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

    They are in ``KeyRecord.state`` if the keys share the windows, else in ``OpenWindow.state``.

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
        self._undo: dict[Holder, _Undo] = {}

    # --- windows that keys share

    def add_list(self, records: tuple[Sequence[KeyRecord], ...], events: Sequence[Any], failed: list[Failure]) -> None:
        """Adds each of *events* to its record. Those for which a function raises go to *failed*.

        Args:
            records: for each window, the record of each event's key. The events are counted there.
            events: one or several for each key.
            failed: gets what has failed.
        """
        if len(records) > 1 or self._functions.in_place:
            for event, *own in zip(events, *records, strict=True):
                error = self._add_to_each(own, event)
                if error is not None:
                    failed.append((event, own[0].key, error))
            return
        add = self._functions.add
        # Neighbours mostly have the same type, so a comparison is enough.
        good: type | None = None
        begun: set[KeyRecord] = set()
        for event, record in zip(events, records[0], strict=True):
            value = record.state
            try:
                if value is MISSING:
                    begun.add(record)
                    value = self._first(record.key)
                value = add(value, event)
                if type(value) is not good:
                    self._check(record.key, value)
                    good = None if self.checks_each else type(value)
            except foreign_errors(cancellations=True) as error:
                failed.append((event, record.key, error))
            else:
                record.state = value
        self.open += sum(record.state is not MISSING for record in begun)

    def _add_to_each(self, records: Sequence[KeyRecord], event: Any) -> BaseException | None:
        """Adds *event* to all of *records*, or, if a function raises, to none. Returns the error."""
        try:
            values = self.with_event(records, 0, event, records[0].key)
        except foreign_errors(cancellations=True) as error:
            return error
        for record, value in zip(records, values, strict=True):
            self.put(record, value, is_new=record.state is MISSING)
        return None

    def _first(self, key: Hashable) -> Any:
        """Returns the value of *key* before its first event."""
        self._functions.check_key(key)
        return self._functions.initial()

    def _check(self, key: Hashable, value: Any) -> None:
        if self.checks_each or type(value) not in self._good_types:
            self._functions.check_value(key, value)
            self._good_types.add(type(value))

    # --- windows in which one event can make a window fire, or join two

    def with_event(self, holders: Sequence[Holder], opens: int, event: Any, key: Hashable) -> list[Any]:
        """Returns the values that *key* has with *event*: in each of *holders*, then in each that it opens.

        They do not have them yet: tell :meth:`put`.

        Raises:
            BaseException: what a function of the user raised. All values are as before.
        """
        functions = self._functions
        news: list[Any] = []
        try:
            for holder in holders:
                value = holder.state
                if functions.in_place and holder not in self._undo:
                    self._undo[holder] = _Undo(value if value is MISSING else deepcopy(value), [])
                value = functions.add(self._first(key) if value is MISSING else value, event)
                self._check(key, value)
                news.append(value)
            for _ in range(opens):
                value = functions.add(self._first(key), event)
                self._check(key, value)
                news.append(value)
        except foreign_errors(cancellations=True):
            if functions.in_place:
                for holder in holders[: len(news) + 1]:
                    self._restore(holder)
            raise
        if functions.in_place:
            for holder in holders:
                self._undo[holder].events.append(event)
        return news

    def merged_with_event(self, holders: Sequence[Holder], event: Any, key: Hashable) -> Any:
        """Returns the value that *holders* have together, merged in their order, and with *event*. It changes none.

        Raises:
            BaseException: what a function of the user raised.
        """
        functions = self._functions
        if functions.merge is None:
            raise TypeError("these windows need a function that merges two values")
        # Merges are rare. So the values are copied, and nothing need be undone.
        values = [deepcopy(holder.state) if functions.in_place else holder.state for holder in holders]
        whole = values[0]
        for value in values[1:]:
            whole = functions.merge(whole, value)
        whole = functions.add(whole, event)
        self._check(key, whole)
        return whole

    def put(self, holder: Holder, value: Any, *, is_new: bool, is_merged: bool = False) -> None:
        """Gives *holder* its *value*.

        Args:
            holder: :meth:`with_event` or :meth:`merged_with_event` had the value for it.
            value: the new one.
            is_new: it had none.
            is_merged: it is of several holders. What was before cannot be given back.
        """
        self.open += is_new
        holder.state = value
        if is_merged:
            self._undo.pop(holder, None)

    def _restore(self, holder: Holder) -> None:
        """Gives *holder* the value that it had before the event that raised."""
        undo = self._undo.get(holder)
        if undo is None:
            return  # the error came before the value was touched
        if undo.before is MISSING and not undo.events:
            return  # it has no value yet
        value = self._functions.initial() if undo.before is MISSING else deepcopy(undo.before)
        for event in undo.events:
            value = self._functions.add(value, event)
        holder.state = value

    # --- both

    def frozen(self, entries: list[Entry]) -> list[Entry]:
        """Returns *entries* for results of windows that go on. Later events do not change their values."""
        if self._functions.in_place:
            return [(key, count, firing, deepcopy(value)) for key, count, firing, value in entries]
        return entries

    def stored(self) -> None:
        """Notes that all values were read for a checkpoint: from now on, nothing before it need be undone."""
        self._undo.clear()
