"""Accumulators for aggregators: counts, sums, means, extremes. Each is a frozen value; its methods return another one.

::

    class Ages(Aggregator[str, Person, Mean]):
        window = Window.session("10m", by=lambda message: message.data.seen, delay="10s")

        def key(self, message): return message.data.city
        def initial(self): return Mean()
        def add(self, mean, message): return mean.add(message.data.age)
        def merge(self, a, b): return a.merge(b)
        async def emit(self, results): ...               # results[0].value.value is the mean

All of them are dataclasses, which pydantic writes as JSON and reads back. None of them depends on the order in which
values are added, except :class:`Collect`, and :class:`Latest` without times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["Collect", "Count", "Greatest", "Latest", "Least", "Mean", "Total"]


class _Ordered(Protocol):
    def __lt__(self, other: Any, /) -> bool: ...


T = TypeVar("T")
O = TypeVar("O", bound=_Ordered)  # noqa: E741  # the usual name would hide what it is
N = TypeVar("N", int, float, Decimal)

# Those with a type parameter have no slots: with them, Python 3.11 cannot run ``Total[int](0)``.


@dataclass(frozen=True, slots=True)
class Count:
    """How many values there were."""

    value: int = 0

    def add(self, _x: object = None) -> Count:
        """Returns the count with one more."""
        return Count(self.value + 1)

    def merge(self, other: Count) -> Count:
        """Returns the sum of both counts."""
        return Count(self.value + other.value)


@dataclass(frozen=True)
class Total(Generic[N]):
    """The sum of whole numbers, floats or decimals.

    ``Total()`` is a zero for whole numbers and floats; for decimals begin with ``Total(Decimal(0))``.
    """

    value: N = 0  # type: ignore[assignment]  # a whole number is a zero for each of the types

    def add(self, x: N) -> Total[N]:
        """Returns the sum with *x* added."""
        return Total(self.value + x)

    def merge(self, other: Total[N]) -> Total[N]:
        """Returns the sum of both."""
        return Total(self.value + other.value)


@dataclass(frozen=True, slots=True)
class Mean:
    """The arithmetic mean of numbers.

    The sum has a second part with what rounding has taken from it (Neumaier's variant of Kahan's summation). So the
    error does not grow with the number of values.
    """

    count: int = 0
    total: float = 0.0
    #: What is missing in *total* because of rounding.
    rest: float = 0.0

    @property
    def value(self) -> float:
        """The mean; NaN if there was no number."""
        return (self.total + self.rest) / self.count if self.count else math.nan

    def add(self, x: float) -> Mean:
        """Returns the mean with *x* added."""
        return self._with(1, float(x), 0.0)

    def merge(self, other: Mean) -> Mean:
        """Returns the mean of the numbers of both."""
        return self._with(other.count, other.total, other.rest)

    def _with(self, count: int, total: float, rest: float) -> Mean:
        made = self.total + total
        if not math.isfinite(made):
            return Mean(self.count + count, made)
        larger, smaller = (self.total, total) if abs(self.total) >= abs(total) else (total, self.total)
        return Mean(self.count + count, made, self.rest + rest + ((larger - made) + smaller))


@dataclass(frozen=True)
class Least(Generic[O]):
    """The least value; None if there was none. A NaN is left out."""

    value: O | None = None

    def add(self, x: O) -> Least[O]:
        """Returns the least of the values so far and *x*."""
        if x != x or (self.value is not None and not x < self.value):  # noqa: PLR0124  # only NaN differs from itself
            return self
        return Least(x)

    def merge(self, other: Least[O]) -> Least[O]:
        """Returns the least value of both."""
        return self if other.value is None else self.add(other.value)


@dataclass(frozen=True)
class Greatest(Generic[O]):
    """The greatest value; None if there was none. A NaN is left out."""

    value: O | None = None

    def add(self, x: O) -> Greatest[O]:
        """Returns the greatest of the values so far and *x*."""
        if x != x or (self.value is not None and not self.value < x):  # noqa: PLR0124  # only NaN differs from itself
            return self
        return Greatest(x)

    def merge(self, other: Greatest[O]) -> Greatest[O]:
        """Returns the greatest value of both."""
        return self if other.value is None else self.add(other.value)


@dataclass(frozen=True)
class Latest(Generic[T]):
    """The value with the latest time; None if there was none.

    Messages come in any order, so give the time of each: ``latest.add(order.price, order.ts)``. Without times it is the
    value that was added last.
    """

    value: T | None = None
    #: Its time, in seconds since 1970; None if it was added without one.
    at: float | None = None

    def add(self, x: T, at: float | datetime | None = None) -> Latest[T]:
        """Returns *x*, if its time *at* is not before that of the value so far. A datetime must be aware.

        Raises:
            ValueError: *at* is a datetime without a time zone.
        """
        if isinstance(at, datetime):
            if at.utcoffset() is None:
                raise ValueError("Latest.add: expected an aware datetime or seconds since 1970, got a naive datetime")
            at = at.timestamp()
        if self.at is not None and at is not None and at < self.at:
            return self
        return Latest(x, at)

    def merge(self, other: Latest[T]) -> Latest[T]:
        """Returns the value of the one with the later time. Without times it is that of *other*, if it has one."""
        return self if other.value is None else self.add(other.value, other.at)


@dataclass(frozen=True)
class Collect(Generic[T]):
    """The first *most* values, in the order in which they were added.

    Raises:
        ValueError: *most* is not a whole number of 1 or more.
    """

    #: How many values are kept.
    most: int
    values: tuple[T, ...] = ()
    #: How many came after that, and are not kept.
    left_out: int = 0

    def __post_init__(self) -> None:
        if type(self.most) is not int or self.most < 1:
            raise ValueError(f"Collect: expected most as a whole number of 1 or more, got {self.most!r}")

    def add(self, x: T) -> Collect[T]:
        """Returns the values with *x*, if there is room for it."""
        if len(self.values) >= self.most:
            return Collect(self.most, self.values, self.left_out + 1)
        return Collect(self.most, (*self.values, x), self.left_out)

    def merge(self, other: Collect[T]) -> Collect[T]:
        """Returns the values of this one and then those of *other*, as far as there is room for them."""
        values = (*self.values, *other.values)
        left_out = self.left_out + other.left_out + max(0, len(values) - self.most)
        return Collect(self.most, values[: self.most], left_out)
