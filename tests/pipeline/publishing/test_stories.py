"""Random stories of callers, places and clocks: each caller learns what is true, and nothing is left in the books."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broadway_py import PublishError, Unavailable
from broadway_py.pipeline.publishing.publishers import Publishers
from broadway_py.publisher import Unconfirmed
from broadway_py.testing import FakeClock, settle
from tests.pipeline.publishing.support import Box
from tests.pipeline.support import soon

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 5), st.sampled_from([1.0, 5.0, 60.0])),
        st.tuples(st.just("publish"), st.integers(600, 2_500), st.sampled_from([5.0, 60.0])),
        st.tuples(st.just("cancel"), st.integers(0, 30), st.integers(0, 2)),
        st.tuples(
            st.sampled_from(["confirm", "refuse", "fail", "all", "lasting"]), st.integers(0, 30), st.integers(0, 4)
        ),
        st.tuples(st.just("raise"), st.booleans(), st.just(0)),
        st.tuples(st.just("advance"), st.sampled_from([0.5, 2.0, 10.0]), st.just(0)),
    ),
    max_size=25,
)


class Story:
    """One publisher, its callers, and what its place has really said of each message."""

    def __init__(self) -> None:
        self.box = Box(confirms=False)
        self.state = self.box.state
        self.clock = FakeClock()
        self.publishers = Publishers({"out": self.box})
        self.publishers.start("shop", self.clock, None)
        self.calls: list[tuple[list[str], asyncio.Task[None]]] = []
        self.count = 0
        self.confirmed: set[bytes] = set()
        self.refused: set[bytes] = set()

    def publish(self, count: int, timeout: float) -> None:
        items = [str(number) for number in range(self.count, self.count + count)]
        self.count += count
        call = self.publishers["out"].publish_many(items, timeout=timeout)
        self.calls.append((items, asyncio.ensure_future(call)))

    def chosen(self, number: int, position: int) -> tuple[Unconfirmed, int] | None:
        """A list that is on its way, and a message in it that waits."""
        open_lists = [each for each in self.state.lists if each.waiting]
        if not open_lists:
            return None
        unconfirmed = open_lists[number % len(open_lists)]
        waiting = list(unconfirmed.waiting)
        return unconfirmed, waiting[position % len(waiting)]

    def say(self, what: str, number: int, position: int) -> None:
        found = self.chosen(number, position)
        if found is None:
            return
        unconfirmed, at = found
        data = unconfirmed.waiting[at].data
        match what:
            case "confirm":
                self.confirmed.add(data)
                unconfirmed.confirm(at)
            case "refuse":
                self.refused.add(data)
                unconfirmed.refuse(at, "too long")
            case "fail":
                unconfirmed.fail("the queue is full", position=at)
            case "lasting":
                unconfirmed.fail("there is no queue", lasting=True)
            case _:
                for each, message in list(unconfirmed.waiting.items()):
                    self.confirmed.add(message.data)
                    unconfirmed.confirm(each)
        self.state.notify()

    async def step(self, what: str, first: Any, second: Any) -> None:
        match what:
            case "publish":
                self.publish(first, second)
            case "cancel":
                if self.calls:
                    await settle(second)
                    self.calls[first % len(self.calls)][1].cancel()
            case "raise":
                self.state.error = ValueError("of a publisher of the user") if first else None
            case "advance":
                await self.clock.advance(first)
            case _:
                self.say(what, first, second)
        await settle()
        outbox = self.publishers.outboxes["out"]
        assert 0 <= outbox.waiting + outbox.in_flight <= 2_000

    def check(self) -> None:
        """Each caller that was not cancelled was told the truth."""
        for items, task in self.calls:
            assert task.done(), "a caller waits for ever"
            if task.cancelled():
                continue
            error = task.exception()
            confirmed = [item for item in items if item.encode() in self.confirmed]
            if error is None:
                assert confirmed == items, "a caller was told that all is confirmed"
                continue
            assert isinstance(error, PublishError)
            # A confirm may come after the caller has gone.
            assert {*items} - {*error.unpublished} <= {*confirmed}
            assert error.unpublished == [item for item in items if item in set(error.unpublished)]
            assert {item.encode() for item in error.refused} <= self.refused
            assert isinstance(error, Unavailable) == (not error.refused)


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(steps=STEPS)
def test_whatever_happens_each_caller_is_told_the_truth_and_nothing_is_left(steps: list[tuple[str, Any, Any]]) -> None:
    async def tell() -> None:
        story = Story()
        for step in steps:
            await story.step(*step)
        await story.clock.advance(60.0)
        story.check()
        await soon(story.publishers.flush())
        # After all that, it still works.
        story.state.error = None
        story.state.confirms = True
        await soon(story.publishers["out"].publish("last"))
        await soon(story.publishers.close())
        outbox = story.publishers.outboxes["out"]
        assert (outbox.waiting, outbox.in_flight) == (0, 0)
        assert sum(outbox.outcomes.values()) == story.count + 1

    asyncio.run(tell())
