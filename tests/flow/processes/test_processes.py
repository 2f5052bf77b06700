"""Flows in worker processes: they give what flows in one process give, and say what has failed."""

from __future__ import annotations

import asyncio
import operator
import os
import threading
from collections.abc import Callable, Iterator
from itertools import count as endless
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pytest

from broadway_py import Flow, Window
from broadway_py.errors import DefinitionError, FlowFailed, OptionsError
from broadway_py.flow.description import checks
from tests.flow.processes import works
from tests.flow.support import leaves_nothing
from tests.support.eventually import PATIENCE

WORDS: Final = ("roses are red violets are blue " * 300).split()
CLICKS: Final = [(f"user {number % 7}", number * 3 + (number * 7919 % 11)) for number in range(600)]


def minutes(window: Window) -> Flow[Any]:
    """Several mappers, so lists arrive in any order, before windows that depend on the order."""
    clicks = Flow.from_iterable(CLICKS, max_demand=40).map(works.same)
    windowed = clicks.partition(key=works.first, window=window).reduce(list, works.follow).on_late(works.both)
    return windowed.emit("state")


#: Flows that are the same in each runner, but for the order of their elements.
FLOWS: Final[dict[str, Callable[[], Flow[Any]]]] = {
    "exchange": lambda: Flow.from_iterable(WORDS).map(str).partition().reduce(dict, works.count),
    "combined": lambda: (
        Flow.from_iterable(WORDS)
        .reduce(dict, works.count, combine=works.merge)
        .take_sort(1, key=works.second, reverse=True)
    ),
    "keyed": lambda: Flow.from_iterable(range(999)).flat_map(works.pairs).sum_by(works.first, works.second),
    "event time": lambda: minutes(Window.fixed("1m", by=works.by_time)),
    "sessions": lambda: minutes(Window.session("20s", by=works.by_time)),
    "count windows behind mappers": lambda: (
        Flow.from_iterable(range(500), max_demand=20)
        .map(works.same)
        .partition(stages=1, window=Window.count(10))
        .reduce(list, works.follow)
        .emit("state")
    ),
    "join": lambda: Flow.bounded_join(
        "full_outer",
        Flow.from_iterable(range(300)),
        Flow.from_iterable(range(100, 500)).map(works.same),
        works.same,
        works.same,
        works.both,
    ),
}


def multiset(flow: Flow[Any]) -> list[str]:
    return sorted(map(repr, flow))


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_gives_the_same_in_worker_processes_as_in_one_process(name: str) -> None:
    flow = FLOWS[name]()

    assert multiset(flow.using("processes", workers=2)) == multiset(flow.using("tasks", workers=2))


def test_files_are_read_by_the_workers_range_by_range(tmp_path: Path) -> None:
    lines = [f"line {number}" for number in range(3_000)]
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(lines))
    flow = Flow.from_files(path, range_bytes=1_000).map_batch(works.with_pid)

    with leaves_nothing():
        found = flow.using("processes", workers=2).to_list()

    assert sorted(line for _, batch in found for line in batch) == sorted(lines)
    # One worker reads all if it is done before the other one has started.
    assert os.getpid() not in {pid for pid, _ in found}


async def test_the_last_results_come_also_if_other_news_overtakes_them() -> None:
    # Each is another object: one that is there a hundred times would be pickled once.
    flow = Flow.from_iterable([1]).flat_map(lambda _: ["x" * size for size in range(100_000, 100_100)])

    with leaves_nothing():
        async with asyncio.timeout(PATIENCE):
            found = await flow.using("processes", workers=1).to_list_async()

    assert [len(each) for each in found] == list(range(100_000, 100_100))


def test_files_in_order_are_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(map(str, range(3_000))))
    flow = Flow.from_files(path, range_bytes=1_000).map(int)
    tens = flow.partition(stages=1, window=Window.count(1_000)).reduce(lambda: 0, operator.add).emit("state")

    sums = [sum(range(start, start + 1_000)) for start in range(0, 3_000, 1_000)]
    assert tens.using("processes", workers=2).to_list() == [*sums, 0]


def test_workers_that_only_send_large_lists_to_each_other_do_not_block() -> None:
    long = "x" * 100_000
    flow = Flow.from_iterable(range(60), max_demand=4).map(lambda n: (n, long)).partition(key=works.first)

    found = flow.map(works.first).using("processes", workers=2).to_list()

    assert sorted(found) == list(range(60))


def test_an_endless_source_is_read_as_far_as_results_are_taken() -> None:
    taken: list[int] = []

    def read() -> Iterator[int]:
        for number in endless():
            taken.append(number)
            yield number

    flow = Flow.from_iterable(read(), max_demand=10).map(works.same).partition(max_demand=10).map(works.same)

    with leaves_nothing():
        assert len(list(islice(flow.using("processes", workers=2), 50))) == 50

    # Two stages in each of two layers have asked for 10 each time, and the reader and the result hold some too.
    assert len(taken) < 250


async def test_lists_are_asked_for_again_on_each_edge_between_processes() -> None:
    """From the program to workers, from worker to worker, and from workers to the program."""
    numbers = Flow.from_iterable(range(60), max_demand=2).map(works.same)
    flow = numbers.partition(max_demand=2).map(works.same).using("processes", workers=2)

    with leaves_nothing():
        async with asyncio.timeout(PATIENCE):
            found = await flow.to_list_async()

    assert sorted(found) == list(range(60))


async def test_the_loop_of_the_caller_goes_on() -> None:
    with leaves_nothing():
        flow = Flow.from_iterable(range(40), max_demand=4).map(works.same).using("processes", workers=2)
        assert sorted(await flow.to_list_async()) == list(range(40))
        report = await flow.partition().map(works.same).run_async()

    assert (report.elements_in, report.elements_out) == (40, 40)
    assert [(stage.layer, stage.index) for stage in report.stages] == [
        ("from_iterable", 0),
        ("from_iterable", 1),
        ("partition 2", 0),
        ("partition 2", 1),
    ]
    assert sum(stage.taken for stage in report.stages[2:]) == 40


# --- errors


def test_an_error_of_a_function_says_where_it_was() -> None:
    flow = Flow.from_iterable(range(40), max_demand=4).map(works.refuse)

    with leaves_nothing():
        with pytest.raises(FlowFailed) as raised:
            flow.using("processes", workers=2).run()
        failed, cause = raised.value, raised.value.__cause__
        del raised

    assert str(failed) == f"map 1: refuse failed with Refused in stage {failed.stage} at element 17 of source 0"
    assert (failed.operator, failed.element) == ("map 1: refuse", 17)
    assert isinstance(cause, works.Refused)
    assert (cause.number, str(cause)) == (17, "it is 17")
    place, traceback = cause.__notes__
    assert place.startswith("raised in a worker process, at ")
    assert traceback.startswith("In worker process ")
    assert traceback.endswith('raise Refused(number, "it is 17")\ntests.flow.processes.works.Refused: it is 17')


def test_elements_on_which_a_function_fails_are_collected_from_all_workers() -> None:
    flow = Flow.from_iterable(range(6), max_demand=2).map(lambda n: 6 // (n % 2))

    report = flow.using("processes", workers=2, on_error="collect").run()

    assert (report.elements_out, report.skipped) == (3, {"map 1: <lambda>": 3})
    assert sorted(place for place, *_ in report.errors if place) == [
        f"element {number} of source 0" for number in (0, 2, 4)
    ]
    assert {type(each.error) for each in report.errors} == {ZeroDivisionError}


@pytest.mark.parametrize(
    ("function", "how"),
    [(works.die, "killed by SIGKILL; perhaps memory ran out"), (works.exit_at_once, "exit code 3")],
)
def test_a_worker_that_dies_ends_the_flow(function: Callable[[int], Any], how: str) -> None:
    flow = Flow.from_iterable([1], stages=1).map(function)

    with leaves_nothing():
        with pytest.raises(FlowFailed) as raised:
            flow.using("processes", workers=1).run()
        text, operator_ = str(raised.value), raised.value.operator
        del raised

    assert (text, operator_) == (f"worker process 0 has died: {how}", "worker process 0")


def test_an_element_that_does_not_pickle_is_named_by_what_makes_it() -> None:
    flow = Flow.from_iterable([1]).map(lambda _: threading.Lock())

    with pytest.raises(FlowFailed, match="map 1: <lambda> failed with TypeError in stage 0") as raised:
        flow.using("processes", workers=1).run()

    assert "This came up when an element was pickled, to go to another process." in raised.value.__cause__.__notes__  # type: ignore[union-attr]  # there is one


def test_a_key_of_which_each_process_has_another_hash_is_refused() -> None:
    flow = Flow.from_iterable([frozenset()]).map(works.same).partition().map(works.same)

    with pytest.raises(FlowFailed, match="partition 2, key failed with TypeError in stage") as raised:
        flow.using("processes", workers=2).run()

    assert "expected a key of which each process has the same hash" in str(raised.value.__cause__)
    assert flow.using("tasks").to_list() == [frozenset()]


def test_a_key_that_is_counted_is_refused_by_the_name_of_what_counts_it() -> None:
    flow = Flow.from_iterable([1]).map(works.same).count_by(lambda number: frozenset([number]))

    with pytest.raises(FlowFailed, match=r"^count_by 2, key failed with TypeError in stage"):
        flow.using("processes", workers=2).run()


@pytest.mark.parametrize("depth", ["closure", "default", "deeper"])
def test_a_function_that_does_not_pickle_is_refused_with_its_variable(depth: str) -> None:
    lock = threading.Lock()

    def locked(number: int) -> int:
        with lock:
            return number

    def deeper(number: int) -> int:
        return locked(number)

    functions: dict[str, Callable[..., int]] = {
        "closure": locked,
        "default": lambda n, lock=lock: n + bool(lock),
        "deeper": deeper,
    }
    function = functions[depth]
    flow = Flow.from_iterable([1]).map(str).map(function).using("processes", workers=1)

    with pytest.raises(DefinitionError) as raised:
        flow.run()

    assert str(raised.value) == (
        f"map 2: {function.__name__}: the variable 'lock' does not pickle (TypeError: cannot pickle '_thread.lock' "
        "object), so it cannot go to a worker process; make it inside of the function"
    )


def test_the_library_that_pickles_functions_is_asked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda _: None)

    with pytest.raises(OptionsError) as raised:
        Flow.from_iterable([1]).using("processes")

    assert str(raised.value) == (
        "using.runner: 'processes' needs cloudpickle, which is not installed: pip install 'broadway-py[flow]'"
    )
