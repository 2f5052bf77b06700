"""The delivery limit of quorum queues (20 on RabbitMQ 4.x): what comes back again and again is never dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, cast

import pytest

from broadway_py import FailurePolicy, Message
from broadway_py.producers import RabbitMQProducer
from broadway_py.producers.rabbitmq.reader import RabbitMQReader
from broadway_py.producers.rabbitmq.retries.publisher import Publisher
from broadway_py.producers.rabbitmq.session import Session
from broadway_py.testing.driving import opened, settle, take
from tests.integration.failing_pipelines import Failing, dead_letters, raising, source
from tests.integration.gated_pipelines import at_work
from tests.integration.test_dlq_rabbitmq import dlq, settings_file
from tests.pipeline.support import logged, outcomes
from tests.support.erlang import NodeRefusedError, binary
from tests.support.eventually import eventually
from tests.support.proxy import FaultProxy
from tests.support.rabbitmq import Counts, RabbitMQ

pytestmark = [pytest.mark.integration, pytest.mark.faults]

#: More often than the broker of today takes a message back by default.
MANY: Final = 24
BODIES: Final = frozenset(b"%d" % number for number in range(10))
QUORUM: Final = {"x-queue-type": "quorum"}
#: From here on there is a limit where nobody has said anything.
LIMITED: Final = (4, 0)
#: From here on what is given back in so many words does not count towards it.
SPARED: Final = (4, 3)
SOON: Final[dict[str, Any]] = {"backoff_type": "exp", "backoff_min": 0.05, "backoff_max": 0.05}

#: Whose queue it is -> how a producer is told.
OWNERS: Final[dict[str, dict[str, Any]]] = {
    "ours": {"declare": "active", "declare_options": {"arguments": QUORUM}},
    "others": {"declare": "passive"},
    "classic": {"declare": "passive"},
}


async def prepare(broker: RabbitMQ, owner: str, **arguments: Any) -> None:
    """See that the queue ``work`` is there, and holds every body, confirmed."""
    if owner == "ours":
        async with opened(RabbitMQProducer("work", broker.url, **OWNERS[owner])):
            pass
    else:
        await broker.declare("work", **({"x-queue-type": "classic"} if owner == "classic" else QUORUM), **arguments)
    await broker.publish(sorted(BODIES))


async def handled_in_the_end(broker: RabbitMQ, owner: str) -> set[bytes]:
    """What a pipeline that fails nothing finds in the queue."""
    pipeline = Failing(producer=source(broker, **OWNERS[owner]))
    async with at_work(pipeline, broker):

        async def done() -> bool:
            return await broker.counts() == Counts(0, 0)

        await eventually(done, what="the queue is empty", timeout=20)
    return set(pipeline.seen)


async def bodies_in(broker: RabbitMQ, queue: str) -> dict[bytes, object]:
    """What is in *queue*, with the cause of its death."""
    if await broker.ready(queue) is None:
        return {}
    return {letter.body: letter.headers.get("x-broadway-cause") for letter in await dead_letters(broker, queue)}


# --- giving back ------------------------------------------------------------------------------------------------------


async def by_pauses(broker: RabbitMQ, proxy: FaultProxy, owner: str) -> None:
    async with opened(RabbitMQProducer("work", broker.url, prefetch_count=50, **OWNERS[owner])) as copy:
        for _ in range(MANY):
            await until_held(broker, owner)
            await copy.pause()
            await copy.resume()


async def by_smaller_prefetches(broker: RabbitMQ, proxy: FaultProxy, owner: str) -> None:
    async with opened(RabbitMQProducer("work", broker.url, prefetch_count=50, **OWNERS[owner])) as opened_copy:
        session = cast("RabbitMQReader", opened_copy)._opened()
        for number in range(MANY):
            await until_held(broker, owner)
            session.change_prefetch(49 - number)
            await eventually(lambda: not session._asides, what="the prefetch has changed")


async def by_drains(broker: RabbitMQ, proxy: FaultProxy, owner: str) -> None:
    for _ in range(MANY):
        async with opened(RabbitMQProducer("work", broker.url, prefetch_count=50, **OWNERS[owner])) as copy:
            await until_held(broker, owner)
            copy.context.begin_draining()
            await copy.prepare_for_draining()


async def by_closing(broker: RabbitMQ, proxy: FaultProxy, owner: str) -> None:
    for _ in range(MANY):
        async with opened(RabbitMQProducer("work", broker.url, prefetch_count=50, **OWNERS[owner])):
            await until_held(broker, owner)


async def by_losses(broker: RabbitMQ, proxy: FaultProxy, owner: str) -> None:
    url = broker.through(proxy.port)
    for _ in range(MANY):
        async with opened(RabbitMQProducer("work", url, prefetch_count=50, **OWNERS[owner]), losses=[]) as opened_copy:
            await until_held(broker, owner)
            # Several losses in a row before anything could be put away would use up the returns kept in reserve.
            await until_put_away(broker, cast("RabbitMQReader", opened_copy)._opened())
            proxy.reset()

        async def noticed() -> bool:
            return (await broker.counts()).unacked == 0

        await eventually(noticed, what="the broker has everything back")


WAYS: Final = [by_pauses, by_smaller_prefetches, by_drains, by_closing, by_losses]


async def until_held(broker: RabbitMQ, owner: str) -> None:
    """Wait until nothing is left that the producer could be handed."""

    async def held() -> bool:
        return (await broker.counts()).ready == 0

    await eventually(held, what="all that is there has been handed out")


async def until_put_away(broker: RabbitMQ, session: Session) -> None:
    """Wait until *session* has seen all that was handed out, and has put away what is near its limit."""

    async def done() -> bool:
        return (await broker.counts()).unacked == len(session._buffer) and not session._keeping

    await eventually(done, what="what is near its limit has been put away")


@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("way", WAYS)
async def test_what_is_given_back_many_times_is_not_lost(
    rabbitmq: RabbitMQ, proxy: FaultProxy, way: Callable[[RabbitMQ, FaultProxy, str], Awaitable[None]], owner: str
) -> None:
    """Messages that no handler has ever seen."""
    await prepare(rabbitmq, owner)
    await way(rabbitmq, proxy, owner)
    handled = await handled_in_the_end(rabbitmq, owner)
    dead = await bodies_in(rabbitmq, "work.dead")
    assert handled | set(dead) == BODIES
    assert not handled & set(dead)
    counts = rabbitmq.version < SPARED or way is by_losses
    if owner == "others" and rabbitmq.version >= LIMITED and counts:
        assert dead == dict.fromkeys(BODIES, "delivery_limit")
    else:
        assert dead == {}


async def test_a_message_near_its_limit_is_put_away_while_nothing_is_asked_for(
    rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    """A limit that we were told; on every version."""
    arguments = {**QUORUM, "x-delivery-limit": 4}
    await rabbitmq.declare("work", **arguments)
    await rabbitmq.publish([b"one"])
    declared = {"declare": "active", "declare_options": {"arguments": arguments}}
    for _ in range(3):
        queue = await rabbitmq.channel.get_queue("work")
        await (await queue.get(timeout=10)).reject(requeue=True)
    async with opened(RabbitMQProducer("work", rabbitmq.url, **declared)):
        await rabbitmq.until_ready(1, "work.dead")
        await rabbitmq.until(ready=0, unacked=0)
    (letter,) = await dead_letters(rabbitmq)
    assert (letter.body, letter.headers["x-broadway-cause"], letter.headers["x-broadway-queue"]) == (
        *(b"one", "delivery_limit"),
        "work",
    )
    (line,) = [line for line in logged(caplog) if "would soon drop" in str(line["event"])]
    assert {name: line[name] for name in ("event", "queue", "messages", "limit")} == {
        "event": "messages came back to their queue so often that the broker would soon drop them; they go to the "
        "dead letters",
        "queue": "work",
        "messages": 1,
        "limit": 4,
    }


@pytest.mark.parametrize("by", ["policy", "argument"])
async def test_a_limit_that_cannot_be_seen_counts_where_it_was_said(rabbitmq: RabbitMQ, by: str) -> None:
    """Also where it is smaller than any that would be taken for granted."""
    if by == "policy":
        await rabbitmq._ask(
            f"ok = rabbit_policy:set({binary(rabbitmq.vhost)}, {binary('few')}, {binary('^work$')}, "
            f"[{{{binary('delivery-limit')}, 5}}], 0, {binary('queues')}, {binary('tests')})"
        )
        await rabbitmq.declare("work", **QUORUM)
    else:
        await rabbitmq.declare("work", **QUORUM, **{"x-delivery-limit": 5})
    await rabbitmq.publish([b"one", b"two"])
    queue = await rabbitmq.channel.get_queue("work")
    for _ in range(4):
        first = await queue.get(timeout=10)
        assert first.body == b"one"
        await first.reject(requeue=True)
    async with opened(RabbitMQProducer("work", rabbitmq.url, delivery_limit=5)) as copy:
        (message,) = await take(copy, 1)
        assert message.data == b"two"
        await rabbitmq.until_ready(1, "work.dead")
        await settle([message])
    assert await bodies_in(rabbitmq, "work.dead") == {b"one": "delivery_limit"}


async def test_while_the_dead_letters_take_none_a_message_near_its_limit_is_counted_anew(rabbitmq: RabbitMQ) -> None:
    arguments = {**QUORUM, "x-delivery-limit": 4}
    await rabbitmq.declare("work", **arguments)
    await fill_dead_letters(rabbitmq)
    await rabbitmq.publish([b"one"])
    queue = await rabbitmq.channel.get_queue("work")
    for _ in range(4):
        await (await queue.get(timeout=10)).reject(requeue=True)
    declared = {"declare": "active", "declare_options": {"arguments": arguments}, "dead_letter_arguments": FULL}
    async with opened(RabbitMQProducer("work", rabbitmq.url, **declared)) as copy:
        (message,) = await take(copy, 1)
        # The attempts before stay attempts.
        assert (message.data, message.metadata["redelivered"], message.attempt) == (b"one", False, 5)
        await settle([message])
    await rabbitmq.until(ready=0, unacked=0)


# --- attempts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("owner", OWNERS)
async def test_pauses_are_no_attempts_where_the_broker_can_tell(rabbitmq: RabbitMQ, owner: str) -> None:
    await prepare(rabbitmq, owner)
    async with opened(RabbitMQProducer("work", rabbitmq.url, prefetch_count=50, **OWNERS[owner])) as copy:
        for _ in range(6):
            await until_held(rabbitmq, owner)
            await copy.pause()
            await copy.resume()
    failure = FailurePolicy(attempts=2, backoff=(0.2, 0.2), breaker=None)
    pipeline = Failing(producer=source(rabbitmq, **OWNERS[owner]), context=raising(ValueError()), failure=failure)
    async with at_work(pipeline, rabbitmq):
        await rabbitmq.until_ready(len(BODIES), "work.dead", timeout=20)
    attempts = set(map(tuple, pipeline.attempts.values()))
    if owner == "classic":
        # It does not count; a retry of ours does.
        assert attempts == {(None, 2)}
    elif rabbitmq.version >= SPARED:
        assert attempts == {(1, 2)}
    else:
        # Each pause counts, and closing the copy, and nothing tells that these were no failures.
        assert attempts == {(8,)}


@pytest.mark.parametrize("owner", OWNERS)
async def test_what_is_rejected_to_the_queue_counts(rabbitmq: RabbitMQ, owner: str) -> None:
    if owner != "classic":
        await prepare(rabbitmq, owner)
        settings = {**OWNERS[owner], "on_failure": "reject_and_requeue"}
        producer = source(rabbitmq, **settings)
        pipeline = Failing(
            producer=producer,
            context=lambda message: message.fail("no") if message.attempt is None or message.attempt < 4 else None,
            failure=None,
        )
        async with at_work(pipeline, rabbitmq):
            await eventually(lambda: outcomes(pipeline).get("acked") == len(BODIES), what="all were handled")
        assert set(map(tuple, pipeline.attempts.values())) == {(1, 2, 3, 4)}


@pytest.mark.since_rabbitmq("4.3")  # before, it closes the channel, which counts
async def test_a_consumer_time_out_that_cancels_the_consumer_costs_no_attempt(rabbitmq: RabbitMQ) -> None:
    gate = asyncio.Event()

    class Slow(Failing):
        async def handle_message(self, message: Message[bytes]) -> None:
            await super().handle_message(message)
            await gate.wait()

    await prepare(rabbitmq, "others")
    producer = source(rabbitmq, consume_options={"arguments": {"x-consumer-timeout": 1000}}, **SOON)
    pipeline = Slow(producer=producer)
    async with at_work(pipeline, rabbitmq):
        await eventually(lambda: pipeline.stats().producers[0].connections_lost >= 2, what="it timed out", timeout=30)
        gate.set()
        await eventually(lambda: outcomes(pipeline).get("acked", 0) >= len(BODIES), what="all were handled", timeout=20)
        await rabbitmq.until(ready=0, unacked=0)
    assert set(pipeline.seen) == BODIES
    assert {attempt for attempts in pipeline.attempts.values() for attempt in attempts} == {1}


# --- a full queue of dead letters -------------------------------------------------------------------------------------


class Tries:
    """How often something was published."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        publish = Publisher.publish

        async def counted(publisher: Publisher, letters: Any) -> Any:
            self.count += 1
            return await publish(publisher, letters)

        monkeypatch.setattr(Publisher, "publish", counted)


FULL: Final = {"x-max-length": 1, "x-overflow": "reject-publish"}
ONE_BY_ONE: Final = Failing.processors.model_copy(update={"concurrency": 1, "max_demand": 1})
#: While one waits with its failed message, the others have nothing to do.
SIDE_BY_SIDE: Final = Failing.processors.model_copy(update={"concurrency": 3, "max_demand": 4})


def fails_first(message: Message[bytes]) -> None:
    if message.data == min(BODIES):
        raise ValueError


async def fill_dead_letters(broker: RabbitMQ) -> None:
    await broker.declare("work.dead", **FULL)
    await broker.publish([b"in the way"], queue="work.dead")


@pytest.mark.parametrize("owner", OWNERS)
async def test_a_full_queue_of_dead_letters_costs_no_delivery(
    rabbitmq: RabbitMQ, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill_dead_letters(rabbitmq)
    settings = {**OWNERS[owner], **SOON, "dead_letter_arguments": FULL}
    await prepare(rabbitmq, owner)
    tries = Tries(monkeypatch)
    failure = FailurePolicy(attempts=1, breaker=None)
    pipeline = Failing(
        producer=source(rabbitmq, **settings), context=fails_first, failure=failure, processors=ONE_BY_ONE
    )
    async with at_work(pipeline, rabbitmq):
        await eventually(lambda: tries.count > MANY, what="it was tried many times")
        assert pipeline.stats().trouble == (
            "rabbitmq: degraded: no new messages are started, because a failed message cannot be stored: "
            f"RabbitMQ at {rabbitmq.where} refused a message for queue 'work.dead': the queue is full, or broken"
        )
        assert outcomes(pipeline).get("unknown", 0) == 0
        assert (await rabbitmq.counts()).ready == 0
        begun = sum(map(len, pipeline.attempts.values()))
        assert begun <= 3
        await (await rabbitmq.channel.get_queue("work.dead")).get(no_ack=True)
        await eventually(lambda: sum(outcomes(pipeline).values()) == len(BODIES), what="all went on", timeout=20)
        assert pipeline.stats().trouble is None
        assert pipeline.stats().producers[0].connections_lost == 0
    assert outcomes(pipeline) == {"acked": len(BODIES) - 1, "dead_lettered": 1}
    # Each once, and as its first attempt.
    assert set(map(tuple, pipeline.attempts.values())) == {(1,)}
    assert set(pipeline.seen) == BODIES


@pytest.mark.parametrize("owner", ["ours", "others"])
async def test_processors_that_are_free_begin_nothing_while_a_failed_message_cannot_be_put_away(
    rabbitmq: RabbitMQ, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they began would soon fail like it, and each of them would hold a message that nobody can put away."""
    await fill_dead_letters(rabbitmq)
    if owner == "others":
        await rabbitmq.declare("work", **QUORUM)
    tries = Tries(monkeypatch)
    bad, others = min(BODIES), sorted(BODIES - {min(BODIES)})
    pipeline = Failing(
        producer=source(rabbitmq, **{**OWNERS[owner], **SOON, "dead_letter_arguments": FULL}),
        context=fails_first,
        failure=FailurePolicy(attempts=1, breaker=None),
        processors=SIDE_BY_SIDE,
    )

    async def all_wait() -> bool:
        assert set(pipeline.attempts) == {bad}
        return await rabbitmq.counts() == Counts(0, len(BODIES))

    async with at_work(pipeline, rabbitmq):
        await pipeline.ready(10)
        await rabbitmq.publish([bad])
        await eventually(lambda: "degraded" in str(pipeline.stats().trouble), what="it cannot be put away")
        await rabbitmq.publish(others)
        # They are with us, and three processors want them.
        await eventually(all_wait, what="all are with us", ignoring=NodeRefusedError)
        before = tries.count
        await eventually(lambda: tries.count >= before + 10, what="it is tried again and again")
        assert set(pipeline.attempts) == {bad}
        # Nor does a pause and its end begin them.
        await pipeline.pause()
        await pipeline.resume()
        await eventually(all_wait, what="all are with us", ignoring=NodeRefusedError)
        before = tries.count
        await eventually(lambda: tries.count >= before + 10, what="it is tried again and again")
        assert set(pipeline.attempts) == {bad}
        await (await rabbitmq.channel.get_queue("work.dead")).get(no_ack=True)
        await eventually(lambda: sum(outcomes(pipeline).values()) >= len(BODIES), what="all went on", timeout=20)
        assert pipeline.stats().trouble is None
    settled = outcomes(pipeline)
    assert {name: settled[name] for name in ("acked", "dead_lettered")} == {"acked": len(others), "dead_lettered": 1}
    assert set(map(len, pipeline.attempts.values())) == {1}
    assert set(pipeline.attempts) == BODIES


@pytest.mark.parametrize("owner", OWNERS)
async def test_a_drain_gives_back_what_cannot_be_put_away(rabbitmq: RabbitMQ, owner: str) -> None:
    await fill_dead_letters(rabbitmq)
    if owner != "ours":
        await rabbitmq.declare("work", **({"x-queue-type": "classic"} if owner == "classic" else QUORUM))
    settings = {**OWNERS[owner], **SOON, "dead_letter_arguments": FULL}
    failure = FailurePolicy(attempts=1, breaker=None)
    pipeline = Failing(
        producer=source(rabbitmq, **settings),
        context=fails_first,
        failure=failure,
        processors=ONE_BY_ONE,
        shutdown_timeout=60.0,
    )
    async with asyncio.timeout(30):
        async with at_work(pipeline, rabbitmq):
            await pipeline.ready(10)
            await rabbitmq.publish(sorted(BODIES))
            await eventually(lambda: "degraded" in str(pipeline.stats().trouble), what="it cannot be put away")
        # It does not wait for the deadline.
    await rabbitmq.until(ready=len(BODIES) - outcomes(pipeline).get("acked", 0), unacked=0)
    assert outcomes(pipeline)["unknown"] == 1
    left = {message.body for message in await dead_letters(rabbitmq, "work")}
    assert left | set(pipeline.seen) == BODIES
    assert min(BODIES) in left


# --- queues that are there --------------------------------------------------------------------------------------------


async def arguments_of(broker: RabbitMQ, queue: str) -> str:
    return await broker._ask(f"{{ok, Q}} = rabbit_amqqueue:lookup({broker._name_of(queue)}), amqqueue:get_arguments(Q)")


async def test_quorum_queues_that_we_declare_have_no_limit(rabbitmq: RabbitMQ) -> None:
    failure = FailurePolicy(attempts=1, breaker=None)
    producer = source(rabbitmq, **OWNERS["ours"], dead_letter_arguments=QUORUM)
    pipeline = Failing(producer=producer, context=raising(ValueError()), failure=failure)
    async with at_work(pipeline, rabbitmq):
        await pipeline.ready(10)
        await rabbitmq.publish([b"one"])
        await rabbitmq.until_ready(1, "work.dead")
        # Deleted meanwhile, it is made again by the connection that publishes.
        await rabbitmq.delete_queue("work.dead")
        await rabbitmq.publish([b"two"])
        await rabbitmq.until_ready(1, "work.dead")
    for queue in ("work", "work.dead"):
        assert ("x-delivery-limit" in await arguments_of(rabbitmq, queue)) is (rabbitmq.version >= LIMITED)
    # Again, and with it.
    async with at_work(Failing(producer=source(rabbitmq, **OWNERS["ours"], dead_letter_arguments=QUORUM)), rabbitmq):
        pass


@pytest.mark.parametrize(
    "there",
    [
        {},
        # Before, we ask for no limit of our own, and this queue is not the one that was asked for.
        pytest.param({"x-delivery-limit": 5}, marks=pytest.mark.since_rabbitmq("4.0")),
    ],
)
async def test_a_quorum_queue_that_is_there_with_another_limit_is_used_as_it_is(
    rabbitmq: RabbitMQ, there: dict[str, int]
) -> None:
    for queue in ("work", "work.dead"):
        await rabbitmq.declare(queue, **QUORUM, **there)
    await rabbitmq.publish([b"one"])
    failure = FailurePolicy(attempts=1, breaker=None)
    producer = source(rabbitmq, **OWNERS["ours"], dead_letter_arguments=QUORUM)
    pipeline = Failing(producer=producer, context=raising(ValueError()), failure=failure)
    async with at_work(pipeline, rabbitmq):
        await rabbitmq.until_ready(1, "work.dead")
    assert outcomes(pipeline) == {"dead_lettered": 1}


async def test_a_quorum_queue_that_is_there_with_other_arguments_is_still_refused(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare("work", **QUORUM, **{"x-max-length": 5})
    pipeline = Failing(producer=source(rabbitmq, **OWNERS["ours"], **SOON))
    async with at_work(pipeline, rabbitmq):
        await eventually(lambda: "cannot be used as asked" in str(pipeline.stats().trouble), what="it is told")
        assert "x-max-length" in str(pipeline.stats().trouble)


# --- looking at dead letters ------------------------------------------------------------------------------------------


async def listed(broker: RabbitMQ) -> list[list[str]]:
    """The rows, without the times, in the order of their sizes."""
    shown = await dlq("ls", "--url", broker.url, "--queue", "work")
    assert shown.exit_code == 0, shown.output
    return sorted(line.split() for line in shown.stdout.splitlines()[1:])


@pytest.mark.parametrize("owner", ["ours", "others", "classic"])
@pytest.mark.delivery_path("fast")
async def test_looking_at_dead_letters_costs_nothing(rabbitmq: RabbitMQ, owner: str) -> None:
    if owner == "others":
        await rabbitmq.declare("work.dead", **QUORUM)
    await rabbitmq.declare("work")
    await rabbitmq.publish([b"one", b"two", b"three"], headers={"mine": 1})
    failure = FailurePolicy(attempts=1, breaker=None)
    arguments = {} if owner == "classic" else QUORUM
    producer = source(rabbitmq, dead_letter_arguments=arguments)
    async with at_work(Failing(producer=producer, context=raising(ValueError()), failure=failure), rabbitmq):
        await rabbitmq.until_ready(3, "work.dead")
    first = await listed(rabbitmq)
    assert len(first) == 3
    for _ in range(MANY):
        await rabbitmq.until_ready(3, "work.dead")
        assert await listed(rabbitmq) == first
    await rabbitmq.until_ready(3, "work.dead")
    replayed = await dlq("replay", "--url", rabbitmq.url, "--queue", "work")
    assert replayed.exit_code == 0, replayed.output
    back = await dead_letters(rabbitmq, "work")
    assert sorted(letter.body for letter in back) == [b"one", b"three", b"two"]
    assert [dict(letter.headers) for letter in back] == [{"mine": 1}] * 3


@pytest.mark.delivery_path("fast")
async def test_looking_at_letters_that_the_broker_has_put_there_costs_nothing(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare("work.dead", **QUORUM)
    await rabbitmq.declare("work", **{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "work.dead"})
    await rabbitmq.publish([b"one"], message_id="m1")
    await (await (await rabbitmq.channel.get_queue("work")).get()).reject(requeue=False)
    await rabbitmq.until_ready(1, "work.dead")
    first = await listed(rabbitmq)
    for _ in range(MANY):
        # What was looked at is back a moment later.
        await rabbitmq.until_ready(1, "work.dead")
        assert await listed(rabbitmq) == first
    # It still knows where it died.
    await rabbitmq.until_ready(1, "work.dead")
    replayed = await dlq("replay", "--url", rabbitmq.url, "--dead", "work.dead")
    assert replayed.exit_code == 0, replayed.output
    await rabbitmq.until_ready(1)


@pytest.mark.delivery_path("fast")
async def test_a_letter_that_was_looked_at_often_is_counted_anew(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    """With a limit that the settings say; on every version."""
    arguments = {**QUORUM, "x-delivery-limit": 4}
    await rabbitmq.declare("work.dead", **arguments)
    await rabbitmq.publish([b"one"], queue="work.dead", headers={"x-broadway-id": "abc", "mine": 1})
    queue = await rabbitmq.channel.get_queue("work.dead")
    for _ in range(4):
        await (await queue.get(timeout=10)).reject(requeue=True)
    settings = settings_file(tmp_path, rabbitmq, dead_letter_arguments=arguments)
    shown = await dlq("ls", "--config", str(settings))
    assert shown.exit_code == 0, shown.output
    letter = await queue.get(timeout=10)
    assert (letter.body, letter.redelivered) == (b"one", False)
    assert {name: letter.headers[name] for name in ("x-broadway-id", "mine")} == {"x-broadway-id": "abc", "mine": 1}


@pytest.mark.delivery_path("fast")
async def test_letters_that_can_be_looked_at_no_more_say_so_and_stay(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    arguments = {**QUORUM, "x-delivery-limit": 8}
    await rabbitmq.declare("work.dead", **arguments)
    await rabbitmq.publish([b"one"], queue="work.dead")
    queue = await rabbitmq.channel.get_queue("work.dead")
    for _ in range(4):
        await (await queue.get(timeout=10)).reject(requeue=True)
    await rabbitmq.allow(write="nothing")
    settings = settings_file(tmp_path, rabbitmq, dead_letter_arguments=arguments)
    shown = await dlq("ls", "--config", str(settings))
    assert shown.exit_code == 1
    assert (
        "1 dead letter in queue 'work.dead' came back so often that the broker would soon drop them (its limit is 8 "
        "times), and the broker refused new copies of them: this user may not publish to queue "
        f"'work.dead' on {rabbitmq.where}: ACCESS_REFUSED - "
    ) in shown.stderr
    assert shown.stderr.strip().endswith("correct that, or make room in the queue, before you run broadway dlq again")
    await rabbitmq.until("work.dead", ready=1, unacked=0)
