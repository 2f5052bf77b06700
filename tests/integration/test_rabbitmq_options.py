"""Settings of the producer that only a real RabbitMQ can prove."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from broadway_py import FailurePolicy, Message, Pipeline, PipelineCrashed, Processors, Reject
from broadway_py.message import NOOP
from broadway_py.producers import RabbitMQProducer
from broadway_py.producers.rabbitmq.settings.options import AUTO_BYTES
from broadway_py.testing.driving import data, opened, refusal, settle, take
from tests.integration.failing_pipelines import Failing, queues, until_there
from tests.integration.gated_pipelines import at_work
from tests.pipeline.support import events_logged, logged, outcomes
from tests.support.conformance import conforms
from tests.support.eventually import eventually
from tests.support.ports import free_port
from tests.support.proxy import FaultProxy
from tests.support.rabbitmq import Counts, RabbitMQ

pytestmark = [pytest.mark.integration, pytest.mark.faults]


# --- where, who, and which queues -------------------------------------------------------------------------------------


@pytest.mark.any_broker
async def test_several_queues_are_consumed_by_one_producer_and_settled_where_they_came_from(rabbitmq: RabbitMQ) -> None:
    for queue in ("orders", "bills"):
        await rabbitmq.declare(queue)
        await rabbitmq.publish([queue.encode()], queue=queue)
    pipeline = Failing(
        producer=RabbitMQProducer(["orders", "bills"], rabbitmq.url, metadata=["queue"]),
        context=lambda message: message.fail("no"),
        failure=FailurePolicy(attempts=1, breaker=None),
    )
    async with pipeline:
        for queue in ("orders", "bills"):
            await until_there(rabbitmq, f"{queue}.dead")
    assert [await rabbitmq.ready(queue) for queue in ("orders", "bills")] == [0, 0]
    assert {message.metadata["queue"].encode() for message in pipeline.messages} == {b"orders", b"bills"}


@pytest.mark.any_broker
async def test_one_of_several_queues_that_is_deleted_is_named(rabbitmq: RabbitMQ) -> None:
    for queue in ("orders", "bills"):
        await rabbitmq.declare(queue)
    losses: list[Any] = []
    async with opened(RabbitMQProducer(["orders", "bills"], rabbitmq.url), losses=losses):
        await rabbitmq.delete_queue("bills")
        await eventually(lambda: losses, what="the loss is told")
    assert "cancelled the consumer of queue 'bills'" in str(losses[0])


@pytest.mark.any_broker
async def test_hosts_are_tried_until_one_takes_us(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    await rabbitmq.declare()
    host, port = rabbitmq.address
    secret = tmp_path / "password"
    secret.write_text(rabbitmq.password + "\n")
    shut = [f"127.0.0.1:{free_port()}" for _ in range(3)]
    producer = RabbitMQProducer(
        "work",
        host=[*shut, f"{host}:{port}"],
        username=rabbitmq.user,
        password_file=str(secret),
        virtual_host=rabbitmq.vhost,
    )
    await rabbitmq.publish([b"one"])
    async with opened(producer) as copy:
        await settle(await take(copy, 1))
    assert await rabbitmq.ready() == 0


async def test_when_no_host_is_there_each_says_why() -> None:
    ports = [free_port(), free_port()]
    error = await refusal(RabbitMQProducer("work", host=[f"127.0.0.1:{port}" for port in ports]))
    parts = sorted(str(error).split("; cannot"))
    assert len(parts) == 2
    assert all(f"127.0.0.1:{port}/: connection refused" in str(error) for port in ports)


@conforms("R-018", "R-055")
async def test_settings_for_each_copy_are_asked_for_again_at_each_connect(
    rabbitmq: RabbitMQ, proxy: FaultProxy
) -> None:
    for queue in ("work-0", "work-1"):
        await rabbitmq.declare(queue)
    asked: list[int] = []

    def for_copy(index: int) -> Mapping[str, Any]:
        asked.append(index)
        return {"queue": f"work-{index}"}

    class Quiet(Pipeline[bytes]):
        async def handle_message(self, message: Message[bytes]) -> None:
            pass

    producer = RabbitMQProducer("work", rabbitmq.through(proxy.port), concurrency=2, merge_options=for_copy)
    async with Quiet(producer=producer) as pipeline:
        await pipeline.ready(10)
        assert [await rabbitmq.consumers(f"work-{index}") for index in (0, 1)] == [1, 1]
        before = len(asked)
        proxy.cut()
        await eventually(lambda: sorted(asked[before:]) == [0, 1], what="both copies were asked for again")


@conforms("R-060")
@pytest.mark.any_broker
async def test_a_back_off_of_stop_ends_the_pipeline_at_the_first_loss(
    rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = Failing(producer=RabbitMQProducer("nope", rabbitmq.url, backoff_type="stop"))
    await pipeline.start()
    with pytest.raises(PipelineCrashed) as crash:
        await pipeline.wait()
    sentence = f"queue 'nope' does not exist on {rabbitmq.where}; create it or set declare: active"
    assert sentence in f"{crash.value} {crash.value.__cause__}"
    assert "and its back-off allows no more tries" in f"{crash.value} {crash.value.__cause__}"
    await pipeline.stop()
    # And no word of a drain that ran out of time.
    (entry,) = logged(caplog)
    assert (entry["event"], entry["reason"]) == ("the source is not available; not trying again", sentence)


# --- how it is consumed -----------------------------------------------------------------------------------------------


@conforms("R-047")
async def test_at_most_once_settles_when_it_is_handed_out_and_stays_bounded(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await rabbitmq.publish([b"%d" % number for number in range(10)])
    producer = RabbitMQProducer("work", rabbitmq.url, prefetch_count=4, consume_options={"no_ack": True})
    async with opened(producer) as copy:
        await rabbitmq.until(ready=6, unacked=4)
        messages = await take(copy, 2)
        assert {message.acknowledgement for message in messages} == {NOOP}
        await rabbitmq.until(ready=4, unacked=4)
    await rabbitmq.until(ready=8, unacked=0)


async def test_at_most_once_needs_no_more_than_the_permission_to_read(rabbitmq: RabbitMQ) -> None:
    """There is nothing to retry or to keep, so the default policy declares no queue for it."""
    await rabbitmq.declare()
    await rabbitmq.publish([b"bad"])
    seen: list[bytes] = []

    class AtMostOnce(Pipeline[bytes]):
        async def handle_message(self, message: Message[bytes]) -> None:
            seen.append(message.data)
            raise ValueError

    pipeline = AtMostOnce(producer=RabbitMQProducer("work", rabbitmq.url, consume_options={"no_ack": True}))
    await rabbitmq.allow(configure="^$", write="^$")
    async with at_work(pipeline, rabbitmq):
        await eventually(lambda: outcomes(pipeline).get("rejected") == 1, what="it failed, and that was that")
    assert (seen, await rabbitmq.ready(), await queues(rabbitmq)) == ([b"bad"], 0, ["work"])


@pytest.mark.any_broker
async def test_at_most_once_takes_a_policy_that_drops(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await rabbitmq.publish([b"bad"])
    producer = RabbitMQProducer("work", rabbitmq.url, consume_options={"no_ack": True})
    pipeline = Failing(
        producer=producer,
        context=lambda message: message.fail("no"),
        failure=FailurePolicy(attempts=1, final="drop", breaker=None),
    )
    async with at_work(pipeline, rabbitmq):
        await eventually(lambda: outcomes(pipeline).get("dropped") == 1, what="it was dropped")
    assert await rabbitmq.ready() == 0


@pytest.mark.any_broker
async def test_a_consumer_of_higher_priority_is_served_first(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    low = RabbitMQProducer("work", rabbitmq.url, prefetch_count=5)
    high = RabbitMQProducer("work", rabbitmq.url, prefetch_count=5, consume_options={"priority": 10})
    async with opened(low) as idle, opened(high) as busy:
        await rabbitmq.publish([b"%d" % number for number in range(5)])
        messages = await take(busy, 5)
        assert await idle_count(idle) == 0
        await settle(messages)


async def idle_count(copy: Any) -> int:
    return len(copy._session._buffer)


@pytest.mark.any_broker
async def test_a_server_named_queue_has_retries_and_dead_letters_too(rabbitmq: RabbitMQ) -> None:
    events = await rabbitmq.channel.declare_exchange("events", "fanout", auto_delete=True)
    producer = RabbitMQProducer(
        *("", rabbitmq.url), declare="active", declare_options={"exclusive": True}, bindings=[{"exchange": "events"}]
    )
    policy = FailurePolicy(attempts=2, backoff=(0.1, 0.2), breaker=None)
    pipeline = Failing(producer=producer, context=lambda message: message.fail("no"), failure=policy)
    async with pipeline:
        await pipeline.ready(10)
        await events.publish(aio_pika.Message(b"one"), routing_key="")
        await until_there(rabbitmq, "Failing.dead")
    assert pipeline.attempts[b"one"] == [1, 2]


async def test_who_says_what_failing_means_needs_no_queue_for_dead_letters(rabbitmq: RabbitMQ) -> None:
    """Nor the permission to declare one."""
    await rabbitmq.declare()
    await rabbitmq.publish([b"one"])
    await rabbitmq.allow(configure="^$")

    class Plain(Failing):
        failure = Pipeline.failure

    pipeline = Plain(
        producer=RabbitMQProducer("work", rabbitmq.url, on_failure="ack"), context=lambda message: message.fail("no")
    )
    async with at_work(pipeline, rabbitmq):
        await rabbitmq.until(ready=0, unacked=0)
    assert outcomes(pipeline) == {"dropped": 1}
    assert await queues(rabbitmq) == ["work"]


async def test_a_copy_that_says_what_failing_means_needs_no_queue_for_dead_letters(rabbitmq: RabbitMQ) -> None:
    """The other copies have one."""
    for queue in ("work", "work-1"):
        await rabbitmq.declare(queue)
        await rabbitmq.publish([b"one"], queue=queue)

    def for_copy(index: int) -> Mapping[str, Any]:
        return {"queue": "work-1", "on_failure": "ack"} if index else {}

    class Rejecting(Pipeline[bytes]):
        async def handle_message(self, message: Message[bytes]) -> None:
            raise Reject("no")

    pipeline = Rejecting(producer=RabbitMQProducer("work", rabbitmq.url, concurrency=2, merge_options=for_copy))
    async with at_work(pipeline, rabbitmq):
        await eventually(lambda: outcomes(pipeline) == {"dead_lettered": 1, "dropped": 1}, what="both are settled")
    assert sorted(await queues(rabbitmq)) == ["work", "work-1", "work.dead"]


async def test_without_the_permission_for_dead_letters_nothing_is_consumed(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await rabbitmq.publish([b"one"])
    await rabbitmq.allow(configure="^$")
    pipeline = Failing(producer=RabbitMQProducer("work", rabbitmq.url))
    async with at_work(pipeline, rabbitmq):
        await eventually(
            lambda: (
                f"queue 'work.dead' on {rabbitmq.where}, for failed messages, may not be declared by this "
                "user: " in str(pipeline.stats().trouble)
            ),
            what="the trouble is told",
        )
        assert await rabbitmq.counts() == Counts(1, 0)


# --- live changes -----------------------------------------------------------------------------------------------------


@conforms("R-057")
async def test_a_smaller_prefetch_gives_back_the_surplus_and_loses_nothing(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    bodies = [b"%03d" % number for number in range(100)]
    await rabbitmq.publish(bodies)
    async with opened(RabbitMQProducer("work", rabbitmq.url), capacity=60) as copy:
        await rabbitmq.until(ready=40, unacked=60)
        held = await take(copy, 10)
        copy.resize(20)
        # Ten in hand, twenty in the buffer.
        await rabbitmq.until(ready=70, unacked=30)
        await rabbitmq.until_consumed_by(1)
        messages = [*held, *await take(copy, 20)]
        await settle(messages)
        rest = await take(copy, 20)
        while len(messages) + len(rest) < 100:
            await settle(rest)
            messages += rest
            rest = await take(copy, min(20, 100 - len(messages)))
        await settle(rest)
        await rabbitmq.until(ready=0, unacked=0)
        # What was given back comes again before what is newer.
        assert data([*messages, *rest]) == bodies


async def test_a_larger_prefetch_counts_at_once(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await rabbitmq.publish([b"%d" % number for number in range(100)])
    async with opened(RabbitMQProducer("work", rabbitmq.url), capacity=20) as copy:
        await rabbitmq.until(ready=80, unacked=20)
        copy.resize(50)
        # The old consumer's twenty, and the new one's fifty.
        await rabbitmq.until(ready=30, unacked=70)
        await rabbitmq.until_consumed_by(1)


@pytest.mark.any_broker
async def test_more_processors_come_with_a_larger_prefetch(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await rabbitmq.publish([b"%d" % number for number in range(300)])
    pipeline = Failing(producer=RabbitMQProducer("work", rabbitmq.url), processors=Processors(concurrency=2))
    async with at_work(pipeline, rabbitmq):
        await pipeline.ready(10)
        assert pipeline.stats().producers[0].connected == 1
        pipeline.set_concurrency(processors=10)
        await eventually(lambda: outcomes(pipeline) == {"acked": 300}, what="each was handled once")
    assert await rabbitmq.ready() == 0


async def test_large_bodies_make_the_prefetch_small(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    size = AUTO_BYTES // 8
    for _ in range(20):
        await rabbitmq.publish([b"." * size])
    async with opened(RabbitMQProducer("work", rabbitmq.url), capacity=1000) as copy:
        # Eight of them are as many bytes as there may be.
        await eventually(lambda: _prefetch(copy) <= 8, timeout=30, what="the prefetch has followed")
        await rabbitmq.until(ready=12, unacked=8)
        await settle(await take(copy, 4))
    await rabbitmq.until(ready=16, unacked=0)


def _prefetch(copy: Any) -> int:
    found: int = copy._session._consumers._window.prefetch
    return found


@conforms("R-050")
@pytest.mark.any_broker
async def test_a_pause_on_a_silent_network_goes_on_after_a_few_seconds(
    rabbitmq: RabbitMQ, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    await rabbitmq.declare()
    async with opened(RabbitMQProducer("work", rabbitmq.through(proxy.port))) as copy:
        proxy.black_hole()
        async with asyncio.timeout(5):
            await copy.pause()
        assert "no answer from the broker; going on without it" in events_logged(caplog)
        proxy.heal()
        await copy.resume()
        await rabbitmq.publish([b"one"])
        await settle(await take(copy, 1))
