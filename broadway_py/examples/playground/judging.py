"""Says what is wrong with an answer, without saying what would be right. It compares lists: nothing runs here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from broadway_py.examples.playground.parser import Figures

__all__ = ["judge_elements", "judge_number", "judge_order", "judge_pairs", "judge_sums", "judge_windows"]

#: The most characters of an element that are shown.
_MOST_SHOWN: Final = 150


def judge_number(found: Sequence[Any], right: Sequence[Any]) -> str | None:
    """Compares flows of one number. Returns None if they are equal."""
    if not found:
        return "the flow gives nothing; a reduction with emit('state') gives its accumulator"
    if len(found) > 1:
        if all(isinstance(each, int) for each in found) and sum(found) == right[0]:
            return f"{len(found)} numbers, which are right together: each stage has a total of its own, see combine="
        return f"the flow gives {len(found)} elements; one number is wanted"
    return _compared(found[0], right[0])


def judge_pairs(found: Sequence[Any], right: Sequence[Any]) -> str | None:
    """Compares flows of pairs (key, value), in any order."""
    if wrong := _wrong_kind(found, right[0]):
        return wrong
    values, keys = dict(right), Counter(key for key, _ in found)
    twice = [key for key, times in keys.items() if times > 1]
    if twice:
        return f"{twice[0]!r} comes {keys[twice[0]]} times: each stage counts for itself; equal keys must meet"
    unknown = [key for key in keys if key not in values]
    if unknown:
        return f"{unknown[0]!r} is none of the keys"
    if len(keys) < len(values):
        missing = len(values) - len(keys)
        return f"{missing} of {len(values)} keys {_is(missing)} missing"
    for key, value in found:
        if complaint := _compared(value, values[key]):
            return f"{key!r}: {complaint}"
    return None


def judge_elements(found: Sequence[Any], right: Sequence[Any]) -> str | None:
    """Compares flows of any elements, in any order."""
    if right and (wrong := _wrong_kind(found, right[0])):
        return wrong
    more, fewer = Counter(found) - Counter(right), Counter(right) - Counter(found)
    if more:
        verb = "does" if more.total() == 1 else "do"
        return f"{more.total()} of {len(found)} elements {verb} not belong there, such as {_shown(next(iter(more)))}"
    return f"{fewer.total()} of {len(right)} elements {_is(fewer.total())} missing" if fewer else None


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _shown(element: Any) -> str:
    text = repr(element)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def judge_order(found: Sequence[Any], right: Sequence[Any]) -> str | None:
    """Compares elements in their order."""
    if len(found) != len(right):
        return f"{len(found)} elements came, {len(right)} are wanted"
    wrong = next((number for number, pair in enumerate(zip(found, right, strict=True)) if pair[0] != pair[1]), None)
    return None if wrong is None else f"element {wrong} is wrong, or stands in the wrong place: {_shown(found[wrong])}"


def judge_windows(found: Sequence[Any], right: Sequence[Any]) -> str | None:
    """Compares flows of the results of windows, in their order."""
    if wrong := _wrong_kind(found, right[0]):
        return wrong
    if len(found) < len(right):
        return f"{len(found)} are too few: the window that is still open at the end gives a result, too"
    if len(found) > len(right):
        return f"{len(found)} windows are too many: each stage has windows of its own"
    for number, (one, other) in enumerate(zip(found, right, strict=True), 1):
        if complaint := _compared(one, other):
            together = isinstance(one, Figures) and _together(found) == _together(right)
            hint = "; all windows together are right: how many stages are there, and who gets which shipment?"
            return f"window {number}: {complaint}{hint if together else ''}"
    return None


def judge_sums(found: Sequence[Any], right: Sequence[Any]) -> str | None:
    """Compares what windows have together. How many there are depends on the clock."""
    if wrong := _wrong_kind(found, right[0]):
        return wrong
    return _compared(_together(found), _together(right))


def _together(all_: Sequence[Any]) -> Figures:
    return Figures(*map(sum, zip(*all_, strict=True)))


def _wrong_kind(found: Sequence[Any], example: Any) -> str | None:
    """Says whether an element has another form than *example*."""
    if not found:
        return "the flow gives nothing"
    for each in found:
        if not _is_like(each, example):
            advice = "; emit('state') keeps an accumulator whole" if isinstance(each, int) else ""
            return f"an element is {_shown(each)}, which has the wrong form{advice}"
    return None


def _is_like(found: Any, example: Any) -> bool:
    if isinstance(example, tuple):
        return (
            isinstance(found, tuple)
            and len(found) == len(example)
            and all(_is_like(one, other) for one, other in zip(found, example, strict=True))
        )
    if isinstance(example, int | float):
        return isinstance(found, int | float)
    return isinstance(found, type(example))


def _compared(found: Any, right: Any) -> str | None:
    """Says of the first number that is wrong whether it is too small or too large."""
    if isinstance(right, tuple) and isinstance(found, tuple):
        names = right._fields if isinstance(right, Figures) else ("the first", "the second", "the third")
        for name, one, other in zip(names, found, right, strict=False):
            if complaint := _compared(one, other):
                return complaint if isinstance(other, tuple) else f"{name}: {complaint}"
        return None
    if found == right:
        return None
    if isinstance(right, tuple) or not isinstance(found, int | float):
        return f"expected {'figures' if isinstance(right, tuple) else 'a number'}, got {_shown(found)}"
    return f"{found:,} is too {'small' if found < right else 'large'}"
