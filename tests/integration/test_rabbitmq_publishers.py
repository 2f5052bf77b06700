"""What handlers meet at a real RabbitMQ: queues that are missing, full or deleted, keys that lead nowhere, alarms."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from broadway_py import FailurePolicy, Message, Pipeline, PublishError, RabbitMQPublisher, Unavailable
from broadway_py.producers import DummyProducer, RabbitMQProducer
from broadway_py.producers.sink_kinds import build_sink
from broadway_py.publisher import Sink
from tests.integration.storms import own_node
from tests.support.eventually import eventually
from tests.support.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.integration, pytest.mark.delivery_path("plain")]

DEADLINE = 20.0


class Relay(Pipeline[bytes]):
    """Publishes each message to ``out``, with its payload as the key."""

    producer = DummyProducer()

    async def handle_message(self, message: Message[bytes]) -> None:
        await self.publishers["out"].publish(message, key=message.data.decode(), timeout=1.0)


@asynccontextmanager
async def publishing(sink: Sink) -> AsyncIterator[tuple[Relay, Sink]]:
    async with Relay(publishers={"out": sink}) as relay:
        yield relay, relay.publishers["out"]


async def failed(call: Coroutine[Any, Any, None]) -> PublishError:
    with pytest.raises(PublishError) as error:
        await call
    return error.value


async def error_of(call: Coroutine[Any, Any, None]) -> PublishError | None:
    try:
        await call
    except PublishError as error:
        return error
    return None


@pytest.mark.any_broker
async def test_a_queue_that_is_not_there_opens_the_breaker_and_costs_no_attempt(rabbitmq: RabbitMQ) -> None:
    """When it is there, the message arrives, although it had one attempt only."""
    await rabbitmq.declare("work")
    await rabbitmq.publish([b"1"])
    relay = Relay(
        producer=RabbitMQProducer("work", rabbitmq.url),
        publishers={"out": RabbitMQPublisher(rabbitmq.url, queue="out")},
        failure=FailurePolicy(attempts=1),
    )
    async with relay:
        await eventually(lambda: relay.stats().breaker_open, what="the breaker has opened")
        assert (relay.stats().breaker_opened_by).startswith("PublishUnavailable")
        reason = f"; publisher 'out': there is no queue 'out' on {rabbitmq.where}; create it, or set declare: active"
        await eventually(lambda: reason in (relay.stats().trouble or ""), what="the pipeline says what to do")
        await rabbitmq.declare("out")
        await rabbitmq.until_ready(1, "out")
        await eventually(lambda: relay.stats().trouble is None, what="the pipeline is ready")
    assert await rabbitmq.ready("work") == 0


@pytest.mark.any_broker
async def test_a_key_that_leads_nowhere_is_the_fault_of_its_message_alone(rabbitmq: RabbitMQ) -> None:
    exchange = await rabbitmq.channel.declare_exchange("results", aio_pika.ExchangeType.DIRECT)
    queue = await rabbitmq.channel.declare_queue("out", durable=True)
    await queue.bind(exchange, routing_key="DE")
    async with publishing(RabbitMQPublisher(rabbitmq.url, exchange="results")) as (relay, out):
        error = await failed(out.publish_many(["DE", "FR", "DE"], key=str, timeout=DEADLINE))
        assert str(error) == (
            "publisher 'out': 1 of 3 messages were not confirmed: exchange 'results' on "
            f"{rabbitmq.where} leads to no queue for the routing key of a message: bind a queue to it"
        )
        assert (error.unpublished, error.refused) == (["FR"], ["FR"])
        assert not isinstance(error, Unavailable)
        assert relay.stats().trouble is None
    assert await rabbitmq.ready("out") == 2


@pytest.mark.any_broker
async def test_a_fixed_key_that_leads_nowhere_is_nobodys_fault(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.channel.declare_exchange("results", aio_pika.ExchangeType.DIRECT)
    async with publishing(RabbitMQPublisher(rabbitmq.url, exchange="results", routing_key="x")) as (_, out):
        error = await failed(out.publish("1", timeout=DEADLINE))
        assert isinstance(error, Unavailable)
        assert (error.unpublished, error.refused) == (["1"], [])


@pytest.mark.any_broker
async def test_a_full_queue_holds_up_no_message_for_another(rabbitmq: RabbitMQ) -> None:
    exchange = await rabbitmq.channel.declare_exchange("results", aio_pika.ExchangeType.DIRECT)
    for name, most in (("full", 1), ("fine", 1_000)):
        arguments: dict[str, Any] = {"x-max-length": most, "x-overflow": "reject-publish"}
        queue = await rabbitmq.channel.declare_queue(name, durable=True, arguments=arguments)
        await queue.bind(exchange, routing_key=name)
    async with publishing(RabbitMQPublisher(rabbitmq.url, exchange="results")) as (_, out):
        await out.publish("1", key="full", timeout=DEADLINE)
        waits = asyncio.ensure_future(out.publish("2", key="full", timeout=DEADLINE))
        await out.publish_many(["3"] * 100, key="fine", timeout=DEADLINE)
        error = await failed(out.publish("4", key="full", timeout=0.5))
        assert str(error) == (
            f"publisher 'out': the message was not confirmed: RabbitMQ at {rabbitmq.where} refused a message for "
            "exchange 'results': the queue is full, or broken"
        )
        assert isinstance(error, Unavailable)
        assert not waits.done()
        await (await rabbitmq.channel.get_queue("full")).purge()
        await waits
    assert (await rabbitmq.ready("full"), await rabbitmq.ready("fine")) == (1, 100)


@pytest.mark.any_broker
async def test_a_queue_of_ours_that_is_deleted_is_made_again(rabbitmq: RabbitMQ) -> None:
    async with publishing(RabbitMQPublisher(rabbitmq.url, queue="out", declare="active")) as (_, out):
        await out.publish_many(["1", "2"], timeout=DEADLINE)
        await rabbitmq.delete_queue("out")
        await out.publish_many(["1", "2", "3"], timeout=DEADLINE)
    assert await rabbitmq.ready("out") == 3


@pytest.mark.any_broker
async def test_a_message_without_an_id_gets_one(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare("out")
    async with publishing(RabbitMQPublisher(rabbitmq.url, queue="out")) as (_, out):
        await out.publish({"a": 1}, headers={"x": "y"})
        await out.publish("2", message_id="mine", content_type="text/plain")
    queue = await rabbitmq.channel.get_queue("out")
    first, second = await queue.get(no_ack=True), await queue.get(no_ack=True)
    assert first is not None
    assert second is not None
    assert (first.body, first.content_type, first.headers) == (b'{"a":1}', "application/json", {"x": "y"})
    assert len(first.message_id or "") == 32
    assert (second.body, second.content_type, second.message_id) == (b"2", "text/plain", "mine")
    assert second.delivery_mode == aio_pika.DeliveryMode.PERSISTENT


async def test_while_a_memory_alarm_lasts_callers_wait_and_then_all_arrives(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare("out")
    async with publishing(RabbitMQPublisher(rabbitmq.url, queue="out")) as (relay, out):
        await out.publish("0", timeout=DEADLINE)
        kept = 1
        with own_node(rabbitmq).memory_alarm():
            # What comes before the broker has blocked the connection is still confirmed.
            while (error := await error_of(out.publish("lost", timeout=0.5))) is None:
                kept += 1
            assert isinstance(error, Unavailable)
            waits = asyncio.ensure_future(out.publish_many(map(str, range(1, 50)), timeout=DEADLINE))
            await asyncio.wait({waits}, timeout=0.2)
            assert not waits.done()
            (figures,) = relay.stats().publishers
            assert figures.in_flight >= 49
        await waits
    assert await rabbitmq.ready("out") in {kept + 49, kept + 50}, "the one that was given up may have arrived"


async def test_a_password_that_changes_while_the_pipeline_runs_is_read_again(
    rabbitmq: RabbitMQ, tmp_path: Path
) -> None:
    await rabbitmq.declare("out")
    file = tmp_path / "url"
    file.write_text(rabbitmq.with_password("wrong"))
    sink = build_sink({"kind": "rabbitmq", "queue": "out", "url_file": str(file)}, ("publishers", "out"))
    async with publishing(sink) as (relay, out):
        error = await failed(out.publish("1", timeout=DEADLINE))
        assert str(error) == (
            f"publisher 'out': the message was not confirmed: RabbitMQ at {rabbitmq.where} refused the login; check "
            "user and password in the url"
        )
        file.write_text(rabbitmq.url)
        await eventually(lambda: relay.stats().trouble is None, what="the publisher has connected by itself")
        await out.publish("2", timeout=DEADLINE)
    assert await rabbitmq.ready("out") == 1


async def test_the_connection_has_the_name_of_the_pipeline_and_the_publisher(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare("out")
    async with publishing(RabbitMQPublisher(rabbitmq.url, queue="out")) as (_, out):
        await out.publish("1")
        assert "Relay.out" in await rabbitmq.connection_names()


async def test_a_message_that_is_too_large_is_refused_and_the_others_arrive(rabbitmq: RabbitMQ) -> None:
    """The broker closes the channel for it, also to what is published at the same time, before it and after it."""
    await rabbitmq.declare("out")
    # More than the messages and bytes of what is written before the broker answers.
    items = ["small"] * 600
    places = [0, 300, 599]
    for place in places:
        items[place] = "x" * 1_001
    with own_node(rabbitmq).largest_message(1_000):
        async with publishing(RabbitMQPublisher(rabbitmq.url, queue="out")) as (relay, out):
            error, _ = await asyncio.gather(
                failed(out.publish_many(items, timeout=DEADLINE)), out.publish("other", timeout=DEADLINE)
            )
            assert relay.stats().trouble is None
    assert str(error) == (
        "publisher 'out': 3 of 600 messages were not confirmed: a message for queue 'out' has 1,001 bytes, and "
        f"RabbitMQ at {rabbitmq.where} takes at most 1,000: make the message smaller, or raise max_message_size at the "
        "broker"
    )
    assert not isinstance(error, Unavailable)
    assert error.unpublished == error.refused == ["x" * 1_001] * 3
    arrived = await rabbitmq.ready("out")
    assert (arrived or 0) >= 598, "what the closed channel had not confirmed may have come twice"
