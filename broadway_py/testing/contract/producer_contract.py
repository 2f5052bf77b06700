"""What every producer must do, driven through its port as a pipeline drives it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, TypeVar

import pytest

from broadway_py.errors import BroadwayError
from broadway_py.message import Message
from broadway_py.producer import Producer, SourceMessages
from broadway_py.producer_description import described
from broadway_py.testing.contract.source import SourceUnderTest
from broadway_py.testing.driving import (
    DEADLINE_S,
    ask,
    bodies,
    copy_of,
    data,
    give_back,
    marks,
    opened,
    settle,
    take,
    until_equal,
)
from broadway_py.testing.killed_reader import held_by_another_process

__all__ = ["ProducerContract", "for_any_client"]

F = TypeVar("F", bound=Callable[..., Any])

_ONCE: Final = "this source hands each message out once"
_UNMARKED: Final = 'what was delivered before has metadata["redelivered"] = True'


def for_any_client(test: F) -> F:
    """Notes in a test that it counts nothing from outside, so it may run where only a client may look."""
    test.for_any_client = True  # type: ignore[attr-defined]  # a function takes any attribute
    return test


class ProducerContract:
    """The suite. Each test gets a source of its own through the fixture ``source``."""

    @for_any_client
    async def test_it_hands_over_what_was_published_in_order(self, source: SourceUnderTest) -> None:
        await source.publish(bodies(30))
        async with opened(source.producer()) as copy:
            messages = await take(copy, 30)
            assert all(isinstance(message, Message) for message in messages)
            assert data(messages) == bodies(30)
            await settle(messages)

    @for_any_client
    async def test_it_never_hands_over_more_than_the_demand(self, source: SourceUnderTest) -> None:
        await source.publish(bodies(20))
        async with opened(source.producer()) as copy:
            seen: list[Message[Any]] = []
            async with asyncio.timeout(DEADLINE_S):
                while len(seen) < 20:
                    chunk = await copy.handle_demand(3)
                    assert chunk is not None
                    assert len(chunk) <= 3
                    seen.extend(chunk)
            assert data(seen) == bodies(20)
            await settle(seen)

    @for_any_client
    async def test_it_waits_for_the_first_message(self, source: SourceUnderTest) -> None:
        async with opened(source.producer()) as copy:
            waiting = asyncio.create_task(take(copy, 1))
            await source.publish([b"late"])
            messages = await waiting
            assert data(messages) == [b"late"]
            await settle(messages)

    @for_any_client
    async def test_each_message_has_metadata_of_its_own(self, source: SourceUnderTest) -> None:
        await source.publish(bodies(2))
        async with opened(source.producer()) as copy:
            first, second = await take(copy, 2)
            first.metadata["mark"] = True
            assert "mark" not in second.metadata
            await settle([first, second])

    async def test_an_acknowledged_message_is_gone(self, source: SourceUnderTest) -> None:
        await source.publish(bodies(10))
        async with opened(source.producer()) as copy:
            messages = await take(copy, 10)
            await source.expect(ready=0, held=10)
            await settle(messages)
            await source.expect(ready=0, held=0, rejected=0)
        await source.expect(ready=0, held=0, rejected=0)

    async def test_a_failed_message_is_rejected_and_does_not_come_back(self, source: SourceUnderTest) -> None:
        await source.publish(bodies(5))
        async with opened(source.producer()) as copy:
            await settle(failed=await take(copy, 5))
            await source.expect(ready=0, held=0, rejected=5)
        await source.expect(ready=0, held=0, rejected=5)

    async def test_one_call_settles_both_the_successful_and_the_failed(self, source: SourceUnderTest) -> None:
        await source.publish(bodies(10))
        async with opened(source.producer()) as copy:
            messages = await take(copy, 10)
            await settle(messages[::2], messages[1::2])
            await source.expect(ready=0, held=0, rejected=5)

    async def test_messages_may_be_settled_in_any_order_and_one_stays_open(self, source: SourceUnderTest) -> None:
        await source.publish(bodies(10))
        async with opened(source.producer()) as copy:
            messages = await take(copy, 10)
            await settle(messages[7:])
            await settle(messages[2:5])
            await settle(messages[1:2], messages[5:7])
            await source.expect(ready=0, held=1, rejected=2)
            await settle(messages[:1])
            await source.expect(ready=0, held=0, rejected=2)

    async def test_settling_side_by_side_settles_each_once(self, source: SourceUnderTest) -> None:
        await source.publish(bodies(20))
        async with opened(source.producer()) as copy:
            messages = await take(copy, 20)
            async with asyncio.TaskGroup() as tasks:
                for start in range(0, 20, 4):
                    tasks.create_task(settle(messages[start : start + 3], messages[start + 3 : start + 4]))
            await source.expect(ready=0, held=0, rejected=5)

    async def test_released_messages_come_back_to_the_next_consumer(self, source: SourceUnderTest) -> None:
        if not source.can_release:
            pytest.skip("this source cannot take a message back")
        await source.publish(bodies(6))
        async with opened(source.producer()) as copy:
            messages = await take(copy, 6)
            await settle(messages[:2])
            copy.context.begin_draining()
            await copy.prepare_for_draining()
            await give_back(messages[2:])
            await source.expect(ready=4, held=0, rejected=0)
        async with opened(source.producer()) as copy:
            again = await take(copy, 4)
            assert sorted(data(again)) == bodies(4, start=2)
            await settle(again)
        await source.expect(ready=0, held=0, rejected=0)

    async def test_what_was_not_settled_comes_back_after_close(self, source: SourceUnderTest) -> None:
        if not source.redelivers:
            pytest.skip(_ONCE)
        await source.publish(bodies(8))
        async with opened(source.producer()) as copy:
            messages = await take(copy, 5)
            await settle(messages[:1])
        await source.expect(ready=7, held=0, rejected=0)
        async with opened(source.producer()) as copy:
            again = await take(copy, 7)
            assert sorted(data(again)) == bodies(7, start=1)
            await settle(again)

    @for_any_client
    async def test_a_first_delivery_is_attempt_one_and_a_later_one_is_not(self, source: SourceUnderTest) -> None:
        if not source.redelivers:
            pytest.skip(_ONCE)
        await source.publish([b"again"])
        async with opened(source.producer()) as copy:
            (first,) = await take(copy, 1)
            assert first.attempt == 1
            assert not first.metadata.get("redelivered")
        async with opened(source.producer()) as copy:
            (second,) = await take(copy, 1)
            assert second.attempt is None or second.attempt >= 2
            assert second.metadata.get("redelivered") is True, _UNMARKED
            await settle([second])

    @for_any_client
    async def test_a_source_that_marks_repeats_marks_all_that_was_handed_out_before(
        self, source: SourceUnderTest
    ) -> None:
        if not source.redelivers:
            pytest.skip(_ONCE)
        # Any message of a source without marks may be a repeat: an aggregator looks all of them up.
        is_unknown = not described(source.producer()).marks_repeats
        given_back, left, new = bodies(3)
        await source.publish([given_back, left])
        async with opened(source.producer()) as copy:
            messages = await take(copy, 2)
            assert marks(messages) == {given_back: is_unknown, left: is_unknown}, (
                "if marks_repeats is True, is_repeat() of the acknowledger returns False for what is new; otherwise it "
                "returns True"
            )
            await give_back(messages[:1])
        await source.publish([new])
        async with opened(source.producer()) as copy:
            messages = await take(copy, 3)
            assert marks(messages) == {given_back: True, left: True, new: is_unknown}
            await settle(messages)

    async def test_settling_after_close_raises_and_settles_nothing_elsewhere(self, source: SourceUnderTest) -> None:
        if not source.redelivers:
            pytest.skip(_ONCE)
        await source.publish(bodies(3))
        async with opened(source.producer()) as old:
            stale = await take(old, 3)
        async with opened(source.producer()) as fresh:
            again = await take(fresh, 3)
            try:
                await settle(stale[:2], stale[2:])
            except BroadwayError:
                pass
            else:
                raise AssertionError(
                    "an acknowledger raises SettleError after close(): its source may have given these messages to "
                    "another reader"
                )
            await source.expect(ready=0, held=3, rejected=0)
            await settle(again)
            await source.expect(ready=0, held=0, rejected=0)

    async def test_pause_gives_back_what_was_not_handed_over_and_reads_nothing(self, source: SourceUnderTest) -> None:
        if not source.redelivers:
            pytest.skip(_ONCE)
        await source.publish(bodies(30))
        async with opened(source.producer()) as copy:
            messages = await take(copy, 5)
            await copy.pause()
            await source.expect(ready=25, held=5)
            waiting = await ask(copy, 10)
            await source.publish(bodies(5, start=30))
            await source.expect(ready=30, held=5)
            assert not waiting.done() or waiting.result() == []
            await settle(messages)
            await source.expect(ready=30, held=0)
            waiting.cancel()
            await asyncio.wait([waiting])

    async def test_resume_goes_on_with_everything_that_was_given_back(self, source: SourceUnderTest) -> None:
        await source.publish(bodies(30))
        async with opened(source.producer()) as copy:
            before = await take(copy, 5)
            await copy.pause()
            await copy.resume()
            after = await take(copy, 25)
            assert sorted(data(before) + data(after)) == bodies(30)
            await settle(before + after)
        await source.expect(ready=0, held=0, rejected=0)

    async def test_a_source_that_counts_its_messages_counts_those_that_wait(self, source: SourceUnderTest) -> None:
        if not source.redelivers:
            pytest.skip(_ONCE)
        await source.publish(bodies(7))
        async with opened(source.producer()) as copy:
            said = await copy.source_messages()
            if said is None or said.ready is None:
                pytest.skip("this source does not tell how many messages it holds")
            messages = await take(copy, 3)
            # It gives back what it has fetched ahead.
            await copy.pause()

            async def count() -> dict[str, int | None]:
                found = await copy.source_messages()
                assert isinstance(found, SourceMessages), f"expected SourceMessages, got {type(found).__name__}"
                return {"ready": found.ready}

            await until_equal(count, {"ready": 4}, "the producer says that its source holds")
            await settle(messages)
        await source.expect(ready=4, held=0)

    @for_any_client
    async def test_a_waiting_demand_is_served_after_resume(self, source: SourceUnderTest) -> None:
        async with opened(source.producer()) as copy:
            await copy.pause()
            waiting = asyncio.create_task(take(copy, 1))
            await source.publish([b"first"])
            await copy.resume()
            messages = await waiting
            assert data(messages) == [b"first"]
            await settle(messages)

    @for_any_client
    async def test_draining_ends_a_waiting_demand_soon(self, source: SourceUnderTest) -> None:
        async with opened(source.producer()) as copy:
            waiting = await ask(copy, 10)
            copy.context.begin_draining()
            await copy.prepare_for_draining()
            async with asyncio.timeout(5):
                assert not await waiting

    async def test_draining_gives_back_what_was_not_handed_over(self, source: SourceUnderTest) -> None:
        if not source.redelivers:
            pytest.skip(_ONCE)
        await source.publish(bodies(20))
        async with opened(source.producer()) as copy:
            messages = await take(copy, 3)
            copy.context.begin_draining()
            await copy.prepare_for_draining()
            await source.expect(ready=17, held=3)
            await settle(messages)
            await source.expect(ready=17, held=0)

    async def test_what_is_settled_while_draining_stays_settled(self, source: SourceUnderTest) -> None:
        await source.publish(bodies(4))
        async with opened(source.producer()) as copy:
            messages = await take(copy, 4)
            copy.context.begin_draining()
            await copy.prepare_for_draining()
            await settle(messages[:3], messages[3:])
        await source.expect(ready=0, held=0, rejected=1)

    async def test_what_a_killed_process_held_comes_again(self, source: SourceUnderTest) -> None:
        make = source.elsewhere()
        if make is None:
            pytest.skip("no other process can read this source")
        await source.publish(bodies(6))
        async with held_by_another_process(make, 4):
            pass
        async with opened(source.producer()) as copy:
            again = await take(copy, 6, within_s=DEADLINE_S + source.returns_within)
            assert sorted(data(again)) == bodies(6)
            # The source itself may have handed the others out to the process, too.
            repeats = [message for message in again if message.metadata.get("redelivered")]
            assert set(bodies(4)) <= set(data(repeats)), _UNMARKED
            assert all(message.attempt is None or message.attempt >= 2 for message in repeats)
            await settle(again)
        await source.expect(ready=0, held=0, rejected=0)

    async def test_a_killed_process_takes_nothing_away_from_others(self, source: SourceUnderTest) -> None:
        make = source.elsewhere()
        if make is None:
            pytest.skip("no other process can read this source")
        await source.publish(bodies(3))
        async with held_by_another_process(make, 3):
            await source.expect(ready=0, held=3, rejected=0)
        async with opened(source.producer()) as copy:
            again = await take(copy, 3, within_s=DEADLINE_S + source.returns_within)
            await settle(again[:2], again[2:])
            await source.expect(ready=0, held=0, rejected=1)
        await source.expect(ready=0, held=0, rejected=1)

    @for_any_client
    async def test_closing_twice_is_harmless(self, source: SourceUnderTest) -> None:
        async with opened(source.producer()) as copy:
            await copy.close()

    @for_any_client
    async def test_closing_a_copy_that_was_never_opened_is_harmless(self, source: SourceUnderTest) -> None:
        copy = copy_of(source.producer(), capacity=50, pipeline="contract")
        await copy.close()

    async def test_a_description_serves_one_copy_after_the_other(self, source: SourceUnderTest) -> None:
        description = source.producer()
        for number in range(3):
            await source.publish([b"%d" % number])
            async with opened(description) as copy:
                messages = await take(copy, 1)
                assert data(messages) == [b"%d" % number]
                await settle(messages)
        await source.expect(ready=0, held=0, rejected=0)

    async def test_two_copies_share_the_work_without_doubles(self, source: SourceUnderTest) -> None:
        await source.publish(bodies(60))
        description = source.producer()
        seen: list[bytes] = []
        all_seen = asyncio.Event()

        async def work(copy: Producer) -> None:
            while not copy.draining.is_set():
                chunk = await copy.handle_demand(3)
                if not chunk:
                    continue
                await settle(chunk)
                seen.extend(data(chunk))
                if len(seen) >= 60:
                    all_seen.set()

        async with opened(description, index=0) as one, opened(description, index=1) as other:
            async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
                tasks.create_task(work(one))
                tasks.create_task(work(other))
                await all_seen.wait()
                for copy in (one, other):
                    copy.context.begin_draining()
                    await copy.prepare_for_draining()
            assert Counter(seen) == Counter(bodies(60))
        await source.expect(ready=0, held=0, rejected=0)

    @for_any_client
    async def test_no_repr_shows_a_credential_or_a_payload(self, source: SourceUnderTest) -> None:
        await source.publish([b"canary-payload"])
        description = source.producer()
        async with opened(description) as copy:
            messages = await take(copy, 1)
            acknowledger, ref, detail = messages[0].acknowledgement
            shown = " ".join(repr(thing) for thing in (description, copy, messages[0], acknowledger, ref, detail))
            assert "canary-payload" not in shown
            assert source.secret is None or source.secret not in shown
            await settle(messages)
