"""The exercises: what each is given, how an answer is run, and who judges it."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from broadway_py import BroadwayError, Flow
from broadway_py.examples.playground import solutions
from broadway_py.examples.playground.generator import lines
from broadway_py.examples.playground.judging import (
    judge_elements,
    judge_number,
    judge_order,
    judge_pairs,
    judge_sums,
    judge_windows,
)
from broadway_py.examples.playground.parser import parse, shipments
from broadway_py.examples.playground.slow_register import SlowRegister
from broadway_py.stage import ProducerStage

__all__ = ["EXERCISES", "NOT_WRITTEN", "Exercise", "answers_of", "complaint_about", "told_of"]

#: What is said of an exercise that nobody has begun.
NOT_WRITTEN: Final = "not written yet"

#: Calls of the slow register that shall wait at the same time, and the lines that they are about.
_AT_ONCE: Final = 100
_LINES: Final = 300
#: Lines that are taken from a stage, and those that it may have taken by then.
_TAKEN: Final = 100
_TAKEN_AT_MOST: Final = 2_000


@dataclass(frozen=True, slots=True)
class Exercise:
    """An exercise. Its name is that of the function in the module of the answers."""

    #: ``(file, seconds that something slow lasts)`` -> the arguments of each call, by what is said of it.
    calls: Callable[[Path, float], Mapping[str, tuple[Any, ...]]]
    #: ``(found, right)`` -> what is wrong; None: nothing.
    judge: Callable[[Any, Any], str | None]
    #: What to know when the answer is right.
    lesson: str = ""


def _of_file(path: Path, _: float) -> Mapping[str, tuple[Any, ...]]:
    return {"": (shipments(path),)}


def _count_windows(path: Path, _: float) -> Mapping[str, tuple[Any, ...]]:
    return {f"windows of {size}": (shipments(path), size) for size in (100, 300, 1_000)}


def _fixed_windows(path: Path, _: float) -> Mapping[str, tuple[Any, ...]]:
    stream = [parse(line) for line in islice(lines(per_second=10), 1_000)]
    return {
        "the file, windows of 1 s": (shipments(path), "1s"),
        "the file, windows of a minute": (shipments(path), "1m"),
        "a stream of ten lines a second, windows of a minute": (Flow.from_iterable(stream), "1m"),
    }


def _periodic_windows(path: Path, _: float) -> Mapping[str, tuple[Any, ...]]:
    return {"all windows together": (shipments(path), "5ms")}


def _owners(path: Path, seconds: float) -> Mapping[str, tuple[Any, ...]]:
    found = _first_lines(path)
    return {"": (found, SlowRegister(min(_AT_ONCE, len(found)), seconds).get_owner)}


def _owners_async(path: Path, seconds: float) -> Mapping[str, tuple[Any, ...]]:
    found = _first_lines(path)
    return {"": (found, SlowRegister(min(_AT_ONCE, len(found)), seconds).get_owner_async)}


def _first_lines(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as file:
        return list(islice(file, _LINES))


def _stream(_: Path, __: float) -> Mapping[str, tuple[Any, ...]]:
    return {"": (_watched(lines()),)}


def _watched(stream: Iterator[str]) -> Iterator[str]:
    yield from islice(stream, _TAKEN_AT_MOST)
    raise ValueError(f"the stage has taken {_TAKEN_AT_MOST:,} lines, though it was asked for fewer")


EXERCISES: Final[Mapping[str, Exercise]] = {
    "total": Exercise(_of_file, judge_number),
    "reefers": Exercise(_of_file, judge_number),
    "by_size": Exercise(_of_file, judge_pairs),
    "by_type_and_size": Exercise(_of_file, judge_pairs),
    "denmark": Exercise(
        _of_file,
        judge_pairs,
        "The generator writes the country that a ship leaves first. So the shipments out of Denmark are those of the "
        "column 'to', and who believes the names of the parser takes the other number.",
    ),
    "same_country": Exercise(_of_file, judge_elements),
    "per_customer": Exercise(_of_file, judge_pairs),
    "count_windows": Exercise(_count_windows, judge_windows),
    "fixed_windows": Exercise(
        _fixed_windows,
        judge_windows,
        "Times are in seconds here, as in Flow. Where a program takes them for milliseconds, as the original of this "
        "exercise does, a window of a minute holds the shipments of 16 hours.",
    ),
    "periodic_windows": Exercise(_periodic_windows, judge_sums),
    "owners": Exercise(_owners, judge_elements),
    "owners_async": Exercise(_owners_async, judge_elements),
    "stream_stage": Exercise(_stream, judge_order),
}


def answers_of(name: str, answers: ModuleType, path: Path, *, seconds: float = 5.0) -> dict[str, list[Any]]:
    """Runs the answer of a module to an exercise.

    Args:
        name: of the exercise.
        answers: has a function of this name.
        path: the file with shipments.
        seconds: how long a call of the slow register waits at most.

    Returns:
        The elements of the flow of each call, by what is said of the call.

    Raises:
        BroadwayError: the flow fails, or cannot be built.
        ValueError: it is not what is wanted. The text says why.
    """
    answer, calls = getattr(answers, name), EXERCISES[name].calls(path, seconds)
    return {told: _run(answer, each, gives_stage=name == "stream_stage") for told, each in calls.items()}


def complaint_about(name: str, answers: ModuleType, path: Path, *, seconds: float = 5.0) -> str | None:
    """Says what is wrong with an answer, or returns None. The arguments are those of :func:`answers_of`."""
    if not hasattr(answers, name):
        return f"there is no function {name}"
    try:
        found = answers_of(name, answers, path, seconds=seconds)
    except NotImplementedError:
        return NOT_WRITTEN
    except BroadwayError as failed:
        return f"the flow says: {', because of: '.join(_sentences(failed))}"
    except ValueError as wrong:
        return str(wrong)
    right = answers_of(name, solutions, path)
    for told, elements in found.items():
        if complaint := EXERCISES[name].judge(elements, right[told]):
            return f"{told}: {complaint}" if told else complaint
    return None


def _sentences(error: BaseException) -> list[str]:
    """Returns what an error says, and what its causes say."""
    return [str(error), *(_sentences(error.__cause__) if error.__cause__ else ())]


def told_of(error: Exception, file: str) -> str:
    """Says what an error is, and in which line of *file* it happened."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__} in line {error.lineno}: {error.msg}"
    mine = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{type(error).__name__}{f' in line {mine[-1]}' if mine else ''}: {error}"


def _run(answer: Callable[..., Any], arguments: tuple[Any, ...], *, gives_stage: bool) -> list[Any]:
    result = _called(answer, arguments)
    if gives_stage and isinstance(result, ProducerStage):
        with ThreadPoolExecutor(max_workers=1) as thread:  # in a notebook, a loop runs in this one
            return thread.submit(asyncio.run, _first_of(result)).result()
    if gives_stage or not isinstance(result, Flow):
        wanted = "a producer stage" if gives_stage else "a flow"
        raise ValueError(f"expected {wanted}, got {result!r}{'; is a return missing?' if result is None else ''}")
    elements = result.to_list()
    register = getattr(arguments[-1], "__self__", None)
    if isinstance(register, SlowRegister) and not register.most:
        raise ValueError("no owner was asked for; if get_owner is called, an await is missing")
    if isinstance(register, SlowRegister) and register.most < register.wanted:
        raise ValueError(
            f"the most calls that have waited at the same time are {register.most}, {register.wanted} are wanted: "
            "think of stages=, of max_demand=, and of the runner"
        )
    return elements


def _called(answer: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return answer(*arguments)
    except (BroadwayError, NotImplementedError):
        raise
    except Exception as error:
        raise ValueError(told_of(error, inspect.getfile(answer))) from error


async def _first_of(stage: ProducerStage[str]) -> list[Any]:
    taken: list[Any] = []
    try:
        async with asyncio.timeout(5), stage:
            async for line in Flow.from_stages([stage], stages=1, max_demand=10).map(parse):
                taken.append(line)
                if len(taken) == _TAKEN:
                    break
    except TimeoutError:
        raise ValueError(f"{len(taken)} lines came in 5 seconds; {_TAKEN} are wanted") from None
    return taken
