"""How many messages a source on a real RabbitMQ holds, as its producer tells it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from broadway_py import FailurePolicy, Reject
from broadway_py._core.failure_authority import FailureAuthority
from broadway_py.errors import ProducerError
from broadway_py.pipeline.stats import SourceStats
from broadway_py.producer import FailurePlan, Producer, SourceMessages
from broadway_py.producer_description import AnyProducer
from broadway_py.producers import RabbitMQProducer
from broadway_py.testing.driving import copy_of, take, until_equal
from tests.integration.failing_pipelines import Failing, raising, source
from tests.integration.gated_pipelines import at_work
from tests.support.eventually import eventually
from tests.support.rabbitmq import RabbitMQ

pytestmark = pytest.mark.integration

PLAN = FailurePlan(frozenset({"retry", "dead_letter"}), None, FailureAuthority(False, False), (0.5, 8.0))


class Counted(Failing):
    _counts_sources = True


@asynccontextmanager
async def opened(producer: AnyProducer, plan: FailurePlan | None = PLAN) -> AsyncIterator[Producer]:
    """A running copy of *producer* in a pipeline with this *plan*."""
    copy = copy_of(producer, capacity=50, pipeline="contract")
    copy.context.failure = plan
    try:
        await copy.open()
        yield copy
    finally:
        await copy.close()


async def until_it_says(copy: Producer, expected: SourceMessages) -> None:
    await until_equal(copy.source_messages, expected, "the source says")


def source_of(pipeline: Failing) -> SourceStats | None:
    return pipeline.stats().producers[0].source


@pytest.mark.any_broker
async def test_ready_delayed_and_dead_are_those_of_the_queues_behind_the_source(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await rabbitmq.publish([b"retry", b"dead", b"dead", b"retry", b"retry"])

    def fail(message: Any) -> None:
        raise Reject("never") if message.data == b"dead" else ValueError

    failure = FailurePolicy(attempts=3, backoff=(600.0, 600.0), breaker=None)
    pipeline = Failing(producer=source(rabbitmq), context=fail, failure=failure)
    async with at_work(pipeline, rabbitmq):
        await rabbitmq.until_ready(2, "work.dead")
        await eventually(lambda: pipeline.stats().producers[0].outcomes.get("retried") == 3, what="three wait")
        await pipeline.pause()
        await rabbitmq.publish([b"x"] * 4)
        copy = pipeline._life_cycle.needs_run("").stages.sources[0].live.copy
        assert copy is not None
        await until_it_says(copy, SourceMessages(4, 3, 2))


@pytest.mark.any_broker
async def test_what_waits_since_an_earlier_run_is_counted(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await rabbitmq.publish([b"one", b"two"])
    failure = FailurePolicy(attempts=3, backoff=(600.0, 600.0), breaker=None)
    first = Failing(producer=source(rabbitmq), context=raising(ValueError()), failure=failure)
    async with at_work(first, rabbitmq):
        await eventually(lambda: first.stats().producers[0].outcomes.get("retried") == 2, what="two wait")
    second = Counted(producer=source(rabbitmq), failure=failure)
    async with at_work(second, rabbitmq):
        await eventually(lambda: source_of(second) is not None, what="the source has answered")
        found = source_of(second)
        assert found is not None
        assert (found.ready, found.delayed, found.dead, found.trouble) == (0, 2, 0, None)


@pytest.mark.any_broker
async def test_several_queues_are_added_up_and_shared_dead_letters_count_once(rabbitmq: RabbitMQ) -> None:
    plan = PLAN._replace(dead_letter="failed")
    for queue in ("work", "more", "failed"):
        await rabbitmq.declare(queue)
        await rabbitmq.publish([b"x"] * 3, queue=queue)
    async with opened(RabbitMQProducer(["work", "more"], rabbitmq.url), plan) as copy:
        await copy.pause()
        await until_it_says(copy, SourceMessages(6, 0, 3))


@pytest.mark.any_broker
async def test_partitions_count_their_own_queues_and_the_first_one_all_dead_letters(rabbitmq: RabbitMQ) -> None:
    whole = RabbitMQProducer("work", rabbitmq.url, declare="active", partitions=2)
    async with (
        opened(whole.partition(0)) as first,
        opened(whole.partition(1)) as second,
    ):
        await first.pause()
        await second.pause()
        for queue, count in (("work.0", 1), ("work.1", 2), ("work.dead", 3)):
            await rabbitmq.publish([b"x"] * count, queue=queue)
        await until_it_says(first, SourceMessages(1, 0, 3))
        await until_it_says(second, SourceMessages(2, 0, None))


@pytest.mark.any_broker
async def test_a_missing_queue_for_dead_letters_has_none(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    async with opened(source(rabbitmq)) as copy:
        await rabbitmq.delete_queue("work.dead")
        assert await copy.source_messages() == SourceMessages(0, 0, 0)
        # The channel that the refusal has closed was not the one that consumes.
        await rabbitmq.publish([b"x"])
        assert len(await take(copy, 1)) == 1


@pytest.mark.any_broker
async def test_without_a_policy_nobody_knows_where_dead_letters_are(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    async with opened(source(rabbitmq), None) as copy:
        assert await copy.source_messages() == SourceMessages(0, 0, None)


@pytest.mark.any_broker
async def test_a_delay_queue_that_is_gone_is_not_asked_for_again(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    producer = source(rabbitmq)
    async with opened(producer) as copy:
        known = producer._learned.delays.names
        known.add("work.retry.500.q2")
        assert await copy.source_messages() == SourceMessages(0, 0, 0)
        assert known == set()


@pytest.mark.any_broker
async def test_a_queue_that_another_connection_owns_has_no_number(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    owned = await rabbitmq.channel.declare_queue("owned", exclusive=True)
    try:
        plan = PLAN._replace(dead_letter="work.dead")
        async with opened(source(rabbitmq), plan) as copy:
            copy._session._forwarder._plan = PLAN._replace(dead_letter="owned")  # type: ignore[attr-defined]
            found = await copy.source_messages()
            assert found is not None
            assert found[:3] == (0, 0, None)
            assert found.trouble is not None
            assert found.trouble.startswith(
                "the broker does not tell the number of messages in queue 'owned': RESOURCE_LOCKED - "
            )
    finally:
        await owned.delete(if_unused=False, if_empty=False)


@pytest.mark.faults
async def test_a_connection_that_is_cut_is_told_and_no_channel_is_left_open(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    async with opened(source(rabbitmq)) as copy:
        before = await rabbitmq.channels()
        for _ in range(5):
            await copy.source_messages()
        await until_equal(rabbitmq.channels, before, "the channels are")
        await rabbitmq.close_connections("the test says so")
        session = copy._session  # type: ignore[attr-defined]  # its end is not told otherwise
        await eventually(lambda: session.trouble is not None, what="the close has come")
        with pytest.raises(ProducerError) as gone:
            await copy.source_messages()
        # The client library keeps the broker's words on one of the delivery paths.
        assert str(gone.value) in {
            f"the connection to {rabbitmq.where} was cut",
            f"RabbitMQ at {rabbitmq.where} closed the connection: CONNECTION_FORCED - the test says so",
        }
