"""With each runner, a source is read only a little further than its results are taken."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import count as endless
from itertools import islice
from typing import Any

from broadway_py.flow import Flow
from tests.flow.each_runner import each_runner
from tests.flow.processes import works
from tests.flow.support import leaves_nothing
from tests.stage.support import soon

#: Two stages in each of two layers have asked for 10 each time, and the reader and the result hold some too.
AHEAD = 200


def noted(taken: list[int]) -> Iterator[int]:
    for number in endless():
        taken.append(number)
        yield number


async def noted_later(taken: list[int]) -> AsyncIterator[int]:
    for number in noted(taken):
        yield number


def two_layers(source: Any, runner: Any) -> Flow[int]:
    flow: Flow[int] = Flow.from_iterable(source, max_demand=10).map(works.same)
    return flow.partition(max_demand=10).map(works.same).using(runner, workers=2)


@each_runner
def test_an_endless_source_is_read_as_far_as_results_are_taken(runner: Any) -> None:
    taken: list[int] = []

    with leaves_nothing(runner):
        assert len(list(islice(two_layers(noted(taken), runner), 50))) == 50

    assert len(taken) < 50 + AHEAD


@each_runner
def test_a_source_does_not_run_away_from_a_reader_that_takes_one_by_one(runner: Any) -> None:
    taken: list[int] = []
    ahead = []

    with leaves_nothing(runner):
        for number, _ in enumerate(islice(two_layers(noted(taken), runner), 2_000), 1):
            ahead.append(len(taken) - number)

    assert max(ahead) < AHEAD
    assert len(taken) < 2_000 + AHEAD


@each_runner
async def test_an_async_source_does_not_run_away_from_a_reader_in_the_same_loop(runner: Any) -> None:
    taken: list[int] = []
    ahead = []

    with leaves_nothing(runner):
        elements: Any = aiter(two_layers(noted_later(taken), runner))
        for number in range(1, 501):
            await soon(anext(elements))
            ahead.append(len(taken) - number)
        await soon(elements.aclose())

    assert max(ahead) < AHEAD
