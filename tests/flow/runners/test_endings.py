"""However a flow ends, its sources are closed, and nothing of it is left: with each runner."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import re
import signal
from collections import deque
from collections.abc import AsyncIterator, Iterator
from itertools import count as endless
from pathlib import Path
from typing import Any

import pytest

from broadway_py.errors import FlowFailed
from broadway_py.flow import Flow
from broadway_py.flow.running import loop_thread
from tests.flow.each_runner import each_runner, each_runner_with_workers
from tests.flow.processes import works
from tests.flow.support import Closed, iterated, leaves_nothing, report_of, results, results_async
from tests.stage.support import run_until_idle, soon
from tests.support.conformance import conforms


def fail_at_first(elements: Iterator[Any]) -> None:
    for _ in elements:
        raise LookupError


# --- the caller waits


@each_runner
@pytest.mark.parametrize("leave", ["break", "error", "close", "garbage"])
def test_whoever_leaves_the_iterator_ends_the_flow(runner: str, leave: str) -> None:
    closed = Closed()

    with leaves_nothing(runner):
        elements = iterated(closed.flow(runner))
        if leave == "break":
            assert len(list(itertools.islice(elements, 10))) == 10
            del elements
        elif leave == "error":
            with pytest.raises(LookupError):
                fail_at_first(elements)
            del elements
        elif leave == "close":
            next(elements)
            elements.close()  # type: ignore[attr-defined]  # it is a generator
        else:
            next(elements)
            cycle: list[Any] = [elements]
            cycle.append(cycle)
            del elements, cycle
            gc.collect()

    assert sorted(closed.names) == ["async", "plain"]


@each_runner
def test_a_flow_that_ends_leaves_nothing(runner: Any) -> None:
    with leaves_nothing(runner):
        flow = Flow.from_iterable(iter(range(2_000)), stages=3).map(works.same).partition(stages=2).map(works.same)
        assert sorted(results(flow.using(runner, workers=2))) == list(range(2_000))
        assert report_of(Flow.from_iterable(range(10)).map(works.same).using(runner)).elements_out == 10


@each_runner
@pytest.mark.parametrize("run", [results, report_of])
def test_a_flow_that_fails_leaves_nothing(runner: Any, run: Any) -> None:
    closed = Closed()
    with leaves_nothing(runner):
        with pytest.raises(FlowFailed) as raised:
            run(closed.failing(runner))
        del raised

    assert sorted(closed.names) == ["async", "plain"]


def fails_when_closed() -> Iterator[int]:
    try:
        yield from endless()
    finally:
        raise LookupError("it quotes an element")


async def fails_when_closed_async() -> AsyncIterator[int]:
    try:
        for number in endless():
            yield number
    finally:
        raise LookupError("it quotes an element")


@each_runner
@pytest.mark.parametrize("source", [fails_when_closed, fails_when_closed_async])
def test_a_source_that_fails_when_it_is_closed_is_told_in_one_line(
    runner: Any, source: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with leaves_nothing(runner):
        flow = Flow.from_iterable(source(), stages=1, max_demand=1).map(works.same)
        elements = iterated(flow.using(runner, workers=1))
        next(elements)
        elements.close()  # type: ignore[attr-defined]  # it is a generator

    (said,) = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(
        "a flow has failed while it was ended "
        "error='from_iterable failed with LookupError in stage 0 at element [0-9]+ of source 0'",
        said,
    )


@each_runner
@pytest.mark.parametrize("writer", ["mapper", "reader"])
def test_a_full_disk_ends_the_flow_and_is_told(runner: Any, writer: str) -> None:
    closed: list[str] = []

    def numbers() -> Iterator[int]:
        try:
            yield from endless()
        finally:
            closed.append("source")

    function = works.write_to_a_full_disk if writer == "mapper" else works.same
    flow = Flow.from_iterable(numbers(), max_demand=4).map(function).using(runner, workers=2)
    with leaves_nothing(runner):
        with pytest.raises((FlowFailed, OSError)) as raised:
            # It is closed by a chain of calls: a variable would keep it.
            deque(map(works.write_to_a_full_disk, flow), maxlen=0)
        told, cause = str(raised.value), str(raised.value.__cause__)
        del raised

    full = "[Errno 28] No space left on device"
    if writer == "mapper":
        assert re.fullmatch(
            "map 1: write_to_a_full_disk failed with OSError in stage [01] at element [0-9]+ of source 0", told
        )
        assert cause == full
    else:
        assert told == full
    assert closed == ["source"]


@each_runner_with_workers
def test_a_file_that_is_gone_is_named(runner: Any, tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.touch()
    flow = Flow.from_files(path).map(works.same).using(runner, workers=1)
    path.unlink()

    with leaves_nothing(runner):
        with pytest.raises(FlowFailed) as raised:
            flow.run()
        text = str(raised.value)
        del raised

    assert text == f"from_files failed with FileNotFoundError in stage 0 at {path}"


async def cancel_this_task(_: int) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.Event().wait()


@each_runner_with_workers
def test_a_function_that_cancels_its_task_in_a_worker_ends_the_flow(runner: Any) -> None:
    flow = Flow.from_iterable([1], stages=1).map(cancel_this_task)

    with pytest.raises(FlowFailed) as raised:
        flow.using(runner, workers=1).run()

    assert str(raised.value) == "from_iterable failed with RuntimeError in stage 0"
    assert str(raised.value.__cause__) == "a function has cancelled the task that it runs in"


def interrupt(number: int) -> None:
    if number == 700:
        os.kill(os.getpid(), signal.SIGINT)


@each_runner
@pytest.mark.parametrize("run", [report_of, list])
@pytest.mark.parametrize("is_in_a_loop", [False, True])
def test_one_ctrl_c_ends_the_flow(runner: Any, run: Any, is_in_a_loop: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_thread, "PATIENCE_S", 60.0)  # the loop answers, however slow the machine is
    closed = Closed(interrupt)

    async def main() -> None:
        run(closed.flow(runner))

    def in_a_loop() -> None:
        asyncio.run(main())

    with leaves_nothing(runner), pytest.raises(KeyboardInterrupt):
        in_a_loop() if is_in_a_loop else run(closed.flow(runner))

    assert sorted(closed.names) == ["async", "plain"]


# --- in the caller's loop


@each_runner
async def test_leaving_an_async_iterator_ends_the_flow(runner: Any) -> None:
    closed = Closed()

    with leaves_nothing(runner):
        elements: Any = aiter(closed.flow(runner))
        for _ in range(10):
            await soon(anext(elements))
        await soon(elements.aclose())

    assert sorted(closed.names) == ["async", "plain"]


@each_runner
async def test_an_async_iterator_that_is_forgotten_ends_the_flow(runner: Any) -> None:
    closed = Closed()

    with leaves_nothing(runner):
        before = asyncio.all_tasks()
        async for _ in closed.flow(runner):
            break
        gc.collect()
        while len(closed.names) < 2:
            await asyncio.sleep(0)
        if left := asyncio.all_tasks() - before:
            await soon(asyncio.wait(left))
        await run_until_idle()

    assert sorted(closed.names) == ["async", "plain"]


@conforms("F-031")
@each_runner
@pytest.mark.parametrize("way", ["run", "iterate"])
async def test_a_cancellation_ends_the_flow(runner: Any, way: str) -> None:
    has_begun = asyncio.Event()
    closed = Closed(lambda number: has_begun.set() if number == 100 else None)

    async def consume() -> None:
        if way == "iterate":
            async for _ in closed.flow(runner):
                pass
        else:
            await closed.flow(runner).run_async()

    with leaves_nothing(runner):
        task = asyncio.create_task(consume())
        await soon(has_begun.wait())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(task)
        await run_until_idle()

    assert sorted(closed.names) == ["async", "plain"]


@each_runner
async def test_a_flow_that_fails_leaves_nothing_in_the_loop(runner: Any) -> None:
    closed = Closed()

    with leaves_nothing(runner):
        with pytest.raises(FlowFailed):
            await soon(results_async(closed.failing(runner)))
        with pytest.raises(FlowFailed):
            await soon(Closed().failing(runner).run_async())

    assert sorted(closed.names) == ["async", "plain"]
