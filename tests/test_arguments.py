"""Arguments that are checked together: their refusals have the sentences of settings, which pydantic checks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, dataclass, field
from datetime import timedelta
from decimal import Decimal
from enum import IntEnum
from typing import Annotated, Any

import pytest
from pydantic import Field

from broadway_py.arguments import Arguments, checked_by, one_of, optional, seconds, whole_number
from broadway_py.conflict import Conflict
from broadway_py.errors import OptionsError
from broadway_py.options import Duration, Options, PositiveDuration, PositiveInt


def _conflicts(of: Any) -> Iterator[Conflict]:
    if of.least is not None and of.least >= of.most:
        yield Conflict(("least",), f"expected less than most ({of.most})", frozenset({"least", "most"}))


@dataclass(frozen=True, init=False)
class Plain(Arguments):
    """Arguments of a call."""

    most: int = field(default=10, metadata=checked_by(whole_number(at_least=1)))
    least: int | None = field(default=None, metadata=checked_by(optional(whole_number(at_least=0))))
    after: float = field(default=5.0, metadata=checked_by(seconds(above=0)))
    grace: float = field(default=5.0, metadata=checked_by(seconds(at_least=0)))
    word: str = field(default="one", metadata=checked_by(one_of("one", "two", "three")))
    any: Any = None

    def conflicts(self) -> Iterator[Conflict]:
        return _conflicts(self)


class Settings(Options):
    """The same as settings."""

    most: PositiveInt = 10
    least: Annotated[int, Field(ge=0, strict=True)] | None = None
    after: PositiveDuration = 5.0
    grace: Annotated[Duration, Field(ge=0)] = 5.0
    word: str = "one"
    any: Any = None

    def conflicts(self) -> Iterator[Conflict]:
        return _conflicts(self)


class Five(IntEnum):
    """A number with a name."""

    FIVE = 5


class Whole(int):
    """A number of a class of its own."""


VALUES: list[Any] = [
    0, 1, -1, 5, 10**400, True, False, None, 1.5, -0.5, "1", "", "0s", "500ms", "1d", "x", b"2s", [], 1j,
    math.inf, -math.inf, math.nan, Decimal(3), Decimal("-0.5"), Five.FIVE, Whole(5), timedelta(seconds=3), timedelta(0),
]  # fmt: skip


def outcome(kind: type[Plain | Settings], **given: Any) -> object:
    """What *kind* makes of *given*: all refusals, or the values and their types."""
    try:
        made = kind(**given)
    except OptionsError as refused:
        return [str(each) for each in refused.all()]
    return {name: (getattr(made, name), type(getattr(made, name))) for name in given}


@pytest.mark.parametrize("name", ["most", "least", "after", "grace", "any"])
def test_the_refusals_have_the_sentences_of_settings(name: str) -> None:
    for value in VALUES:
        assert repr(outcome(Plain, **{name: value})) == repr(outcome(Settings, **{name: value}))


@pytest.mark.parametrize(
    "given",
    [
        {"leest": 1, "most": 0, "after": "x", "other": 2},
        {"most": 5, "least": 7, "after": -1},
        {"most": 0, "least": 7},
        {"most": 5, "least": "x"},
    ],
)
def test_all_that_is_wrong_is_told_at_once_as_with_settings(given: dict[str, Any]) -> None:
    assert outcome(Plain, **given) == outcome(Settings, **given)
    assert isinstance(outcome(Plain, **given), list)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("twoo", "word: expected 'one', 'two' or 'three', got 'twoo'; did you mean 'two'?"),
        (2, "word: expected 'one', 'two' or 'three', got 2"),
    ],
)
def test_a_word_that_is_not_known_is_refused(value: Any, sentence: str) -> None:
    with pytest.raises(OptionsError) as refused:
        Plain(word=value)

    assert str(refused.value) == sentence


def test_a_copy_is_checked_again_and_the_original_stays_as_it_was() -> None:
    plain = Plain(most=5)

    assert plain.changed(least=3) == Plain(most=5, least=3)
    with pytest.raises(OptionsError) as refused:
        plain.changed(least=5)
    assert str(refused.value) == "least: expected less than most (5)"
    with pytest.raises(FrozenInstanceError):
        plain.most = 3  # type: ignore[misc]  # wrong on purpose
    assert plain == Plain(most=5)
