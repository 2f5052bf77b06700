"""How many messages an SQS source holds, as its producer tells it."""

from __future__ import annotations

import json

import pytest

from broadway_py.errors import ProducerError
from broadway_py.producer import SourceMessages
from broadway_py.testing.driving import opened, until_equal
from tests.integration.sqs_support import faults, through, work
from tests.support.localstack import SQS, Queue
from tests.support.sqs_proxy import DENIED, SQSProxy

__all__ = ["faults", "work"]

pytestmark = pytest.mark.integration


def redrive(name: str) -> str:
    return json.dumps({"deadLetterTargetArn": f"arn:aws:sqs:eu-central-1:000000000000:{name}", "maxReceiveCount": 5})


async def test_ready_and_delayed_are_told_and_without_a_dead_letter_queue_nothing_is_dead(
    faults: SQSProxy, work: Queue
) -> None:
    await work.send([b"later"] * 2, DelaySeconds=900)
    async with opened(through(faults, work)) as copy:
        await until_equal(copy.source_messages, SourceMessages(0, 2, None), "the source says")
        await copy.pause()
        await work.send([b"x"] * 3)
        await until_equal(copy.source_messages, SourceMessages(3, 2, None), "the source says")


async def test_the_dead_letter_queue_of_the_settings_counts(faults: SQSProxy, sqs: SQS, work: Queue) -> None:
    dead, other = await sqs.queue("dead"), await sqs.queue("other")
    await dead.send([b"x"] * 2)
    await work.set(RedrivePolicy=redrive(other.name))
    async with opened(through(faults, work, dead_letter_queue=dead.name)) as copy:
        await until_equal(copy.source_messages, SourceMessages(0, 0, 2), "the source says")


async def test_the_queue_of_the_redrive_policy_counts_and_is_looked_up_once(
    faults: SQSProxy, sqs: SQS, work: Queue
) -> None:
    dead = await sqs.queue("dead")
    await dead.send([b"x"] * 2)
    await work.set(RedrivePolicy=redrive(dead.name))
    async with opened(through(faults, work)) as copy:
        await until_equal(copy.source_messages, SourceMessages(0, 0, 2), "the source says")
        await copy.source_messages()
        assert len(faults.requests("GetQueueUrl")) == 1


async def test_a_dead_letter_queue_that_is_gone_is_told(faults: SQSProxy, sqs: SQS, work: Queue) -> None:
    dead = await sqs.queue("dead")
    async with opened(through(faults, work, dead_letter_queue=dead.url)) as copy:
        await dead.delete()
        assert await copy.source_messages() == SourceMessages(0, 0, None, "the dead letter queue does not exist")


async def test_a_dead_letter_queue_that_may_not_be_looked_at_is_told(faults: SQSProxy, sqs: SQS, work: Queue) -> None:
    dead = await sqs.queue("dead")
    await work.set(RedrivePolicy=redrive(dead.name))
    async with opened(through(faults, work)) as copy:
        faults.fail("GetQueueUrl", DENIED)
        assert await copy.source_messages() == SourceMessages(
            0,
            0,
            None,
            "AWS refused to tell how many messages the dead letter queue has; allow sqs:GetQueueAttributes and "
            "sqs:GetQueueUrl on it",
        )


async def test_without_the_permission_there_is_no_number(faults: SQSProxy, work: Queue) -> None:
    async with opened(through(faults, work, visibility_timeout=30)) as copy:
        faults.fail("GetQueueAttributes", DENIED)
        with pytest.raises(ProducerError) as refused:
            await copy.source_messages()
        assert str(refused.value) == (
            f"SQS queue {work.name!r}: AWS refused GetQueueAttributes (AccessDeniedException); "
            "allow sqs:GetQueueAttributes, or check the credentials"
        )


async def test_while_sqs_is_away_there_is_no_number(faults: SQSProxy, work: Queue) -> None:
    async with opened(through(faults, work)) as copy:
        await copy.pause()
        await faults.refuse()
        with pytest.raises(ProducerError) as refused:
            await copy.source_messages()
        await faults.accept()
    assert str(refused.value).startswith(f"SQS queue {work.name!r}: ")
