"""Tests on a broker that the user runs look at it as any client may, and leave nothing in its virtual host."""

from __future__ import annotations

import pytest

from broadway_py import FailurePolicy
from tests.integration.failing_pipelines import Failing, raising, source
from tests.support.given_broker import noting
from tests.support.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.integration, pytest.mark.any_broker]


async def test_what_this_process_declares_is_noted_and_what_it_looks_up_is_not(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare("before")
    with noting() as made:
        named_by_the_broker = await rabbitmq.channel.declare_queue("", exclusive=True)
        await rabbitmq.declare("work")
        await rabbitmq.channel.declare_exchange("events", auto_delete=True)
        assert await rabbitmq.ready("before") == 0
        assert await rabbitmq.ready("nope") is None
    await rabbitmq.declare("after")
    assert made.queues == {named_by_the_broker.name, "work"}
    assert made.exchanges == {"events"}


async def test_what_the_test_and_its_pipeline_made_is_deleted_also_when_the_connection_was_lost(
    rabbitmq: RabbitMQ,
) -> None:
    given = RabbitMQ.given(rabbitmq.url)
    assert (given.where, given.user, given.password) == (rabbitmq.where, rabbitmq.user, rabbitmq.password)
    async with given.client():
        await given.declare()
        await given.channel.declare_exchange("events")
        await given.publish([b"one"])
        policy = FailurePolicy(attempts=2, backoff=(0.1, 0.1), breaker=None)
        async with Failing(producer=source(given), context=raising(ValueError()), failure=policy):
            await given.until_ready(1, "work.dead")
        assert [await rabbitmq.ready(queue) for queue in ("work", "work.retry.125.q2", "work.dead")] == [0, 0, 1]
        assert given._connection is not None
        await given._connection.close()
    assert [await rabbitmq.ready(queue) for queue in ("work", "work.retry.125.q2", "work.dead")] == [None] * 3
    # With other settings, so it is a new one.
    await rabbitmq.channel.declare_exchange("events", auto_delete=True)


async def test_a_test_of_any_broker_cannot_look_inside_it(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    with pytest.raises(AssertionError, match="inside"):
        await rabbitmq.counts()
