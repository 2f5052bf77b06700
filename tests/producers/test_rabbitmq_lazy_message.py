"""Messages whose properties are decoded on demand: the same as those of the plain path, only later."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, cast, get_args

import pytest
from aiormq.abc import AbstractChannel, DeliveredMessage
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame
from pamqp.header import ContentHeader

from broadway_py import Pipeline
from broadway_py._core.identity import identity_by_id
from broadway_py.acknowledger import Acknowledger
from broadway_py.errors import MalformedMessage
from broadway_py.message import NOOP, Failed, Message
from broadway_py.producer import Producer
from broadway_py.producers.rabbitmq.deliveries.lazy_message import LazyMessage, delivery_of, is_retry, messages_of
from broadway_py.producers.rabbitmq.deliveries.message import ATTEMPT_HEADER, EXCHANGE_HEADER, to_message
from broadway_py.producers.rabbitmq.settings.options import MetadataName, RabbitMQOptions
from broadway_py.producers.rabbitmq.wire.delivery_parser import Cutter, Delivery
from tests.producers.amqp_bytes import OPENED, TUNED, delivery

ALL = tuple(get_args(MetadataName))
SESSION = cast("Acknowledger", object())


#: By which exchange retries return to which queue.
BACK: Final = {"work": "work.retry.back"}


def cut(frames: list[bytes]) -> Delivery:
    cutter = Cutter()
    cutter.feed(TUNED + OPENED)
    sink = cutter.sink(1)
    sink.add("ours")
    ((found,),) = cutter.feed(b"".join(frames)).lists.values()
    return found


def lazy(found: Delivery, **settings: Any) -> LazyMessage:
    (message,) = messages_of([found], SESSION, RabbitMQOptions(queue="work", **settings), {"ours": "work"}, BACK)
    assert isinstance(message, LazyMessage)
    return message


def plain(frames: list[bytes], **settings: Any) -> Message[bytes]:
    command, head = frame.unmarshal(frames[0])[2], frame.unmarshal(frames[1])[2]
    assert isinstance(command, commands.Basic.Deliver)
    assert isinstance(head, ContentHeader)
    body = b"".join(one[7:-1] for one in frames[2:])
    came = DeliveredMessage(command, head, body, cast("AbstractChannel", None))
    return to_message(came, SESSION, RabbitMQOptions(queue="work", **settings), "work", BACK["work"])


texts = st.text(max_size=20)
properties = st.fixed_dictionaries(
    {},
    optional={
        "app_id": texts,
        "content_encoding": texts,
        "content_type": texts,
        "correlation_id": texts,
        "delivery_mode": st.sampled_from([1, 2]),
        "expiration": texts,
        "headers": st.dictionaries(
            st.sampled_from(["a", "x-delivery-count", ATTEMPT_HEADER, EXCHANGE_HEADER]),
            st.one_of(st.integers(0, 5), texts),
        ),
        "message_id": texts,
        "message_type": texts,
        "priority": st.integers(0, 9),
        "reply_to": texts,
        "timestamp": st.integers(0, 2**31).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
        "user_id": texts,
    },
)


@given(
    properties,
    st.booleans(),
    st.binary(max_size=20),
    st.sampled_from([(), ALL]),
    st.sampled_from(["events", *BACK.values()]),
)
def test_a_lazy_message_is_what_the_plain_path_makes(
    set_by_publisher: dict[str, Any], redelivered: bool, body: bytes, metadata: tuple[str, ...], exchange: str
) -> None:
    frames = delivery(7, [body] if body else [], redelivered=redelivered, exchange=exchange, **set_by_publisher)
    ours, theirs = lazy(cut(frames), metadata=metadata), plain(frames, metadata=metadata)
    assert ours.id == theirs.id, "before anything is decoded"
    for name in ("data", "raw", "size", "attempt", "metadata", "id", "batcher", "batch_key", "batch_mode", "ok"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.acknowledgement.acknowledger is SESSION
    assert ours.acknowledgement.data[:6] == theirs.acknowledgement.data[:6]
    assert ours.acknowledgement.data[7] == theirs.acknowledgement.data[7]
    again = delivery_of(ours.acknowledgement.data)
    assert dict(again.header.properties) == dict(delivery_of(theirs.acknowledgement.data).header.properties)
    assert (again.body, again.exchange, again.routing_key) == (body, exchange, "work")


def test_nothing_is_decoded_before_somebody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def decode(consumer_tag: str, tag: int, envelope: bytes, *, redelivered: bool) -> Any:
        asked.append(tag)
        return commands.Basic.Deliver(), commands.Basic.Properties(message_id="m")

    monkeypatch.setattr("broadway_py.producers.rabbitmq.deliveries.lazy_message.decode", decode)
    message = lazy(cut(delivery(7, message_id="m")))
    assert (message.data, message.size, message.ok, message.settled) == (b"payload", 7, True, False)
    assert message.id == "m"
    assert asked == []
    assert message.metadata is message.metadata
    assert asked == [7]


def test_a_retry_of_ours_is_recognised_without_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    first, retried = delivery(1, headers={"a": 1}), delivery(2, headers={ATTEMPT_HEADER: 2})
    assert not is_retry(plain(first).acknowledgement.data)
    assert not is_retry(plain(delivery(1)).acknowledgement.data)
    assert is_retry(plain(retried).acknowledgement.data)
    monkeypatch.setattr("broadway_py.producers.rabbitmq.deliveries.lazy_message.decode", None)
    assert not is_retry(lazy(cut(first)).acknowledgement.data)
    assert is_retry(lazy(cut(retried)).acknowledgement.data)


def test_the_identity_needs_no_decoding_and_is_that_of_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = delivery(1, message_id="m", content_type="text/plain", priority=3, reply_to="r", headers={"a": 1})
    identity = identity_by_id(plain(frames), "orders")
    monkeypatch.setattr("broadway_py.producers.rabbitmq.deliveries.lazy_message.decode", None)
    message = lazy(cut(frames))
    assert identity is not None
    assert identity_by_id(message, "orders") == identity
    message.metadata = {"message_id": "mine"}
    assert identity_by_id(message, "orders") != identity


def test_how_many_were_redelivered_is_known_without_a_look() -> None:
    found = [cut(delivery(tag, redelivered=tag > 1)) for tag in (1, 2, 3)]
    assert messages_of(found, SESSION, RabbitMQOptions(queue="work"), {"ours": "work"}, BACK).redelivered == 2


def test_what_the_handler_sets_stays() -> None:
    message = lazy(cut(delivery(1)))
    message.metadata = {"mine": 1}
    message.attempt = 5
    assert (message.metadata, message.attempt) == ({"mine": 1}, 5)


def test_an_attribute_that_is_not_there_is_refused_as_python_does() -> None:
    with pytest.raises(AttributeError, match=r"^'LazyMessage' object has no attribute 'metadate'$"):
        _ = lazy(cut(delivery(1))).metadate


def test_at_most_once_has_nothing_to_settle() -> None:
    message = lazy(cut(delivery(1)), consume_options={"no_ack": True})
    assert message.acknowledgement is NOOP


def test_copies_of_a_message_have_its_metadata() -> None:
    message = lazy(cut(delivery(1, message_id="m")))
    assert copy.copy(message).metadata == {"redelivered": False, "message_id": "m"}
    assert message.detached().metadata == {"redelivered": False, "message_id": "m"}
    assert message.settled


# --- properties that do not decode ----------------------------------------------------------------------------------


def broken() -> Delivery:
    """A routing key that reaches past the end of everything."""
    tag, redelivered, envelope, body, consumer_tag = cut(delivery(7, redelivered=True))
    return tag, redelivered, envelope[:1] + b"\xff" + envelope[2:], body, consumer_tag


def test_a_look_at_the_metadata_is_refused_with_a_sentence() -> None:
    message = lazy(broken())
    with pytest.raises(MalformedMessage) as refused:
        _ = message.metadata
    assert str(refused.value) == ("the properties of delivery 7 cannot be decoded (ValueError); correct its publisher")


def test_all_that_needs_no_properties_works() -> None:
    message = lazy(broken())
    assert (message.data, message.id, message.attempt) == (b"payload", None, None)
    assert repr(message) == "<Message id=None producer=None size=7 ok>"
    assert delivery_of(message.acknowledgement.data).body == b"payload"
    assert message.detached().metadata == {"redelivered": True}


class One(Producer):
    """Hands one message over, and ends."""

    def __init__(self, message: Message[bytes]) -> None:
        self._messages: list[Message[bytes]] = [message]

    async def handle_demand(self, demand: int) -> Sequence[Message[bytes]] | None:
        messages, self._messages = self._messages, []
        return messages or None


async def test_it_fails_as_invalid_when_its_handler_looks() -> None:
    failures: list[Failed | None] = []

    class Looking(Pipeline[bytes]):
        async def handle_message(self, message: Message[bytes]) -> None:
            _ = message.metadata

        async def handle_failed(self, messages: list[Message[bytes]]) -> None:
            failures.extend(message.status for message in messages)

    message = lazy(broken(), consume_options={"no_ack": True})
    async with Looking(producer=One(message)) as pipeline:
        await pipeline.wait()
    (status,) = failures
    assert status is not None
    assert (status.cause, str(status.exception)) == (
        "invalid",
        "the properties of delivery 7 cannot be decoded (ValueError); correct its publisher",
    )
