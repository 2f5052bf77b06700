"""What the RabbitMQ sink says and does when a real broker returns, refuses or forgets what is published."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import aio_pika
import pytest

from broadway_py import RabbitMQSink
from broadway_py.errors import ProducerError, PublishError
from broadway_py.producers.sink_kinds import build_sink
from broadway_py.publisher import Outgoing
from tests.support.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.integration, pytest.mark.delivery_path("plain")]

DEADLINE = 20.0


def messages(count: int) -> list[Outgoing]:
    return [Outgoing(data=b"%d" % number, message_id=f"w{number}#1") for number in range(count)]


async def failed(publishing: Awaitable[None]) -> PublishError:
    with pytest.raises(PublishError) as error:
        await publishing
    return error.value


@pytest.mark.any_broker
async def test_a_queue_that_is_not_there_is_told_at_once(rabbitmq: RabbitMQ) -> None:
    publisher = RabbitMQSink(rabbitmq.url, queue="nowhere").create("shop.revenue")
    given = messages(3)
    with pytest.raises(ProducerError) as refused:
        await publisher.open()

    error = await failed(publisher.publish(given, timeout=DEADLINE))
    await publisher.close()

    assert str(refused.value) == (f"there is no queue 'nowhere' on {rabbitmq.where}; create it, or set declare: active")
    assert str(error) == f"3 of 3 messages were not confirmed: there is no queue 'nowhere' on {rabbitmq.where}"
    assert (error.unpublished, error.refused) == (given, [])


@pytest.mark.any_broker
async def test_an_exchange_that_is_not_there_is_told_at_once(rabbitmq: RabbitMQ) -> None:
    publisher = RabbitMQSink(rabbitmq.url, exchange="nowhere").create("shop.revenue")

    error = await failed(publisher.publish(messages(3), timeout=DEADLINE))
    await publisher.close()

    assert str(error) == (
        f"3 of 3 messages were not confirmed: there is no exchange 'nowhere' on {rabbitmq.where}; create it"
    )


@pytest.mark.any_broker
async def test_what_an_exchange_leads_nowhere_is_told_and_the_rest_is_confirmed(rabbitmq: RabbitMQ) -> None:
    exchange = await rabbitmq.channel.declare_exchange("results", aio_pika.ExchangeType.DIRECT)
    queue = await rabbitmq.channel.declare_queue("out", durable=True)
    await queue.bind(exchange, routing_key="DE")
    publisher = RabbitMQSink(rabbitmq.url, exchange="results").create("shop.revenue")
    bound = Outgoing(data=b"1", message_id="a#1", key="DE")
    unbound = Outgoing(data=b"2", message_id="b#1", key="FR")

    error = await failed(publisher.publish([bound, unbound], timeout=DEADLINE))
    await publisher.close()

    assert str(error) == (
        f"1 of 2 messages were not confirmed: exchange 'results' on {rabbitmq.where} leads to no queue for the routing "
        "key of a message: bind a queue to it"
    )
    assert error.unpublished == [unbound]
    assert await rabbitmq.ready("out") == 1


@pytest.mark.any_broker
async def test_a_full_queue_gets_its_messages_when_there_is_room(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare("out", **{"x-max-length": 2, "x-overflow": "reject-publish"})
    publisher = RabbitMQSink(rabbitmq.url, queue="out").create("shop.revenue")
    await publisher.publish(messages(2), timeout=DEADLINE)
    more = messages(1)

    error = await failed(publisher.publish(more, timeout=0.5))
    assert str(error) == (
        f"1 of 1 messages were not confirmed: RabbitMQ at {rabbitmq.where} refused a message for queue 'out': the "
        "queue is full, or broken"
    )
    publishing = asyncio.ensure_future(publisher.publish(more, timeout=DEADLINE))
    await (await rabbitmq.channel.get_queue("out")).purge()
    await publishing
    await publisher.close()

    assert await rabbitmq.ready("out") == 1


@pytest.mark.any_broker
async def test_a_queue_of_ours_that_is_deleted_is_made_again(rabbitmq: RabbitMQ) -> None:
    publisher = RabbitMQSink(rabbitmq.url, queue="out", declare="active").create("shop.revenue")
    await publisher.publish(messages(2), timeout=DEADLINE)
    await rabbitmq.delete_queue("out")

    await publisher.publish(messages(3), timeout=DEADLINE)
    await publisher.close()

    assert await rabbitmq.ready("out") == 3


@pytest.mark.any_broker
async def test_a_queue_with_other_arguments_is_told(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare("out")
    publisher = RabbitMQSink(rabbitmq.url, queue="out", declare="active", queue_arguments={"x-max-length": 5}).create(
        "shop.revenue"
    )

    error = await failed(publisher.publish(messages(1), timeout=DEADLINE))
    await publisher.close()

    assert str(error).startswith(
        f"1 of 1 messages were not confirmed: queue 'out' on {rabbitmq.where} exists, but with other arguments: "
        "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'out'"
    )
    assert str(error).endswith("; make queue_arguments match them, or set declare: passive")


async def test_a_permission_that_is_missing_is_told(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare("out")
    await rabbitmq.allow(write="^$")
    publisher = RabbitMQSink(rabbitmq.url, queue="out").create("shop.revenue")

    error = await failed(publisher.publish(messages(2), timeout=DEADLINE))
    await publisher.close()

    assert str(error).startswith(
        f"2 of 2 messages were not confirmed: this user may not publish to queue 'out' on {rabbitmq.where}: "
        "ACCESS_REFUSED - "
    )
    assert str(error).endswith("; give the user the permission to write to the default exchange")


async def test_a_password_that_is_corrected_in_its_file_is_used_by_the_next_call(
    rabbitmq: RabbitMQ, tmp_path: Path
) -> None:
    await rabbitmq.declare("out")
    file = tmp_path / "url"
    file.write_text(rabbitmq.with_password("wrong"))
    sink = build_sink({"kind": "rabbitmq", "queue": "out", "url_file": str(file)}, ("emit_to",))
    publisher = sink.create("shop.revenue")

    error = await failed(publisher.publish(messages(1), timeout=DEADLINE))
    assert str(error) == (
        f"1 of 1 messages were not confirmed: RabbitMQ at {rabbitmq.where} refused the login; check user and password "
        "in the url"
    )

    file.write_text(rabbitmq.url)
    await publisher.publish(messages(1), timeout=DEADLINE)
    await publisher.close()
    assert await rabbitmq.ready("out") == 1


async def test_the_connection_has_the_name_of_who_publishes(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare("out")
    publisher = RabbitMQSink(rabbitmq.url, queue="out").create("shop.revenue")
    await publisher.publish(messages(1), timeout=DEADLINE)

    assert "shop.revenue" in await rabbitmq.connection_names()
    await publisher.close()
