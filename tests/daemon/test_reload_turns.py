from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import pytest

from broadway_py.daemon.reload.aside import aside
from broadway_py.daemon.reload.outcome import STOPPING, Reloaded
from broadway_py.daemon.reload.turns import ReloadTurns
from broadway_py.testing import FakeClock
from tests.support.eventually import eventually


class Reloads:
    """Carries out a reload when the test says so, and notes how many run at the same time."""

    def __init__(self) -> None:
        self.begun: list[asyncio.Future[Reloaded]] = []
        self.at_once = 0

    async def __call__(self) -> Reloaded:
        self.at_once += 1
        assert self.at_once == 1
        self.begun.append(asyncio.get_running_loop().create_future())
        try:
            return await self.begun[-1]
        finally:
            self.at_once -= 1

    async def until(self, count: int) -> None:
        while len(self.begun) < count:
            await asyncio.sleep(0)


def spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work)


async def test_reloads_that_are_asked_for_while_one_runs_are_one_further() -> None:
    turns, reloads = ReloadTurns(FakeClock()), Reloads()
    turns.begin(reloads, spawn)
    first = turns.ask()
    await reloads.until(1)
    others = [turns.ask() for _ in range(5)]
    assert turns.status.is_running
    reloads.begun[0].set_result(Reloaded(changed=("a",)))
    assert await first == Reloaded(changed=("a",))
    await reloads.until(2)
    reloads.begun[1].set_result(Reloaded(refused=("no",)))
    assert await asyncio.gather(*others) == [Reloaded(refused=("no",))] * 5
    await eventually(lambda: not turns.status.is_running, what="no further one runs")
    assert len(reloads.begun) == 2
    assert turns.status.counts == {"done": 1, "refused": 1, "failed": 0}
    assert turns.status.last == Reloaded(refused=("no",))


async def test_one_that_was_asked_for_before_the_start_runs_then() -> None:
    turns, reloads = ReloadTurns(), Reloads()
    asked = turns.ask()
    assert turns.ask() is asked
    assert not turns.status.is_running
    turns.begin(reloads, spawn)
    await reloads.until(1)
    reloads.begun[0].set_result(Reloaded())
    assert await asked == Reloaded()


async def test_after_the_end_nothing_is_reloaded() -> None:
    turns, reloads = ReloadTurns(), Reloads()
    turns.begin(reloads, spawn)
    running = turns.ask()
    await reloads.until(1)
    waiting = turns.ask()
    turns.end()
    assert await waiting == STOPPING
    assert await turns.ask() == STOPPING
    reloads.begun[0].set_result(Reloaded())
    assert await running == Reloaded()
    assert len(reloads.begun) == 1


async def test_an_error_ends_one_reload_and_not_the_next() -> None:
    turns, reloads = ReloadTurns(), Reloads()
    turns.begin(reloads, spawn)
    first = turns.ask()
    await reloads.until(1)
    second = turns.ask()
    reloads.begun[0].set_exception(RuntimeError("unexpected"))
    assert (await first).failed == ("the reload ended with an error, which is in the log",)
    await reloads.until(2)
    reloads.begun[1].set_result(Reloaded())
    assert (await second).outcome == "done"


async def test_a_reload_that_is_cancelled_tells_those_who_wait() -> None:
    turns, reloads = ReloadTurns(), Reloads()
    tasks: list[asyncio.Task[None]] = []
    turns.begin(reloads, lambda work: tasks.append(spawn(work)))
    asked = turns.ask()
    await reloads.until(1)
    tasks[0].cancel()
    assert (await asked).outcome == "failed"
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    assert not turns.status.is_running


async def test_what_runs_aside_may_raise_anything_and_be_left_alone() -> None:
    assert await aside(lambda: 3) == 3
    with pytest.raises(ValueError, match="no"):
        await aside(lambda: int("no"))

    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(RuntimeError, match=r"^SystemExit was raised$"):
        await aside(leave)
    released, ended = threading.Event(), threading.Event()

    def wait() -> None:
        released.wait()
        ended.set()

    task = asyncio.ensure_future(aside(wait))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    released.set()
    assert await asyncio.to_thread(ended.wait, 10)
    await asyncio.sleep(0)
