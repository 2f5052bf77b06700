"""What the client library makes of a broker's answers to published messages, and what callers learn of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pamqp import commands

from broadway_py.clock import SYSTEM_CLOCK
from broadway_py.producers.rabbitmq.retries.letters import Letter
from broadway_py.producers.rabbitmq.retries.publisher import Publisher
from broadway_py.producers.rabbitmq.settings.options import RabbitMQOptions
from tests.producers.amqp_bytes import content, method
from tests.producers.fake_broker import FakeBroker, Peer

pytestmark = pytest.mark.faults

#: Says the answers after the last of so many messages.
Answers = Callable[[Peer, int, list[commands.Basic.Properties]], list[bytes]]


def after(count: int, answers: Answers) -> Callable[[Peer, str, int, Any], Awaitable[bool]]:
    """A broker that is silent until *count* messages have come."""
    came: list[commands.Basic.Properties] = []

    async def answer(peer: Peer, name: str, channel: int, _: Any) -> bool:
        if name != "published":
            return False
        came.append(peer.properties)
        if len(came) == count:
            peer.say(*answers(peer, channel, came))
        return True

    return answer


async def outcomes(answers: Answers, count: int, *, has_ids: bool = True) -> list[str | None]:
    """Publish *count* messages; what is returned, with a short word for the broker's address."""
    async with FakeBroker.at_work(after(count, answers)) as broker:
        options = RabbitMQOptions(queue="work", url=broker.url, publish_timeout=10.0)
        publisher = Publisher(options, "ours", SYSTEM_CLOCK)
        given = [
            Letter("out", b"body", commands.Basic.Properties(message_id=str(number) if has_ids else None))
            for number in range(count)
        ]
        reasons = await publisher.publish(given)
        assert len(broker.peers) == 1
        await publisher.close()
        return [None if reason is None else str(reason).replace(broker.where, "HERE") for reason in reasons]


async def test_one_confirm_may_stand_for_many_messages() -> None:
    def answers(_: Peer, channel: int, __: object) -> list[bytes]:
        said = [
            commands.Basic.Ack(2),
            commands.Basic.Ack(700, multiple=True),
            commands.Basic.Ack(702),
            commands.Basic.Ack(1000, multiple=True),
        ]
        return [method(one, channel) for one in said]

    assert await outcomes(answers, 1000) == [None] * 1000


async def test_one_refusal_may_stand_for_many_messages() -> None:
    def answers(_: Peer, channel: int, __: object) -> list[bytes]:
        return [
            method(commands.Basic.Ack(2), channel),
            method(commands.Basic.Nack(3, multiple=True), channel),
            method(commands.Basic.Ack(5, multiple=True), channel),
        ]

    refused = "RabbitMQ at HERE refused a message for queue 'out': the queue is full, or broken"
    assert await outcomes(answers, 5) == [refused, None, refused, None, None]


@pytest.mark.parametrize("has_ids", [True, False], ids=["its own id", "an id that it was given"])
async def test_a_returned_message_is_found_by_its_id_although_its_confirm_follows(has_ids: bool) -> None:
    def answers(_: Peer, channel: int, came: list[commands.Basic.Properties]) -> list[bytes]:
        back = commands.Basic.Return(312, "NO_ROUTE", "", "out")
        return [
            method(back, channel),
            *content(channel, [b"body"], message_id=came[1].message_id),
            method(commands.Basic.Ack(3, multiple=True), channel),
        ]

    assert await outcomes(answers, 3, has_ids=has_ids) == [None, "there is no queue 'out' on HERE", None]


async def test_confirms_that_end_in_a_hang_up_count_and_the_rest_is_published_again() -> None:
    peers: list[Peer] = []
    again: list[str | None] = []

    async def answer(peer: Peer, name: str, channel: int, _: Any) -> bool:
        if name != "published":
            return False
        if peer not in peers:
            peers.append(peer)
        if peer is not peers[0]:
            again.append(peer.properties.message_id)
            return False
        if peer.published == 4:
            peer.hang_up(method(commands.Basic.Ack(2, multiple=True), channel))
        return True

    async with FakeBroker.at_work(answer) as broker:
        publisher = Publisher(RabbitMQOptions(queue="work", url=broker.url), "ours", SYSTEM_CLOCK)
        heard: list[tuple[int, object]] = []
        given = [Letter("out", b"body", commands.Basic.Properties(message_id=str(number))) for number in range(4)]
        reasons = await publisher.publish(given, lambda position, reason: heard.append((position, reason)))
        await publisher.close()
    assert reasons == [None] * 4
    # The library may not have read the last confirms when the connection ended. Then all come again.
    assert again in (["2", "3"], ["0", "1", "2", "3"])
    assert sorted(heard, key=lambda one: one[0]) == [(position, None) for position in range(4)]
