"""What every producer must do, driven through its port as a pipeline drives it.

A connector's tests subclass :class:`ProducerContract` and provide a fixture ``harness``::

    class TestQueueProducer(ProducerContract):
        @pytest.fixture
        def harness(self, tmp_path: Path) -> Iterator[Harness]: ...
"""

from __future__ import annotations

import abc
import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from broadway_py._core.settlement import can_give_back
from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.errors import BroadwayError, ProducerError
from broadway_py.message import Message
from broadway_py.producer import Producer
from broadway_py.producer_description import AnyProducer, described
from tests.support.eventually import eventually
from tests.support.producers import copy_of

__all__ = ["Harness", "ProducerContract", "ask", "bodies", "data", "give_back", "opened", "refusal", "settle", "take"]

#: Seconds after which something that should have come never will.
DEADLINE = 15.0


class Harness(abc.ABC):
    """One source under test: filled and counted from outside, never through the producer."""

    #: Messages can be given back without a decision.
    can_release: bool = True
    #: The source keeps what it handed out until it is settled, and hands it out again when it was not.
    redelivers: bool = True
    #: Text of the credentials in the producer's settings; None where there are none.
    secret: str | None = None

    @abc.abstractmethod
    async def publish(self, bodies: Sequence[bytes]) -> None:
        """Put *bodies* in, in order; returns when the source has them."""

    @abc.abstractmethod
    def producer(self) -> AnyProducer:
        """A new description of a producer that reads this source."""

    @abc.abstractmethod
    async def ready_count(self) -> int:
        """How many messages wait to be handed out."""

    @abc.abstractmethod
    async def held_count(self) -> int:
        """How many are handed out (to a producer, or on to the pipeline) and not settled."""

    @abc.abstractmethod
    async def rejected_count(self) -> int:
        """How many were settled as failed: in the dead letters, or wherever this source puts them."""

    async def expect(self, **counts: int) -> None:
        """Wait until the counts are as given: ``await harness.expect(ready=3, held=0)``."""

        async def seen() -> bool:
            now = {name: await getattr(self, f"{name}_count")() for name in counts}
            last.update(now)
            return now == counts

        last: dict[str, int] = {}
        try:
            await eventually(seen, timeout=DEADLINE, what=f"the source counts {counts}")
        except AssertionError:
            raise AssertionError(f"the source counts {last}, not {counts}") from None


@asynccontextmanager
async def opened(
    producer: AnyProducer,
    *,
    capacity: int = 50,
    index: int = 0,
    losses: list[ProducerError] | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> AsyncIterator[Producer]:
    """A running copy of *producer*; drained and closed at the end, as a stopping pipeline does it."""
    lost = [] if losses is None else losses
    copy = copy_of(producer, index=index, capacity=capacity, pipeline="contract", lost=lost.append, clock=clock)
    try:
        async with asyncio.timeout(DEADLINE):
            await copy.open()
        yield copy
        copy.context.begin_draining()
        async with asyncio.timeout(DEADLINE):
            await copy.prepare_for_draining()
        late = copy.context.end_draining()
        await give_back([message for message in late if can_give_back(message)])
    finally:
        async with asyncio.timeout(DEADLINE):
            await copy.close()


async def refusal(producer: AnyProducer) -> ProducerError:
    """Why *producer* does not open: raised once, and not reported as a loss besides."""
    losses: list[ProducerError] = []
    copy = copy_of(producer, capacity=50, pipeline="contract", lost=losses.append)
    with pytest.raises(ProducerError) as error:
        await copy.open()
    await copy.close()
    assert losses == []
    return error.value


async def take(copy: Producer, count: int) -> list[Message[Any]]:
    """Ask until *count* messages have come."""
    taken: list[Message[Any]] = []
    async with asyncio.timeout(DEADLINE):
        while len(taken) < count:
            more = await copy.handle_demand(count - len(taken))
            assert more is not None, f"the source ended after {len(taken)} of {count} messages"
            taken.extend(more)
    return taken


async def ask(copy: Producer, demand: int) -> asyncio.Task[Sequence[Message[Any]] | None]:
    """A ``handle_demand`` that is under way when this returns.

    Its error is for whoever awaits the task. Where nobody does, because the test looks at what else the error did, it
    is taken here: asyncio would log it when it next collects garbage, in the middle of any other test. Python 3.11
    cannot do that while pytest reads the source of a failure, and the whole run ends with a SystemError.
    """
    under_way = asyncio.Event()

    async def waiting() -> Sequence[Message[Any]] | None:
        under_way.set()
        return await copy.handle_demand(demand)

    task = asyncio.create_task(waiting())
    task.add_done_callback(_take_error)
    await under_way.wait()
    return task


def _take_error(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


async def settle(successful: Sequence[Message[Any]] = (), failed: Sequence[Message[Any]] = ()) -> None:
    """Settle as the pipeline does: one call per acknowledger and ref."""
    groups: dict[tuple[Any, Hashable], tuple[list[Message[Any]], list[Message[Any]]]] = {}
    for position, messages in enumerate((successful, failed)):
        for message in messages:
            acknowledger, ref, _ = message.acknowledgement
            groups.setdefault((acknowledger, ref), ([], []))[position].append(message)
    for (acknowledger, ref), (good, bad) in groups.items():
        if acknowledger is not None:
            await acknowledger.ack(ref, good, bad)


async def give_back(messages: Sequence[Message[Any]]) -> None:
    """Release *messages*, as a stopping pipeline does with what it never started."""
    for message in messages:
        acknowledger, ref, _ = message.acknowledgement
        assert can_give_back(message)
        await acknowledger.release(ref, [message])


def marks(messages: Sequence[Message[Any]]) -> dict[Any, bool]:
    """Which of *messages* their source marks as handed out before."""
    found = {}
    for message in messages:
        acknowledger, _, detail = message.acknowledgement
        found[message.data] = acknowledger.is_repeat(detail)
    return found


def bodies(count: int, start: int = 0) -> list[bytes]:
    """Payloads that tell their place."""
    return [b"message %05d" % number for number in range(start, start + count)]


def data(messages: Sequence[Message[Any]]) -> list[bytes]:
    """The payloads of *messages*."""
    return [message.data for message in messages]


class ProducerContract:
    """The suite. Each test gets a source of its own through the fixture ``harness``."""

    @pytest.mark.any_broker
    async def test_it_hands_over_what_was_published_in_order(self, harness: Harness) -> None:
        await harness.publish(bodies(30))
        async with opened(harness.producer()) as copy:
            messages = await take(copy, 30)
            assert all(isinstance(message, Message) for message in messages)
            assert data(messages) == bodies(30)
            await settle(messages)

    @pytest.mark.any_broker
    async def test_it_never_hands_over_more_than_the_demand(self, harness: Harness) -> None:
        await harness.publish(bodies(20))
        async with opened(harness.producer()) as copy:
            seen: list[Message[Any]] = []
            async with asyncio.timeout(DEADLINE):
                while len(seen) < 20:
                    chunk = await copy.handle_demand(3)
                    assert chunk is not None
                    assert len(chunk) <= 3
                    seen.extend(chunk)
            assert data(seen) == bodies(20)
            await settle(seen)

    @pytest.mark.any_broker
    async def test_it_waits_for_the_first_message(self, harness: Harness) -> None:
        async with opened(harness.producer()) as copy:
            waiting = asyncio.create_task(take(copy, 1))
            await harness.publish([b"late"])
            messages = await waiting
            assert data(messages) == [b"late"]
            await settle(messages)

    @pytest.mark.any_broker
    async def test_each_message_has_metadata_of_its_own(self, harness: Harness) -> None:
        await harness.publish(bodies(2))
        async with opened(harness.producer()) as copy:
            first, second = await take(copy, 2)
            first.metadata["mark"] = True
            assert "mark" not in second.metadata
            await settle([first, second])

    async def test_an_acknowledged_message_is_gone(self, harness: Harness) -> None:
        await harness.publish(bodies(10))
        async with opened(harness.producer()) as copy:
            messages = await take(copy, 10)
            await harness.expect(ready=0, held=10)
            await settle(messages)
            await harness.expect(ready=0, held=0, rejected=0)
        await harness.expect(ready=0, held=0, rejected=0)

    async def test_a_failed_message_is_rejected_and_does_not_come_back(self, harness: Harness) -> None:
        await harness.publish(bodies(5))
        async with opened(harness.producer()) as copy:
            await settle(failed=await take(copy, 5))
            await harness.expect(ready=0, held=0, rejected=5)
        await harness.expect(ready=0, held=0, rejected=5)

    async def test_one_call_settles_both_the_successful_and_the_failed(self, harness: Harness) -> None:
        await harness.publish(bodies(10))
        async with opened(harness.producer()) as copy:
            messages = await take(copy, 10)
            await settle(messages[::2], messages[1::2])
            await harness.expect(ready=0, held=0, rejected=5)

    async def test_messages_may_be_settled_in_any_order_and_one_stays_open(self, harness: Harness) -> None:
        await harness.publish(bodies(10))
        async with opened(harness.producer()) as copy:
            messages = await take(copy, 10)
            await settle(messages[7:])
            await settle(messages[2:5])
            await settle(messages[1:2], messages[5:7])
            await harness.expect(ready=0, held=1, rejected=2)
            await settle(messages[:1])
            await harness.expect(ready=0, held=0, rejected=2)

    async def test_settling_side_by_side_settles_each_once(self, harness: Harness) -> None:
        await harness.publish(bodies(20))
        async with opened(harness.producer()) as copy:
            messages = await take(copy, 20)
            async with asyncio.TaskGroup() as tasks:
                for start in range(0, 20, 4):
                    tasks.create_task(settle(messages[start : start + 3], messages[start + 3 : start + 4]))
            await harness.expect(ready=0, held=0, rejected=5)

    async def test_released_messages_come_back_to_the_next_consumer(self, harness: Harness) -> None:
        if not harness.can_release:
            pytest.skip("this source cannot take a message back")
        await harness.publish(bodies(6))
        async with opened(harness.producer()) as copy:
            messages = await take(copy, 6)
            await settle(messages[:2])
            copy.context.begin_draining()
            await copy.prepare_for_draining()
            await give_back(messages[2:])
            await harness.expect(ready=4, held=0, rejected=0)
        async with opened(harness.producer()) as copy:
            again = await take(copy, 4)
            assert sorted(data(again)) == bodies(4, start=2)
            await settle(again)
        await harness.expect(ready=0, held=0, rejected=0)

    async def test_what_was_not_settled_comes_back_after_close(self, harness: Harness) -> None:
        if not harness.redelivers:
            pytest.skip("this source hands each message out once")
        await harness.publish(bodies(8))
        async with opened(harness.producer()) as copy:
            messages = await take(copy, 5)
            await settle(messages[:1])
        await harness.expect(ready=7, held=0, rejected=0)
        async with opened(harness.producer()) as copy:
            again = await take(copy, 7)
            assert sorted(data(again)) == bodies(7, start=1)
            await settle(again)

    @pytest.mark.any_broker
    async def test_a_first_delivery_is_attempt_one_and_a_later_one_is_not(self, harness: Harness) -> None:
        if not harness.redelivers:
            pytest.skip("this source hands each message out once")
        await harness.publish([b"again"])
        async with opened(harness.producer()) as copy:
            (first,) = await take(copy, 1)
            assert first.attempt == 1
            assert not first.metadata.get("redelivered")
        async with opened(harness.producer()) as copy:
            (second,) = await take(copy, 1)
            assert second.attempt is None or second.attempt >= 2
            assert second.metadata["redelivered"] is True
            await settle([second])

    @pytest.mark.any_broker
    async def test_a_source_that_marks_repeats_marks_all_that_was_handed_out_before(self, harness: Harness) -> None:
        if not harness.redelivers:
            pytest.skip("this source hands each message out once")
        # Any message of a source without marks may be a repeat: an aggregator looks all of them up.
        is_unknown = not described(harness.producer()).marks_repeats
        given_back, left, new = bodies(3)
        await harness.publish([given_back, left])
        async with opened(harness.producer()) as copy:
            messages = await take(copy, 2)
            assert marks(messages) == {given_back: is_unknown, left: is_unknown}
            await give_back(messages[:1])
        await harness.publish([new])
        async with opened(harness.producer()) as copy:
            messages = await take(copy, 3)
            assert marks(messages) == {given_back: True, left: True, new: is_unknown}
            await settle(messages)

    async def test_settling_after_close_raises_and_settles_nothing_elsewhere(self, harness: Harness) -> None:
        if not harness.redelivers:
            pytest.skip("this source hands each message out once")
        await harness.publish(bodies(3))
        async with opened(harness.producer()) as old:
            stale = await take(old, 3)
        async with opened(harness.producer()) as fresh:
            again = await take(fresh, 3)
            with pytest.raises(BroadwayError):
                await settle(stale[:2], stale[2:])
            await harness.expect(ready=0, held=3, rejected=0)
            await settle(again)
            await harness.expect(ready=0, held=0, rejected=0)

    async def test_pause_gives_back_what_was_not_handed_over_and_reads_nothing(self, harness: Harness) -> None:
        if not harness.redelivers:
            pytest.skip("this source hands each message out once")
        await harness.publish(bodies(30))
        async with opened(harness.producer()) as copy:
            messages = await take(copy, 5)
            await copy.pause()
            await harness.expect(ready=25, held=5)
            waiting = await ask(copy, 10)
            await harness.publish(bodies(5, start=30))
            await harness.expect(ready=30, held=5)
            assert not waiting.done() or waiting.result() == []
            await settle(messages)
            await harness.expect(ready=30, held=0)
            waiting.cancel()
            await asyncio.wait([waiting])

    async def test_resume_goes_on_with_everything_that_was_given_back(self, harness: Harness) -> None:
        await harness.publish(bodies(30))
        async with opened(harness.producer()) as copy:
            before = await take(copy, 5)
            await copy.pause()
            await copy.resume()
            after = await take(copy, 25)
            assert sorted(data(before) + data(after)) == bodies(30)
            await settle(before + after)
        await harness.expect(ready=0, held=0, rejected=0)

    @pytest.mark.any_broker
    async def test_a_waiting_demand_is_served_after_resume(self, harness: Harness) -> None:
        async with opened(harness.producer()) as copy:
            await copy.pause()
            waiting = asyncio.create_task(take(copy, 1))
            await harness.publish([b"first"])
            await copy.resume()
            messages = await waiting
            assert data(messages) == [b"first"]
            await settle(messages)

    @pytest.mark.any_broker
    async def test_draining_ends_a_waiting_demand_soon(self, harness: Harness) -> None:
        async with opened(harness.producer()) as copy:
            waiting = await ask(copy, 10)
            copy.context.begin_draining()
            await copy.prepare_for_draining()
            async with asyncio.timeout(5):
                assert not await waiting

    async def test_draining_gives_back_what_was_not_handed_over(self, harness: Harness) -> None:
        if not harness.redelivers:
            pytest.skip("this source hands each message out once")
        await harness.publish(bodies(20))
        async with opened(harness.producer()) as copy:
            messages = await take(copy, 3)
            copy.context.begin_draining()
            await copy.prepare_for_draining()
            await harness.expect(ready=17, held=3)
            await settle(messages)
            await harness.expect(ready=17, held=0)

    async def test_what_is_settled_while_draining_stays_settled(self, harness: Harness) -> None:
        await harness.publish(bodies(4))
        async with opened(harness.producer()) as copy:
            messages = await take(copy, 4)
            copy.context.begin_draining()
            await copy.prepare_for_draining()
            await settle(messages[:3], messages[3:])
        await harness.expect(ready=0, held=0, rejected=1)

    @pytest.mark.any_broker
    async def test_closing_twice_is_harmless(self, harness: Harness) -> None:
        async with opened(harness.producer()) as copy:
            await copy.close()

    @pytest.mark.any_broker
    async def test_closing_a_copy_that_was_never_opened_is_harmless(self, harness: Harness) -> None:
        copy = copy_of(harness.producer(), capacity=50, pipeline="contract")
        await copy.close()

    async def test_a_description_serves_one_copy_after_the_other(self, harness: Harness) -> None:
        description = harness.producer()
        for number in range(3):
            await harness.publish([b"%d" % number])
            async with opened(description) as copy:
                messages = await take(copy, 1)
                assert data(messages) == [b"%d" % number]
                await settle(messages)
        await harness.expect(ready=0, held=0, rejected=0)

    async def test_two_copies_share_the_work_without_doubles(self, harness: Harness) -> None:
        await harness.publish(bodies(60))
        description = harness.producer()
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
            async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as tasks:
                tasks.create_task(work(one))
                tasks.create_task(work(other))
                await all_seen.wait()
                for copy in (one, other):
                    copy.context.begin_draining()
                    await copy.prepare_for_draining()
            assert Counter(seen) == Counter(bodies(60))
        await harness.expect(ready=0, held=0, rejected=0)

    @pytest.mark.any_broker
    async def test_no_repr_shows_a_credential_or_a_payload(self, harness: Harness) -> None:
        await harness.publish([b"canary-payload"])
        description = harness.producer()
        async with opened(description) as copy:
            messages = await take(copy, 1)
            acknowledger, ref, detail = messages[0].acknowledgement
            shown = " ".join(repr(thing) for thing in (description, copy, messages[0], acknowledger, ref, detail))
            assert "canary-payload" not in shown
            assert harness.secret is None or harness.secret not in shown
            await settle(messages)
