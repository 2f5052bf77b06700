"""The four examples of stages do what they say."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from broadway_py.examples.stages import broadcaster, counter, multiplier, rate_limiter
from broadway_py.testing import FakeClock
from tests.stage.support import run_until_idle, soon


async def test_the_counter_handles_each_number_in_a_task_of_its_own() -> None:
    assert sorted(await soon(counter.main(end=50, most_tasks=7))) == list(range(50))


async def test_the_broadcaster_reaches_its_four_listeners() -> None:
    everything = [f"announcement {number}" for number in range(3)]

    assert await soon(broadcaster.main(announcements=3)) == [
        everything,
        everything,
        ["announcement 1"],
        ["announcement 0", "announcement 2"],
    ]


async def test_the_multiplier_stands_between_counter_and_printer() -> None:
    assert await soon(multiplier.main(end=50, factor=3)) == [number * 3 for number in range(50)]


async def test_the_rate_limiter_takes_so_many_in_each_interval() -> None:
    clock = FakeClock(monotonic=0)
    running = asyncio.create_task(rate_limiter.main(end=25, allowed=10, interval=5, clock=clock))
    await run_until_idle()
    for _ in range(5):
        await clock.advance(5)

    taken = await soon(running)
    assert [(when, len(events)) for when, events in taken] == [(0, 10), (5, 10), (10, 5)]
    assert [number for _, events in taken for number in events] == list(range(25))


@pytest.mark.parametrize("name", ["broadcaster", "counter", "multiplier", "rate_limiter"])
def test_each_is_a_program(name: str) -> None:
    program = f"broadway_py.examples.stages.{name}"

    ran = subprocess.run([sys.executable, "-m", program], capture_output=True, text=True, check=False, timeout=60)

    assert ran.returncode == 0
    assert ran.stdout == ""
    assert ran.stderr.count("\n") >= 3
