"""Flows that give the same with each runner, but for the order of elements. Worker processes import this module."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

from broadway_py import Flow, Window
from tests.flow.processes import works

__all__ = ["FLOWS", "LATE", "multiset"]

WORDS: Final = ("roses are red violets are blue " * 300).split()
CLICKS: Final = [(f"user {number % 7}", number * 3 + (number * 7919 % 11)) for number in range(600)]
#: Every tenth click is of an hour before.
LATE: Final = [(user, time - 3_600 if number % 10 == 9 else time + 7_200) for number, (user, time) in enumerate(CLICKS)]


def minutes(window: Window, clicks: list[works.Click] = CLICKS) -> Flow[Any]:
    """Several mappers, so lists arrive in any order, before windows that depend on the order."""
    mapped = Flow.from_iterable(clicks, max_demand=40).map(works.same)
    windowed = mapped.partition(key=works.first, window=window).reduce(list, works.follow).on_late(works.both)
    return windowed.emit("state")


def late(_: Path) -> Flow[Any]:
    """Whoever works on it, the same clicks are late."""
    mapped = Flow.from_iterable(LATE, max_demand=40).map(works.same)
    windowed = mapped.partition(stages=1, window=Window.fixed("1m", by=works.by_time)).reduce(list, works.follow)
    return windowed.on_late(works.told_late).emit("state")


def files(folder: Path) -> Flow[Any]:
    """Several ranges of each file; lines that are longer than a range, and one that is not ended."""
    paths = [folder / f"words {number}.txt" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_text("".join(f"{word} {'x' * (number * 700)}\n" for word in WORDS[:200]) + "the end")
    return Flow.from_files(paths, range_bytes=500).flat_map(str.split).count_by()


def numbers() -> Iterator[int]:
    yield from range(500)


async def numbers_later() -> AsyncIterator[int]:
    for number in range(500):
        await asyncio.sleep(0)
        yield number


async def same_later(element: Any) -> Any:
    await asyncio.sleep(0)
    return element


def to_all(_: Path) -> Flow[Any]:
    halves = [Flow.from_iterable(range(50)), Flow.from_iterable(range(50, 100)).map(works.same)]
    return Flow.merge(halves, to_all=True, stages=3, max_demand=10).reduce(int, operator.add).emit("state")


FLOWS: Final[dict[str, Callable[[Path], Flow[Any]]]] = {
    "exchange": lambda _: Flow.from_iterable(WORDS).map(str).partition().reduce(dict, works.count),
    "combined": lambda _: (
        Flow.from_iterable(WORDS)
        .reduce(dict, works.count, combine=works.merge)
        .take_sort(1, key=works.second, reverse=True)
    ),
    "keyed": lambda _: Flow.from_iterable(range(999)).flat_map(works.pairs).sum_by(works.first, works.second),
    "event time": lambda _: minutes(Window.fixed("1m", by=works.by_time)),
    "sliding event time": lambda _: minutes(Window.sliding("2m", every="1m", by=works.by_time)),
    "sessions": lambda _: minutes(Window.session("20s", by=works.by_time)),
    "late events": late,
    "count windows behind mappers": lambda _: (
        Flow.from_iterable(range(500), max_demand=20)
        .map(works.same)
        .partition(stages=1, window=Window.count(10))
        .reduce(list, works.follow)
        .emit("state")
    ),
    "join": lambda _: Flow.bounded_join(
        "full_outer",
        Flow.from_iterable(range(300)),
        Flow.from_iterable(range(100, 500)).map(works.same),
        works.same,
        works.same,
        works.both,
    ),
    "departition": lambda _: (
        Flow.from_iterable(WORDS).partition().reduce(dict, works.count).departition(dict, works.merge, works.sorted_of)
    ),
    "take_sort": lambda _: Flow.from_iterable(WORDS).count_by().take_sort(3, reverse=True),
    "window join": lambda _: Flow.window_join(
        "inner",
        Flow.from_iterable(CLICKS, max_demand=40),
        Flow.from_iterable(CLICKS[::3], max_demand=40).map(works.same),
        Window.fixed("1m", by=works.by_time, delay="1h"),
        works.first,
        works.first,
        works.both,
    ),
    "uniq": lambda _: Flow.from_iterable(WORDS).map(str).partition().uniq(),
    "to all": to_all,
    "files": files,
    "several generators": lambda _: Flow.from_iterables([numbers(), numbers()], max_demand=10).map(works.same),
    "async generator": lambda _: Flow.from_iterable(numbers_later(), max_demand=10).partition().map(works.same),
    "async functions": lambda _: Flow.from_iterable(range(200)).map(same_later).partition().map(same_later),
    "elements of a size": lambda _: Flow.from_iterable(range(9), max_demand=2).map(works.long).partition().map(len),
    "nothing": lambda _: Flow.from_iterable(range(200)).filter(works.nothing).partition().map(works.same),
    "no element": lambda _: Flow.from_iterable([]).partition().reduce(int, operator.add).emit("state"),
}


def multiset(flow: Flow[Any]) -> list[str]:
    return sorted(map(repr, flow))
