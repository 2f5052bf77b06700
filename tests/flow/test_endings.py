"""However a flow ends, its sources are closed, and no thread, task or descriptor is left."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from broadway_py.clock import SYSTEM_CLOCK
from broadway_py.errors import FlowFailed
from broadway_py.flow import Flow
from broadway_py.flow.description.settings import RunSettings
from broadway_py.flow.running import loop_thread
from broadway_py.flow.running import run as flow_run
from broadway_py.flow.running.runners.threads import StageThread
from broadway_py.flow.stages import in_thread
from broadway_py.stage import ConsumerStage
from tests.flow.each_runner import each_runner_in_program
from tests.flow.processes import works
from tests.flow.support import Closed, iterated, leaves_nothing, report_of, results
from tests.stage.support import Recorder, run_until_idle, soon
from tests.support.eventually import PATIENCE
from tests.support.turns import turns

#: Turns of the loop after which an endless flow is at work. It is never quiet.
SOME = 60


# --- the caller waits


def test_an_iterator_that_was_never_begun_starts_nothing() -> None:
    with leaves_nothing():
        iterated(Closed().flow())


def test_a_flow_that_fails_by_itself_is_not_told_by_a_log(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(FlowFailed):
        results(Closed().failing())

    assert caplog.records == []


def test_ctrl_c_that_comes_just_before_the_wait_for_results_is_noticed() -> None:
    """The flag is set, and no signal ends the wait, as if it had come a moment before."""
    noticed: list[int] = []

    async def interrupt(number: int) -> int:
        _thread.interrupt_main()
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            noticed.append(number)
            raise
        return number

    with leaves_nothing(), pytest.raises(KeyboardInterrupt):
        report_of(Flow.from_iterable([7], stages=1).map(interrupt))

    assert noticed == [7]


def test_ctrl_c_that_comes_just_before_the_wait_for_the_end_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_thread, "PATIENCE_S", 0.0)
    main = threading.get_ident()
    has_result, is_blocked, go_on, has_ended = (threading.Event() for _ in range(4))
    went_on: list[bool] = []

    def numbers() -> Iterator[int]:
        yield 0
        has_result.wait()
        yield 1

    def block(number: int) -> int:
        if number:
            is_blocked.set()
            while sys._current_frames()[main].f_code.co_name not in {"join", "_wait_for_tstate_lock"}:
                continue
            _thread.interrupt_main()
            went_on.append(go_on.wait(PATIENCE))
            has_ended.set()
        return number

    elements = iterated(Flow.from_iterable(numbers(), stages=1, max_demand=2).map(block))
    next(elements)
    has_result.set()
    is_blocked.wait()
    with pytest.raises(KeyboardInterrupt):
        elements.close()  # type: ignore[attr-defined]  # it is a generator
    go_on.set()
    # Not a join: Python 3.11 takes a thread whose join was interrupted for one that has ended.
    has_ended.wait()

    assert went_on == [True]


@each_runner_in_program
def test_nobody_waits_for_code_that_does_not_return(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_thread, "PATIENCE_S", 0.0)
    go_on, is_blocked = threading.Event(), threading.Event()
    closed: list[str] = []

    def blocking() -> Iterator[int]:
        try:
            yield 0
            is_blocked.set()
            go_on.wait()
            yield 1
        finally:
            closed.append("source")

    with leaves_nothing():
        elements = iterated(Flow.from_iterable(blocking(), max_demand=1).map(works.same).using(runner))
        next(elements)
        is_blocked.wait()
        elements.close()  # type: ignore[attr-defined]  # it is a generator
        assert closed == []
        left = [each for each in threading.enumerate() if each.name.startswith("flow.")]
        assert "flow.source" in {each.name for each in left}
        go_on.set()
        for thread in left:
            thread.join()

    assert closed == ["source"]


@each_runner_in_program
def test_ctrl_c_does_not_wait_for_a_function_that_does_not_return(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (loop_thread, in_thread):
        monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    go_on = threading.Event()

    def block(number: int) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        go_on.wait(5)
        return number

    with leaves_nothing():
        with pytest.raises(KeyboardInterrupt):
            report_of(Flow.from_iterable([1], stages=1).map(block).using(runner))
        left = [each for each in threading.enumerate() if each.name.startswith("flow")]
        assert left
        go_on.set()
        for thread in left:
            thread.join()


@pytest.mark.parametrize(
    "last", ["elements = iter(results)\nnext(elements)", "for _ in results:\n    break\nraise SystemExit(0)"]
)
def test_a_program_that_ends_while_a_flow_runs_ends_at_once_and_closes_its_source(last: str, tmp_path: Path) -> None:
    program = f"""
import itertools
from broadway_py.flow import Flow
from broadway_py.flow.running import run
from broadway_py.flow.description.settings import RunSettings

def endless():
    try:
        yield from itertools.count()
    finally:
        print("closed", flush=True)

results = run.iterate(Flow.from_iterable(endless()).map(str)._layer, RunSettings())
{last}
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "closed\n", "")


# --- in the caller's loop


def test_the_end_of_an_event_loop_while_a_flow_is_closed_waits_for_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cancels all tasks that it finds."""
    monkeypatch.setattr(in_thread, "PATIENCE_S", 60.0)
    go_on, is_blocked = threading.Event(), threading.Event()
    order: list[str] = []

    def blocking() -> Iterator[int]:
        yield 0
        is_blocked.set()
        go_on.wait()

    async def release() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await run_until_idle()
            order.append("released")
            go_on.set()

    async def leave() -> None:
        flow = Flow.from_iterable(blocking(), max_demand=1).map(works.same)
        elements = flow_run.aiterate(flow._layer, RunSettings())
        await anext(elements)
        is_blocked.wait()
        tasks.append(asyncio.create_task(release()))
        tasks.append(asyncio.create_task(elements.aclose()))
        tasks[-1].add_done_callback(lambda _: order.append("closed"))
        await run_until_idle()

    tasks: list[asyncio.Task[None]] = []
    with leaves_nothing():
        asyncio.run(leave())

    assert order == ["released", "closed"]


async def test_a_thread_is_waited_for_although_whoever_closes_it_is_cancelled() -> None:
    go_on, runs = threading.Event(), threading.Event()
    thread = StageThread("flow.test", SYSTEM_CLOCK)

    def work() -> None:
        runs.set()
        go_on.wait()

    with leaves_nothing():
        job = asyncio.create_task(thread.run(work))
        await run_until_idle()
        runs.wait()
        job.cancel()
        closing = asyncio.create_task(thread.close())
        await run_until_idle()
        closing.cancel()
        await run_until_idle()
        assert not closing.done()
        go_on.set()
        await asyncio.wait({closing, job})
        assert closing.cancelled()


@each_runner_in_program
@pytest.mark.parametrize("catches", ["mapper", "source"])
async def test_a_function_that_catches_the_cancellation_does_not_keep_the_flow_alive(runner: Any, catches: str) -> None:
    waits = asyncio.Event()

    async def wait() -> None:
        waits.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async def source() -> AsyncIterator[int]:
        for number in itertools.count():
            if catches == "source":
                await wait()
            yield number

    async def mapper(number: int) -> int:
        if catches == "mapper":
            await wait()
        return number

    flow = Flow.from_iterable(source(), stages=2, max_demand=1).map(mapper).using(runner)
    with leaves_nothing():
        running = flow_run.start(flow._layer, flow._settings or RunSettings())
        await soon(waits.wait())
        await soon(running.stop())


async def test_a_flow_runs_inside_of_a_running_loop_while_the_caller_waits() -> None:
    with leaves_nothing():
        assert results(Flow.from_iterable(iter(range(3)), stages=1).map(str)) == ["0", "1", "2"]
        assert report_of(Flow.from_iterable([1, 2])).elements_out == 2


# --- flows that were started


async def test_a_started_flow_runs_until_its_end() -> None:
    seen: list[int] = []
    flow = Flow.from_iterable(range(5), stages=1).map(seen.append)

    with leaves_nothing():
        running = flow_run.start(flow._layer, RunSettings())
        report = await soon(running.wait())

    assert (seen, report.elements_in) == ([0, 1, 2, 3, 4], 5)


async def test_a_started_flow_ends_with_its_block() -> None:
    closed = Closed()

    with leaves_nothing():
        async with flow_run.start(closed.flow()._layer, RunSettings()):
            await turns(SOME)
        assert sorted(closed.names) == ["async", "plain"]


async def test_waiting_for_a_flow_can_be_cancelled_without_ending_it() -> None:
    closed = Closed()

    async with flow_run.start(closed.flow()._layer, RunSettings()) as running:
        waiter = asyncio.create_task(running.wait())
        await turns(SOME)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert closed.names == []
        await soon(running.stop())
        assert sorted(closed.names) == ["async", "plain"]


async def test_a_started_flow_that_nobody_holds_is_not_garbage() -> None:
    seen: list[int] = []
    awaited: list[weakref.ref[asyncio.Future[int]]] = []

    async def waiting() -> AsyncIterator[int]:
        future = asyncio.get_running_loop().create_future()
        awaited.append(weakref.ref(future))
        yield await future

    flow_run.start(Flow.from_iterable(waiting(), stages=1).map(seen.append)._layer, RunSettings())
    await run_until_idle()
    gc.collect()
    future = awaited[0]()
    assert future is not None
    future.set_result(7)
    await run_until_idle()

    assert seen == [7]


async def test_whoever_waits_for_a_flow_that_is_stopped_learns_what_it_has_done() -> None:
    running = flow_run.start(Closed().flow()._layer, RunSettings())
    waiter = asyncio.create_task(running.wait())
    await turns(SOME)

    await soon(running.stop())

    assert (await soon(waiter)).elements_in > 0


async def test_a_started_flow_that_fails_says_so_to_whoever_waits() -> None:
    with leaves_nothing():
        running = flow_run.start(Closed().failing()._layer, RunSettings())
        with pytest.raises(FlowFailed):
            await soon(running.wait())


# --- running stages


async def test_running_consumers_get_lists_and_outlive_the_flow() -> None:
    flow = Flow.from_iterables([[1, 2, 3], [4, 5, 6]], stages=2).filter(lambda number: number % 2 == 0)

    with leaves_nothing():
        async with Recorder() as recorder:
            running = flow_run.start(flow._layer, RunSettings(), [(recorder, options())])
            report = await soon(running.wait())
            await run_until_idle()

            assert sorted(recorder.batches) == [[2], [4, 6]]
            assert (report.elements_out, repr(recorder)) == (3, "<Recorder running>")


def options(**more: Any) -> Any:
    from broadway_py.stage.settings import SubscriptionOptions  # noqa: PLC0415

    return SubscriptionOptions(**{"cancel": "transient", **more})


async def test_a_flow_whose_consumers_have_left_ends() -> None:
    closed = Closed()

    with leaves_nothing():
        async with Recorder(most=1) as recorder:
            running = flow_run.start(closed.flow()._layer, RunSettings(), [(recorder, options(max_demand=2))])
            await run_until_idle()
            assert len(recorder.batches) == 1
        await soon(running.wait())

    assert sorted(closed.names) == ["async", "plain"]


class Slow(ConsumerStage[int]):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []
        self.may_go_on = asyncio.Event()

    async def handle_events(self, events: list[int]) -> None:
        self.seen += events
        await self.may_go_on.wait()


async def test_a_slow_consumer_holds_the_source_back() -> None:
    read: list[int] = []

    async def noted() -> AsyncIterator[int]:
        for number in itertools.count():
            read.append(number)
            yield number

    async with Slow() as slow:
        flow = Flow.from_iterable(noted(), stages=1, max_demand=2).map(works.same)
        async with flow_run.start(flow._layer, RunSettings(), [(slow, options(max_demand=1))]):
            await run_until_idle()
            assert slow.seen == [0]
            assert len(read) <= 1 + 2 * 4


async def test_a_consumer_that_has_ended_before_is_an_error_of_the_flow() -> None:
    async with Recorder() as recorder:
        pass
    running = flow_run.start(Flow.from_iterable([1])._layer, RunSettings(), [(recorder, options())])

    with pytest.raises(FlowFailed, match="into_stages failed with StageDown in stage 0"):
        await soon(running.wait())


async def test_a_consumer_that_has_not_started_is_an_error_of_the_flow() -> None:
    running = flow_run.start(Flow.from_iterable([1])._layer, RunSettings(), [(Recorder(), options())])

    with pytest.raises(FlowFailed, match="into_stages failed with RuntimeError in stage 0") as raised:
        await soon(running.wait())

    assert str(raised.value.__cause__) == "Recorder has not started: use it in an `async with` block"
