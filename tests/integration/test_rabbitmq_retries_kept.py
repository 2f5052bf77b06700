"""Retries that wait at a real RabbitMQ: a restart of it loses none, and no publisher can pretend to be one."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Literal

import aio_pika
import pytest
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity

from broadway_py import FailurePolicy, Message, RetryLater
from tests.integration.failing_pipelines import QUICK, Failing, dead_letters, queues, source, until_there
from tests.integration.gated_pipelines import at_work
from tests.pipeline.support import check_books, logged, outcomes
from tests.support.erlang import NodeRefusedError
from tests.support.eventually import eventually
from tests.support.rabbitmq import RabbitMQ
from tests.support.rabbitmq_node import Node

pytestmark = [pytest.mark.integration, pytest.mark.faults]


def first_fails(message: Message[bytes]) -> None:
    if message.attempt == 1:
        message.fail("not yet")


def waiting(seconds: float) -> FailurePolicy:
    return FailurePolicy(attempts=5, backoff=(seconds, seconds), breaker=None)


# --- nothing is lost --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_a_restart_of_the_broker_loses_no_retry(
    rabbitmq_node: Node | None, rabbitmq: RabbitMQ, kind: Literal["classic", "quorum"]
) -> None:
    """They are due before, while and after it is away."""
    assert rabbitmq_node is not None
    await rabbitmq.declare("work", **{"x-queue-type": kind})
    bodies = {b"%d" % number for number in range(200)}
    await rabbitmq.publish(sorted(bodies))

    def later(message: Message[bytes]) -> None:
        if message.attempt == 1:
            # From 1 to 8 seconds.
            raise RetryLater(after=1.0 + int(message.data) % 8)

    pipeline = Failing(producer=source(rabbitmq), context=later, failure=waiting(1.0))
    async with pipeline:
        await eventually(lambda: outcomes(pipeline).get("retried", 0) == len(bodies), timeout=30, what="all wait")
        await asyncio.to_thread(rabbitmq_node.stop_application)
        await asyncio.to_thread(rabbitmq_node.start_application)

        # Of a retry that was on its way when the broker went, a quorum queue counts one attempt more.
        def handled() -> bool:
            return {body for body, attempts in pipeline.attempts.items() if attempts[-1] != 1} == bodies

        await eventually(handled, timeout=60, what="every retry came back")
    check_books(pipeline)


async def test_what_waits_while_its_queue_is_deleted_comes_when_there_is_one_again(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await rabbitmq.publish([b"one"])
    pipeline = Failing(producer=source(rabbitmq), context=first_fails, failure=waiting(6.0))
    async with at_work(pipeline, rabbitmq):

        async def waits() -> bool:
            return await rabbitmq.held_outside("work") == 1

        # What a quorum queue tells its clients is some seconds old, and the retry might have come back by then.
        # A queue that has just been made may have no leader yet.
        await eventually(waits, what="it waits for its retry", ignoring=NodeRefusedError)
        await rabbitmq.delete_queue()
        await rabbitmq.declare()
        await eventually(lambda: pipeline.attempts[b"one"] == [1, 2], timeout=40, what="it came again")


@pytest.mark.any_broker
async def test_a_queue_that_does_not_stay_leaves_nothing_behind_for_its_retries(rabbitmq: RabbitMQ) -> None:
    options = {"auto_delete": True}
    pipeline = Failing(producer=source(rabbitmq, declare="active", declare_options=options), context=first_fails)
    async with pipeline:
        await pipeline.ready(10)
        await rabbitmq.publish([b"one"])
        await eventually(lambda: pipeline.attempts[b"one"] == [1, 2], what="it came again")
        at_hand = [await rabbitmq.ready(f"work.retry.{wait}.c2") for wait in (125, 250)]
    assert 0 in at_hand
    assert await rabbitmq.ready() is None
    with pytest.raises(ChannelNotFoundEntity):
        await rabbitmq.channel.get_exchange("work.retry.back")


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_what_waits_in_queues_of_the_former_version_goes_on_waiting_in_those_of_today(
    rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture, kind: Literal["classic", "quorum"]
) -> None:
    await rabbitmq.declare()
    former = "work.retry.6000" + (".quorum" if kind == "quorum" else "")
    back = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "work", "x-queue-type": kind}
    await rabbitmq.declare(former, **{"x-message-ttl": 6_000, **back})
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 4.0))
    noted = {"x-broadway-first-failed-at": since, "x-broadway-exchange": "events", "x-broadway-routing-key": "new"}
    await rabbitmq.publish([b"first"], queue=former, headers={"x-broadway-attempt": 2, **noted}, message_id="m1")
    await rabbitmq.publish([b"later"], queue=former, headers={"x-broadway-attempt": 4, **noted})
    pipeline = Failing(producer=source(rabbitmq, metadata=["exchange", "routing_key"]), failure=waiting(0.2))
    async with at_work(pipeline, rabbitmq):
        # All of its delay again where nobody knows how long it has waited, and the rest of it where somebody does.
        await until_there(rabbitmq, "work.retry.6000.q2")
        assert await rabbitmq.ready(former) == 0
        await eventually(lambda: pipeline.attempts[b"first"] == [2], timeout=10, what="the first came")
        assert b"later" not in pipeline.attempts
        await eventually(lambda: pipeline.attempts[b"later"] == [4], timeout=20, what="the later one came")
        assert {(one.metadata["exchange"], one.metadata["routing_key"]) for one in pipeline.messages} == {
            ("events", "new")
        }
    # Another process has nothing more to say.
    another = Failing(producer=source(rabbitmq))
    async with at_work(another, rabbitmq):
        await another.ready(10)
    (said,) = [line for line in logged(caplog) if "older version" in line["event"]]
    assert said["event"] == (
        "found delay queues of an older version, which can lose messages when the broker restarts: their messages "
        "were moved to new delay queues; delete each old queue when no process of the older version runs"
    )
    assert (said["queue"], said["found"], said["moved"]) == ("work", [former], 2)


@pytest.mark.any_broker
async def test_what_is_no_retry_stays_in_a_queue_that_is_called_as_the_former_version_did(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await rabbitmq.declare("work.retry.1000")
    await rabbitmq.publish([b"somebody's"], queue="work.retry.1000")
    pipeline = Failing(producer=source(rabbitmq), context=first_fails)
    async with at_work(pipeline, rabbitmq):
        await rabbitmq.publish([b"one"])
        await eventually(lambda: pipeline.attempts[b"one"] == [1, 2], what="it came again")
    assert await rabbitmq.ready("work.retry.1000") == 1


# --- nothing is pretended ---------------------------------------------------------------------------------------------

FORGED: dict[str, Any] = {
    "x-broadway-attempt": 2**31 - 1,
    "x-broadway-exchange": "internal",
    "x-broadway-routing-key": "tenant.admin.delete",
    "x-broadway-queue": "payroll",
    "x-delivery-count": 1000,
    "x-acquired-count": 1000,
    # As a message that has come back has it.
    "x-death": [
        {
            "queue": "work.retry.125.q2",
            "reason": "expired",
            "exchange": "",
            "routing-keys": ["work.retry.125.q2"],
            "count": 1,
        }
    ],
    "x-first-death-queue": "work.retry.125.q2",
    "x-first-death-reason": "expired",
    "x-first-death-exchange": "",
}


@pytest.mark.parametrize("kind", ["classic", "quorum"])
@pytest.mark.parametrize("way", ["events", ""])
@pytest.mark.any_broker
async def test_a_publisher_cannot_pretend_to_be_a_retry(
    rabbitmq: RabbitMQ, kind: Literal["classic", "quorum"], way: str
) -> None:
    await rabbitmq.declare("work", **{"x-queue-type": kind})
    events = await rabbitmq.channel.declare_exchange("events", "topic", auto_delete=True)
    await (await rabbitmq.channel.get_queue("work")).bind(events, "#")
    exchange = events if way else rabbitmq.channel.default_exchange
    pipeline = Failing(
        producer=source(rabbitmq, metadata=["exchange", "routing_key"]),
        context=lambda message: message.fail("no"),
        failure=QUICK,
    )
    async with at_work(pipeline, rabbitmq):
        await exchange.publish(aio_pika.Message(b"x", headers=FORGED, delivery_mode=2), "work")
        await until_there(rabbitmq, "work.dead")
    assert pipeline.attempts[b"x"] == [1, 2, 3, 4]
    came = {(message.metadata["exchange"], message.metadata["routing_key"]) for message in pipeline.messages}
    assert came == {(way, "work")}
    (letter,) = await dead_letters(rabbitmq)
    said = {name: letter.headers[f"x-broadway-{name}"] for name in ("exchange", "routing-key", "queue", "attempts")}
    assert said == {"exchange": way, "routing-key": "work", "queue": "work", "attempts": 4}


@pytest.mark.any_broker
async def test_nobody_publishes_to_the_exchange_by_which_retries_return(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    pipeline = Failing(producer=source(rabbitmq))
    async with at_work(pipeline, rabbitmq):
        await pipeline.ready(10)
        async with await aio_pika.connect(rabbitmq.url) as publisher:
            back = await (await publisher.channel()).get_exchange("work.retry.back")
            with pytest.raises(ChannelAccessRefused):
                await back.publish(aio_pika.Message(b"x", headers=FORGED), "work")
    assert await rabbitmq.ready() == 0


async def test_without_the_permission_for_an_exchange_retries_return_as_they_did_and_it_is_said(
    rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    await rabbitmq.declare()
    await rabbitmq.publish([b"one"])
    # As the documentation of the former version asked for.
    await rabbitmq.allow(
        configure=r"^work\.(dead|retry\..*)$", write=r"^(amq\.default|work\.(dead|retry\..*))$", read=r"^work(\..*)?$"
    )
    pipeline = Failing(producer=source(rabbitmq, metadata=["exchange"]), context=first_fails, failure=waiting(0.2))
    try:
        async with at_work(pipeline, rabbitmq):
            await eventually(lambda: pipeline.attempts[b"one"] == [1, 2], timeout=20, what="it came again")
    finally:
        await rabbitmq.allow()
    assert [name for name in await queues(rabbitmq) if name.startswith("work.retry.")] != ["work.retry.250.q2"]
    (said,) = [line for line in logged(caplog) if "default exchange" in line["event"]]
    assert said["event"] == (
        "retries return by the default exchange, where publishers can forge a retry, because the broker refuses the "
        "exchange for retries: give the user the permissions to configure, write and read it, and to write to the queue"
    )
    assert (said["exchange"], said["queue"]) == ("work.retry.back", "work")
