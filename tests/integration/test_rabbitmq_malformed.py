"""Properties that a real RabbitMQ takes from any publisher, and that do not decode here, or cannot be sent on."""

from __future__ import annotations

import struct
from typing import cast

import pytest
from aiormq import Channel
from pamqp.commands import Basic

from broadway_py import FailurePolicy, Message
from tests.integration.failing_pipelines import Failing, dead_letters, raising, source, until_there
from tests.integration.gated_pipelines import at_work
from tests.pipeline.support import outcomes
from tests.support.rabbitmq import Counts, RabbitMQ

pytestmark = [pytest.mark.integration]

#: A message id in Latin-1, beside a type that decodes.
LATIN_ID = struct.pack(">H", 1 << 7 | 1 << 5) + b"\x04caf\xe9" + b"\x05order"
#: A header whose text is no UTF-8.
LATIN_HEADER = struct.pack(">HI", 1 << 13, 11) + b"\x01aS" + struct.pack(">I", 4) + b"caf\xe9"


class AsTheyAre(Basic.Properties):
    """Properties that go onto the wire as these bytes."""

    def __init__(self, raw: bytes) -> None:
        super().__init__()
        self._raw = raw

    def marshal(self) -> bytes:
        return self._raw


async def publish(broker: RabbitMQ, body: bytes, raw: bytes, queue: str = "work") -> None:
    channel = cast("Channel", await broker.channel.get_underlay_channel())
    await channel.basic_publish(body, routing_key=queue, properties=AsTheyAre(raw))


def look(message: Message[bytes]) -> None:
    _ = message.metadata


@pytest.mark.delivery_path("fast")
async def test_a_message_whose_properties_do_not_decode_fails_alone(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await rabbitmq.publish([b"before"])
    await publish(rabbitmq, b"broken", LATIN_ID)
    await rabbitmq.publish([b"after"])
    pipeline = Failing(producer=source(rabbitmq, metadata=["type"]), context=look)
    async with at_work(pipeline, rabbitmq):
        await until_there(rabbitmq, "work.dead")
        await rabbitmq.until(ready=0, unacked=0)
        assert pipeline.stats().trouble is None
    assert [message.data for message in pipeline.messages] == [b"before", b"broken", b"after"]
    assert outcomes(pipeline) == {"acked": 2, "dead_lettered": 1}
    (letter,) = await dead_letters(rabbitmq)
    assert (letter.body, letter.type) == (b"broken", "order")
    assert letter.headers["x-broadway-cause"] == "invalid"
    assert letter.headers["x-broadway-exception"] == "MalformedMessage"


@pytest.mark.delivery_path("fast")
async def test_nobody_looks_into_it_and_it_is_handled(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await publish(rabbitmq, b"broken", LATIN_ID)
    pipeline = Failing(producer=source(rabbitmq))
    async with at_work(pipeline, rabbitmq):
        await rabbitmq.until(ready=0, unacked=0)
    assert outcomes(pipeline) == {"acked": 1}


async def test_a_header_that_is_no_text_goes_along_with_retries_and_dead_letters(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await publish(rabbitmq, b"one", LATIN_HEADER)
    pipeline = Failing(producer=source(rabbitmq), context=raising(LookupError()))
    async with at_work(pipeline, rabbitmq):
        await until_there(rabbitmq, "work.dead")
    assert pipeline.attempts == {b"one": [1, 2, 3, 4]}
    assert await rabbitmq.counts() == Counts(0, 0)
    (letter,) = await dead_letters(rabbitmq)
    assert letter.headers["a"] == b"caf\xe9"


@pytest.mark.parametrize("attempts", [1, 2])
@pytest.mark.any_broker
async def test_one_whose_header_fills_a_frame_is_put_away_and_troubles_no_neighbour(
    rabbitmq: RabbitMQ, attempts: int
) -> None:
    """With our own headers added to it the broker would end the connection, and everybody's confirms with it."""
    await rabbitmq.declare()
    await rabbitmq.publish([b"large"], headers={"trace": "x" * 130_950, "who": "me"})
    await rabbitmq.publish([b"bad 1", b"bad 2"])
    failure = FailurePolicy(attempts=attempts, backoff=(0.1, 0.2), breaker=None)
    pipeline = Failing(producer=source(rabbitmq), context=raising(LookupError()), failure=failure)
    async with at_work(pipeline, rabbitmq):
        await until_there(rabbitmq, "work.dead", ready=3)
    assert outcomes(pipeline).get("unknown", 0) == 0
    assert {len(times) for times in pipeline.seen.values()} == {attempts}
    letters = {letter.body: letter.headers for letter in await dead_letters(rabbitmq)}
    assert {(headers.get("who"), headers.get("x-broadway-left-out")) for headers in letters.values()} == {
        ("me", "trace"),
        (None, None),
    }
    assert letters[b"large"]["x-broadway-attempts"] == attempts
