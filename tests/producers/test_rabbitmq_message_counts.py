"""How the numbers of messages are asked for, at a broker that refuses, or does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from pamqp import commands

from broadway_py._core.failure_authority import FailureAuthority
from broadway_py.producer import FailurePlan, SourceMessages
from broadway_py.producers import RabbitMQProducer
from broadway_py.testing.driving import copy_of
from tests.producers.amqp_bytes import method
from tests.producers.fake_broker import FakeBroker, Peer

PLAN = FailurePlan(frozenset({"dead_letter"}), None, FailureAuthority(False, False))


class Broker:
    """Tells the numbers in *counts*; what is no number is done instead."""

    def __init__(self, **counts: int | Callable[[Peer, int], bool]) -> None:
        self.counts = {name.replace("_", "."): count for name, count in counts.items()}
        self.asked: list[str] = []
        self.came = asyncio.Event()

    async def answer(self, peer: Peer, name: str, channel: int, word: Any) -> bool:
        if not isinstance(word, commands.Queue.Declare) or not word.passive or word.queue not in self.counts:
            return False
        self.asked.append(word.queue)
        self.came.set()
        count = self.counts[word.queue]
        if not isinstance(count, int):
            return count(peer, channel)
        peer.say(method(commands.Queue.DeclareOk(word.queue, count, 0), channel))
        return True


def refused(code: int, text: str) -> Callable[[Peer, int], bool]:
    def say(peer: Peer, channel: int) -> bool:
        peer.say(method(commands.Channel.Close(code, text, 50, 10), channel))
        return True

    return say


async def counted(broker: Broker) -> SourceMessages | None:
    async with FakeBroker.at_work(broker.answer) as at:
        copy = copy_of(RabbitMQProducer("work", at.url, declare="active"), capacity=50, pipeline="orders")
        copy.context.failure = PLAN
        try:
            await copy.open()
            found: SourceMessages | None = await copy.source_messages()
            return found
        finally:
            await copy.close()


async def test_each_queue_is_asked_for_its_number() -> None:
    assert await counted(Broker(work=7, work_dead=3)) == SourceMessages(7, 0, 3)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (403, "ACCESS_REFUSED - access to queue 'work.dead' in vhost '/' refused for user 'orders'"),
        # The queue is there, but its node is not.
        (404, "NOT_FOUND - home node 'rabbit@b' of durable queue 'work.dead' in vhost '/' is down or inaccessible"),
    ],
)
async def test_a_number_that_is_refused_is_not_known_and_the_others_are(code: int, text: str) -> None:
    assert await counted(Broker(work=7, work_dead=refused(code, text))) == SourceMessages(
        7, 0, None, f"the broker does not tell the number of messages in queue 'work.dead': {text}"
    )


async def test_a_queue_of_the_source_that_is_missing_has_no_number() -> None:
    text = "NOT_FOUND - no queue 'work' in vhost '/'"
    assert await counted(
        Broker(work=refused(404, text), work_dead=refused(404, "NOT_FOUND - no queue 'work.dead'"))
    ) == (SourceMessages(None, 0, 0, f"the broker does not tell the number of messages in queue 'work': {text}"))


async def test_after_a_question_that_was_given_up_the_next_one_gets_its_own_answer() -> None:
    broker = Broker(work=lambda _peer, _channel: True)
    async with FakeBroker.at_work(broker.answer) as at:
        copy = copy_of(RabbitMQProducer("work", at.url, declare="active"), capacity=50, pipeline="orders")
        try:
            await copy.open()
            asking = asyncio.ensure_future(copy.source_messages())
            await broker.came.wait()
            asking.cancel()
            await asyncio.wait({asking})
            assert asking.cancelled()
            broker.counts["work"] = 4
            assert await copy.source_messages() == SourceMessages(4, 0, None)
        finally:
            await copy.close()
