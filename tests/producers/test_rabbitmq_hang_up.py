"""The broker's last words and the end of the stream come together: the client library then has no name for it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from pamqp import commands

from broadway_py.clock import SYSTEM_CLOCK
from broadway_py.errors import ProducerError
from broadway_py.producers.rabbitmq import RabbitMQProducer
from broadway_py.producers.rabbitmq.retries.letters import Letter
from broadway_py.producers.rabbitmq.retries.publisher import Publisher
from broadway_py.producers.rabbitmq.settings.options import RabbitMQOptions
from broadway_py.testing.driving import refusal
from tests.producers.amqp_bytes import delivery, method
from tests.producers.fake_broker import FakeBroker, Peer

pytestmark = pytest.mark.faults

#: So many that the library has the end of the stream before it has read them all.
MANY = 60


async def test_a_broker_that_hangs_up_amid_the_first_deliveries_is_away() -> None:
    tags: list[str] = []

    async def answer(peer: Peer, name: str, channel: int, word: Any) -> bool:
        if name != "Basic.Consume":
            return False
        tags.append(word.consumer_tag)
        if word.queue == "orders":
            return False
        came = [delivery(number, channel=channel, consumer_tag=tags[0]) for number in range(1, MANY)]
        peer.hang_up(*itertools.chain(*came))
        return True

    async with FakeBroker.at_work(answer) as broker:
        error = await refusal(RabbitMQProducer(["orders", "bills"], broker.url, delivery_path="plain"))
        assert type(error) is ProducerError
        assert str(error) == f"{broker.where} closed the connection while it was set up"


async def test_what_was_not_confirmed_is_published_again_on_a_fresh_connection() -> None:
    peers: list[Peer] = []

    async def answer(peer: Peer, name: str, channel: int, word: Any) -> bool:
        if name != "published":
            return False
        if peer not in peers:
            peers.append(peer)
        if peer is not peers[0]:
            return False
        if peer.published == MANY + 1:
            peer.hang_up(*[method(commands.Basic.Ack(tag), channel) for tag in range(1, MANY + 1)])
        return True

    async with FakeBroker.at_work(answer) as broker:
        publisher = Publisher(RabbitMQOptions(queue="work", url=broker.url, publish_timeout=3.0), "ours", SYSTEM_CLOCK)
        letters = [
            Letter("work.dead", b"body", commands.Basic.Properties(message_id=str(number)))
            for number in range(MANY + 1)
        ]
        assert await publisher.publish(letters) == [None] * len(letters)
        assert len(peers) == 2
        await publisher.close()
