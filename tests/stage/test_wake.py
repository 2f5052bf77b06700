"""The flag a stage waits for: no call is lost, and a deadline wakes it too."""

from __future__ import annotations

import asyncio

import pytest

from broadway_py.stage import Wake
from broadway_py.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(monotonic=100.0)


async def test_a_call_before_the_wait_is_not_lost_and_many_count_as_one(clock: FakeClock) -> None:
    wake = Wake()
    wake.set()
    wake.set()

    await wake.wait()

    waiting = asyncio.ensure_future(wake.wait())
    await clock.advance(0)
    assert not waiting.done()
    wake.set()
    await waiting


async def test_a_call_during_the_wait_ends_it_and_is_used_up(clock: FakeClock) -> None:
    wake = Wake()
    waiting = asyncio.ensure_future(wake.wait())
    await clock.advance(0)

    wake.set()
    wake.set()
    await waiting

    again = asyncio.ensure_future(wake.wait())
    await clock.advance(0)
    assert not again.done()
    wake.set()
    await again


async def test_a_wait_that_was_cancelled_leaves_the_flag_usable(clock: FakeClock) -> None:
    wake = Wake()
    waiting = asyncio.ensure_future(wake.wait())
    await clock.advance(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    wake.set()

    await wake.wait()


async def test_a_deadline_ends_the_wait(clock: FakeClock) -> None:
    wake = Wake()
    waiting = asyncio.ensure_future(wake.wait_until(102.0, clock))

    await clock.advance(1.9)
    assert not waiting.done()
    await clock.advance(0.1)
    assert waiting.done()


async def test_a_deadline_that_has_passed_does_not_wait(clock: FakeClock) -> None:
    wake = Wake()
    waiting = asyncio.ensure_future(wake.wait_until(99.0, clock))

    await clock.advance(0)

    assert waiting.done()


async def test_without_a_deadline_only_the_flag_ends_the_wait(clock: FakeClock) -> None:
    wake = Wake()
    waiting = asyncio.ensure_future(wake.wait_until(None, clock))

    await clock.advance(1_000_000.0)
    assert not waiting.done()
    wake.set()
    await waiting


async def test_an_earlier_deadline_takes_the_place_of_a_later_one(clock: FakeClock) -> None:
    wake = Wake()
    wake.set()
    await wake.wait_until(150.0, clock)

    waiting = asyncio.ensure_future(wake.wait_until(110.0, clock))
    await clock.advance(10.0)

    assert waiting.done()
    later = asyncio.ensure_future(wake.wait())
    await clock.advance(40.0)
    assert not later.done(), "the later timer was called off"
    wake.set()
    await later


async def test_a_later_deadline_may_wake_early_and_never_late(clock: FakeClock) -> None:
    wake = Wake()
    wake.set()
    await wake.wait_until(110.0, clock)

    early = asyncio.ensure_future(wake.wait_until(150.0, clock))
    await clock.advance(10.0)
    assert early.done()

    again = asyncio.ensure_future(wake.wait_until(150.0, clock))
    await clock.advance(39.9)
    assert not again.done()
    await clock.advance(0.1)
    assert again.done()


async def test_closing_calls_off_the_timer(clock: FakeClock) -> None:
    wake = Wake()
    wake.set()
    await wake.wait_until(110.0, clock)

    wake.close()
    wake.close()

    waiting = asyncio.ensure_future(wake.wait())
    await clock.advance(100.0)
    assert not waiting.done()
    wake.set()
    await waiting


async def test_a_call_is_not_lost_with_a_wait_that_is_called_off(clock: FakeClock) -> None:
    wake = Wake()
    called_off = asyncio.ensure_future(wake.wait())
    await clock.advance(0)
    wake.set()
    called_off.cancel()
    await asyncio.wait([called_off])

    async with asyncio.timeout(5):
        await wake.wait()


def end_wait(wake: Wake) -> None:
    wake.future, wake.is_set = None, False


async def test_a_loop_may_wait_without_a_coroutine() -> None:
    wake = Wake()
    wake.set()
    async with asyncio.timeout(10):
        await wake.arm()  # it was set before
        end_wait(wake)
        waiting = wake.arm()
        assert not waiting.done()
        wake.set()
        wake.set()
        await waiting
        end_wait(wake)

    # Both of them counted as one.
    assert not wake.arm().done()
