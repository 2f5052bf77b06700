"""What handlers meet at SQS: parts of a batch that fail, messages that SQS never takes, FIFO queues."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from broadway_py import Message, Pipeline, PublishError, SQSPublisher, Unavailable
from broadway_py.producers import DummyProducer
from broadway_py.publisher import Sink
from tests.integration.sqs_support import faults, work
from tests.pipeline.support import Quiet
from tests.support.localstack import REGION, SQS, Queue
from tests.support.sqs_proxy import DENIED, THROTTLED, SQSProxy

__all__ = ["faults", "work"]

pytestmark = pytest.mark.integration

DEADLINE = 20.0


@asynccontextmanager
async def publishing(proxy: SQSProxy, queue: Queue) -> AsyncIterator[tuple[Pipeline[Any], Sink]]:
    sink = SQSPublisher(queue.url, REGION, proxy.endpoint)
    async with Quiet(producer=DummyProducer(), publishers={"out": sink}) as pipeline:
        yield pipeline, pipeline.publishers["out"]


async def failed(call: Coroutine[Any, Any, None]) -> PublishError:
    with pytest.raises(PublishError) as error:
        await call
    return error.value


async def test_messages_travel_ten_at_a_time_and_only_what_failed_is_sent_again(faults: SQSProxy, work: Queue) -> None:
    async with publishing(faults, work) as (_, out):
        faults.fail_entries("SendMessage", "InternalError", entries=2)
        await asyncio.gather(*(out.publish(str(number), timeout=DEADLINE) for number in range(25)))
    sent = sorted(len(asked.entries) for asked in faults.requests("SendMessage"))
    assert sent == [2, 5, 10, 10]
    await work.until(ready=25, held=0)


async def test_what_is_throttled_is_sent_again(faults: SQSProxy, work: Queue) -> None:
    async with publishing(faults, work) as (_, out):
        faults.fail("SendMessage", THROTTLED, times=2)
        await out.publish_many("abc", timeout=DEADLINE)
    await work.until(ready=3, held=0)


async def test_what_sqs_never_takes_is_the_fault_of_its_message_alone(faults: SQSProxy, work: Queue) -> None:
    name = work.name
    odd: list[tuple[Any, dict[str, str], str]] = [
        (b"\xff", {}, f"SQS queue {name!r} takes UTF-8 text only, but a message has other bytes"),
        ("", {}, f"SQS queue {name!r} takes no message without a payload"),
        # Its id counts, too: 10 bytes of the attribute's name, 6 of its type, 1 of itself.
        ("x" * 1_048_577, {}, f"SQS queue {name!r} takes 1048576 bytes at most, but a message has 1048594"),
        (
            "x",
            {f"h{number}": "y" for number in range(10)},
            f"SQS queue {name!r} takes 10 attributes at most, but a message has 11, its id included",
        ),
    ]
    async with publishing(faults, work) as (pipeline, out):
        for item, headers, sentence in odd:
            one = asyncio.ensure_future(out.publish("fine", timeout=DEADLINE))
            error = await failed(out.publish(item, message_id="m", headers=headers, timeout=DEADLINE))
            assert str(error) == f"publisher 'out': the message was not confirmed: {sentence}"
            assert not isinstance(error, Unavailable)
            await one
        assert pipeline.stats().trouble is None
    await work.until(ready=4, held=0)


async def test_a_permission_that_is_missing_is_not_the_fault_of_the_message(faults: SQSProxy, work: Queue) -> None:
    async with publishing(faults, work) as (pipeline, out):
        faults.fail("SendMessage", DENIED)
        error = await failed(out.publish("1", timeout=DEADLINE))
        sentence = (
            f"SQS queue {work.name!r}: AWS refused SendMessage (AccessDeniedException); allow sqs:SendMessage, or "
            "check the credentials"
        )
        assert str(error) == f"publisher 'out': the message was not confirmed: {sentence}"
        assert isinstance(error, Unavailable)
        assert pipeline.stats().trouble == f"degraded: publisher 'out': {sentence}"


async def test_on_a_fifo_queue_calls_that_follow_each_other_keep_the_order_of_a_key(faults: SQSProxy, sqs: SQS) -> None:
    queue = await sqs.queue("out", fifo=True)
    async with publishing(faults, queue) as (_, out):
        for start in range(0, 30, 10):
            await out.publish_many(map(str, range(start, start + 10)), key="k", timeout=DEADLINE)
        # Those that nobody waits for are put in their order, too.
        await asyncio.gather(*(out.publish(str(number), key="k", timeout=DEADLINE) for number in range(30, 50)))
    came: list[str] = []
    while taken := await queue.take():
        for message in taken:
            came.append(message["Body"])
            await queue.client.delete_message(QueueUrl=queue.url, ReceiptHandle=message["ReceiptHandle"])
    assert came == list(map(str, range(50)))


async def test_on_a_fifo_queue_a_message_without_an_id_is_stored_once_when_an_answer_is_lost(
    faults: SQSProxy, sqs: SQS
) -> None:
    queue = await sqs.queue("out", fifo=True)
    async with publishing(faults, queue) as (_, out):
        faults.cut("SendMessage", after=True)
        await out.publish_many("abc", timeout=DEADLINE)
    assert len(faults.requests("SendMessage")) == 2
    await queue.until(ready=3, held=0)


async def test_on_a_fifo_queue_another_message_with_the_same_id_is_no_repetition(faults: SQSProxy, sqs: SQS) -> None:
    """Some publishers number their messages from 1."""
    queue = await sqs.queue("out", fifo=True)
    async with publishing(faults, queue) as (_, out):
        for data in ("a", "b", "a"):
            await out.publish(Message(data, {"message_id": "1"}), timeout=DEADLINE)
    await queue.until(ready=2, held=0)
