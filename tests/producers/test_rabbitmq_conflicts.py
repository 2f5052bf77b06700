"""Settings that are right each by itself, but do not go together: refused before a message is lost by them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from broadway_py import FailurePolicy, Message, Pipeline
from broadway_py._core.failure_authority import FailureAuthority
from broadway_py.clock import SYSTEM_CLOCK
from broadway_py.errors import OptionsError, ProducerError
from broadway_py.producer import FailurePlan
from broadway_py.producers.rabbitmq import RabbitMQOptions, RabbitMQProducer
from broadway_py.producers.rabbitmq.retries.forwarder import Forwarder, Troubled
from broadway_py.producers.rabbitmq.retries.publisher import Publisher
from broadway_py.testing.driving import copy_of
from tests.pipeline.support import events_logged, logged

GIVEN = FailurePlan(frozenset({"retry", "dead_letter"}), None, FailureAuthority(True, False))
DEFAULT = GIVEN._replace(authority=FailureAuthority(False, False))
NO_ACK: dict[str, Any] = {"consume_options": {"no_ack": True}}
ALONE: dict[str, Any] = {"consume_options": {"exclusive": True}}


class Idle(Pipeline[bytes]):
    async def handle_message(self, message: Message[bytes]) -> None:
        """Nothing to do."""


def complaint(plan: FailurePlan, **settings: Any) -> str:
    producer = RabbitMQProducer(**{"queue": "q", **settings})
    with pytest.raises(OptionsError) as wrong:
        producer.check_failure(plan)
    return str(wrong.value)


def refusal(**settings: Any) -> str:
    with pytest.raises(OptionsError) as wrong:
        RabbitMQProducer(**{"queue": "q", **settings})
    return str(wrong.value)


def own_queue(index: int) -> dict[str, Any]:
    return {"queue": f"q{index}"}


# --- dead letters that would come back ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["q0", "q1"])
def test_dead_letters_may_not_come_back_to_the_queue_of_any_copy(name: str) -> None:
    plan = GIVEN._replace(dead_letter=name)
    assert complaint(plan, concurrency=2, merge_options=own_queue) == (
        f"failure.dead_letter: {name!r} is consumed here, so its dead letters would come back; name another queue"
    )


def test_dead_letters_may_go_to_a_queue_that_no_copy_consumes() -> None:
    producer = RabbitMQProducer("nobody", concurrency=2, merge_options=own_queue)
    producer.check_failure(GIVEN._replace(dead_letter="nobody"))


def test_a_pipeline_with_such_a_policy_is_not_built() -> None:
    producer = RabbitMQProducer("zzz", concurrency=2, merge_options=own_queue)
    policy = FailurePolicy(attempts=1, dead_letter="q0", breaker=None)
    with pytest.raises(OptionsError, match=r"^failure\.dead_letter: 'q0' is consumed here, so its dead letters would"):
        Idle(producer=producer, failure=policy)


async def test_what_merge_options_returns_at_a_connect_is_looked_at_again() -> None:
    later: Iterator[str] = iter(["first", "kept"])
    producer = RabbitMQProducer("q", merge_options=lambda _: {"queue": next(later)})
    plan = GIVEN._replace(dead_letter="kept")
    producer.check_failure(plan)
    copy = copy_of(producer, capacity=1, pipeline="ours", failure=plan)
    with pytest.raises(ProducerError) as away:
        await copy.open()
    assert str(away.value) == (
        "failure.dead_letter: 'kept' is consumed here, so its dead letters would come back; name another queue"
    )
    await copy.close()


def test_a_copy_that_rejects_may_not_be_told_to_reject_for_good() -> None:
    plan = GIVEN._replace(actions=frozenset({"reject"}))
    settings: dict[str, Any] = {"on_failure": "ack", "concurrency": 2}
    RabbitMQProducer("q", **settings).check_failure(plan)

    def one_rejects(index: int) -> dict[str, Any]:
        return {"on_failure": "reject"} if index else {}

    assert complaint(plan, **settings, merge_options=one_rejects) == (
        "failure: reject deletes messages, unless the queue has a dead-letter exchange; if it has one, set "
        "dead_letter: broker; else choose dead_letter or drop"
    )


# --- dead letters without a place -----------------------------------------------------------------------------------


def test_the_queue_for_dead_letters_has_a_name_that_fits() -> None:
    RabbitMQProducer("q").check_failure(GIVEN._replace(dead_letter="d" * 255))
    assert complaint(GIVEN._replace(dead_letter="ü" * 128)) == (
        "failure.dead_letter: not the name of a queue: expected 255 bytes of UTF-8 at most, but these are 256"
    )
    assert complaint(GIVEN._replace(dead_letter="kept|eu")) == (
        "failure.dead_letter: not the name of a queue: expected a name of letters a to z, digits, spaces and "
        "-_.:@#,/+ alone; the AMQP library takes no '|'"
    )
    assert complaint(GIVEN._replace(dead_letter="\ud800")) == (
        "failure.dead_letter: not the name of a queue: expected text that UTF-8 can write"
    )


async def test_the_name_of_a_pipeline_may_be_too_long_for_that_of_a_queue() -> None:
    producer = RabbitMQProducer("", declare="active")
    copy = copy_of(producer, capacity=1, pipeline="p" * 251, failure=DEFAULT)
    with pytest.raises(ProducerError) as away:
        await copy.open()
    assert str(away.value) == (
        "name: the dead letters of a queue that the broker names go to <name of the pipeline>.dead, which is not "
        "the name of a queue: expected 255 bytes of UTF-8 at most, but these are 256; set failure.dead_letter, or "
        "change the name"
    )
    await copy.close()


# --- messages that are settled before they fail ---------------------------------------------------------------------


def test_nothing_can_be_tried_again_or_kept_that_is_settled_already() -> None:
    sentence = (
        "failure: with consume_options.no_ack the broker forgets a message when it delivers it, so a failed message "
        "can only be dropped or stop the pipeline; got dead_letter, retry: leave out failure, or no_ack"
    )
    assert complaint(GIVEN, **NO_ACK) == sentence
    assert complaint(GIVEN, concurrency=2, merge_options=lambda index: NO_ACK if index else {}) == sentence


def test_at_most_once_goes_with_what_can_be_done_without_the_broker() -> None:
    producer = RabbitMQProducer("q", **NO_ACK)
    producer.check_failure(DEFAULT)
    producer.check_failure(GIVEN._replace(actions=frozenset({"drop", "stop"})))


def test_at_most_once_is_no_silent_loss(caplog: pytest.LogCaptureFixture) -> None:
    RabbitMQProducer("q", **NO_ACK).check_failure(None)
    assert events_logged(caplog) == []


@pytest.mark.parametrize(
    ("plan", "settings", "declared"),
    [
        (DEFAULT, {}, ["q.dead"]),
        (DEFAULT, NO_ACK, []),
        (DEFAULT.for_settings(on_failure_is_given=True), {}, []),
        (GIVEN.for_settings(on_failure_is_given=True), {}, ["q.dead"]),
    ],
)
async def test_no_queue_for_dead_letters_is_made_where_there_are_none(
    plan: FailurePlan, settings: dict[str, Any], declared: list[str]
) -> None:
    options = RabbitMQOptions(queue="q", **settings)
    forwarder = Forwarder(
        *(options, plan, Publisher(options, "name", SYSTEM_CLOCK)),
        pipeline="ours",
        clock=SYSTEM_CLOCK,
        troubled=Troubled(),
    )
    seen: list[str] = []

    async def declare(queue: str, _: object) -> None:
        seen.append(queue)

    async def look(queue: str) -> None:
        raise AssertionError(queue)

    await forwarder.prepare(["q"], declare, look)
    assert seen == declared


# --- copies that shut each other out --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (ALONE, "consume_options.exclusive"),
        ({"declare": "active", "declare_options": {"exclusive": True}}, "declare_options.exclusive"),
        ({"merge_options": lambda index: ALONE if index else {}}, "consume_options.exclusive"),
    ],
)
def test_of_several_copies_none_may_have_the_queue_alone(settings: dict[str, Any], name: str) -> None:
    assert refusal(concurrency=3, **settings) == (
        f"concurrency: 3 copies would consume queue 'q', but {name} lets only one of them consume it; "
        f"set concurrency: 1, or leave {name} out"
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"concurrency": 1},
        {"concurrency": 2, "merge_options": own_queue},
        {"concurrency": 2, "merge_options": lambda index: {"url": f"amqp://mq{index}/"}},
    ],
    ids=["one", "queues of their own", "brokers of their own"],
)
def test_a_copy_may_have_alone_what_no_other_consumes(settings: dict[str, Any]) -> None:
    RabbitMQProducer("q", **ALONE, **settings)


def test_queues_that_the_broker_names_are_not_shared() -> None:
    RabbitMQProducer("", concurrency=2, declare="active", declare_options={"exclusive": True}, **ALONE)


# --- retries that a full queue refuses ------------------------------------------------------------------------------

LIMITED = {"x-max-length": 5, "x-overflow": "reject-publish"}
CLASSIC: dict[str, Any] = {"retry_arguments": {"x-queue-type": "classic"}}


@pytest.mark.parametrize(
    ("plan", "arguments", "settings", "is_warned"),
    [
        (DEFAULT, LIMITED, CLASSIC, True),
        (GIVEN, {**LIMITED, "x-overflow": "reject-publish-dlx"}, {"on_failure": "reject_and_requeue", **CLASSIC}, True),
        (DEFAULT, LIMITED, {"on_failure": "reject_and_requeue", **CLASSIC}, False),
        (GIVEN._replace(actions=frozenset({"dead_letter"})), LIMITED, CLASSIC, False),
        (DEFAULT, LIMITED, {}, False),
        (DEFAULT, LIMITED, NO_ACK, False),
    ],
)
def test_retries_that_a_full_queue_would_refuse_are_warned_of(
    caplog: pytest.LogCaptureFixture,
    plan: FailurePlan,
    arguments: dict[str, Any],
    settings: dict[str, Any],
    *,
    is_warned: bool,
) -> None:
    producer = RabbitMQProducer("q", declare="active", declare_options={"arguments": arguments}, **settings)
    producer.check_failure(plan.for_settings(on_failure_is_given=producer.on_failure_is_given))
    sentence = (
        "a retry that returns while the queue is full is lost, because a full queue refuses it: "
        "let retries wait in quorum queues (a durable queue, and no x-queue-type in retry_arguments), "
        "or remove the limit of the queue"
    )
    assert events_logged(caplog) == [sentence] * is_warned


@pytest.mark.parametrize("arguments", [{}, {"x-max-length": 5}, {"x-overflow": "reject-publish"}])
def test_classic_queues_for_retries_are_warned_of(caplog: pytest.LogCaptureFixture, arguments: dict[str, Any]) -> None:
    declared: dict[str, Any] = {"declare": "active", "declare_options": {"arguments": arguments}}
    RabbitMQProducer("q", **declared).check_failure(DEFAULT)
    assert events_logged(caplog) == []
    RabbitMQProducer("q", **{**declared, **CLASSIC}).check_failure(DEFAULT)
    (sentence,) = events_logged(caplog)
    assert sentence == (
        "retries wait in classic queues, as retry_arguments say, and the broker can lose those that are due while it "
        "restarts: leave x-queue-type out, so that they wait in quorum queues, which lose none"
    )


# --- what is otherwise on quorum queues -----------------------------------------------------------------------------


def quorum(**arguments: Any) -> dict[str, Any]:
    return {"declare": "active", "declare_options": {"arguments": {"x-queue-type": "quorum", **arguments}}}


def test_exclusive_is_refused_where_it_does_nothing() -> None:
    with pytest.raises(OptionsError) as wrong:
        RabbitMQProducer("q", consume_options={"exclusive": True}, **quorum())
    assert str(wrong.value).startswith(
        "consume_options.exclusive: this has no effect on a quorum queue, so others would consume it "
        "too; declare it with "
        "x-single-active-consumer: true, and one consumer at a time gets messages"
    )
    RabbitMQProducer("q", **quorum(**{"x-single-active-consumer": True}))
    RabbitMQProducer("q", consume_options={"exclusive": True})


@pytest.mark.parametrize(
    ("settings", "limits"),
    [
        ({"on_failure": "reject_and_requeue", **quorum(**{"x-delivery-limit": 20})}, [20]),
        ({"on_success": "reject_and_requeue", **quorum(**{"x-delivery-limit": 0})}, [0]),
        ({"on_failure": "reject_and_requeue", **quorum(**{"x-delivery-limit": -1})}, []),
        ({"on_failure": "reject_and_requeue", **quorum()}, []),
        ({"on_failure": "reject_and_requeue_once", **quorum(**{"x-delivery-limit": 20})}, []),
    ],
)
def test_a_limit_on_what_is_to_come_back_for_ever_is_warned_of(
    caplog: pytest.LogCaptureFixture, settings: dict[str, Any], limits: list[int]
) -> None:
    RabbitMQProducer("q", **settings).check_failure(DEFAULT)
    said = logged(caplog)
    assert [line["limit"] for line in said] == limits
    sentence = (
        "reject_and_requeue does not requeue for ever: when a message has come back as often as the x-delivery-limit "
        "of its quorum queue allows, the queue dead-letters it, or deletes it if there is no dead-letter exchange"
    )
    assert all(line["event"] == sentence for line in said)
