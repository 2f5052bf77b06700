"""Dead letters on a real RabbitMQ: nothing is acked before it is safe elsewhere, whatever breaks."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from typing import Any

import pytest
from aiormq import Channel

from broadway_py import FailurePolicy, Message, Pipeline, Reject, ack_immediately
from broadway_py.errors import OptionsError, SettleError
from broadway_py.producers import RabbitMQProducer
from tests.integration.aftermath import until_lost
from tests.integration.failing_pipelines import Failing, dead_letters, raising, source, until_there
from tests.integration.gated_pipelines import at_work
from tests.pipeline.support import events_logged, logged, outcomes
from tests.support.conformance import conforms
from tests.support.eventually import eventually
from tests.support.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.integration, pytest.mark.faults]

#: So that a test need not wait for the next connect.
SOON: dict[str, Any] = {"backoff_type": "exp", "backoff_min": 0.1, "backoff_max": 0.3}
AT_ONCE = FailurePolicy(attempts=1, breaker=None)


async def until_trouble(pipeline: Failing, sentence: str) -> None:
    await eventually(lambda: pipeline.stats().trouble == sentence, what=f"the trouble is told as {sentence!r}")


# --- where dead letters go --------------------------------------------------------------------------------------------


@pytest.mark.any_broker
async def test_a_queue_of_dead_letters_that_was_deleted_is_made_again(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    pipeline = Failing(producer=source(rabbitmq), context=raising(Reject("never")), failure=AT_ONCE)
    async with at_work(pipeline, rabbitmq):
        await rabbitmq.publish([b"one"])
        await until_there(rabbitmq, "work.dead")
        await rabbitmq.delete_queue("work.dead")
        await rabbitmq.publish([b"two", b"three"])
        await until_there(rabbitmq, "work.dead", ready=2)
    assert outcomes(pipeline) == {"dead_lettered": 3}
    assert await rabbitmq.ready() == 0


@pytest.mark.any_broker
async def test_a_queue_of_dead_letters_with_other_arguments_keeps_everything_where_it_is(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await rabbitmq.declare("work.dead", **{"x-max-length": 5})
    await rabbitmq.publish([b"one"])
    pipeline = Failing(producer=source(rabbitmq, **SOON), context=raising(Reject("never")), failure=AT_ONCE)
    async with at_work(pipeline, rabbitmq):
        await until_trouble(
            pipeline,
            f"rabbitmq: queue 'work.dead' on {rabbitmq.where}, for failed messages, exists, but with other "
            "arguments: PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'work.dead' in vhost "
            f"'{rabbitmq.vhost}': received none but current is the value '5' of type 'byte'; delete or rename it, "
            "or give its arguments in dead_letter_arguments or retry_arguments",
        )
        assert await rabbitmq.ready() == 1
        assert pipeline.messages == []
        await rabbitmq.delete_queue("work.dead")
        await until_there(rabbitmq, "work.dead")
    assert outcomes(pipeline) == {"dead_lettered": 1}


@pytest.mark.any_broker
async def test_dead_letters_of_the_users_own_making_are_used_as_they_are(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await rabbitmq.declare("elsewhere", **{"x-max-length": 5})
    await rabbitmq.publish([b"one"])
    failure = FailurePolicy(attempts=1, dead_letter="elsewhere", breaker=None)
    producer = source(rabbitmq, dead_letter_declare="passive")
    pipeline = Failing(producer=producer, context=raising(ValueError()), failure=failure)
    async with at_work(pipeline, rabbitmq):
        await until_there(rabbitmq, "elsewhere")
    assert await rabbitmq.ready() == 0


@pytest.mark.any_broker
async def test_dead_letters_that_somebody_else_should_have_declared_are_missed(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await rabbitmq.publish([b"one"])
    producer = source(rabbitmq, dead_letter_declare="passive", **SOON)
    pipeline = Failing(producer=producer, context=raising(ValueError()), failure=AT_ONCE)
    async with at_work(pipeline, rabbitmq):
        await until_trouble(
            pipeline,
            f"rabbitmq: queue 'work.dead' on {rabbitmq.where}, for failed messages, does not exist; "
            "create it or set dead_letter_declare: active",
        )
        assert await rabbitmq.ready() == 1


@pytest.mark.any_broker
async def test_dead_letters_by_the_broker_are_rejected_to_the_queues_own_exchange(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare_with_dead_letters()
    await rabbitmq.publish([b"one"])
    failure = FailurePolicy(attempts=1, dead_letter="broker", breaker=None)
    pipeline = Failing(producer=source(rabbitmq), context=raising(ValueError()), failure=failure)
    async with at_work(pipeline, rabbitmq):
        await rabbitmq.until_ready(1, "work.dead")
    (letter,) = await dead_letters(rabbitmq)
    assert letter.headers["x-first-death-reason"] == "rejected"
    assert outcomes(pipeline) == {"dead_lettered": 1}


def test_reject_without_a_dead_letter_exchange_is_refused() -> None:
    for policy in (FailurePolicy(final="reject"), FailurePolicy(classify={ValueError: "reject"})):
        with pytest.raises(OptionsError) as refused:
            Failing(producer=RabbitMQProducer("work"), failure=policy)
        assert str(refused.value) == (
            "failure: reject deletes messages, unless the queue has a dead-letter exchange; if it has one, set "
            "dead_letter: broker; else choose dead_letter or drop"
        )
    Failing(producer=RabbitMQProducer("work"), failure=FailurePolicy(final="reject", dead_letter="broker"))


def test_dead_letters_cannot_go_to_the_queue_they_come_from() -> None:
    with pytest.raises(OptionsError) as refused:
        Failing(producer=RabbitMQProducer(["a", "b"]), failure=FailurePolicy(dead_letter="b"))
    assert str(refused.value) == (
        "failure.dead_letter: 'b' is consumed here, so its dead letters would come back; name another queue"
    )


# --- what the user said of failing ------------------------------------------------------------------------------------


@pytest.mark.any_broker
async def test_on_failure_of_the_producer_goes_before_the_default_policy(rabbitmq: RabbitMQ) -> None:
    class Plain(Failing):
        failure = Pipeline.failure

    await rabbitmq.declare_with_dead_letters()
    await rabbitmq.publish([b"one"])
    pipeline = Plain(producer=source(rabbitmq, on_failure="reject"), context=raising(ValueError()))
    async with at_work(pipeline, rabbitmq):
        await rabbitmq.until_ready(1, "work.dead")
    assert outcomes(pipeline) == {"rejected": 1}
    assert pipeline.attempts[b"one"] == [1]


@pytest.mark.any_broker
async def test_a_policy_that_was_given_goes_before_on_failure_and_says_so(
    rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await rabbitmq.declare_with_dead_letters()
    await rabbitmq.publish([b"one"])
    pipeline = Failing(producer=source(rabbitmq, on_failure="ack"), context=raising(ValueError()), failure=AT_ONCE)
    async with at_work(pipeline, rabbitmq):
        await rabbitmq.until_ready(1, "work.dead")
    assert outcomes(pipeline) == {"dead_lettered": 1}
    told = [
        line
        for line in logged(caplog, least=logging.INFO)
        if line["event"] == "failure= overrides the producer's on_failure="
    ]
    assert [(line["pipeline"], line["producer"]) for line in told] == [("Failing", "rabbitmq")]


@pytest.mark.any_broker
async def test_on_failure_of_a_message_goes_before_any_policy(rabbitmq: RabbitMQ) -> None:
    def drop(message: Message[bytes]) -> None:
        message.configure_ack(on_failure="ack")
        raise ValueError

    await rabbitmq.declare()
    await rabbitmq.publish([b"one"])
    pipeline = Failing(producer=source(rabbitmq), context=drop)
    async with at_work(pipeline, rabbitmq):
        await eventually(lambda: outcomes(pipeline) == {"dropped": 1}, what="it was dropped")
        assert await rabbitmq.ready("work.dead") == 0
    assert pipeline.attempts[b"one"] == [1]


# --- when putting away fails ------------------------------------------------------------------------------------------


@pytest.mark.any_broker
async def test_a_queue_for_retries_with_other_arguments_loses_nothing_and_is_told(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    for wait in (125, 250):
        await rabbitmq.declare(f"work.retry.{wait}.q2")
    await rabbitmq.publish([b"one", b"two"])
    pipeline = Failing(
        producer=source(rabbitmq, **SOON),
        context=lambda message: message.fail("no") if message.attempt == 1 else None,
    )
    async with at_work(pipeline, rabbitmq):
        await eventually(
            lambda: "for failed messages, exists, but with other arguments" in str(pipeline.stats().trouble),
            what="the trouble is told",
        )
        for wait in (125, 250):
            await rabbitmq.delete_queue(f"work.retry.{wait}.q2")
        await eventually(
            lambda: outcomes(pipeline).get("acked", 0) == 2, timeout=20, what="both were handled in the end"
        )
    assert await rabbitmq.ready() == 0


@pytest.mark.any_broker
async def test_what_the_broker_refuses_is_kept_until_it_does_not(rabbitmq: RabbitMQ) -> None:
    """A queue that is full, and says so."""
    await rabbitmq.declare()
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    await rabbitmq.declare("work.dead", **full)
    await rabbitmq.publish([b"in the way"], queue="work.dead")
    await rabbitmq.publish([b"one"])
    producer = source(rabbitmq, dead_letter_arguments=full, **SOON)
    pipeline = Failing(producer=producer, context=raising(Reject("never")), failure=AT_ONCE)
    async with at_work(pipeline, rabbitmq):
        await until_trouble(
            pipeline,
            "rabbitmq: degraded: no new messages are started, because a failed message cannot be stored: "
            f"RabbitMQ at {rabbitmq.where} refused a message for queue 'work.dead': the queue is full, or broken",
        )
        await (await rabbitmq.channel.get_queue("work.dead")).get(no_ack=True)
        await rabbitmq.until_ready(1, "work.dead")
    assert await rabbitmq.ready() == 0
    (letter,) = await dead_letters(rabbitmq)
    assert letter.body == b"one"
    assert outcomes(pipeline) == {"dead_lettered": 1}
    assert pipeline.attempts[b"one"] == [1]
    assert pipeline.stats().producers[0].connections_lost == 0


@pytest.mark.any_broker
async def test_a_confirm_that_never_comes_leaves_the_message_with_the_broker(
    rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unheard(channel: Channel, frame: object) -> None:
        pass

    unseen: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context["message"]))
    await rabbitmq.declare()
    await rabbitmq.publish([b"one"])
    monkeypatch.setattr(Channel, "_on_confirm_frame", unheard)
    producer = source(rabbitmq, publish_timeout=0.3, **SOON)
    pipeline = Failing(producer=producer, context=raising(Reject("never")), failure=AT_ONCE)
    async with at_work(pipeline, rabbitmq):
        await until_trouble(
            pipeline,
            "rabbitmq: degraded: no new messages are started, because a failed message cannot be stored: "
            f"RabbitMQ at {rabbitmq.where} did not confirm a message for queue 'work.dead' in 0.3 s",
        )
        assert outcomes(pipeline) == {}
        monkeypatch.undo()
        await eventually(lambda: outcomes(pipeline).get("dead_lettered") == 1, what="it is among the dead letters")
    assert await rabbitmq.ready() == 0
    # Twice published without hearing of it, at least: safe, and doubled.
    assert {letter.body for letter in await dead_letters(rabbitmq)} == {b"one"}
    gc.collect()
    assert unseen == []


async def close_publisher(rabbitmq: RabbitMQ) -> None:
    """Have the broker close the connections that publish."""
    named = (
        "[ok || {_, Fields} <- rabbit_networking:connection_info(P, [client_properties]),"
        ' {<<"connection_name">>, _, N} <- Fields, binary:match(N, <<".publisher">>) =/= nomatch]'
    )
    await rabbitmq._ask(
        f'[rabbit_networking:close_connection(P, "test") || P <- {rabbitmq._pids()}, {named} =/= []], ok'
    )


async def test_a_publishing_connection_that_dies_is_made_again_and_the_consumer_goes_on(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    pipeline = Failing(producer=source(rabbitmq), context=raising(Reject("never")), failure=AT_ONCE)
    async with at_work(pipeline, rabbitmq):
        for count in range(1, 4):
            await rabbitmq.publish([b"%d" % count])
            await until_there(rabbitmq, "work.dead", ready=count)
            # The broker counts it before its confirm is here; without that it would be published once more.
            await eventually(lambda: [*outcomes(pipeline).values()] == [count], what="it has come")  # noqa: B023  # called in this round only
            await close_publisher(rabbitmq)
        assert pipeline.stats().producers[0].connections_lost == 0
    assert outcomes(pipeline) == {"dead_lettered": 3}


async def test_while_the_broker_takes_no_messages_retries_wait_and_a_stop_does_not(rabbitmq: RabbitMQ) -> None:
    assert rabbitmq.node is not None
    await rabbitmq.declare()
    await rabbitmq.publish([b"one"])
    blocked = asyncio.Event()

    def fail(message: Message[bytes]) -> None:
        if not blocked.is_set():
            blocked.set()
            assert rabbitmq.node is not None
            rabbitmq.node.ask("vm_memory_monitor:set_vm_memory_high_watermark(0.0000001)")
        raise Reject("never")

    pipeline = Failing(
        producer=source(rabbitmq, publish_timeout=0.2), context=fail, failure=AT_ONCE, shutdown_timeout=3.0
    )
    try:
        async with pipeline:
            await blocked.wait()
            # Longer than the time for a confirm: it does not run while the broker has said that it takes none.
            await asyncio.sleep(1.0)  # nothing tells that something goes on not happening
            assert outcomes(pipeline) == {}
            async with asyncio.timeout(8):
                await pipeline.stop()
        await rabbitmq.until(ready=1, unacked=0)
        assert outcomes(pipeline) == {"unknown": 1}
    finally:
        await asyncio.to_thread(rabbitmq.node.ask, "vm_memory_monitor:set_vm_memory_high_watermark(0.4)")
    again = Failing(producer=source(rabbitmq), context=raising(Reject("never")), failure=AT_ONCE)
    async with at_work(again, rabbitmq):
        await rabbitmq.until(ready=0, unacked=0)
    # The first one was never confirmed, so it was published again; the broker may have read it after all, in the end.
    letters = await rabbitmq.counts("work.dead")
    assert letters.ready in (1, 2)
    assert letters.unacked == 0


async def until_publisher_blocked(rabbitmq: RabbitMQ) -> None:
    states = f"[S || P <- {rabbitmq._pids()}, [{{state, S}}] <- [rabbit_networking:connection_info(P, [state])]]"

    async def blocked() -> bool:
        return "blocked" in await rabbitmq._ask(states)

    await eventually(blocked, what="the broker has stopped reading from what publishes")


async def test_while_the_broker_takes_no_messages_a_queue_for_retries_is_waited_for(rabbitmq: RabbitMQ) -> None:
    assert rabbitmq.node is not None
    blocked = asyncio.Event()

    class Alarming(Failing):
        async def handle_message(self, message: Message[bytes]) -> None:
            if message.data == b"one":
                raise Reject("never")
            await blocked.wait()
            await super().handle_message(message)

    await rabbitmq.declare()
    await rabbitmq.publish([b"one", b"two"])
    pipeline = Alarming(
        producer=source(rabbitmq, connect_timeout=1.5, publish_timeout=1.5),
        context=lambda message: message.fail("no") if message.attempt == 1 else None,
    )
    await asyncio.to_thread(rabbitmq.node.ask, "vm_memory_monitor:set_vm_memory_high_watermark(0.0000001)")
    try:
        async with at_work(pipeline, rabbitmq):
            await until_publisher_blocked(rabbitmq)
            blocked.set()
            await eventually(lambda: pipeline.attempts[b"two"] == [1], what="it has failed")
            # Longer than the time for an answer: it does not run while the broker takes nothing.
            await asyncio.sleep(2)  # nothing tells that something goes on not happening
            assert pipeline.stats().trouble is None
            assert outcomes(pipeline) == {}
            await asyncio.to_thread(rabbitmq.node.ask, "vm_memory_monitor:set_vm_memory_high_watermark(0.4)")
            await eventually(
                lambda: outcomes(pipeline) == {"dead_lettered": 1, "retried": 1, "acked": 1}, what="all went on"
            )
            assert pipeline.stats().producers[0].connections_lost == 0
    finally:
        await asyncio.to_thread(rabbitmq.node.ask, "vm_memory_monitor:set_vm_memory_high_watermark(0.4)")
    assert pipeline.attempts[b"two"] == [1, 2]


async def test_killed_between_confirm_and_ack_it_loses_nothing(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await rabbitmq.publish([b"one"])
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integration.killed_before_the_ack", rabbitmq.url
    )
    try:
        assert await asyncio.wait_for(program.wait(), 30) == -signal.SIGKILL
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
    # The copy is safe, and the original has come back.
    await rabbitmq.until("work.dead", ready=1, unacked=0)
    await rabbitmq.until(ready=1, unacked=0)


@conforms("R-065", "R-066")
async def test_settling_on_a_channel_that_is_gone_is_told_to_whoever_settles(
    rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture
) -> None:
    await rabbitmq.declare()
    errors: list[SettleError] = []

    class Impatient(Failing):
        async def handle_message(self, message: Message[bytes]) -> None:
            if not errors:
                await rabbitmq.close_connections("test")
                await until_lost(self)
                with pytest.raises(SettleError) as raised:
                    await ack_immediately(message)
                errors.append(raised.value)

    await rabbitmq.publish([b"one"])
    async with Impatient(producer=source(rabbitmq, **SOON)) as pipeline:
        await eventually(lambda: outcomes(pipeline).get("acked") == 1, what="it was delivered again, and acked")
        assert outcomes(pipeline) == {"unknown": 1, "acked": 1}
    (error,) = errors
    assert str(error).startswith("cannot settle 1 message: ")
    assert len(error.unsettled) == 1
    assert "an acknowledger failed; the outcome of its messages is unknown and left to the source" in events_logged(
        caplog
    )
