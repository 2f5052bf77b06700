"""Failed messages on a real RabbitMQ: tried again after a delay, then kept among the dead letters; none is lost."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final, Literal

import aio_pika
import pytest

from broadway_py import FailurePolicy, Message, RetryLater, Unavailable
from broadway_py.producers import RabbitMQProducer
from broadway_py.producers.rabbitmq.retries import publisher
from broadway_py.producers.rabbitmq.topology import delay_queues
from tests.integration.failing_pipelines import Failing, dead_letters, queues, raising, source, until_there
from tests.integration.gated_pipelines import at_work
from tests.pipeline.support import clock_of, outcomes
from tests.support.eventually import eventually
from tests.support.proxy import FaultProxy
from tests.support.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.integration, pytest.mark.faults]

#: Where a message may wait for its second attempt.
WAITING: Final = ("work.retry.125.q2", "work.retry.250.q2")

# --- retries --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["classic", "quorum"])
@pytest.mark.any_broker
async def test_a_message_gets_its_attempts_with_growing_gaps_and_then_goes_to_the_dead_letters(
    rabbitmq: RabbitMQ, kind: Literal["classic", "quorum"]
) -> None:
    await rabbitmq.declare("work", **{"x-queue-type": kind})
    await rabbitmq.publish([b"bad"], message_id="m1", headers={"who": "me"}, correlation_id="c", priority=3)
    pipeline = Failing(producer=source(rabbitmq), context=raising(ValueError("no")))
    async with at_work(pipeline, rabbitmq):
        await until_there(rabbitmq, "work.dead")
    assert await rabbitmq.ready() == 0
    assert pipeline.attempts[b"bad"] == [1, 2, 3, 4]
    times = pipeline.seen[b"bad"]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    # Drawn from [0.1, 0.2], [0.2, 0.4] and [0.4, 0.8], and rounded up to the ladder.
    assert [gap >= least for gap, least in zip(gaps, (0.1, 0.2, 0.4), strict=True)] == [True] * 3, gaps
    assert {message.id for message in pipeline.messages} == {"m1"}
    assert outcomes(pipeline) == {"retried": 3, "dead_lettered": 1}

    (letter,) = await dead_letters(rabbitmq)
    assert (letter.body, letter.message_id, letter.correlation_id, letter.priority) == (b"bad", "m1", "c", 3)
    assert letter.delivery_mode == 2
    headers = dict(letter.headers)
    assert headers.pop("who") == "me"
    ours = {name: value for name, value in headers.items() if name.startswith("x-broadway-")}
    for name in ("first-failed-at", "failed-at"):
        when = datetime.strptime(str(ours.pop(f"x-broadway-{name}")), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        assert abs((datetime.now(UTC) - when).total_seconds()) < 60
    assert ours.pop("x-broadway-worker")
    assert ours.pop("x-broadway-id")
    assert ours == {
        "x-broadway-attempts": 4,
        "x-broadway-cause": "raised",
        "x-broadway-exception": "ValueError",
        "x-broadway-exchange": "",
        "x-broadway-pipeline": "Failing",
        "x-broadway-queue": "work",
        "x-broadway-routing-key": "work",
    }


@pytest.mark.any_broker
async def test_retries_may_wait_in_queues_with_arguments_of_the_users_own(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare("work", **{"x-queue-type": "quorum"})
    await rabbitmq.publish([b"one"])
    arguments = {"x-quorum-initial-group-size": 1}
    producer = source(rabbitmq, retry_arguments=arguments, dead_letter_arguments={"x-queue-type": "quorum"})
    pipeline = Failing(
        producer=producer, context=raising(ValueError()), failure=FailurePolicy(attempts=2, backoff=(0.2, 1.0))
    )
    async with at_work(pipeline, rabbitmq):
        await until_there(rabbitmq, "work.dead")
    assert pipeline.attempts[b"one"] == [1, 2]


@pytest.mark.any_broker
@pytest.mark.delivery_path("fast")
async def test_a_quorum_queue_for_retries_is_not_deleted_while_it_is_in_use(
    rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker renews the lease of a classic queue when it is declared again, but not that of a quorum queue."""
    monkeypatch.setattr(delay_queues, "_SLACK_MS", 800)
    for module in (delay_queues, publisher):
        monkeypatch.setattr(module, "DECLARED_AGAIN_S", 0.0)
    await rabbitmq.declare()
    await rabbitmq.publish([b"one"])

    def later(message: Message[bytes]) -> None:
        # It looks every five seconds whether a lease is over: past the second time, and always with a message in it.
        if message.attempt is not None and message.attempt <= 5:
            raise RetryLater(after=2.0)

    failure = FailurePolicy(attempts=9, breaker=None)
    pipeline = Failing(producer=source(rabbitmq), context=later, failure=failure)
    async with at_work(pipeline, rabbitmq):
        await eventually(lambda: len(pipeline.seen[b"one"]) == 6, timeout=20, what="it came for the sixth time")


@pytest.mark.any_broker
async def test_a_short_delay_does_not_wait_behind_a_long_one(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()

    def later(message: Message[bytes]) -> None:
        if message.attempt == 1:
            raise RetryLater(after=30.0 if message.data == b"long" else 0.2)

    pipeline = Failing(producer=source(rabbitmq), context=later)
    async with at_work(pipeline, rabbitmq):
        await rabbitmq.publish([b"long"])
        await until_there(rabbitmq, "work.retry.32000.q2")
        await rabbitmq.publish([b"short"])
        await eventually(lambda: len(pipeline.seen[b"short"]) == 2, what="the short one came again")
        assert await rabbitmq.ready("work.retry.32000.q2") == 1


@pytest.mark.any_broker
async def test_a_retry_returns_to_its_queue_alone_and_looks_as_it_did_at_first(rabbitmq: RabbitMQ) -> None:
    """By the exchange it came from, the neighbour's queue would get a second copy; so it would by CC."""
    await rabbitmq.declare()
    await rabbitmq.declare("neighbour")
    events = await rabbitmq.channel.declare_exchange("events", "fanout", auto_delete=True)
    await (await rabbitmq.channel.get_queue("neighbour")).bind(events)
    bindings = [{"exchange": "events"}]
    metadata = ["exchange", "routing_key", "queue", "headers"]
    pipeline = Failing(
        producer=source(rabbitmq, bindings=bindings, metadata=metadata),
        context=lambda message: message.fail("not yet") if message.attempt == 1 else None,
    )
    async with at_work(pipeline, rabbitmq):
        await pipeline.ready(10)
        headers: dict[str, Any] = {"CC": ["neighbour"], "who": "me"}
        message = aio_pika.Message(b"x", headers=headers, message_id="m1", expiration=60, user_id=rabbitmq.user)
        await events.publish(message, routing_key="orders.new")
        await eventually(lambda: len(pipeline.messages) == 2, what="it was tried twice")
    assert await rabbitmq.ready() == 0
    first, second = (message.metadata for message in pipeline.messages)
    assert (first["exchange"], first["routing_key"]) == ("events", "orders.new")
    assert (second["exchange"], second["routing_key"], second["queue"]) == ("events", "orders.new", "work")
    assert second["headers"]["who"] == "me"
    assert second["message_id"] == "m1"
    # Once by the exchange; CC means nothing to a fanout exchange.
    assert await rabbitmq.ready("neighbour") == 1


@pytest.mark.any_broker
async def test_many_messages_of_one_id_are_each_retried(rabbitmq: RabbitMQ) -> None:
    """Returned messages are told apart by their ids: two of one id must not be on their way at the same time."""
    await rabbitmq.declare()
    await rabbitmq.publish([b"%d" % number for number in range(50)], message_id="same")
    pipeline = Failing(
        producer=source(rabbitmq), context=lambda message: message.fail("no") if message.attempt == 1 else None
    )
    async with at_work(pipeline, rabbitmq):
        await eventually(lambda: len(pipeline.messages) == 100, what="each was tried twice")
    assert await rabbitmq.ready() == 0
    assert all(len(times) == 2 for times in pipeline.seen.values())


@pytest.mark.any_broker
async def test_a_message_from_another_dead_letter_exchange_is_not_lost_in_a_circle(rabbitmq: RabbitMQ) -> None:
    """A broker drops a message that returns by itself to where it died before: an older x-death must not be there."""
    await rabbitmq.declare()
    death = {"queue": "work", "reason": "expired", "exchange": "", "routing-keys": ["work"], "count": 1}
    await rabbitmq.publish([b"x"], headers={"x-death": [death]})
    pipeline = Failing(
        producer=source(rabbitmq), context=lambda message: message.fail("no") if message.attempt == 1 else None
    )
    async with at_work(pipeline, rabbitmq):
        await eventually(lambda: len(pipeline.messages) == 2, what="it came again")
    assert await rabbitmq.ready() == 0


@pytest.mark.any_broker
async def test_a_sink_that_is_away_costs_no_dead_letter(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await rabbitmq.publish([b"%d" % number for number in range(200)])
    away = True

    def sink(message: Message[bytes]) -> None:
        if away:
            raise Unavailable("the database is away")

    pipeline = Failing(producer=source(rabbitmq), context=sink, failure=FailurePolicy(attempts=2, backoff=(0.2, 0.5)))
    async with at_work(pipeline, rabbitmq):
        await eventually(lambda: pipeline.stats().breaker_open, what="the breaker has opened")
        begun = len(pipeline.messages)
        # After one second, and after two more.
        await eventually(lambda: len(pipeline.messages) >= begun + 2, timeout=30, what="it was probed twice")
        away = False
        await eventually(
            lambda: outcomes(pipeline).get("acked", 0) == 200, timeout=60, what="every message was handled"
        )
    assert await rabbitmq.ready() == 0
    assert await rabbitmq.ready("work.dead") == 0
    assert set(pipeline.seen) == {b"%d" % number for number in range(200)}


async def test_a_breaker_that_probes_often_uses_up_no_deliveries_of_what_waits(rabbitmq: RabbitMQ) -> None:
    """A quorum queue counts what is given back, and drops what has reached the limit."""
    await rabbitmq.declare("work", **{"x-queue-type": "quorum", "x-delivery-limit": 3})
    bodies = {b"%d" % number for number in range(50)}
    await rabbitmq.publish(sorted(bodies))
    probes = 0

    def sink(message: Message[bytes]) -> None:
        nonlocal probes
        if pipeline.stats().breaker_open:
            probes += 1
        if probes <= 5:
            raise Unavailable("the database is away")

    pipeline = Failing(producer=source(rabbitmq), context=sink, failure=FailurePolicy())
    clock = clock_of(pipeline)
    async with at_work(pipeline, rabbitmq):

        async def is_done() -> bool:
            # A probe is due after a minute at most. While one is under way hardly any time goes by, or another would
            # begin before the broker has answered the first.
            is_probing = await rabbitmq.consumers() > 0 or any(one.in_flight for one in pipeline.stats().producers)
            await clock.advance(0.05 if is_probing else 1.0)
            return outcomes(pipeline).get("acked", 0) == len(bodies)

        await eventually(is_done, timeout=30, what="every message was handled")
    assert set(pipeline.seen) == bodies
    # What was in advance when the breaker opened has been given back then, once.
    assert {attempts[0] for attempts in pipeline.attempts.values()} <= {1, 2}


async def test_classic_queues_for_retries_go_away_when_nobody_needs_them(
    rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A second, in place of five minutes.
    monkeypatch.setattr(delay_queues, "_SLACK_MS", 1000)
    monkeypatch.setattr(delay_queues, "DECLARED_AGAIN_S", 0.0)
    await rabbitmq.declare()
    await rabbitmq.publish([b"x"])
    pipeline = Failing(
        producer=source(rabbitmq, retry_arguments={"x-queue-type": "classic"}),
        context=lambda message: message.fail("no") if message.attempt == 1 else None,
    )
    async with at_work(pipeline, rabbitmq):
        await eventually(lambda: len(pipeline.messages) == 2, what="it came again")

        async def gone() -> bool:
            return not [name for name in await queues(rabbitmq) if ".retry." in name]

        # Asked for as any client may ask, it would live on: that counts as a use.
        await eventually(gone, what="the queue for retries has expired")


@pytest.mark.any_broker
async def test_an_ordered_pipeline_tries_again_in_place(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await rabbitmq.publish([b"one", b"two"])

    class Ordered(Failing):
        ordered = True

        def partition_by(self, message: Message[bytes]) -> str:
            return "same"

    def first_fails(message: Message[bytes]) -> None:
        if message.data == b"one":
            raise ValueError

    policy = FailurePolicy(attempts=3, backoff=(0.01, 0.02), breaker=None)
    pipeline = Ordered(producer=source(rabbitmq), context=first_fails, failure=policy)
    async with at_work(pipeline, rabbitmq):
        await until_there(rabbitmq, "work.dead")
        await eventually(lambda: len(pipeline.messages) == 4, what="the second one was handled")
        assert [await rabbitmq.ready(queue) for queue in WAITING] == [None, None]
    assert await rabbitmq.ready() == 0
    assert [message.data for message in pipeline.messages] == [b"one", b"one", b"one", b"two"]
    (letter,) = await dead_letters(rabbitmq)
    assert letter.headers["x-broadway-attempts"] == 3


@pytest.mark.any_broker
async def test_the_death_of_a_worker_counts_as_an_attempt_where_the_broker_counts(
    rabbitmq: RabbitMQ, proxy: FaultProxy
) -> None:
    """So one that kills its worker each time does not come for ever."""
    await rabbitmq.declare("work", **{"x-queue-type": "quorum"})
    await rabbitmq.publish([b"deadly"])

    def kill(message: Message[bytes]) -> None:
        if message.attempt is not None and message.attempt < 3:
            # To the broker this looks as the death of the process does.
            proxy.reset()
        else:
            raise ValueError

    producer = RabbitMQProducer(
        *("work", rabbitmq.through(proxy.port)), backoff_type="exp", backoff_min=0.1, backoff_max=0.2
    )
    pipeline = Failing(producer=producer, context=kill, failure=FailurePolicy(attempts=3, breaker=None))
    async with at_work(pipeline, rabbitmq):
        await until_there(rabbitmq, "work.dead")
    assert pipeline.attempts[b"deadly"] == [1, 2, 3]
