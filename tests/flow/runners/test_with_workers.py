"""Flows whose functions are called in other processes: what is said of what cannot go there, and who reads what."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broadway_py import Flow
from broadway_py.errors import DefinitionError, FlowFailed
from tests.flow.each_runner import each_runner_with_workers
from tests.flow.processes import works
from tests.flow.support import leaves_nothing
from tests.support.eventually import PATIENCE


@each_runner_with_workers
def test_files_are_read_by_the_workers_range_by_range(runner: Any, tmp_path: Path) -> None:
    lines = [f"line {number}" for number in range(3_000)]
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(lines))
    flow = Flow.from_files(path, range_bytes=1_000).map_batch(works.with_pid)

    with leaves_nothing(runner):
        found = flow.using(runner, workers=2).to_list()

    assert sorted(line for _, batch in found for line in batch) == sorted(lines)
    # One worker reads all if it is done before the other one has started.
    assert os.getpid() not in {pid for pid, _ in found}


@each_runner_with_workers
async def test_the_last_results_come_also_if_other_news_overtakes_them(runner: Any) -> None:
    # Each is another object: one that is there a hundred times would be pickled once.
    flow = Flow.from_iterable([1]).flat_map(lambda _: ["x" * size for size in range(100_000, 100_100)])

    with leaves_nothing(runner):
        async with asyncio.timeout(PATIENCE):
            found = await flow.using(runner, workers=1).to_list_async()

    assert [len(each) for each in found] == list(range(100_000, 100_100))


@each_runner_with_workers
def test_workers_that_only_send_large_lists_to_each_other_do_not_block(runner: Any) -> None:
    long = "x" * 100_000
    flow = Flow.from_iterable(range(60), max_demand=4).map(lambda n: (n, long)).partition(key=works.first)

    found = flow.map(works.first).using(runner, workers=2).to_list()

    assert sorted(found) == list(range(60))


@each_runner_with_workers
async def test_lists_are_asked_for_again_on_each_edge_between_processes(runner: Any) -> None:
    """From the program to workers, from worker to worker, and from workers to the program."""
    numbers = Flow.from_iterable(range(60), max_demand=2).map(works.same)
    flow = numbers.partition(max_demand=2).map(works.same).using(runner, workers=2)

    with leaves_nothing(runner):
        async with asyncio.timeout(PATIENCE):
            found = await flow.to_list_async()

    assert sorted(found) == list(range(60))


# --- errors


@each_runner_with_workers
def test_an_element_that_does_not_pickle_is_named_by_what_makes_it(runner: Any) -> None:
    flow = Flow.from_iterable([1]).map(lambda _: threading.Lock())

    with pytest.raises(FlowFailed, match="map 1: <lambda> failed with TypeError in stage 0") as raised:
        flow.using(runner, workers=1).run()

    assert "This came up when an element was pickled, to go to another process." in raised.value.__cause__.__notes__  # type: ignore[union-attr]  # there is one


@each_runner_with_workers
def test_a_key_of_which_each_process_has_another_hash_is_refused(runner: Any) -> None:
    flow = Flow.from_iterable([frozenset()]).map(works.same).partition().map(works.same)

    with pytest.raises(FlowFailed, match="partition 2, key failed with TypeError in stage") as raised:
        flow.using(runner, workers=2).run()

    assert "expected a key of which each process has the same hash" in str(raised.value.__cause__)
    assert flow.using("tasks").to_list() == [frozenset()]


@each_runner_with_workers
def test_a_key_that_is_counted_is_refused_by_the_name_of_what_counts_it(runner: Any) -> None:
    flow = Flow.from_iterable([1]).map(works.same).count_by(lambda number: frozenset([number]))

    with pytest.raises(FlowFailed, match=r"^count_by 2, key failed with TypeError in stage"):
        flow.using(runner, workers=2).run()


@each_runner_with_workers
@pytest.mark.parametrize("depth", ["closure", "default", "deeper"])
def test_a_function_that_does_not_pickle_is_refused_with_its_variable(runner: Any, depth: str) -> None:
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
    flow = Flow.from_iterable([1]).map(str).map(function).using(runner, workers=1)

    with pytest.raises(DefinitionError) as raised:
        flow.run()

    assert str(raised.value) == (
        f"map 2: {function.__name__}: the variable 'lock' does not pickle (TypeError: cannot pickle '_thread.lock' "
        "object), so it cannot go to a worker process; make it inside of the function"
    )
