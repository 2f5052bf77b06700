"""What the RabbitMQ producer does beyond the contract of every producer, on a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, cast

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel

from broadway_py.errors import ProducerError, SettleError, SourceRefused
from broadway_py.message import Message
from broadway_py.producers.rabbitmq import RabbitMQProducer
from broadway_py.producers.rabbitmq.deliveries.consumers import Consumers
from broadway_py.producers.rabbitmq.wire.delivery_parser import Sink
from broadway_py.testing.driving import ask, opened, refusal, settle, take
from tests.support.conformance import conforms
from tests.support.eventually import eventually
from tests.support.ports import free_port
from tests.support.rabbitmq import Counts, RabbitMQ
from tests.support.rabbitmq_node import PASSWORD

pytestmark = pytest.mark.integration


# --- queue, bindings, channel ---------------------------------------------------------------------------------------


@conforms("R-026")
@pytest.mark.any_broker
async def test_declare_active_creates_the_queue_as_told(rabbitmq: RabbitMQ) -> None:
    options: dict[str, Any] = {"auto_delete": True, "arguments": {"x-max-length": 2}}
    async with opened(RabbitMQProducer("made", rabbitmq.url, declare="active", declare_options=options)):
        queue = await rabbitmq.channel.declare_queue(
            "made", durable=True, auto_delete=True, arguments={"x-max-length": 2}
        )
        assert queue.declaration_result.consumer_count == 1


@conforms("R-027", "R-048")
@pytest.mark.parametrize("declare", ["never", "passive"])
@pytest.mark.any_broker
async def test_an_existing_queue_is_used_as_it_is(rabbitmq: RabbitMQ, declare: str) -> None:
    await rabbitmq.declare("work", **{"x-max-priority": 3})
    await rabbitmq.publish([b"one"])
    async with opened(RabbitMQProducer("work", rabbitmq.url, declare=declare)) as copy:
        (message,) = await take(copy, 1)
        assert message.data == b"one"
        await settle([message])


@conforms("R-028")
@pytest.mark.any_broker
async def test_the_queue_is_bound(rabbitmq: RabbitMQ) -> None:
    events = await rabbitmq.channel.declare_exchange("events", "topic", auto_delete=True)
    bindings = [{"exchange": "events", "routing_key": "orders.*"}, {"exchange": "events", "routing_key": "bills"}]
    producer = RabbitMQProducer(
        *("", rabbitmq.url),
        declare="active",
        declare_options={"auto_delete": True},
        bindings=bindings,
        metadata=["routing_key"],
    )
    async with opened(producer) as copy:
        for key in ("orders.new", "other", "bills"):
            await events.publish(aio_pika.Message(key.encode()), routing_key=key)
        messages = await take(copy, 2)
        assert [message.metadata["routing_key"] for message in messages] == ["orders.new", "bills"]
        await settle(messages)


@pytest.mark.any_broker
async def test_after_connect_runs_before_anything_else_and_may_prepare_the_queue(rabbitmq: RabbitMQ) -> None:
    async def prepare(channel: AbstractChannel) -> None:
        queue = await channel.declare_queue("prepared", durable=True, auto_delete=True)
        await channel.default_exchange.publish(aio_pika.Message(b"hello"), routing_key=queue.name)

    async with opened(RabbitMQProducer("prepared", rabbitmq.url, after_connect=prepare)) as copy:
        (message,) = await take(copy, 1)
        await settle([message])


async def test_what_after_connect_fetched_itself_is_never_acked_by_us(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare("theirs")
    await rabbitmq.declare()
    await rabbitmq.publish([b"theirs"], queue="theirs")
    await rabbitmq.publish([b"1", b"2", b"3"])

    async def fetch(channel: AbstractChannel) -> None:
        queue = await channel.get_queue("theirs")
        await queue.get()

    async with opened(RabbitMQProducer("work", rabbitmq.url, after_connect=fetch)) as copy:
        await settle(await take(copy, 3))
        await rabbitmq.until(ready=0, unacked=0)
        assert await rabbitmq.counts("theirs") == Counts(ready=0, unacked=1)
    await rabbitmq.until("theirs", ready=1, unacked=0)


async def test_the_broker_sees_name_prefetch_and_consumer_tag(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await rabbitmq.publish([b"%d" % number for number in range(10)])
    producer = RabbitMQProducer(
        *("work", rabbitmq.url),
        name="orders",
        prefetch_count=4,
        consume_options={"consumer_tag": "me"},
        metadata=["consumer_tag"],
    )
    async with opened(producer) as copy:
        await rabbitmq.until(ready=6, unacked=4)
        assert "contract.orders.0" in await rabbitmq.connection_names()
        (message,) = await take(copy, 1)
        assert message.metadata["consumer_tag"] == "me"


# --- settling -------------------------------------------------------------------------------------------------------


@conforms("R-030", "R-039")
async def test_successes_are_acked_and_failures_rejected(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare_with_dead_letters()
    await rabbitmq.publish([b"good", b"bad"])
    async with opened(RabbitMQProducer("work", rabbitmq.url)) as copy:
        good, bad = await take(copy, 2)
        await settle([good], [bad])
        await rabbitmq.until(ready=0, unacked=0)
        dead = await (await rabbitmq.channel.get_queue("work.dead")).get(no_ack=True)
        assert dead is not None
        assert dead.body == b"bad"


@conforms("R-040")
async def test_what_success_and_failure_mean_can_be_turned_round(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare_with_dead_letters()
    await rabbitmq.publish([b"good", b"bad"])
    async with opened(RabbitMQProducer("work", rabbitmq.url, on_success="reject", on_failure="ack")) as copy:
        good, bad = await take(copy, 2)
        await settle([good], [bad])
        await rabbitmq.until("work.dead", ready=1, unacked=0)
        assert await rabbitmq.counts() == Counts(0, 0)


@conforms("R-041")
async def test_one_message_can_be_settled_in_its_own_way(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare_with_dead_letters()
    await rabbitmq.publish([b"1", b"2", b"3"])
    async with opened(RabbitMQProducer("work", rabbitmq.url)) as copy:
        one, two, three = await take(copy, 3)
        one.configure_ack(on_success="reject")
        two.configure_ack(on_failure="ack")
        await settle([one, three], [two])
        await rabbitmq.until("work.dead", ready=1, unacked=0)
        assert await rabbitmq.counts() == Counts(0, 0)


@conforms("R-044")
async def test_reject_and_requeue_brings_it_back_again_and_again(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare_with_dead_letters()
    await rabbitmq.publish([b"again"])
    async with opened(RabbitMQProducer("work", rabbitmq.url, on_failure="reject_and_requeue")) as copy:
        for delivery in range(4):
            (message,) = await take(copy, 1)
            assert message.metadata["redelivered"] is (delivery > 0)
            await (settle(failed=[message]) if delivery < 3 else settle([message]))
        await rabbitmq.until(ready=0, unacked=0)


@conforms("R-045")
async def test_reject_never_requeues_neither_a_fresh_nor_a_redelivered_one(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare_with_dead_letters()
    await rabbitmq.publish([b"1", b"2"])
    async with opened(RabbitMQProducer("work", rabbitmq.url)) as copy:
        fresh, kept = await take(copy, 2)
        await settle(failed=[fresh])
        assert kept.data == b"2"
    async with opened(RabbitMQProducer("work", rabbitmq.url)) as copy:
        (redelivered,) = await take(copy, 1)
        assert redelivered.metadata["redelivered"] is True
        await settle(failed=[redelivered])
        await rabbitmq.until("work.dead", ready=2, unacked=0)


@conforms("R-046")
async def test_requeue_once_gives_a_second_chance_and_no_third(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare_with_dead_letters()
    await rabbitmq.publish([b"again"])
    async with opened(RabbitMQProducer("work", rabbitmq.url, on_failure="reject_and_requeue_once")) as copy:
        await settle(failed=await take(copy, 1))
        (second,) = await take(copy, 1)
        assert second.metadata["redelivered"] is True
        await settle(failed=[second])
        await rabbitmq.until("work.dead", ready=1, unacked=0)
        assert await rabbitmq.counts() == Counts(0, 0)


@pytest.mark.any_broker
async def test_a_quorum_queue_tells_the_attempt(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare("work", **{"x-queue-type": "quorum"})
    await rabbitmq.publish([b"again"])
    producer = RabbitMQProducer("work", rabbitmq.url, on_failure="reject_and_requeue")
    async with opened(producer) as copy:
        for attempt in (1, 2, 3):
            (message,) = await take(copy, 1)
            assert message.attempt == attempt
            await (settle(failed=[message]) if attempt < 3 else settle([message]))


async def test_settling_a_message_twice_leaves_the_channel_alone(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await rabbitmq.publish([b"1", b"2"])
    losses: list[ProducerError] = []
    async with opened(RabbitMQProducer("work", rabbitmq.url), losses=losses) as copy:
        one, two = await take(copy, 2)
        await settle([one])
        with pytest.raises(SettleError) as wrong:
            await settle([one, two])
        assert str(wrong.value) == "1 of 2 messages were settled before and are not settled again"
        assert wrong.value.unsettled == [one]
        await rabbitmq.until(ready=0, unacked=0)
        # The broker would have closed the channel by now, had it heard of the tag twice.
        await rabbitmq.publish([b"3"])
        await settle(await take(copy, 1))
    assert losses == []


@conforms("R-049", "R-067")
async def test_draining_cancels_the_consumer_and_closing_ends_the_connection(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    async with opened(RabbitMQProducer("work", rabbitmq.url)) as copy:
        assert await rabbitmq.consumers() == 1
        copy.context.begin_draining()
        await copy.prepare_for_draining()
        assert await rabbitmq.consumers() == 0
        assert await rabbitmq.connections() == 2
    await rabbitmq.until_alone()


@pytest.mark.any_broker
async def test_closing_leaves_no_task_behind(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await rabbitmq.publish([b"1", b"2"])
    before = asyncio.all_tasks()
    async with opened(RabbitMQProducer("work", rabbitmq.url)) as copy:
        waiting = await ask(copy, 1)
        await settle(await waiting or [])
    await eventually(lambda: asyncio.all_tasks() <= before, what="the connection's tasks have ended")


async def test_a_message_is_acked_even_when_its_settling_was_cancelled(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await rabbitmq.publish([b"1", b"2"])
    async with opened(RabbitMQProducer("work", rabbitmq.url)) as copy:
        one, two = await take(copy, 2)
        under_way = asyncio.Event()

        async def settling(message: Message[Any]) -> None:
            under_way.set()
            await settle([message])

        async with asyncio.TaskGroup() as tasks:
            cut_off = tasks.create_task(settling(one))
            tasks.create_task(settle([two]))
            await under_way.wait()
            cut_off.cancel()
        await rabbitmq.until(ready=0, unacked=0)


# --- refusals: each its sentence ------------------------------------------------------------------------------------


@pytest.mark.any_broker
async def test_a_wrong_password_is_a_refusal(rabbitmq: RabbitMQ) -> None:
    error = await refusal(RabbitMQProducer("work", rabbitmq.with_password("wrong")))
    assert type(error) is SourceRefused
    assert str(error) == f"RabbitMQ at {rabbitmq.where} refused the login; check user and password in the url"


@pytest.mark.any_broker
async def test_a_missing_virtual_host_is_a_refusal(rabbitmq: RabbitMQ) -> None:
    error = await refusal(RabbitMQProducer("work", f"{rabbitmq.url}-not"))
    assert type(error) is SourceRefused
    assert str(error) == (
        f"RabbitMQ at {rabbitmq.where}-not refused the virtual host; "
        "check that it exists and that the user may enter it"
    )


@pytest.mark.parametrize("declare", ["never", "passive"])
@pytest.mark.any_broker
async def test_a_missing_queue_says_what_to_do(rabbitmq: RabbitMQ, declare: str) -> None:
    error = await refusal(RabbitMQProducer("nope", rabbitmq.url, declare=declare))
    assert type(error) is ProducerError
    assert str(error) == f"queue 'nope' does not exist on {rabbitmq.where}; create it or set declare: active"


async def test_a_missing_queue_is_found_once_it_was_created(rabbitmq: RabbitMQ) -> None:
    description = RabbitMQProducer("work", rabbitmq.url)
    await refusal(description)
    await rabbitmq.declare()
    await rabbitmq.publish([b"here"])
    async with opened(description) as copy:
        await settle(await take(copy, 1))
    await rabbitmq.until_alone()


@pytest.mark.any_broker
async def test_a_queue_that_differs_says_in_what(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    error = await refusal(RabbitMQProducer("work", rabbitmq.url, declare="active", declare_options={"durable": False}))
    assert str(error) == (
        f"queue 'work' on {rabbitmq.where} cannot be used as asked: PRECONDITION_FAILED - inequivalent arg 'durable' "
        f"for queue 'work' in vhost '{rabbitmq.vhost}': received 'false' but current is 'true'; "
        "make declare_options and consume_options fit the queue, or set declare: passive"
    )


@pytest.mark.any_broker
async def test_a_missing_exchange_is_named(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    error = await refusal(RabbitMQProducer("work", rabbitmq.url, bindings=[{"exchange": "nope"}]))
    assert str(error) == (
        f"a binding of queue 'work' on {rabbitmq.where} cannot be made: NOT_FOUND - no exchange 'nope' in vhost "
        f"'{rabbitmq.vhost}'; create the exchange"
    )


@pytest.mark.parametrize("lost", [ConnectionResetError("gone"), TimeoutError()], ids=["reset", "silent"])
async def test_a_connection_that_is_lost_while_consuming_begins_may_have_delivered(
    rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch, lost: Exception
) -> None:
    await rabbitmq.declare()
    error = await refusal(RabbitMQProducer("nothing", rabbitmq.url, declare="passive"))
    assert not error.may_have_delivered, "nothing was consumed yet"
    start = Consumers.start

    async def lost_after(self: Consumers, queues: Sequence[str], sink: Sink | None) -> None:
        await start(self, queues, sink)
        raise lost

    monkeypatch.setattr(Consumers, "start", lost_after)
    error = await refusal(RabbitMQProducer("work", rabbitmq.url))
    assert error.may_have_delivered


async def test_an_exclusive_consumer_is_waited_for_as_for_bad_weather(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    description = RabbitMQProducer("work", rabbitmq.url, consume_options={"exclusive": True})
    async with opened(description):
        error = await refusal(description)
        assert type(error) is ProducerError
        assert str(error) == f"queue 'work' on {rabbitmq.where} has an exclusive consumer; waiting until it has gone"
        assert not error.may_have_delivered, "the broker has closed the channel"
    async with opened(description):
        assert await rabbitmq.consumers() == 1


@pytest.mark.any_broker
async def test_an_exclusive_queue_of_another_connection_is_named(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.channel.declare_queue("theirs", exclusive=True)
    error = await refusal(RabbitMQProducer("theirs", rabbitmq.url))
    assert str(error).startswith(
        f"queue 'theirs' on {rabbitmq.where} belongs to another connection: RESOURCE_LOCKED - "
    )


async def test_a_user_without_the_permission_is_a_refusal(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await rabbitmq.allow(read="nothing.*")
    error = await refusal(RabbitMQProducer("work", rabbitmq.url, declare="never"))
    assert type(error) is SourceRefused
    missing = "read access" if rabbitmq.version >= (4, 0) else "access"
    assert str(error) == (
        f"this user has no permission for queue 'work' on {rabbitmq.where}: ACCESS_REFUSED - {missing} to "
        "queue 'work' in "
        f"vhost '{rabbitmq.vhost}' refused for user '{rabbitmq.user}'; give the user the permission, or change the url"
    )


@conforms("R-029")
async def test_whatever_after_connect_raises_is_weather_and_is_not_quoted(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()

    async def breaks(channel: AbstractChannel) -> None:
        raise RuntimeError(PASSWORD)

    def returns_no_awaitable(channel: AbstractChannel) -> Awaitable[object]:
        return cast("Awaitable[object]", None)

    async def is_refused(channel: AbstractChannel) -> None:
        await channel.declare_queue("work", durable=False)

    def error_of(after_connect: object) -> Awaitable[ProducerError]:
        return refusal(RabbitMQProducer("work", rabbitmq.url, after_connect=after_connect))

    error = await error_of(breaks)
    assert type(error) is ProducerError
    assert str(error) == f"after_connect on {rabbitmq.where} raised RuntimeError"
    assert str(await error_of(returns_no_awaitable)) == (
        f"after_connect on {rabbitmq.where} returned NoneType, which cannot be awaited; make it an async function"
    )
    assert str(await error_of(is_refused)) == (
        f"after_connect on {rabbitmq.where} raised ChannelPreconditionFailed: PRECONDITION_FAILED - inequivalent arg "
        f"'durable' for queue 'work' in vhost '{rabbitmq.vhost}': received 'false' but current is 'true'"
    )
    await rabbitmq.until_alone()


async def test_a_shut_port_says_that_nothing_listens() -> None:
    port = free_port()
    error = await refusal(RabbitMQProducer("work", f"amqp://user:{PASSWORD}@127.0.0.1:{port}/"))
    assert type(error) is ProducerError
    assert str(error) == (
        f"cannot reach amqp://***@127.0.0.1:{port}/: connection refused; "
        "check host and port, and whether the broker runs"
    )


async def test_an_unknown_host_says_so() -> None:
    error = await refusal(RabbitMQProducer("work", f"amqp://user:{PASSWORD}@no-such-host.invalid/"))
    assert str(error) == (
        "cannot reach amqp://***@no-such-host.invalid:5672/: the host name is not known; "
        "check host and port, and whether the broker runs"
    )
