"""Arguments of a call that are checked together, and then frozen.

:mod:`broadway_py.options` does the same for settings that config files may hold too. It needs pydantic, and the worker
processes of a flow start faster without it. The refusals of both have the same sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import Field, fields
from typing import Any, ClassVar, Final, Self, cast

from broadway_py.conflict import Conflict
from broadway_py.durations import parse_seconds
from broadway_py.errors import OptionsError, did_you_mean
from broadway_py.foreign import is_a, shown

__all__ = ["Arguments", "Check", "checked_by", "one_of", "optional", "seconds", "whole_number"]

#: Returns an argument as the field keeps it. Raises OptionsError, with an empty path, if it is wrong.
Check = Callable[[object], Any]

_CHECK: Final = "check"


def checked_by(check: Check) -> dict[str, Check]:
    """Returns the metadata of a field of :class:`Arguments` that *check* checks. The default is not checked."""
    return {_CHECK: check}


class Arguments:
    """The base class of arguments that belong together. Write subclasses as ``@dataclass(frozen=True, init=False)``.

    Each field has a default. One without the metadata of :func:`checked_by` takes anything.

    Raises:
        OptionsError: an argument is wrong or unknown, or some do not go together. One error names all of them.
    """

    __slots__ = ()
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __init__(self, /, **given: Any) -> None:
        known = sorted(each.name for each in fields(self))
        wrong = [
            OptionsError((name,), f"unknown setting; known here: {', '.join(known)}{did_you_mean(name, known)}")
            for name in given
            if name not in known
        ]
        for each in fields(self):
            value = given.get(each.name, each.default)
            if each.name in given and (check := each.metadata.get(_CHECK)) is not None:
                try:
                    value = check(value)
                except OptionsError as refused:
                    wrong.append(refused.under(each.name))
                    value = each.default
            object.__setattr__(self, each.name, value)
        faulty = {one.path[0] for one in wrong}
        wrong += [OptionsError(one.path, one.problem) for one in self.conflicts() if not one.among & faulty]
        if wrong:
            raise OptionsError.of(wrong)

    def conflicts(self) -> Iterator[Conflict]:
        """Yields each conflict among the arguments. All of them are reported in one error."""
        yield from ()

    def changed(self, **changes: Any) -> Self:
        """Returns a copy with *changes*.

        Raises:
            OptionsError: as the constructor.
        """
        return type(self)(**{**{each.name: getattr(self, each.name) for each in fields(self)}, **changes})


def whole_number(at_least: int) -> Check:
    """Returns a check for an int that is at least *at_least*. A bool is none."""

    def check(value: object) -> int:
        if is_a(value, bool) or not is_a(value, int):
            raise OptionsError((), f"expected a valid integer, got {shown(value)}")
        number = int.__int__(cast("int", value))
        if number < at_least:
            raise OptionsError((), f"expected greater than or equal to {at_least}, got {shown(value)}")
        return number

    return check


def seconds(*, at_least: float | None = None, above: float | None = None) -> Check:
    """Returns a check for a duration, which may be a timedelta or text too. The field keeps it in seconds."""

    def check(value: object) -> float:
        try:
            number = parse_seconds(value)
        except ValueError as wrong:
            raise OptionsError((), f"{wrong}, got {shown(value)}") from None
        if above is not None and number <= above:
            raise OptionsError((), f"expected greater than {above:g}, got {shown(value)}")
        if at_least is not None and number < at_least:
            raise OptionsError((), f"expected greater than or equal to {at_least:g}, got {shown(value)}")
        return number

    return check


def one_of(*known: str) -> Check:
    """Returns a check for text that is one of *known*. Its sentence names the closest one."""

    def check(value: object) -> str:
        if is_a(value, str) and value in known:
            return known[known.index(value)]
        expected = ", ".join(map(repr, known[:-1])) + f" or {known[-1]!r}"
        hint = did_you_mean(value, known) if isinstance(value, str) else ""
        raise OptionsError((), f"expected {expected}, got {shown(value)}{hint}")

    return check


def optional(check: Check) -> Check:
    """Returns *check* for an argument that may be None too."""

    def check_unless_none(value: object) -> Any:
        return None if value is None else check(value)

    return check_unless_none
