"""Chains for tests: what each step of a chain does to a flow, and to a list. Worker processes import this module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from broadway_py.flow import Flow, SideOutput

__all__ = ["ENDS", "MAPPERS", "Step", "add", "late_one", "partitioned", "shuffled", "text", "third", "unchanged"]


def plus_one(number: int) -> int:
    return number + 1


async def plus_one_later(number: int) -> int:
    return number + 1


def is_even(number: int) -> bool:
    return number % 2 == 0


def up_to_two(number: int) -> list[int]:
    return [number] * (number % 3)


def third(number: int) -> int:
    return number % 3


def add(total: int, number: int) -> int:
    return total + number


def count(counts: dict[int, int], number: int) -> dict[int, int]:
    counts[number] = counts.get(number, 0) + 1
    return counts


def merge(counts: dict[int, int], others: dict[int, int]) -> dict[int, int]:
    for number, more in others.items():
        counts[number] = counts.get(number, 0) + more
    return counts


class Step(NamedTuple):
    """A part of a chain, and what it does to a list."""

    name: str
    chain: Callable[[Flow[Any]], Flow[Any]]
    model: Callable[[list[Any]], Iterable[Any]]


def unchanged(elements: list[Any]) -> list[Any]:
    return elements


MAPPERS: Final = [
    Step("map", lambda flow: flow.map(plus_one), lambda numbers: map(plus_one, numbers)),
    Step("map, async", lambda flow: flow.map(plus_one_later), lambda numbers: map(plus_one, numbers)),
    Step("filter", lambda flow: flow.filter(is_even), lambda numbers: filter(is_even, numbers)),
    Step("reject", lambda flow: flow.reject(is_even), lambda numbers: [n for n in numbers if not is_even(n)]),
    Step("flat_map", lambda flow: flow.flat_map(up_to_two), lambda numbers: [m for n in numbers for m in up_to_two(n)]),
]


def shuffled(stages: int, most: int) -> Step:
    return Step(f"shuffle({stages})", lambda flow: flow.shuffle(stages=stages, max_demand=most), unchanged)


def partitioned(stages: int, most: int, key: Callable[[int], int] | None) -> Step:
    return Step(f"partition({stages})", lambda flow: flow.partition(stages=stages, key=key, max_demand=most), unchanged)


def sums(numbers: list[int]) -> list[tuple[int, int]]:
    found: Counter[int] = Counter()
    for number in numbers:
        found[third(number)] += number
    return [(key, found[key]) for key in {third(number) for number in numbers}]


#: They end a chain. What they give does not depend on how many stages there are.
ENDS: Final = [
    Step("nothing", lambda flow: flow, unchanged),
    Step("count_by", lambda flow: flow.count_by(), lambda numbers: Counter(numbers).items()),
    Step(
        "sum_by",
        lambda flow: flow.sum_by(third, plus_one),
        lambda numbers: [(key, total + Counter(map(third, numbers))[key]) for key, total in sums(numbers)],
    ),
    Step("reduce_by", lambda flow: flow.reduce_by(third, int, add), sums),
    Step("reduce_by, combined", lambda flow: flow.reduce_by(third, int, add, combine=add), sums),
    Step(
        "count_by, mapped",
        lambda flow: flow.count_by(third).emit("events").map(lambda pair: pair[1]),
        lambda numbers: Counter(map(third, numbers)).values(),
    ),
    Step("reduce, combined", lambda flow: flow.reduce(int, add, combine=add).emit("state"), lambda ns: [sum(ns)]),
    Step("counts, combined", lambda flow: flow.reduce(dict, count, merge), lambda ns: Counter(ns).items()),
    Step("counts, partitioned", lambda flow: flow.partition().reduce(dict, count), lambda ns: Counter(ns).items()),
    Step("uniq", lambda flow: flow.partition(stages=2).uniq(), set),
    Step(
        "group_by",
        lambda flow: flow.partition(stages=2, key=third).group_by(third).emit("events").map_values(len),
        lambda numbers: Counter(map(third, numbers)).items(),
    ),
    Step(
        "departition",
        lambda flow: flow.partition(stages=3).reduce(int, add).departition(int, add, str),
        lambda numbers: [str(sum(numbers))],
    ),
    Step(
        "take_sort",
        lambda flow: flow.count_by().take_sort(3),
        lambda numbers: [sorted(Counter(numbers).items())[:3]],
    ),
    Step(
        "join",
        lambda flow: Flow.bounded_join("inner", flow, Flow.from_iterable([0, 1, 1]), third, third, pair, stages=2),
        lambda numbers: [(n, m) for n in numbers for m in (0, 1, 1) if third(n) == m],
    ),
]


def pair(left: int, right: int) -> tuple[int, int]:
    return left, right


def late_one(time: int, _info: SideOutput) -> list[tuple[str, int]]:
    return [("late", time)]


def text(elements: Iterable[Any]) -> Counter[str]:
    return Counter(map(repr, elements))
