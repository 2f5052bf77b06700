"""A broker in alarm reads nothing of what is published: that alone must not look like a dead network."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from pamqp.commands import Basic

from broadway_py.clock import SYSTEM_CLOCK
from broadway_py.producers.rabbitmq.retries.letters import Letter
from broadway_py.producers.rabbitmq.retries.publisher import Publisher
from broadway_py.producers.rabbitmq.settings.options import RabbitMQOptions
from tests.producers.amqp_bytes import HEARTBEAT
from tests.producers.fake_broker import FakeBroker, Peer

pytestmark = pytest.mark.faults

#: Longer than two heartbeats of 1 s, by enough for the system to look at its timers. It is the system's own clock that
#: would give the connection up, which no clock of ours stands in for.
ALARM_S = 5.0


async def test_letters_that_fill_the_socket_wait_until_the_alarm_is_over() -> None:
    peers: set[Peer] = set()

    async def answer(peer: Peer, name: str, channel: int, word: Any) -> bool:
        if name == "published" and peer not in peers:
            peers.add(peer)
            with contextlib.suppress(TimeoutError):
                # Nothing is read meanwhile; the broker's own heartbeats go on.
                async with asyncio.timeout(ALARM_S):
                    while True:
                        peer.say(HEARTBEAT)
                        await asyncio.sleep(0.5)
        return False

    async with FakeBroker.at_work(answer) as broker:
        options = RabbitMQOptions(queue="work", url=broker.url, heartbeat=1.0)
        publisher = Publisher(options, "ours", SYSTEM_CLOCK)
        letters = [Letter("work.dead", bytes(100_000), Basic.Properties(message_id=str(index))) for index in range(200)]
        assert await publisher.publish(letters) == [None] * len(letters)
        assert len(peers) == 1
        await publisher.close()
