"""The RabbitMQ sink, on a connection that is scripted, and the whole sentence for each wrong setting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
)
from aiormq.exceptions import (
    PublishError as Returned,
)
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from broadway_py.errors import OptionsError, ProducerError, PublishError
from broadway_py.producers.rabbitmq import RabbitMQSink
from broadway_py.producers.rabbitmq import sink as sinks
from broadway_py.producers.rabbitmq.retries import publisher as publishers
from broadway_py.publisher import Outgoing, Publisher
from broadway_py.testing import FakeClock
from tests.producers.scripted_connections import SILENT, Published, ScriptedChannel

URL = "amqp://guest:canary-password@broker/"
WHERE = "amqp://***@broker:5672/"


class Sent(dict[str, Any]):
    """What one publish had: body, exchange, routing_key, and its properties by name."""


class Broker:
    """A connection and its channels, in one. Answers are taken in order; after the last, all is confirmed."""

    where = WHERE
    version = (3, 10)

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        #: The payloads that are never confirmed.
        self.unconfirmed: set[bytes] = set()
        #: What becomes of one publish after the other: None confirms it.
        self.answers: list[Exception | None] = []
        self.looked_for: list[tuple[str, str]] = []
        self.declared: list[tuple[str, Mapping[str, Any]]] = []
        #: What looking or declaring ends with.
        self.refusal: Exception | None = None
        self.names: list[str] = []
        self.is_closed = False

    async def connect(self, _: object, name: str, **__: object) -> Broker:
        self.names.append(name)
        self.is_closed = False
        self.writer = ScriptedChannel(self._answer)
        return self

    async def channel(self, **_: Any) -> Broker:
        return self

    async def get_underlay_channel(self) -> ScriptedChannel:
        return self.writer

    async def get_queue(self, name: str) -> None:
        self._found("queue", name)

    async def get_exchange(self, name: str) -> None:
        self._found("exchange", name)

    def _found(self, kind: str, name: str) -> None:
        self.looked_for.append((kind, name))
        if self.refusal is not None:
            raise self.refusal

    async def declare_queue(self, name: str, *, durable: bool, arguments: Mapping[str, Any]) -> None:
        assert durable
        self.declared.append((name, arguments))
        if self.refusal is not None:
            raise self.refusal

    def _answer(self, message: Published) -> BaseException | None:
        assert message.mandatory
        self.sent.append(
            Sent(
                dict(message.properties),
                body=message.body,
                exchange=message.exchange,
                routing_key=message.routing_key,
            )
        )
        if message.body in self.unconfirmed:
            return SILENT
        return self.answers.pop(0) if self.answers else None

    async def is_blocked(self) -> bool:
        return False

    def abort(self) -> None:
        pass

    async def end(self) -> None:
        self.is_closed = True
        self.writer.end()


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    made = Broker()
    monkeypatch.setattr(publishers, "connect", made.connect)
    monkeypatch.setattr(sinks, "connect", made.connect)
    return made


def publisher(clock: FakeClock | None = None, **settings: Any) -> Publisher:
    return RabbitMQSink(URL, **settings).create("shop.revenue", clock or FakeClock())


def messages(count: int) -> list[Outgoing]:
    return [Outgoing(data=b"%d" % number, message_id=f"w{number}#1") for number in range(count)]


def returned() -> Returned:
    back = Basic.Return(reply_code=312, reply_text="NO_ROUTE", exchange="", routing_key="revenue")
    return Returned(DeliveredMessage(back, ContentHeader(), b"", channel=None), back)  # type: ignore[arg-type]  # unused


async def failed(publishing: Any) -> PublishError:
    with pytest.raises(PublishError) as error:
        await publishing
    return error.value


async def test_a_message_for_a_queue_has_its_id_and_survives_the_broker(broker: Broker) -> None:
    post = publisher(queue="revenue")
    await post.publish(
        [Outgoing(data=b"{}", message_id="w#1", key="DE", headers={"x": "y"}, content_type="application/json")],
        timeout=60.0,
    )
    await post.close()

    (sent,) = broker.sent
    assert (sent["body"], sent["exchange"], sent["routing_key"]) == (b"{}", "", "revenue")
    assert (sent["message_id"], sent["headers"], sent["content_type"]) == ("w#1", {"x": "y"}, "application/json")
    assert sent["delivery_mode"] == 2
    assert broker.names == ["shop.revenue"]
    assert not broker.looked_for
    assert not broker.declared


@pytest.mark.parametrize(
    ("settings", "key", "routing_key"),
    [
        ({}, "DE", "DE"),
        ({}, None, ""),
        ({}, "é" * 128, "a8cac49b1343566de4fecb882af93354"),
        ({"routing_key": "revenue.v1"}, "DE", "revenue.v1"),
        ({"routing_key": ""}, "DE", ""),
    ],
    ids=["its key", "no key", "a key that is too long", "the setting", "a setting that is empty"],
)
async def test_the_routing_key_is_that_of_the_settings_or_the_key(
    broker: Broker, settings: dict[str, Any], key: str | None, routing_key: str
) -> None:
    post = publisher(exchange="results", **settings)
    await post.publish([Outgoing(data=b"{}", key=key)], timeout=60.0)
    await post.close()

    (sent,) = broker.sent
    assert sent["exchange"] == "results"
    assert sent["routing_key"] == routing_key


async def test_a_message_that_the_broker_returns_is_not_confirmed(broker: Broker) -> None:
    broker.answers = [None, returned()]
    post, given = publisher(queue="revenue"), messages(2)

    error = await failed(post.publish(given, timeout=60.0))
    await post.close()

    assert str(error) == f"1 of 2 messages were not confirmed: there is no queue 'revenue' on {WHERE}"
    assert (error.unpublished, error.refused) == (given[1:], [])


async def test_a_message_that_an_exchange_leads_nowhere_is_not_confirmed(broker: Broker) -> None:
    broker.answers = [returned()]
    post = publisher(exchange="results")

    error = await failed(post.publish(messages(1), timeout=60.0))
    await post.close()

    assert str(error) == (
        f"1 of 1 messages were not confirmed: exchange 'results' on {WHERE} leads to no queue for the routing key of "
        "a message: bind a queue to it"
    )


async def test_an_exchange_that_is_missing_is_told_when_it_is_published_to(broker: Broker) -> None:
    broker.answers = [ChannelNotFoundEntity("NOT_FOUND - no exchange 'results' in vhost '/'")]
    post = publisher(exchange="results")

    error = await failed(post.publish(messages(1), timeout=60.0))
    await post.close()

    assert str(error) == (f"1 of 1 messages were not confirmed: there is no exchange 'results' on {WHERE}; create it")


async def test_a_permission_that_is_missing_is_told_and_names_the_exchange(broker: Broker) -> None:
    broker.answers = [ChannelAccessRefused("ACCESS_REFUSED - no")]
    post = publisher(exchange="results")

    error = await failed(post.publish(messages(1), timeout=60.0))
    await post.close()

    assert str(error) == (
        f"1 of 1 messages were not confirmed: this user may not publish to exchange 'results' on {WHERE}: "
        "ACCESS_REFUSED - no; give the user the permission to write to exchange 'results'"
    )


async def test_what_a_full_queue_refuses_is_published_again(broker: Broker) -> None:
    broker.answers = [None, DeliveryError(None, Basic.Nack())]
    clock = FakeClock()
    post = publisher(clock, queue="revenue")
    publishing = asyncio.ensure_future(post.publish(messages(2), timeout=60.0))

    await clock.advance(1.0)

    await publishing
    assert [sent["body"] for sent in broker.sent] == [b"0", b"1", b"1"]
    await post.close()


async def test_when_the_time_is_over_what_the_broker_has_confirmed_counts(broker: Broker) -> None:
    broker.unconfirmed = {b"1"}
    clock = FakeClock()
    post, given = publisher(clock, queue="revenue"), messages(3)
    publishing = asyncio.ensure_future(post.publish(given, timeout=10.0))

    await clock.advance(10.0)

    error = await failed(publishing)
    await post.close()
    assert str(error) == (
        f"1 of 3 messages were not confirmed: queue 'revenue' on {WHERE}: no confirmation within 10 s"
    )
    assert error.unpublished == given[1:2]


async def test_a_message_that_cannot_be_written_is_refused_and_the_others_are_confirmed(broker: Broker) -> None:
    post, odd = publisher(queue="revenue"), Outgoing(data=b"odd", message_id="canary" * 50)
    given = [odd, *messages(1)]

    error = await failed(post.publish(given, timeout=60.0))
    await post.close()

    assert str(error) == (
        "1 of 2 messages were not confirmed: a message for queue 'revenue' cannot be sent (TypeError)"
    )
    assert error.refused == error.unpublished == [odd]
    assert [sent["body"] for sent in broker.sent] == [b"0"]


async def test_an_active_queue_is_declared_once_before_the_first_message(broker: Broker) -> None:
    post = publisher(queue="revenue", declare="active", queue_arguments={"x-queue-type": "quorum"})
    await post.open()
    await post.publish(messages(1), timeout=60.0)
    await post.publish(messages(1), timeout=60.0)
    await post.close()

    assert broker.declared == [("revenue", {"x-queue-type": "quorum"})]
    assert len(broker.sent) == 2


async def test_an_active_queue_that_somebody_has_deleted_is_declared_again(broker: Broker) -> None:
    clock = FakeClock()
    post = publisher(clock, queue="revenue", declare="active")
    await post.publish(messages(1), timeout=60.0)
    broker.answers = [returned()]
    publishing = asyncio.ensure_future(post.publish(messages(1), timeout=60.0))

    await clock.advance(1.0)

    await publishing
    assert broker.declared == [("revenue", {})] * 2
    assert len(broker.sent) == 3
    await post.close()


@pytest.mark.parametrize(
    ("settings", "looked_for"), [({"queue": "revenue"}, ("queue", "revenue")), ({"exchange": "e"}, ("exchange", "e"))]
)
async def test_open_looks_for_the_queue_or_exchange(
    broker: Broker, settings: dict[str, Any], looked_for: tuple[str, str]
) -> None:
    post = publisher(**settings)

    await post.open()

    assert broker.looked_for == [looked_for]
    assert broker.is_closed
    await post.close()


@pytest.mark.parametrize(
    ("refusal", "settings", "sentence"),
    [
        (
            ChannelNotFoundEntity("NOT_FOUND"),
            {"queue": "revenue"},
            f"there is no queue 'revenue' on {WHERE}; create it, or set declare: active",
        ),
        (
            ChannelAccessRefused("ACCESS_REFUSED - no"),
            {"queue": "revenue", "declare": "active"},
            f"this user may not declare queue 'revenue' on {WHERE}: ACCESS_REFUSED - no; give the user the permission",
        ),
        (
            ChannelPreconditionFailed("PRECONDITION_FAILED - inequivalent arg 'x-queue-type'"),
            {"queue": "revenue", "declare": "active"},
            (
                f"queue 'revenue' on {WHERE} exists, but with other arguments: PRECONDITION_FAILED - inequivalent arg "
                "'x-queue-type'; make queue_arguments match them, or set declare: passive"
            ),
        ),
    ],
    ids=["it is missing", "not permitted", "other arguments"],
)
async def test_open_says_why_the_place_cannot_be_used(
    broker: Broker, refusal: Exception, settings: dict[str, Any], sentence: str
) -> None:
    broker.refusal = refusal
    post = publisher(**settings)

    with pytest.raises(ProducerError) as error:
        await post.open()

    assert str(error.value) == sentence
    await post.close()


def complaint(**settings: Any) -> str:
    with pytest.raises(OptionsError) as wrong:
        RabbitMQSink(**settings)
    return str(wrong.value)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "queue: required, but missing: give queue, or exchange"),
        ({"queue": "q", "exchange": "e"}, "exchange: give queue or exchange, not both"),
        (
            {"queue": "q", "routing_key": "k"},
            (
                "routing_key: this is for an exchange, but a queue is published to directly: give exchange, or leave "
                "it out"
            ),
        ),
        (
            {"exchange": "e", "declare": "active"},
            (
                "declare: active creates a queue, but no exchange: create the exchange and its bindings, and leave "
                "declare out"
            ),
        ),
        (
            {"queue": "q", "queue_arguments": {"x-queue-type": "quorum"}},
            (
                "queue_arguments: used by declare: active only, but declare is 'passive': set declare: active, or "
                "remove them"
            ),
        ),
        ({"queue": "q", "declare": "never"}, "declare: expected 'passive' or 'active', got 'never'"),
        (
            {"exchange": ""},
            "exchange: expected the name of an exchange; to publish to a queue directly, give queue instead, got ''",
        ),
        (
            {"queue": "q", "url": "http://user:canary-password@h/"},
            "url: expected amqp://user:password@host:port/vhost, or the same with amqps://",
        ),
        (
            {"queue": "q", "routing_kye": "k"},
            (
                "routing_kye: unknown setting; known here: auth, connect_timeout, connection_name, declare, exchange, "
                "heartbeat, host, password, password_file, port, publish_timeout, queue, queue_arguments, routing_key, "
                "tls, url, username, username_file, virtual_host; did you mean 'routing_key'?"
            ),
        ),
    ],
)
def test_wrong_settings_are_refused_with_whole_sentences(settings: dict[str, Any], sentence: str) -> None:
    assert complaint(**settings) == sentence


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (lambda: RabbitMQSink(URL, queue="revenue"), f"<RabbitMQPublisher queue 'revenue' on {WHERE}>"),
        (lambda: RabbitMQSink(URL, exchange="results"), f"<RabbitMQPublisher exchange 'results' on {WHERE}>"),
    ],
)
def test_the_place_is_shown_without_the_password(make: Callable[[], RabbitMQSink], shown: str) -> None:
    assert repr(make()) == shown
