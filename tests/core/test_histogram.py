"""Counts of values by size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_py._core.histogram import BATCH_SIZE_BOUNDS, SECONDS_BOUNDS, Histogram


@pytest.mark.parametrize(
    ("value", "counts"), [(0.0, [1, 0, 0]), (1.0, [1, 0, 0]), (1.1, [0, 1, 0]), (5.0, [0, 1, 0]), (5.1, [0, 0, 1])]
)
def test_a_value_lies_in_the_first_bucket_whose_bound_it_does_not_pass(value: float, counts: list[int]) -> None:
    histogram = Histogram([1.0, 5.0])

    histogram.observe(value)

    assert (histogram.counts, histogram.total) == (counts, value)


def test_many_equal_values_are_one_call() -> None:
    histogram = Histogram([1.0, 5.0])

    histogram.observe(2.5, times=4)

    assert (histogram.counts, histogram.total) == ([0, 4, 0], 10.0)


@pytest.mark.parametrize("bounds", [SECONDS_BOUNDS, BATCH_SIZE_BOUNDS])
def test_the_bounds_in_use_rise(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))


@given(st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 20)), max_size=50))
def test_every_value_is_in_one_bucket(values: list[tuple[int, int]]) -> None:
    histogram = Histogram(BATCH_SIZE_BOUNDS)

    for value, times in values:
        histogram.observe(value, times)

    assert sum(histogram.counts) == sum(times for _, times in values)
    assert histogram.total == sum(value * times for value, times in values)
    upper = [*BATCH_SIZE_BOUNDS, float("inf")]
    for place, bound in enumerate(upper):
        below = sum(times for value, times in values if value <= bound)
        assert sum(histogram.counts[: place + 1]) == below
