"""How consumers are replaced when the prefetch changes, in the words that a broker hears."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any

import pytest
from pamqp import commands

from broadway_py.producers.rabbitmq import RabbitMQProducer
from broadway_py.testing.driving import copy_of
from tests.producers.amqp_bytes import delivery, method
from tests.producers.fake_broker import FakeBroker, Peer
from tests.support.eventually import eventually

pytestmark = pytest.mark.faults

#: Messages that the first consumer gets.
COUNT = 3


class Ear:
    """A broker that hands out a few messages to the first consumer, and what it hears from then on."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self._has_consumer = False

    async def answer(self, peer: Peer, name: str, channel: int, word: Any) -> bool:
        if self._has_consumer:
            match word:
                case commands.Basic.Qos():
                    self.heard.append(f"qos {word.prefetch_count}")
                case commands.Basic.Nack():
                    self.heard.append(f"give back {word.delivery_tag}")
                case commands.Basic.Cancel() | commands.Basic.Consume():
                    self.heard.append(name.removeprefix("Basic.").lower())
        elif isinstance(word, commands.Basic.Consume):
            self._has_consumer = True
            came = [delivery(number, channel=channel, consumer_tag=word.consumer_tag) for number in range(1, COUNT + 1)]
            peer.say(method(commands.Basic.ConsumeOk(word.consumer_tag), channel), *chain(*came))
            return True
        return False


@asynccontextmanager
async def consuming(prefetch: int, **settings: Any) -> AsyncIterator[tuple[Any, Ear]]:
    """The session of a copy whose buffer is filled, and the broker's ear."""
    ear = Ear()
    async with FakeBroker.at_work(ear.answer) as broker:
        producer = RabbitMQProducer("work", broker.url, prefetch_count=prefetch, **settings)
        copy: Any = copy_of(producer, capacity=COUNT, pipeline="ours", lost=print)
        await copy.open()
        try:
            await eventually(lambda: len(copy._session._buffer) == COUNT, what="the messages have come")
            yield copy._session, ear
        finally:
            await copy.close()


GIVEN_BACK = [f"give back {tag}" for tag in range(1, COUNT + 1)]
DECLARED = {"declare": "active"}


@pytest.mark.parametrize(
    ("prefetch", "settings", "heard"),
    [
        (100, {}, ["qos 100", "cancel", *GIVEN_BACK, "consume"]),
        (100, {**DECLARED, "declare_options": {"auto_delete": True}}, ["qos 100", "consume", "cancel", *GIVEN_BACK]),
        (3000, {}, ["qos 3000", "consume", "cancel"]),
        (2000, {}, ["qos 2000"]),
        (100, {"consume_options": {"exclusive": True}}, ["qos 100"]),
        (100, {"consume_options": {"consumer_tag": "ours"}}, ["qos 100"]),
        (100, {**DECLARED, "declare_options": {"arguments": {"x-single-active-consumer": True}}}, ["qos 100"]),
    ],
    ids=["smaller", "smaller, auto-delete", "larger", "the same", "exclusive", "named", "single active"],
)
@pytest.mark.parametrize("path", ["fast", "plain"])
async def test_the_order_of_the_words(prefetch: int, settings: dict[str, Any], heard: list[str], path: str) -> None:
    async with consuming(2000, delivery_path=path, **settings) as (session, ear):
        session.change_prefetch(prefetch)
        await eventually(lambda: not session._asides, what="the prefetch has changed")
        # The last word may still be on its way.
        await eventually(lambda: len(ear.heard) >= len(heard), what="the broker has heard it")
        assert ear.heard == heard


async def test_changes_that_overtake_each_other_give_back_what_the_consumer_really_has() -> None:
    async with consuming(2000) as (session, ear):
        session.change_prefetch(100)
        session.change_prefetch(500)
        await eventually(lambda: not session._asides, what="the prefetch has changed")
        await eventually(lambda: "consume" in ear.heard, what="the broker has heard it")
        assert ear.heard == ["qos 500", "cancel", *GIVEN_BACK, "consume"]
