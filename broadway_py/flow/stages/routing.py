"""What is known of the elements of a list before it leaves: their event times, and the stage that owns each of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from broadway_py._core.window.times import EventTimes, Stamped
from broadway_py.errors import OptionsError
from broadway_py.flow.frames import Frame
from broadway_py.flow.keys import KeyHashes
from broadway_py.flow.operator_errors import OperatorErrors, errors_of_functions
from broadway_py.flow.plan import Way
from broadway_py.flow.work.calls import function_label
from broadway_py.foreign import article, is_a, shown

__all__ = ["Routing"]


@dataclass(slots=True, eq=False, repr=False)
class _Routed:
    """Elements, and what is known of each."""

    elements: list[Any]
    #: The stage of each; None: they stay together.
    partitions: list[int] | None = None
    #: The key of each; None: nobody needs it.
    keys: list[Hashable] | None = None


class Routing:
    """Reads event times and keys, and cuts lists by keys, or by what a ``hash`` function returns.

    Args:
        way: where the lists go.
        errors: decides what an error of a key function, or of the ``by`` of a window, means.
        in_one_process: all of the flow is in this process, so any hashable key has a stage.
    """

    def __init__(self, way: Way, errors: OperatorErrors, *, in_one_process: bool) -> None:
        self._way = way
        self._errors = errors
        self._partitions = KeyHashes(in_one_process=in_one_process, modulus=way.stages)
        by_key = way.by_key
        self._by = None if way.window is None else way.window.by
        self._times = None if self._by is None else EventTimes(self._by)
        self._is_cut = way.sharing == "by_key"
        self._keeps_keys = way.window is not None and way.window.kind == "session"
        self._key = None if by_key is None else by_key.key
        self._hash = by_key.hash if by_key is not None and self._is_cut else None
        self._has_keys = by_key is not None and self._hash is None and (self._is_cut or self._keeps_keys)
        repeats = by_key is None or by_key.repeats
        self._hashes_of = self._partitions.of_known if repeats else self._partitions.of_new

    def parts_of(self, frame: Frame) -> list[Frame]:
        """Returns the part of each stage; if lists are not cut, *frame* with what is known of its elements.

        Raises:
            OperatorError: a function of the user has failed, and the flow ends with it.
        """
        self._errors.frame = frame
        routed = self._routed(frame.elements)
        stamped = None if self._times is None else self._stamped(routed, self._times)
        high = stamped.high if stamped is not None and stamped.raw else None
        whole = Frame(
            routed.elements,
            origin=frame.origin,
            first=frame.first,
            stamped=stamped,
            high=high,
            side=frame.side,
            is_last=frame.is_last,
        )
        partitions = routed.partitions
        if partitions is None:
            return [whole]
        if stamped is None:
            lists: list[list[Any]] = [[] for _ in range(self._way.stages)]
            appends = [each.append for each in lists]
            for element, partition in zip(routed.elements, partitions, strict=True):
                appends[partition](element)
            return [whole.part(partition, elements) for partition, elements in enumerate(lists)]
        places: list[list[int]] = [[] for _ in range(self._way.stages)]
        for place, partition in enumerate(partitions):
            places[partition].append(place)
        stamps = [stamped.part(own) for own in places]
        return [whole.part(partition, list(own.events), own) for partition, own in enumerate(stamps)]

    # --- keys

    def _routed(self, elements: list[Any]) -> _Routed:
        if self._hash is not None:
            return self._by_hash(elements, self._hash)
        if not self._has_keys:
            return _Routed(elements)
        try:
            keys: list[Any] = elements if self._key is None else list(map(self._key, elements))
            partitions = self._hashes_of(keys)
            # A StopIteration of the function, or of a key's own code, ends map() in silence.
            if len(partitions) == len(elements):
                return self._by_keys(elements, keys, partitions)
        except errors_of_functions():
            pass  # one by one, it turns out whose key it is
        return self._by_keys(*self._one_by_one(elements))

    def _by_keys(self, elements: list[Any], keys: list[Any], partitions: list[int]) -> _Routed:
        return _Routed(elements, partitions if self._is_cut else None, keys if self._keeps_keys else None)

    def _one_by_one(self, elements: list[Any]) -> tuple[list[Any], list[Any], list[int]]:
        usable: list[Any] = []
        keys: list[Any] = []
        partitions: list[int] = []
        for index, element in enumerate(elements):
            try:
                key = element if self._key is None else self._key(element)
                partitions.append(self._partitions.hash_of(key))
            except errors_of_functions() as error:
                self._errors.element_failed(self._label(self._way.key_name, self._key), error, element, index=index)
            else:
                usable.append(element)
                keys.append(key)
        return usable, keys, partitions

    def _by_hash(self, elements: list[Any], function: Callable[[Any], Any]) -> _Routed:
        routed = _Routed([], partitions := [])
        for index, element in enumerate(elements):
            try:
                returned = function(element)
                if returned is None:
                    continue
                changed, partition = self._checked(returned)
            except errors_of_functions() as error:
                self._errors.element_failed(self._label("hash", function), error, element, index=index)
            else:
                routed.elements.append(changed)
                partitions.append(partition)
        if self._keeps_keys:
            routed.keys = list(routed.elements)
        return routed

    def _checked(self, returned: Any) -> tuple[Any, int]:
        """Returns what a ``hash`` function has returned.

        Raises:
            OptionsError: it is no pair of an element and a partition.
        """
        most = self._way.stages - 1
        expected = f"expected a pair (element, partition) with a partition from 0 to {most}, or None"
        if not is_a(returned, tuple) or len(returned) != 2:
            raise OptionsError(("hash",), f"{expected}, got {article(returned)}")
        element, partition = returned
        if not is_a(partition, int) or is_a(partition, bool):
            raise OptionsError(("hash",), f"{expected}, got {article(partition)} as the partition")
        if not 0 <= partition <= most:
            raise OptionsError(("hash",), f"{expected}, got partition {shown(partition)}")
        return element, partition

    def _label(self, argument: str, function: Callable[..., Any] | None) -> str:
        """Returns what names a function that is no operator, in errors, such as ``partition 2, key: country``."""
        return function_label(f"{self._way.label}, {argument}", function)

    # --- event times

    def _stamped(self, routed: _Routed, times: EventTimes) -> Stamped:
        """Returns the elements with their times. Those without a usable time are left out of *routed* as well."""
        stamped = times.read(routed.elements)
        if stamped.refused:
            self._leave_out(stamped, routed)
        stamped.keys = routed.keys
        return stamped

    def _leave_out(self, stamped: Stamped, routed: _Routed) -> None:
        refused = iter(stamped.refused)
        next_refused = next(refused, None)
        kept: list[int] = []
        usable = iter(stamped.events)
        next_usable = next(usable, None)
        for place, element in enumerate(routed.elements):
            # Both are in the order of the list. The same object may stand in it twice, once refused and once not.
            if next_refused is not None and element is next_refused.event and element is not next_usable:
                self._errors.element_failed(self._label("window", self._by), next_refused.error, element, index=place)
                next_refused = next(refused, None)
            else:
                kept.append(place)
                next_usable = next(usable, None)
        stamped.refused = []
        routed.elements = [routed.elements[place] for place in kept]
        if routed.partitions is not None:
            routed.partitions = [routed.partitions[place] for place in kept]
        if routed.keys is not None:
            routed.keys = [routed.keys[place] for place in kept]
