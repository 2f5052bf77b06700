"""What breaks under a RabbitMQ producer: it says so in one sentence, settles nothing elsewhere, and leaks nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from broadway_py.errors import ProducerError, SettleError
from broadway_py.producers.rabbitmq import RabbitMQProducer
from broadway_py.testing.driving import ask, bodies, copy_of, data, opened, refusal, settle, take
from tests.support.conformance import conforms
from tests.support.eventually import eventually
from tests.support.proxy import FaultProxy
from tests.support.rabbitmq import Counts, RabbitMQ
from tests.support.rabbitmq_node import Node

pytestmark = [pytest.mark.integration, pytest.mark.faults]


@pytest.fixture
async def proxy(rabbitmq: RabbitMQ) -> AsyncIterator[FaultProxy]:
    await rabbitmq.declare_with_dead_letters()
    async with FaultProxy(*rabbitmq.address) as proxy:
        yield proxy


def through(proxy: FaultProxy, broker: RabbitMQ) -> str:
    """How an error shows the way through the proxy."""
    return f"amqp://***@127.0.0.1:{proxy.port}/{broker.vhost}"


async def until_tasks(before: set[asyncio.Task[Any]]) -> None:
    """Wait until no task runs that did not run before."""
    await eventually(lambda: asyncio.all_tasks() <= before, what="the connection's tasks have ended")


@conforms("R-052", "R-053", "R-068")
@pytest.mark.parametrize("fault", ["cut", "reset"])
async def test_a_broken_connection_is_reported_and_a_fresh_copy_gets_everything(
    rabbitmq: RabbitMQ, proxy: FaultProxy, fault: str
) -> None:
    description = RabbitMQProducer("work", rabbitmq.through(proxy.port))
    losses: list[ProducerError] = []
    await rabbitmq.publish(bodies(10))
    async with opened(description, losses=losses) as old:
        messages = await take(old, 10)
        await settle(messages[:4])
        await rabbitmq.until(ready=0, unacked=6)
        waiting = await ask(old, 5)
        getattr(proxy, fault)()
        with pytest.raises(ProducerError) as error:
            await waiting
        sentence = f"the connection to {through(proxy, rabbitmq)} was cut"
        assert str(error.value) == sentence
        assert [str(loss) for loss in losses] == [sentence]
        await rabbitmq.until(ready=6, unacked=0)

        async with opened(description) as fresh:
            again = await take(fresh, 6)
            with pytest.raises(SettleError) as unknown:
                await settle(messages[4:7], messages[7:])
            assert str(unknown.value) == f"cannot settle 6 messages: {sentence}"
            assert unknown.value.unsettled == messages[4:]
            assert await rabbitmq.counts() == Counts(ready=0, unacked=6)
            assert sorted(data(again)) == bodies(6, start=4)
            await settle(again)
            await rabbitmq.until(ready=0, unacked=0)
    assert await rabbitmq.counts("work.dead") == Counts(0, 0)
    await rabbitmq.until_alone()


async def test_what_waited_in_the_buffer_is_not_handed_over_after_a_loss(rabbitmq: RabbitMQ, proxy: FaultProxy) -> None:
    lost = asyncio.Event()
    copy = copy_of(
        RabbitMQProducer("work", rabbitmq.through(proxy.port)), capacity=50, pipeline="test", lost=lambda _: lost.set()
    )
    await copy.open()
    await rabbitmq.publish(bodies(10))
    await take(copy, 1)
    await rabbitmq.until(ready=0, unacked=10)
    proxy.cut()
    await asyncio.wait_for(lost.wait(), 10)
    with pytest.raises(ProducerError):
        await copy.handle_demand(5)
    await rabbitmq.until(ready=10, unacked=0)
    await copy.close()


async def test_a_settlement_under_way_in_a_broken_connection_is_unknown(rabbitmq: RabbitMQ, proxy: FaultProxy) -> None:
    await rabbitmq.publish(bodies(2))
    async with opened(RabbitMQProducer("work", rabbitmq.through(proxy.port))) as copy:
        messages = await take(copy, 2)
        waiting = await ask(copy, 1)
        proxy.black_hole()
        await settle(messages[:1])  # on its way: the transport took it
        proxy.reset()
        await asyncio.wait([waiting])
        with pytest.raises(SettleError):
            await settle(messages[1:])
    await rabbitmq.until(ready=2, unacked=0)


@conforms("R-024", "R-025")
async def test_release_and_pause_on_a_dead_connection(rabbitmq: RabbitMQ, proxy: FaultProxy) -> None:
    await rabbitmq.publish(bodies(3))
    async with opened(RabbitMQProducer("work", rabbitmq.through(proxy.port))) as copy:
        (message, *_) = await take(copy, 1)
        waiting = await ask(copy, 5)
        await asyncio.wait([waiting])
        waiting = await ask(copy, 5)
        proxy.cut()
        await asyncio.wait([waiting])
        acknowledger, ref, _ = message.acknowledgement
        with pytest.raises(SettleError) as unknown:
            await acknowledger.release(ref, [message])
        assert str(unknown.value) == (f"cannot settle 1 message: the connection to {through(proxy, rabbitmq)} was cut")
        await copy.pause()
        await copy.resume()
        with pytest.raises(ProducerError):
            await copy.handle_demand(1)
    await rabbitmq.until(ready=3, unacked=0)


async def test_a_connection_closed_by_an_operator_shows_his_words(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    losses: list[ProducerError] = []
    async with opened(RabbitMQProducer("work", rabbitmq.url), losses=losses) as copy:
        waiting = await ask(copy, 1)
        await rabbitmq.close_connections("night shift")
        await asyncio.wait([waiting])
    assert [str(loss) for loss in losses] == [
        f"RabbitMQ at {rabbitmq.where} closed the connection: CONNECTION_FORCED - night shift"
    ]


@conforms("R-056", "R-070")
async def test_a_cancelled_consumer_is_reported_and_its_messages_may_still_be_settled(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await rabbitmq.publish(bodies(1))
    description = RabbitMQProducer("work", rabbitmq.url)
    losses: list[ProducerError] = []
    async with opened(description, losses=losses) as copy:
        messages = await take(copy, 1)
        waiting = await ask(copy, 1)
        await rabbitmq.delete_queue()
        with pytest.raises(ProducerError) as error:
            await waiting
        assert str(error.value) == (
            f"RabbitMQ at {rabbitmq.where} cancelled the consumer of queue 'work': the queue was deleted"
        )
        await settle(messages)
        # It does not create what an operator has deleted …
        assert str(await refusal(description)).startswith("queue 'work' does not exist on ")
    assert losses == [error.value]
    # … and goes on when it is there again.
    await rabbitmq.declare()
    await rabbitmq.publish(bodies(1))
    async with opened(description) as copy:
        await settle(await take(copy, 1))
    await rabbitmq.until_alone()


@conforms("R-069")
async def test_a_channel_closed_by_an_error_is_reported_and_the_connection_goes_too(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    channels = []
    losses: list[ProducerError] = []

    async def keep(channel: object) -> None:
        channels.append(channel)

    async with opened(RabbitMQProducer("work", rabbitmq.url, after_connect=keep), losses=losses) as copy:
        waiting = await ask(copy, 1)
        underlay = await channels[0].get_underlay_channel()  # type: ignore[attr-defined]  # what aio-pika gave us
        await underlay.basic_ack(4711)
        await asyncio.wait([waiting])
    assert [str(loss) for loss in losses] == [
        f"RabbitMQ at {rabbitmq.where} closed the channel: PRECONDITION_FAILED - unknown delivery tag 4711"
    ]
    await rabbitmq.until_alone()


@pytest.mark.any_broker
async def test_a_silent_network_is_noticed_by_the_missing_heartbeats(rabbitmq: RabbitMQ, proxy: FaultProxy) -> None:
    await rabbitmq.publish(bodies(3))
    losses: list[ProducerError] = []
    producer = RabbitMQProducer("work", rabbitmq.through(proxy.port), heartbeat=1)
    async with opened(producer, losses=losses) as copy:
        await take(copy, 3)
        waiting = await ask(copy, 1)
        proxy.black_hole()
        async with asyncio.timeout(15):
            await asyncio.wait([waiting])
        assert [str(loss) for loss in losses] == [
            f"{through(proxy, rabbitmq)} has sent nothing, not even a heartbeat, for 6 s"
        ]


@pytest.mark.any_broker
async def test_closing_does_not_wait_for_a_silent_network(rabbitmq: RabbitMQ, proxy: FaultProxy) -> None:
    await rabbitmq.publish(bodies(1))
    before = asyncio.all_tasks()
    copy = copy_of(RabbitMQProducer("work", rabbitmq.through(proxy.port)), capacity=50, pipeline="test")
    await copy.open()
    messages = await take(copy, 1)
    proxy.black_hole()
    async with asyncio.timeout(8):
        await settle(messages)
        await copy.close()
    proxy.heal()
    await proxy.until_connections(0)
    await until_tasks(before)


@pytest.mark.any_broker
async def test_connecting_into_a_silent_network_ends_in_time(rabbitmq: RabbitMQ, proxy: FaultProxy) -> None:
    proxy.black_hole()
    error = await refusal(RabbitMQProducer("work", rabbitmq.through(proxy.port), connect_timeout=0.3))
    assert type(error) is ProducerError
    assert str(error) == (
        f"no answer from {through(proxy, rabbitmq)} within 0.3 s; check host and port, and the network"
    )


@pytest.mark.any_broker
async def test_connecting_to_something_that_hangs_up_says_so(rabbitmq: RabbitMQ) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        error = await refusal(RabbitMQProducer("work", rabbitmq.through(port)))
    assert re.fullmatch(
        rf"amqp://\*\*\*@127\.0\.0\.1:{port}/{rabbitmq.vhost} closed the connection as soon as the login "
        r"began; check the port, .*",
        str(error),
    )


@pytest.mark.any_broker
async def test_an_open_that_is_cancelled_leaves_nothing_behind(rabbitmq: RabbitMQ, proxy: FaultProxy) -> None:
    proxy.black_hole()
    before = asyncio.all_tasks()
    copy = copy_of(RabbitMQProducer("work", rabbitmq.through(proxy.port)), capacity=50, pipeline="test")
    opening = asyncio.create_task(copy.open())
    await proxy.until_connections(1)
    opening.cancel()
    await asyncio.wait([opening])
    assert opening.cancelled()
    await copy.close()
    proxy.heal()
    await proxy.until_connections(0)
    await until_tasks(before)


async def test_a_slow_link_delivers_and_settles_all(rabbitmq: RabbitMQ, proxy: FaultProxy) -> None:
    proxy.delay(0.02)
    await rabbitmq.publish(bodies(30))
    async with opened(RabbitMQProducer("work", rabbitmq.through(proxy.port))) as copy:
        messages = await take(copy, 30)
        assert data(messages) == bodies(30)
        await settle(messages)
        await rabbitmq.until(ready=0, unacked=0)


async def test_ten_losses_leave_no_connection_and_no_channel_behind(rabbitmq: RabbitMQ, proxy: FaultProxy) -> None:
    description = RabbitMQProducer("work", rabbitmq.through(proxy.port))
    before = asyncio.all_tasks()
    for number in range(10):
        await rabbitmq.publish(bodies(1, start=number))
        async with opened(description) as copy:
            await settle(await take(copy, 1))
            waiting = await ask(copy, 1)
            (proxy.cut if number % 2 else proxy.reset)()
            await asyncio.wait([waiting])
    await rabbitmq.until_alone()
    await proxy.until_connections(0)
    await until_tasks(before)


async def test_a_restarted_broker_is_found_again_with_all_its_messages(
    rabbitmq_node: Node | None, rabbitmq: RabbitMQ
) -> None:
    assert rabbitmq_node is not None
    await rabbitmq.declare()
    await rabbitmq.publish(bodies(5))
    description = RabbitMQProducer("work", rabbitmq.url)
    async with opened(description) as copy:
        await settle((await take(copy, 5))[:2])
        await rabbitmq.until(ready=0, unacked=3)
        waiting = await ask(copy, 1)
        await asyncio.to_thread(rabbitmq_node.stop_application)
        await asyncio.wait([waiting])
        assert isinstance(waiting.exception(), ProducerError)
        assert str(await refusal(description)).startswith("cannot reach amqp://***@127.0.0.1:")
        await asyncio.to_thread(rabbitmq_node.start_application)
    async with opened(description) as copy:
        again = await take(copy, 3)
        assert data(again) == bodies(3, start=2)
        await settle(again)


async def test_a_message_that_takes_longer_than_the_consumer_time_out_is_told_as_that(
    rabbitmq_node: Node | None, rabbitmq: RabbitMQ
) -> None:
    """Up to 4.2 the broker closes the channel, and says so; from 4.3 on it takes back the consumer, without a word."""
    assert rabbitmq_node is not None
    await rabbitmq.declare("work", **{"x-queue-type": "quorum"})
    await rabbitmq.publish(bodies(1))
    with rabbitmq_node.consumer_timeout(1.0):
        async with opened(RabbitMQProducer("work", rabbitmq.url)) as copy:
            await take(copy, 1)
            waiting = await ask(copy, 1)
            async with asyncio.timeout(60):
                await asyncio.wait([waiting])
            reason = str(waiting.exception())
    assert re.search(
        r"closed the channel: PRECONDITION_FAILED - delivery acknowledgement on channel \d+ timed out|"
        r"cancelled the consumer of queue 'work': the queue exists; either a message was not settled within the "
        r"consumer time-out",
        reason,
    ), reason
