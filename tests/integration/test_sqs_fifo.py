"""FIFO queues: the order within a group, from the queue to the settlement, also when one fails."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import pytest

from broadway_py import FailurePolicy, Message, Pipeline, Processors
from broadway_py.errors import ProducerError, SettleError
from broadway_py.producer import Producer
from broadway_py.testing.driving import ask, copy_of, data, give_back, opened, settle, take
from tests.integration.sqs_support import Handled, faults, through
from tests.pipeline.support import outcomes
from tests.support.localstack import SQS, Queue
from tests.support.sqs_proxy import Answer, SQSProxy

__all__ = ["faults"]

pytestmark = pytest.mark.integration


@pytest.fixture
async def fifo(sqs: SQS) -> Queue:
    return await sqs.queue("work", fifo=True)


async def groups(queue: Queue, count: int, names: str = "abc") -> None:
    """*count* messages in each group, in turn: a0, b0, c0, a1, …"""
    for number in range(count):
        for name in names:
            await queue.send([f"{name}{number}"], group=name)


async def test_one_message_of_a_group_is_handed_over_at_a_time(faults: SQSProxy, fifo: Queue) -> None:
    await groups(fifo, 3, "ab")
    async with opened(through(faults, fifo)) as copy:
        seen: list[list[bytes]] = []
        for _ in range(3):
            messages = await take(copy, 2)
            assert {message.metadata["message_group_id"] for message in messages} == {"a", "b"}
            waiting = await ask(copy, 10)
            await asyncio.sleep(0)
            assert not waiting.done()
            waiting.cancel()
            await asyncio.wait([waiting])
            seen.append(sorted(data(messages)))
            await settle(messages)
        assert seen == [[b"a0", b"b0"], [b"a1", b"b1"], [b"a2", b"b2"]]
    await fifo.until(ready=0, held=0)


async def next_of(copy: Producer) -> Message[Any]:
    """The one message that may start now; the others of its group were received with it."""
    async with asyncio.timeout(15):
        messages = await copy.handle_demand(10)
    assert messages is not None
    (message,) = messages
    return message


class InOrder(Pipeline[bytes]):
    """Notes what it does; each name in ``context["fail"]`` fails once."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.begun: dict[bytes, list[bytes]] = defaultdict(list)
        self.at_work: set[bytes] = set()
        self.fail = {b"a1", b"b0"}

    async def handle_message(self, message: Message[bytes]) -> None:
        group = message.data[:1]
        assert group not in self.at_work, "two of a group at work"
        self.at_work.add(group)
        self.begun[group].append(message.data)
        await asyncio.sleep(0)
        self.at_work.discard(group)
        if message.data in self.fail:
            self.fail.discard(message.data)
            message.fail("for once")


@pytest.mark.parametrize("copies", [1, 2])
async def test_a_failure_holds_the_rest_of_its_group_back_and_the_order_stays(
    faults: SQSProxy, fifo: Queue, copies: int
) -> None:
    await groups(fifo, 6)
    pipeline = InOrder(
        producer=through(faults, fifo, concurrency=copies),
        failure=FailurePolicy(attempts=3, backoff=(0.5, 1.0)),
        processors=Processors(concurrency=8),
    )
    async with pipeline:
        await fifo.until(ready=0, held=0, timeout=40)
    assert outcomes(pipeline) == {"acked": 18, "retried": 2}
    assert pipeline.begun[b"a"] == [b"a0", b"a1", b"a1", b"a2", b"a3", b"a4", b"a5"]
    assert pipeline.begun[b"b"] == [b"b0", b"b0", b"b1", b"b2", b"b3", b"b4", b"b5"]
    assert pipeline.begun[b"c"] == [b"c0", b"c1", b"c2", b"c3", b"c4", b"c5"]


async def test_the_rest_of_a_group_goes_back_in_the_same_request_and_for_the_same_time(
    faults: SQSProxy, fifo: Queue
) -> None:
    await groups(fifo, 4, "a")
    async with opened(through(faults, fifo, on_failure=("nack", 5))) as copy:
        first = await next_of(copy)
        assert first.data == b"a0"
        waiting = await ask(copy, 10)
        await settle(failed=[first])
        (changed,) = faults.requests("ChangeMessageVisibility")
        assert [entry["VisibilityTimeout"] for entry in changed.entries] == [5, 5, 5, 5]
        assert changed.entries[0]["ReceiptHandle"] == first.metadata["receipt_handle"]
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_a_dead_letter_frees_its_group(faults: SQSProxy, sqs: SQS, fifo: Queue) -> None:
    dead = await sqs.queue("dead", fifo=True)
    await groups(fifo, 2, "a")
    producer = through(faults, fifo, dead_letter_queue=dead.url, on_failure="dead_letter")
    async with opened(producer) as copy:
        first = await next_of(copy)
        await settle(failed=[first])
        second = await next_of(copy)
        assert second.data == b"a1"
        await settle([second])
    (letter,) = await dead.take()
    assert (letter["Body"], letter["Attributes"]["MessageGroupId"]) == ("a0", "a")
    assert letter["Attributes"]["MessageDeduplicationId"] == first.id


async def test_a_delete_that_did_not_work_out_holds_the_rest_of_its_group_back(faults: SQSProxy, fifo: Queue) -> None:
    await groups(fifo, 3, "a")
    async with opened(through(faults, fifo, visibility_timeout=3)) as copy:
        first = await next_of(copy)
        faults.fail_entries("DeleteMessageBatch", "InvalidParameterValue", sender_fault=True)
        with pytest.raises(SettleError):
            await settle([first])
        again = await next_of(copy)
        assert (again.data, again.attempt) == (b"a0", 2)
        await settle([again])
        for expected in (b"a1", b"a2"):
            message = await next_of(copy)
            assert message.data == expected
            await settle([message])
    await fifo.until(ready=0, held=0)


async def test_what_was_released_comes_again_in_order(faults: SQSProxy, fifo: Queue) -> None:
    await groups(fifo, 3, "ab")
    async with opened(through(faults, fifo)) as copy:
        messages = await take(copy, 2)
        copy.context.begin_draining()
        await copy.prepare_for_draining()
        await give_back(messages)
        await fifo.until(ready=6, held=0)
    async with opened(through(faults, fifo)) as copy:
        seen: dict[bytes, list[bytes]] = defaultdict(list)
        while sum(map(len, seen.values())) < 6:
            for message in await take(copy, 1):
                seen[message.data[:1]].append(message.data)
                await settle([message])
    assert seen == {b"a": [b"a0", b"a1", b"a2"], b"b": [b"b0", b"b1", b"b2"]}


async def test_a_noop_leaves_the_group_to_its_visibility(faults: SQSProxy, fifo: Queue) -> None:
    await groups(fifo, 3, "a")
    async with opened(through(faults, fifo, visibility_timeout=2)) as copy:
        first = await next_of(copy)
        await settle(failed=[first])
        await fifo.until(ready=0, held=3)
        again = await next_of(copy)
        assert (again.data, again.attempt) == (b"a0", 2)


def names_of_receives(faults: SQSProxy) -> list[str]:
    return [one.body["ReceiveRequestAttemptId"] for one in faults.requests("ReceiveMessage")]


@pytest.mark.faults
async def test_a_receive_whose_answer_was_lost_is_asked_for_again_by_its_name(faults: SQSProxy, fifo: Queue) -> None:
    await groups(fifo, 2, "ab")
    faults.lose_receives(2)
    async with opened(through(faults, fifo, visibility_timeout=600)) as copy:
        for number in (b"0", b"1"):
            messages = await take(copy, 2)
            assert sorted(data(messages)) == [b"a" + number, b"b" + number]
            assert {message.attempt for message in messages} == {1}
            await settle(messages)
        waiting = await ask(copy, 10)
        await faults.until_asked("ReceiveMessage", 5)
        waiting.cancel()
        await asyncio.wait([waiting])
    names = names_of_receives(faults)
    assert names[0] == names[1] == names[2]
    assert len(set(names[2:])) == len(names[2:])  # each that was answered is followed by one of another name


@pytest.mark.faults
async def test_what_a_lost_source_had_received_comes_by_its_name_to_the_next_copy(
    faults: SQSProxy, fifo: Queue
) -> None:
    await groups(fifo, 2, "ab")
    faults.lose_receives(5)
    notes: list[bytes] = []
    producer = through(faults, fifo, visibility_timeout=600)
    async with Handled(producer=producer, context=notes) as pipeline:
        await fifo.until(ready=0, held=0, timeout=20)
        assert pipeline.stats().producers[0].connections_lost == 1
    assert sorted(notes) == [b"a0", b"a1", b"b0", b"b1"]
    assert len(set(names_of_receives(faults)[:6])) == 1


@pytest.mark.faults
async def test_after_a_loss_the_group_goes_on_where_it_was(faults: SQSProxy, fifo: Queue) -> None:
    await groups(fifo, 3, "a")
    losses: list[ProducerError] = []
    copy = copy_of(through(faults, fifo, visibility_timeout=600), capacity=50, pipeline="contract", lost=losses.append)
    await copy.open()
    first = await next_of(copy)
    faults.fail("ReceiveMessage", Answer("com.amazonaws.sqs#InternalError", 500), times=4)
    with pytest.raises(ProducerError):
        await take(copy, 1)
    await copy.close()
    # a1 and a2 wait still behind a0, which is at work; they go back when it is settled.
    await settle([first])
    await fifo.until(ready=2, held=0)
    async with opened(through(faults, fifo)) as fresh:
        for expected in (b"a1", b"a2"):
            message = await next_of(fresh)
            assert message.data == expected
            await settle([message])
    await fifo.until(ready=0, held=0)
