"""Flows in worker processes that end before their time: what is killed, cancelled or cannot start leaves nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import signal
import subprocess
import sys
from itertools import count as endless
from pathlib import Path
from typing import Any, Final

import pytest

from broadway_py import Flow
from broadway_py.errors import FlowFailed
from broadway_py.flow.running import one_run
from broadway_py.flow.running.runners import processes, worker
from broadway_py.process.worker_process import WorkerProcess
from tests.flow.processes import works
from tests.flow.support import leaves_nothing
from tests.stage.support import run_until_idle

DIED: Final = re.compile("worker process 0 has died: killed by SIGKILL")


def test_a_worker_that_dies_while_others_wait_for_it_ends_the_flow() -> None:
    numbers = Flow.from_iterable(endless(), max_demand=2).map(works.same)
    flow: Flow[Any] = numbers.partition(stages=1, max_demand=2).map(works.die)

    with leaves_nothing():
        with pytest.raises(FlowFailed, match=DIED) as raised:
            flow.using("processes", workers=2).run()
        del raised


def test_a_worker_that_dies_while_it_starts_ends_the_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(WorkerProcess):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            if arguments[1][0].place == 0:
                self.kill()

    monkeypatch.setattr(processes, "WorkerProcess", Killed)
    with leaves_nothing():
        with pytest.raises(FlowFailed, match=DIED) as raised:
            Flow.from_iterable(endless()).map(works.same).using("processes", workers=2).run()
        del raised


@pytest.mark.parametrize("cannot", ["SocketPairs", "WorkerProcess"])
def test_workers_that_cannot_be_started_leave_nothing(
    cannot: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("1\n2\n")
    made: list[Any] = []
    usual = getattr(processes, cannot)

    def make(*arguments: Any) -> Any:
        if cannot == "SocketPairs" or made:
            raise OSError(24, "Too many open files")
        made.append(usual(*arguments))
        return made[-1]

    monkeypatch.setattr(processes, cannot, make)
    with leaves_nothing():
        with pytest.raises(OSError, match="Too many open files") as raised:
            Flow.from_files(path).map(works.same).using("processes", workers=2).run()
        del raised


class Kept(WorkerProcess):
    """It is killed later than asked for, as on a busy machine."""

    is_to_be_killed = False

    def kill(self) -> None:
        self.is_to_be_killed = True

    def kill_now(self) -> None:
        if self.is_to_be_killed:
            super().kill()


def test_the_end_of_an_event_loop_while_a_flow_is_closed_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cancels all tasks that it finds."""
    kept: list[Kept] = []
    waits = asyncio.Event()
    wait = processes.ProcessWorkers._all_have_exited

    def start(*arguments: Any) -> Kept:
        kept.append(Kept(*arguments))
        return kept[0]

    async def wait_for_the_kept(workers: processes.ProcessWorkers) -> None:
        for process in kept:
            process.kill_now()
        waits.set()
        await wait(workers)

    async def leave() -> None:
        flow = Flow.from_iterable(endless()).map_batch(works.with_pid)
        elements: Any = aiter(flow.using("processes", workers=1))
        pid, _ = await anext(elements)
        # It does not end by itself.
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)  # noqa: ASYNC222  # it takes no time
        closing.append(asyncio.create_task(elements.aclose()))
        await waits.wait()

    monkeypatch.setattr(processes, "WorkerProcess", start)
    monkeypatch.setattr(processes.ProcessWorkers, "_all_have_exited", wait_for_the_kept)
    closing: list[asyncio.Task[None]] = []
    try:
        with leaves_nothing():
            asyncio.run(leave())
    finally:
        for process in kept:
            process.kill_now()

    assert closing[0].cancelled()


#: It waits for a line when the first of two workers was started.
STARTS: Final = """
import asyncio, os, sys
from broadway_py import Flow
from broadway_py.flow.running.runners import processes

class Observed(processes.WorkerProcess):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        if arguments[1][0].place == 0:
            print("started", flush=True)
            sys.stdin.readline()

processes.WorkerProcess = Observed
flow = Flow.from_iterable(iter(int, 1)).map(str).using("processes", workers=2)
asyncio.run(flow.run_async())
"""


def test_ctrl_c_while_workers_start_leaves_no_worker() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "started\n"
        os.killpg(running.pid, signal.SIGINT)
        # The workers have the pipe of the errors, too. So this returns when all of them have ended.
        _, told = running.communicate("\n", timeout=60)

    assert running.returncode == -signal.SIGINT
    assert told.splitlines()[-1] == "KeyboardInterrupt"
    assert told.count("Traceback") == told.count("KeyboardInterrupt") == 1 + told.count("CancelledError")


async def test_a_failure_that_comes_with_the_word_to_leave_is_not_complained_about(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fails: list[Any] = []

    class Endless:
        def start(self, group: asyncio.TaskGroup, **_: object) -> None:
            group.create_task(asyncio.Event().wait())

    class Edges:
        def __init__(self, _: object, fail: Any, **__: object) -> None:
            fails.append(fail)

        def open(self) -> None:
            pass

    monkeypatch.setattr(worker, "RemoteEdges", Edges)
    monkeypatch.setattr(worker.Worker, "_made", lambda *_: Endless())
    says_nothing: Any = None
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    hosting = asyncio.create_task(worker.Worker(says_nothing, "worker process 0", {}, {}, says_nothing)._worked())
    await run_until_idle()
    fails[0](FlowFailed("map 1", ValueError()))
    hosting.cancel()
    await asyncio.wait({hosting})
    assert hosting.cancelled()
    del hosting
    fails.clear()
    gc.collect()
    await run_until_idle()

    assert not complaints


async def test_a_cancellation_while_workers_end_does_not_hide_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cancelled(processes.ProcessWorkers):
        async def close(self) -> None:
            await super().close()
            raise asyncio.CancelledError

    monkeypatch.setattr(one_run, "ProcessWorkers", Cancelled)
    flow = Flow.from_iterable(range(100), stages=1).map(works.refuse)

    with leaves_nothing(), pytest.raises(FlowFailed, match=r"map 1: refuse failed with Refused"):
        await flow.using("processes", workers=1).run_async()
