"""A pipeline on a real RabbitMQ whose connections break, or cannot be made: nothing is lost, nothing stays behind."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import broadway_py.pipeline.intake.live_producer
from broadway_py import Batcher, Message, Processors, RateLimit
from broadway_py._core.backoff import Backoff
from broadway_py.log import show_error_texts
from broadway_py.producers import RabbitMQProducer
from broadway_py.testing import FakeClock
from tests.integration.aftermath import until_lost
from tests.integration.gated_pipelines import (
    PREFETCH,
    Hands,
    Work,
    WorkInBatches,
    assert_each_delivery_settled,
    assert_none_lost,
    at_work,
    source,
    through,
)
from tests.pipeline.support import check_books, in_flight, logged, outcomes, telemetry_events
from tests.support.conformance import conforms
from tests.support.counter import message_id
from tests.support.erlang import binary
from tests.support.eventually import eventually
from tests.support.main_job import Job
from tests.support.proxy import FaultProxy
from tests.support.rabbitmq import Counts
from tests.support.rabbitmq_node import USER

pytestmark = [pytest.mark.integration, pytest.mark.faults]


# --- connections that break while it works ----------------------------------------------------------------------------


@conforms("R-051")
@pytest.mark.parametrize("fault", ["cut", "reset"])
async def test_connections_broken_in_the_middle_cost_no_message_and_no_restart(
    job: Job, hands: Hands, proxy: FaultProxy, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    count = 5_000
    await job.publish(count)
    limit = RateLimit(allowed_messages=500, interval=0.1)
    pipeline = WorkInBatches(
        producer=source(job, proxy), context=hands, rate_limit=limit, batchers={"default": Batcher(batch_size=20)}
    )
    async with at_work(pipeline, job.broker):
        for part in (1_000, 2_500):
            await job.until_noted(part)
            assert job.notes < count
            getattr(proxy, fault)()
            check_books(pipeline)
        await job.until_empty()
        (producer,) = pipeline.stats().producers
        assert producer.connections_lost == 2
        assert pipeline.stats().restarts == 0
    assert_none_lost(job)
    # What was in hand at a loss came again, and only that.
    assert len(job.counted.duplicates) <= 2 * PREFETCH
    assert_each_delivery_settled(pipeline, job)
    assert await job.broker.counts("work.dead") == Counts(0, 0)
    reasons = [
        line["reason"] for line in logged(caplog) if line["event"] == "the source is not available; trying again"
    ]
    assert reasons == [f"the connection to {through(job, proxy)} was cut"] * 2


async def test_connections_closed_by_an_operator_cost_no_message(job: Job, hands: Hands) -> None:
    count = 2_000
    await job.publish(count)
    limit = RateLimit(allowed_messages=200, interval=0.1)
    pipeline = Work(producer=source(job), context=hands, rate_limit=limit)
    async with pipeline:
        await job.until_noted(500)
        await job.broker.close_connections("night shift")
        assert job.notes < count
        await job.until_empty()
        assert pipeline.stats().producers[0].connections_lost == 1
        await pipeline.stop()
        await job.broker.until_alone()
    check_books(pipeline)
    assert_none_lost(job)
    assert len(job.counted.duplicates) <= PREFETCH
    assert_each_delivery_settled(pipeline, job)


async def test_a_queue_that_was_deleted_and_made_anew_is_consumed_again(
    job: Job, hands: Hands, caplog: pytest.LogCaptureFixture
) -> None:
    await job.publish(500)
    hands.gate.clear()
    pipeline = Work(producer=source(job), context=hands)
    async with at_work(pipeline, job.broker):
        await job.broker.until(ready=400, unacked=100)
        await job.broker.delete_queue()
        missing = f"rabbitmq: queue 'work' does not exist on {job.broker.where}; create it or set declare: active"
        await eventually(lambda: pipeline.stats().trouble == missing, what="the trouble is told")
        hands.gate.set()
        await eventually(lambda: in_flight(pipeline) == 0, what="what had come before is finished")
        gone = set(job.counted.missing)

        await job.broker.declare_with_dead_letters()
        await job.publish(1_000)
        await job.until_noted(1_500 - len(gone))
        await job.until_empty()
        assert pipeline.stats().trouble is None
    # What the operator deleted is gone; all that came later was handled once.
    assert set(job.counted.missing) == gone
    assert job.counted.strangers == []
    assert job.counted.duplicates == {}
    assert logged(caplog)[0]["reason"] == (
        f"RabbitMQ at {job.broker.where} cancelled the consumer of queue 'work': the queue was deleted"
    )


@conforms("R-053", "R-054")
async def test_what_a_lost_connection_left_unsettled_is_logged_and_comes_again(
    job: Job, hands: Hands, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    await job.publish(1)
    hands.gate.clear()
    pipeline = Work(producer=source(job, proxy), context=hands)
    async with at_work(pipeline, job.broker):
        await eventually(lambda: hands.begun == 1, what="the message is in hand")
        proxy.cut()
        await until_lost(pipeline)
        hands.gate.set()
        await job.until_noted(2)
        await job.until_empty()
    assert outcomes(pipeline) == {"unknown": 1, "acked": 1}
    assert pipeline.stats().producers[0].redelivered == 1
    cut = f"the connection to {through(job, proxy)} was cut"
    (complaint,) = [line for line in logged(caplog) if line["event"].startswith("an acknowledger failed")]
    assert complaint["event"] == (
        "an acknowledger failed; the outcome of its messages is unknown and left to the source"
    )
    assert (complaint["messages"], complaint["reason"]) == (1, f"cannot settle 1 message: {cut}")


async def test_what_comes_again_while_it_is_at_work_is_handled_once_with_deduplicate_by(
    job: Job, hands: Hands, proxy: FaultProxy, tmp_path: Path
) -> None:
    await job.publish(1)
    hands.gate.clear()
    pipeline = Work(
        producer=source(job, proxy),
        context=hands,
        deduplicate_by=lambda message: str(message_id(message.data)),
        state=tmp_path / "ids.db",
    )
    async with at_work(pipeline, job.broker):
        await eventually(lambda: hands.begun == 1, what="the message is in hand")
        proxy.cut()
        await until_lost(pipeline)
        await eventually(lambda: pipeline.stats().deduplication[0].waiting == 1, what="the message waits for itself")
        hands.gate.set()
        await job.until_empty()
    assert outcomes(pipeline) == {"unknown": 1, "acked": 1}
    assert (hands.begun, job.notes) == (1, 1)


async def test_what_the_rate_limit_holds_is_handled_while_the_source_is_away(
    job: Job, hands: Hands, proxy: FaultProxy
) -> None:
    await job.publish(PREFETCH)
    limit = RateLimit(allowed_messages=20, interval=3_600)
    processors = Processors(concurrency=10, max_demand=10)
    pipeline = Work(producer=source(job, proxy), context=hands, rate_limit=limit, processors=processors)
    async with at_work(pipeline, job.broker):
        await eventually(lambda: pipeline.stats().producers[0].received > 20, what="more came in than may be handled")
        await job.until_noted(20)
        await proxy.refuse()
        proxy.cut()
        await eventually(lambda: pipeline.stats().trouble is not None, what="the source is away")
        assert job.notes == 20
        pipeline.update_rate_limit(allowed_messages=10 * PREFETCH, reset=True)
        await job.until_noted(pipeline.stats().producers[0].received)
        assert pipeline.stats().trouble is not None
        await proxy.accept()
        await job.until_empty()
    assert_none_lost(job)
    assert_each_delivery_settled(pipeline, job)


# --- connections that cannot be made ----------------------------------------------------------------------------------


def attempts(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [line for line in logged(caplog) if line["event"] == "the source is not available; trying again"]


async def until_attempts(caplog: pytest.LogCaptureFixture, count: int) -> dict[str, Any]:
    """Wait until *count* attempts have failed; what the last one logged."""
    await eventually(lambda: len(attempts(caplog)) == count, what=f"{count} attempts have failed")
    return attempts(caplog)[-1]


@conforms("R-058", "R-061", "R-062")
async def test_a_refused_connection_is_tried_again_with_growing_waits_until_it_works(
    job: Job, hands: Hands, proxy: FaultProxy, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without the jitter: always the longest wait that it may choose.
    monkeypatch.setattr(broadway_py.pipeline.intake.live_producer, "Backoff", lambda: Backoff(uniform=max))
    await job.publish(10)
    await proxy.refuse()
    pipeline = Work(producer=source(job, proxy), context=hands)
    pipeline.clock = clock = FakeClock()
    async with at_work(pipeline, job.broker):
        for attempt, wait in enumerate((1, 2, 4, 8, 16, 30, 30), 1):
            told = await until_attempts(caplog, attempt)
            assert told["wait_seconds"] == wait
            assert told["reason"] == (
                f"cannot reach {through(job, proxy)}: connection refused; "
                "check host and port, and whether the broker runs"
            )
            if attempt == 7:
                await proxy.accept()
            await clock.advance(wait)
        await job.until_noted(10)
        await job.until_empty()
        assert len(attempts(caplog)) == 7

        # It has been well for long enough: the next loss starts from the beginning.
        await clock.advance(30)
        proxy.cut()
        assert (await until_attempts(caplog, 8))["wait_seconds"] == 1
    assert_none_lost(job)


@conforms("R-059")
async def test_each_failed_attempt_is_told_to_telemetry(
    job: Job, hands: Hands, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    await proxy.refuse()
    pipeline = Work(producer=source(job, proxy), context=hands)
    pipeline.clock = clock = FakeClock()
    with telemetry_events("broadway.producer.lost") as told:
        async with at_work(pipeline, job.broker):
            reason = (await until_attempts(caplog, 1))["reason"]
    place = {"pipeline": "Work", "producer": "rabbitmq", "index": 0}
    now = {"system_time": clock.wall(), "monotonic_time": clock.monotonic()}
    assert told == [("broadway.producer.lost", now, {**place, "reason": reason})]


@conforms("R-063")
async def test_a_refused_login_is_tried_again_after_at_least_ten_seconds(
    job: Job, hands: Hands, caplog: pytest.LogCaptureFixture
) -> None:
    node = job.broker.node
    assert node is not None
    await job.publish(10)
    login, actor, anything = binary("late-comer"), binary(USER), binary(".*")
    url = job.broker.url.replace(f"{USER}:", "late-comer:")
    password = binary(url.partition("late-comer:")[2].partition("@")[0])
    pipeline = Work(producer=RabbitMQProducer("work", url), context=hands)
    pipeline.clock = clock = FakeClock()
    async with at_work(pipeline, job.broker):
        told = await until_attempts(caplog, 1)
        assert told["reason"] == (
            f"RabbitMQ at {job.broker.where} refused the login; check user and password in the url"
        )
        assert 10 <= told["wait_seconds"] <= 11
        node.ask(f"ok = rabbit_auth_backend_internal:add_user({login}, {password}, {actor})")
        try:
            node.ask(
                f"ok = rabbit_auth_backend_internal:set_permissions"
                f"({login}, {binary(job.broker.vhost)}, {anything}, {anything}, {anything}, {actor})"
            )
            await clock.advance(told["wait_seconds"] + 0.01)
            await job.until_noted(10)
            await job.until_empty()
            await pipeline.stop()
        finally:
            node.ask(f"ok = rabbit_auth_backend_internal:delete_user({login}, {actor})")
    assert_none_lost(job)


@conforms("R-064")
async def test_a_socket_that_is_closed_at_the_start_is_tried_again(
    job: Job, hands: Hands, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.close()

    await job.publish(10)
    await proxy.refuse()
    pipeline = Work(producer=source(job, proxy), context=hands)
    pipeline.clock = clock = FakeClock()
    server = await asyncio.start_server(hang_up, "127.0.0.1", proxy.port)
    async with server, at_work(pipeline, job.broker):
        told = await until_attempts(caplog, 1)
        assert told["reason"].startswith(f"{through(job, proxy)} closed the connection as soon as the login began; ")
        server.close()
        await proxy.accept()
        await clock.advance(told["wait_seconds"] + 0.01)
        await job.until_noted(10)
        await job.until_empty()
    assert_none_lost(job)


# --- what handlers may ask for ----------------------------------------------------------------------------------------


@conforms("R-038")
async def test_deliveries_reach_batches_of_two(job: Job, hands: Hands) -> None:
    await job.publish(6)
    batchers = {"default": Batcher(batch_size=2, batch_timeout=60)}
    pipeline = WorkInBatches(producer=source(job), context=hands, batchers=batchers)
    async with at_work(pipeline, job.broker):
        await job.until_noted(6)
        await job.until_empty()
    assert [(info.size, info.trigger) for info in hands.batches] == [(2, "size")] * 3
    assert_none_lost(job)


@conforms("R-042", "R-043")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        pytest.param(
            {"on_sucess": "ack"},
            "configure_ack: unknown option 'on_sucess'; RabbitMQ takes on_success, on_failure; "
            "did you mean 'on_success'?",
        ),
        pytest.param(
            {"on_failure": "requeue"},
            "configure_ack: on_failure takes ack, reject, reject_and_requeue, reject_and_requeue_once, got 'requeue'",
        ),
    ],
)
async def test_a_wrong_way_to_settle_fails_the_message_and_is_logged(
    job: Job, hands: Hands, caplog: pytest.LogCaptureFixture, options: dict[str, str], sentence: str
) -> None:
    class Misconfigured(Work):
        failure = None

        async def handle_message(self, message: Message[bytes]) -> None:
            message.configure_ack(**options)

    show_error_texts()
    await job.publish(1)
    pipeline = Misconfigured(producer=source(job), context=hands)
    async with at_work(pipeline, job.broker):
        await job.broker.until("work.dead", ready=1, unacked=0)
    assert outcomes(pipeline) == {"rejected": 1}
    (failure,) = [line for line in logged(caplog) if line["event"] == "a message failed"]
    assert (failure["cause"], failure["reason"]) == ("raised", f"ValueError: {sentence}")
