"""What flows of these tests do in worker processes. It imports little, because each worker process imports it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any, NoReturn

__all__ = [
    "Click",
    "Refused",
    "both",
    "by_time",
    "count",
    "die",
    "exit_at_once",
    "first",
    "follow",
    "loaded_modules",
    "long",
    "merge",
    "nothing",
    "pairs",
    "pass_gate",
    "refuse",
    "run_a_flow",
    "same",
    "second",
    "sorted_of",
    "told_late",
    "with_pid",
    "write_to_a_full_disk",
]

Click = tuple[str, int]


def same(element: Any) -> Any:
    return element


def nothing(element: Any) -> None:
    """As the function of a filter, it leaves everything out."""


def first(pair: Any) -> Any:
    return pair[0]


def loaded_modules(_element: Any) -> list[str]:
    return sorted(sys.modules)


def second(pair: Any) -> Any:
    return pair[1]


def by_time(click: Click) -> int:
    return click[1]


def follow(elements: list[Any], element: Any) -> list[Any]:
    return [*elements, element]


def with_pid(batch: list[Any]) -> list[tuple[int, list[Any]]]:
    return [(os.getpid(), batch)]


def count(counts: dict[Any, int], word: Any) -> dict[Any, int]:
    counts[word] = counts.get(word, 0) + 1
    return counts


def merge(left: dict[Any, int], right: dict[Any, int]) -> dict[Any, int]:
    for word, number in right.items():
        left[word] = left.get(word, 0) + number
    return left


def both(left: Any, right: Any) -> tuple[Any, Any]:
    return left, right


def long(number: int) -> str:
    """Returns a text of some hundred thousand characters."""
    return str(number) * 300_000


def sorted_of(counts: dict[Any, int]) -> list[tuple[Any, int]]:
    return sorted(counts.items())


def told_late(click: Click, _info: Any) -> list[tuple[str, Click]]:
    return [("late", click)]


def pairs(number: int) -> list[tuple[int, int]]:
    return [(number % 3, number)] * (number % 4)


class Refused(Exception):
    """An error that pickles, but cannot be unpickled as it is: it needs another argument."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(why)
        self.number = number


async def pass_gate(gate: str) -> str:
    """Waits until somebody writes to a named pipe. An empty name is no gate."""
    if gate:
        has_come, pipe = asyncio.Event(), os.open(gate, os.O_RDONLY | os.O_NONBLOCK)
        asyncio.get_running_loop().add_reader(pipe, has_come.set)
        try:
            await has_come.wait()
        finally:
            asyncio.get_running_loop().remove_reader(pipe)
            os.close(pipe)
    return gate


def run_a_flow(number: int) -> int:
    from broadway_py import Flow  # noqa: PLC0415  # only one test needs it

    return sum(Flow.from_iterable([number]).using(progress=True))


def refuse(number: int) -> int:
    if number == 17:
        raise Refused(number, "it is 17")
    return number


def die(number: int) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemError


def write_to_a_full_disk(number: int) -> int:
    if number > 20:
        with open("/dev/full", "w", encoding="utf-8") as file:  # noqa: PTH123  # pathlib loads much
            file.write(str(number))
    return number


def exit_at_once(number: int) -> NoReturn:
    os._exit(3)
