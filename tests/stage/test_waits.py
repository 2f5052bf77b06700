"""The wait for the first of several things: what it began has ended when it returns, what it was given goes on."""

from __future__ import annotations

import asyncio

from broadway_py.stage import first_completed
from broadway_py.testing import settle


class Waiting:
    """Something to wait for, which notes how its wait ended."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.ended: str | None = None

    async def wait(self) -> None:
        try:
            await self.over.wait()
            self.ended = "by itself"
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # the end of a wait may take a while
            self.ended = "cancelled"
            raise


async def test_it_returns_with_the_first_and_has_ended_the_others() -> None:
    first, other = Waiting(), Waiting()
    waiting = asyncio.ensure_future(first_completed(other.wait(), first.wait()))
    await settle()
    assert not waiting.done()

    first.over.set()
    await waiting

    assert (first.ended, other.ended) == ("by itself", "cancelled")


async def test_a_task_of_the_caller_goes_on_and_keeps_its_result() -> None:
    first, long = Waiting(), asyncio.Event()
    mine = asyncio.ensure_future(long.wait())
    first.over.set()

    await first_completed(mine, first.wait())

    assert not mine.done()
    long.set()
    assert await mine is True


async def test_a_task_of_the_caller_that_has_ended_ends_the_wait_and_keeps_its_error() -> None:
    mine = asyncio.get_running_loop().create_future()
    mine.set_exception(ValueError("for the caller"))
    other = Waiting()

    await first_completed(mine, other.wait())

    assert str(mine.exception()) == "for the caller"


async def test_an_error_of_a_wait_ends_it_and_is_dropped() -> None:
    async def failing() -> None:
        raise ValueError("of no interest")

    other = Waiting()

    await first_completed(failing(), other.wait())

    assert other.ended == "cancelled"


async def test_a_cancelled_call_ends_what_it_began_and_passes_the_cancellation_on() -> None:
    one, other = Waiting(), Waiting()
    mine = asyncio.ensure_future(asyncio.Event().wait())
    waiting = asyncio.ensure_future(first_completed(one.wait(), other.wait(), mine))
    await settle()

    waiting.cancel()
    await asyncio.wait({waiting})

    assert waiting.cancelled()
    assert (one.ended, other.ended, mine.done()) == ("cancelled", "cancelled", False)
    mine.cancel()
