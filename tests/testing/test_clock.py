"""The clock for tests: time passes when told, in order, and only then."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_py.clock import Clock
from broadway_py.testing import FakeClock


def test_it_stands_still_by_itself() -> None:
    clock: Clock = FakeClock(monotonic=5.0, wall=100.0)

    assert (clock.monotonic(), clock.wall(), clock.monotonic(), clock.wall()) == (5.0, 100.0, 5.0, 100.0)


async def test_both_clocks_move_when_it_is_advanced() -> None:
    clock = FakeClock(monotonic=5.0, wall=100.0)

    await clock.advance(2.5)

    assert (clock.monotonic(), clock.wall()) == (7.5, 102.5)


async def test_a_step_of_the_wall_clock_leaves_the_other_alone() -> None:
    clock = FakeClock(monotonic=5.0, wall=100.0)

    clock.step_wall(-3600.0)
    await clock.advance(1.0)

    assert (clock.monotonic(), clock.wall()) == (6.0, -3499.0)


async def test_timers_fire_in_order_each_at_its_time() -> None:
    clock = FakeClock(monotonic=0.0)
    fired: list[tuple[str, float]] = []
    for name, when in [("c", 3.0), ("a", 1.0), ("b", 2.0), ("a too", 1.0)]:
        clock.call_at(when, lambda name=name: fired.append((name, clock.monotonic())))  # type: ignore[misc]  # mypy infers no default

    await clock.advance(2.0)
    assert fired == [("a", 1.0), ("a too", 1.0), ("b", 2.0)]
    await clock.advance(1.0)
    assert fired[3:] == [("c", 3.0)]


async def test_a_timer_that_was_called_off_does_not_fire() -> None:
    clock = FakeClock(monotonic=0.0)
    fired: list[float] = []
    timer = clock.call_at(1.0, lambda: fired.append(1.0))

    timer.cancel()
    timer.cancel()
    await clock.advance(5.0)

    assert fired == []


async def test_a_timer_whose_time_has_passed_fires_with_the_next_advance_and_time_does_not_run_back() -> None:
    clock = FakeClock(monotonic=10.0)
    fired: list[float] = []
    clock.call_at(3.0, lambda: fired.append(clock.monotonic()))

    await clock.advance(0)

    assert fired == [10.0]


async def test_a_timer_set_by_a_timer_fires_in_the_same_advance() -> None:
    clock = FakeClock(monotonic=0.0)
    fired: list[float] = []

    def tick() -> None:
        fired.append(clock.monotonic())
        clock.call_at(clock.monotonic() + 1.0, tick)

    clock.call_at(1.0, tick)
    await clock.advance(3.5)

    assert fired == [1.0, 2.0, 3.0]


@given(st.lists(st.integers(0, 30), max_size=20), st.lists(st.integers(0, 12), max_size=6))
async def test_every_timer_fires_once_at_its_time_however_time_passes(whens: list[int], steps: list[int]) -> None:
    clock = FakeClock(monotonic=0.0)
    fired: list[tuple[int, float]] = []
    for when in whens:
        clock.call_at(when, lambda when=when: fired.append((when, clock.monotonic())))  # type: ignore[misc]  # mypy infers no default

    for step in steps:
        await clock.advance(step)

    assert [when for when, _ in fired] == sorted(when for when in whens if steps and when <= sum(steps))
    assert all(when == at for when, at in fired)


# --- sleeping and time-outs -----------------------------------------------------------------------------------------


async def test_a_sleeper_wakes_when_its_time_has_come() -> None:
    clock = FakeClock(monotonic=0.0)
    woken: list[float] = []

    async def nap(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(clock.monotonic())
        await clock.sleep(seconds)
        woken.append(clock.monotonic())

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(nap(2.0))
        tasks.create_task(nap(3.0))
        await clock.advance(1.9)
        assert woken == []
        await clock.advance(3.1)
        assert woken == [2.0, 3.0, 4.0]
        await clock.advance(1.0)

    assert woken == [2.0, 3.0, 4.0, 6.0]


async def test_a_sleeper_can_be_cancelled() -> None:
    clock = FakeClock(monotonic=0.0)
    sleeping = asyncio.ensure_future(clock.sleep(1.0))
    await clock.advance(0.5)

    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    await clock.advance(5.0)


async def test_a_time_out_ends_what_takes_too_long() -> None:
    clock = FakeClock(monotonic=0.0)

    async def limited() -> None:
        async with clock.timeout(2.0):
            await clock.sleep(10.0)

    working = asyncio.ensure_future(limited())
    await clock.advance(1.9)
    assert not working.done()
    await clock.advance(0.1)

    assert working.done()
    assert isinstance(working.exception(), TimeoutError)


async def test_a_time_out_that_was_not_needed_does_nothing() -> None:
    clock = FakeClock(monotonic=0.0)
    async with clock.timeout(2.0) as limit:
        pass

    await clock.advance(5.0)

    assert not limit.expired()


async def test_no_time_out_never_ends_anything() -> None:
    clock = FakeClock(monotonic=0.0)

    async def unlimited() -> None:
        async with clock.timeout(None):
            await clock.sleep(1_000_000.0)

    working = asyncio.ensure_future(unlimited())
    await clock.advance(999_999.0)
    assert not working.done()
    await clock.advance(1.0)
    await working


async def test_the_inner_of_two_time_outs_ends_first() -> None:
    clock = FakeClock(monotonic=0.0)
    ended: list[str] = []

    async def limited() -> None:
        try:
            async with clock.timeout(5.0):
                try:
                    async with clock.timeout(2.0):
                        await clock.sleep(10.0)
                except TimeoutError:
                    ended.append(f"inner at {clock.monotonic()}")
                await clock.sleep(10.0)
        except TimeoutError:
            ended.append(f"outer at {clock.monotonic()}")

    working = asyncio.ensure_future(limited())
    await clock.advance(10.0)

    assert ended == ["inner at 2.0", "outer at 5.0"]
    await working
