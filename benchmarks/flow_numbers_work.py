"""The functions that the row with integers calls, in the flow and in its limit."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["add_one", "check", "double", "is_even"]


def add_one(number: int) -> int:
    """A user's function."""
    return number + 1


def is_even(number: int) -> bool:
    """A user's function."""
    return number % 2 == 0


def double(number: int) -> int:
    """A user's function."""
    return number * 2


def check(results: Sequence[int], count: int) -> None:
    """Raises RuntimeError unless *results* are what the functions make of the numbers below *count*."""
    half = count // 2
    expected = half, 2 * half * (half + 1)
    found = len(results), sum(results)
    if found != expected:
        raise RuntimeError(f"expected (number, sum) of the results to be {expected}, got {found}")
