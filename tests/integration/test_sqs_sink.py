"""What the SQS sink does when SQS takes a part of a batch, throttles, or takes no message of this size."""

from __future__ import annotations

from collections.abc import Awaitable

import pytest

from broadway_py import SQSSink
from broadway_py.errors import ProducerError, PublishError
from broadway_py.publisher import Outgoing, Publisher
from tests.integration.sqs_support import faults, work
from tests.support.localstack import REGION, SQS, Queue
from tests.support.sqs_proxy import DENIED, THROTTLED, SQSProxy

__all__ = ["faults", "work"]

pytestmark = pytest.mark.integration

DEADLINE = 20.0


def messages(count: int, size: int = 1) -> list[Outgoing]:
    return [Outgoing(data=b"%d" % (number % 10) * size, message_id=f"w{number}#1", key="DE") for number in range(count)]


def publisher(proxy: SQSProxy, queue: Queue) -> Publisher:
    return SQSSink(queue.url, REGION, proxy.endpoint).create("shop.revenue")


async def failed(publishing: Awaitable[None]) -> PublishError:
    with pytest.raises(PublishError) as error:
        await publishing
    return error.value


async def test_entries_that_sqs_did_not_take_are_sent_again_alone(faults: SQSProxy, work: Queue) -> None:
    faults.fail_entries("SendMessage", "InternalError", entries=2)
    post = publisher(faults, work)
    await post.publish(messages(5), timeout=DEADLINE)
    await post.close()

    assert [len(asked.entries) for asked in faults.requests("SendMessage")] == [5, 2]
    await work.until(ready=5, held=0)


async def test_what_is_throttled_is_sent_again(faults: SQSProxy, work: Queue) -> None:
    faults.fail("SendMessage", THROTTLED, times=3)
    post = publisher(faults, work)
    await post.publish(messages(3), timeout=DEADLINE)
    await post.close()

    await work.until(ready=3, held=0)


async def test_a_permission_that_is_missing_is_told_at_once(faults: SQSProxy, work: Queue) -> None:
    faults.fail("SendMessage", DENIED)
    post = publisher(faults, work)

    error = await failed(post.publish(messages(3), timeout=DEADLINE))
    await post.close()

    assert str(error) == (
        f"3 of 3 messages were not confirmed: SQS queue {work.name!r}: AWS refused SendMessage "
        "(AccessDeniedException); allow sqs:SendMessage, or check the credentials"
    )


async def test_large_messages_travel_in_smaller_batches(faults: SQSProxy, work: Queue) -> None:
    post = publisher(faults, work)
    await post.publish(messages(6, size=100_000), timeout=DEADLINE)
    await post.close()

    assert [len(asked.entries) for asked in faults.requests("SendMessage")] == [2, 2, 2]
    await work.until(ready=6, held=0)


async def test_a_message_that_the_queue_does_not_take_holds_up_no_other(faults: SQSProxy, work: Queue) -> None:
    await work.set(MaximumMessageSize="2048")
    post = publisher(faults, work)
    large = Outgoing(data=b"x" * 3_000, message_id="w9#1")
    given = [*messages(3), large]

    error = await failed(post.publish(given, timeout=DEADLINE))
    await post.close()

    assert str(error) == (
        f"1 of 4 messages were not confirmed: SQS queue {work.name!r} does not accept a message of 3020 bytes: it is "
        "longer than the queue takes, or has characters that SQS does not allow"
    )
    assert error.unpublished == error.refused == [large]
    await work.until(ready=3, held=0)


async def test_on_a_fifo_queue_the_order_of_a_key_is_kept(faults: SQSProxy, sqs: SQS) -> None:
    queue = await sqs.queue("out", fifo=True)
    post = publisher(faults, queue)
    sent = messages(25)
    await post.publish(sent, timeout=DEADLINE)
    await post.close()

    came: list[str] = []
    while taken := await queue.take():
        for message in taken:
            came.append(message["MessageAttributes"]["message_id"]["StringValue"])
            await queue.client.delete_message(QueueUrl=queue.url, ReceiptHandle=message["ReceiptHandle"])
    assert came == [message.message_id for message in sent]


async def test_a_queue_that_is_not_there_is_told_at_once(faults: SQSProxy, work: Queue) -> None:
    await work.delete()
    post = publisher(faults, work)
    sentence = (
        f"SQS queue {work.name!r} does not exist in this region and account; create it, or check queue_url and region"
    )

    with pytest.raises(ProducerError) as refused:
        await post.open()
    error = await failed(post.publish(messages(1), timeout=DEADLINE))
    await post.close()

    assert str(refused.value) == sentence
    assert str(error) == f"1 of 1 messages were not confirmed: {sentence}"
