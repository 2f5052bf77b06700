"""Accumulators of the box: what they add up to, in any order, and that JSON brings them back."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from broadway_py.aggregates import Collect, Count, Greatest, Latest, Least, Mean, Total

NUMBERS = st.lists(st.integers(-1000, 1000), min_size=1, max_size=30)

#: An empty one, and what it comes to over numbers.
PLAIN: list[tuple[Any, Callable[[Sequence[int]], object]]] = [
    (Count(), len),
    (Total(), sum),
    (Mean(), lambda numbers: sum(numbers) / len(numbers)),
    (Least(), min),
    (Greatest(), max),
    (Latest(), lambda numbers: numbers[-1]),
]


def added(empty: Any, values: Sequence[Any]) -> Any:
    return reduce(lambda acc, value: acc.add(value), values, empty)


@pytest.mark.parametrize(("empty", "expected"), PLAIN)
@given(numbers=NUMBERS, cut=st.integers(0, 30))
def test_adding_and_merging_come_to_the_same(
    empty: Any, expected: Callable[[Sequence[int]], object], numbers: list[int], cut: int
) -> None:
    assert added(empty, numbers).value == pytest.approx(expected(numbers))
    assert added(empty, numbers[:cut]).merge(added(empty, numbers[cut:])).value == pytest.approx(expected(numbers))


def test_a_value_stays_as_it_is() -> None:
    before = Count(3)
    assert (before.add("x"), before) == (Count(4), Count(3))


def test_a_total_of_decimals_is_exact() -> None:
    assert added(Total(Decimal(0)), [Decimal("0.1")] * 10).value == Decimal("1.0")


def test_the_mean_of_many_floats_has_no_growing_error() -> None:
    numbers = [0.1] * 100_000
    plain = 0.0
    for number in numbers:  # not sum(), which corrects itself from Python 3.12 on
        plain += number
    assert plain / len(numbers) != 0.1
    assert added(Mean(), numbers).value == 0.1


@pytest.mark.parametrize("seed", range(5))
def test_the_mean_does_not_depend_on_the_order(seed: int) -> None:
    numbers = [1e16, 1.0, -1e16, 2.0, 3.0] * 20
    random.Random(seed).shuffle(numbers)
    assert added(Mean(), numbers).value == pytest.approx(1.2)
    assert added(Mean(), numbers[:37]).merge(added(Mean(), numbers[37:])).value == pytest.approx(1.2)


def test_the_mean_of_nothing_is_no_number_and_an_infinity_stays_one() -> None:
    assert math.isnan(Mean().value)
    assert added(Mean(), [1.0, math.inf, 2.0]).value == math.inf
    assert math.isnan(added(Mean(), [math.inf, -math.inf, 2.0]).value)


@pytest.mark.parametrize("numbers", [[math.nan, 2.0, 1.0], [2.0, math.nan, 1.0], [2.0, 1.0, math.nan]])
def test_extremes_leave_out_what_is_no_number(numbers: list[float]) -> None:
    assert (added(Least(), numbers), added(Greatest(), numbers)) == (Least(1.0), Greatest(2.0))


def test_extremes_of_nothing_are_none_and_merge_with_anything() -> None:
    assert Least().value is None
    assert (Least(3).merge(Least()), Least[int]().merge(Least(3))) == (Least(3), Least(3))
    assert (Greatest(3).merge(Greatest()), Greatest[int]().merge(Greatest(3))) == (Greatest(3), Greatest(3))


def test_the_latest_is_that_of_the_latest_time_in_any_order() -> None:
    values = [("b", 2.0), ("c", 3.0), ("a", 1.0)]
    latest: Latest[str] = reduce(lambda acc, value: acc.add(*value), values, Latest[str]())
    assert latest == Latest("c", 3.0)
    assert Latest("a", 1.0).merge(latest) == latest.merge(Latest("a", 1.0)) == latest
    assert latest.merge(Latest()) == Latest[str]().merge(latest) == latest
    assert latest.add("d", datetime.fromtimestamp(4, UTC)) == Latest("d", 4.0)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^Latest.add: expected an aware datetime or seconds since 1970, got a naive"):
        Latest[str]().add("x", datetime(2026, 1, 1))  # noqa: DTZ001  # that is the mistake


def test_a_collection_keeps_the_first_ones_and_counts_the_others() -> None:
    assert added(Collect(most=2), "abcd") == Collect(2, ("a", "b"), 2)
    assert added(Collect(3), "ab").merge(added(Collect(3), "cde")) == Collect(3, ("a", "b", "c"), 2)


@pytest.mark.parametrize("most", [0, -1, True, 1.5, None])
def test_a_collection_without_a_bound_is_refused(most: Any) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011  # the whole sentence is compared
        Collect(most)
    assert str(refused.value) == f"Collect: expected most as a whole number of 1 or more, got {most!r}"


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Count, Count(3)),
        (Total[int], Total(10**30)),
        (Total[Decimal], Total(Decimal("1.10"))),
        (Mean, added(Mean(), [0.1, 0.2, 0.3])),
        (Least[str], Least("a")),
        (Greatest[float], Greatest[float]()),
        (Latest[tuple[str, int]], Latest(("a", 1), 2.0)),
        (Collect[datetime], Collect(2, (datetime(2026, 1, 1, tzinfo=UTC),), 1)),
    ],
)
def test_json_brings_them_back_by_their_type(kind: Any, value: object) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    assert adapter.validate_json(adapter.dump_json(value)) == value
