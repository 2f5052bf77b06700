"""What is said when something fails, with each runner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from broadway_py.errors import FlowFailed
from broadway_py.flow import Flow
from tests.flow.each_runner import each_runner, each_runner_in_program
from tests.flow.processes import works
from tests.flow.support import leaves_nothing, report_of, results


def refuse_three(number: int) -> int:
    if number == 3:
        raise ValueError(number)
    return number


async def refuse_three_later(number: int) -> int:
    return refuse_three(number)


@each_runner
@pytest.mark.parametrize("function", [refuse_three, refuse_three_later])
def test_the_first_error_ends_the_flow_and_says_where(runner: Any, function: Any) -> None:
    flow = Flow.from_iterable(range(10), stages=1).map(str).map(int).map(function).using(runner, workers=2)

    with pytest.raises(FlowFailed) as raised:
        results(flow)

    error = raised.value
    assert (error.operator, error.stage, error.element) == (f"map 3: {function.__name__}", 0, 3)
    assert error.place == "element 3 of source 0"
    assert isinstance(error.__cause__, ValueError)
    assert str(error) == f"map 3: {function.__name__} failed with ValueError in stage 0 at element 3 of source 0"


@each_runner
def test_the_cause_of_an_error_is_what_the_function_has_raised(runner: Any) -> None:
    flow = Flow.from_iterable(range(40), max_demand=4).map(works.refuse)

    with leaves_nothing(runner):
        with pytest.raises(FlowFailed) as raised:
            flow.using(runner, workers=2).run()
        failed, cause = raised.value, raised.value.__cause__
        del raised

    assert str(failed) == f"map 1: refuse failed with Refused in stage {failed.stage} at element 17 of source 0"
    assert (failed.operator, failed.element) == ("map 1: refuse", 17)
    assert type(cause) is works.Refused
    assert (cause.number, str(cause)) == (17, "it is 17")


@each_runner
def test_a_key_that_fails_ends_the_flow(runner: Any) -> None:
    flow = Flow.from_iterable(range(10), stages=1).partition(stages=2, key=refuse_three).map(str)

    with pytest.raises(FlowFailed) as raised:
        results(flow.using(runner, workers=2))

    assert (
        str(raised.value) == "partition 1, key: refuse_three failed with ValueError in stage 0 at element 3 of source 0"
    )


@each_runner
@pytest.mark.parametrize("error", [StopIteration, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_no_error_of_a_function_makes_the_result_shorter(runner: Any, error: type[BaseException]) -> None:
    assert cause_of(error, runner) is error


@each_runner_in_program
def test_a_ctrl_c_of_a_function_does_not_make_the_result_shorter(runner: Any) -> None:
    """In a worker process, it ends the process."""
    assert cause_of(KeyboardInterrupt, runner) is KeyboardInterrupt


def cause_of(error: type[BaseException], runner: Any) -> object:
    def refuse(number: int) -> int:
        if number == 3:
            raise error
        return number

    with pytest.raises(FlowFailed) as raised:
        results(Flow.from_iterable(range(10)).map(refuse).using(runner, workers=2))
    return type(raised.value.__cause__)


def refusing() -> Iterator[int]:
    yield from range(40)
    raise LookupError("no more")


async def refusing_later() -> AsyncIterator[int]:
    for number in range(40):
        yield number
    raise LookupError("no more")


@each_runner
@pytest.mark.parametrize("source", [refusing, refusing_later])
def test_a_source_that_raises_ends_the_flow(runner: Any, source: Any) -> None:
    flow = Flow.from_iterable(source(), max_demand=4).map(works.same).partition().map(works.same)

    with leaves_nothing(runner):
        with pytest.raises(FlowFailed) as raised:
            results(flow.using(runner, workers=2))
        told, cause = str(raised.value), raised.value.__cause__
        del raised

    assert told == "from_iterable failed with LookupError in stage 0 at element 40 of source 0"
    assert (type(cause), str(cause)) == (LookupError, "no more")


@each_runner
def test_elements_with_errors_are_left_out_and_counted(runner: Any) -> None:
    flow = Flow.from_iterable(range(10), stages=1).map(refuse_three).partition(stages=2, key=refuse_three)
    flow = flow.map(lambda number: 1 // (number - 5))

    report = report_of(flow.using(runner, workers=2, on_error="skip"))

    assert (report.elements_in, report.elements_out, report.errors) == (10, 8, ())
    assert report.skipped == {"map 1: refuse_three": 1, "map 3: <lambda>": 1}


@each_runner
def test_the_errors_of_elements_that_were_left_out_may_be_kept(runner: Any) -> None:
    flow = Flow.from_iterable(range(6), max_demand=2).map(lambda n: 6 // (n % 2))

    report = report_of(flow.using(runner, workers=2, on_error="collect"))

    assert (report.elements_out, report.skipped) == (3, {"map 1: <lambda>": 3})
    assert sorted((place, operator, type(error)) for place, operator, error in report.errors if place) == [
        (f"element {number} of source 0", "map 1: <lambda>", ZeroDivisionError) for number in (0, 2, 4)
    ]
