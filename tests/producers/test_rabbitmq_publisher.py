"""The connection that only publishes, on one that is scripted: there is no broker, and no client library."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from aiormq.exceptions import ChannelAccessRefused
from pamqp.commands import Basic

from broadway_py.errors import ProducerError, SourceRefused
from broadway_py.producers.rabbitmq.retries.letters import Letter
from broadway_py.producers.rabbitmq.retries.publisher import Away, Publisher
from broadway_py.testing import FakeClock, settle
from tests.producers.scripted_connections import WHERE, Broker, Line, letters, publisher, publishing, told

CLOSED = f"the connection to {WHERE} was closed"


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    return Broker.replacing(monkeypatch)


async def declaring(post: Publisher, broker: Broker, line: Line) -> asyncio.Task[float]:
    """A declaration that waits for its answer."""
    task = asyncio.ensure_future(post.declare("work.retry.125", {}))
    await settle()
    broker.connects[0].set_result(line)
    await settle()
    assert len(line.declarations) == 1
    return task


async def look(line: Line, task: asyncio.Task[float]) -> None:
    """Wait until somebody looks whether *line* is blocked; *task* is not to end before."""
    looking = asyncio.ensure_future(line.looks.acquire())
    await asyncio.wait({looking, task}, return_when=asyncio.FIRST_COMPLETED)
    assert not task.done()


async def test_a_letter_that_cannot_be_sent_leaves_the_others_their_own_outcome(broker: Broker) -> None:
    post, line, given = publisher(), Line(), letters(3)
    headers = cast("Any", {"canary": object()})
    given[1] = Letter("work.dead", b"1", Basic.Properties(message_id="1", headers=headers))
    reasons = await (await publishing(post, broker, line, given))
    assert told(reasons) == [None, "a message for queue 'work.dead' cannot be sent (TypeError)", None]
    assert line.bodies == [b"0", b"2"]
    await post.close()


async def test_letters_are_published_on_one_connection(broker: Broker) -> None:
    post, line = publisher(), Line()
    assert await (await publishing(post, broker, line, letters(3))) == [None] * 3
    assert line.bodies == [b"0", b"1", b"2"]
    assert line.writer.writes == [3]
    assert len(broker.connects) == 1
    await post.close()
    assert line.ends == ["end"]


async def test_a_header_that_is_larger_than_a_frame_is_not_sent(broker: Broker) -> None:
    post, line = publisher(), Line()
    line.writer.max_content_size = 8184
    large = Letter("work.dead", b"large", Basic.Properties(message_id="m", headers={"a": "x" * 8000, "b": 1}))
    assert await (await publishing(post, broker, line, [large])) == [None]
    (message,) = line.writer.published
    assert message.properties.headers == {"b": 1, "x-broadway-left-out": "a"}
    await post.close()


async def test_a_refused_permission_is_a_refusal_and_not_tried_again_at_once(broker: Broker) -> None:
    said = "ACCESS_REFUSED - write access to exchange '(amq.default)' in vhost '/' refused for user 'tester'"
    post, line = publisher(), Line(error=ChannelAccessRefused(said))
    waiting = asyncio.ensure_future(post.publish(letters(2)))
    await settle()
    broker.connects[0].set_result(line)
    reasons = await waiting
    assert {type(reason) for reason in reasons} == {SourceRefused}
    sentence = f"this user may not publish to queue 'work.dead' on {WHERE}: {said}; "
    assert told(reasons) == [sentence + "give the user the permission to write to the default exchange"] * 2
    assert len(broker.connects) == 1


async def test_a_connect_that_succeeds_after_the_close_is_ended_and_publishes_nothing(broker: Broker) -> None:
    post, line = publisher(), Line()
    waiting = asyncio.ensure_future(post.publish(letters(2)))
    await settle()
    await post.close()
    broker.connects[0].set_result(line)
    assert told(await waiting) == [CLOSED] * 2
    assert line.ends == ["abort", "end"]
    assert line.bodies == []
    assert len(broker.connects) == 1


async def test_letters_of_one_round_share_a_connect_that_fails(broker: Broker) -> None:
    post = publisher()
    waiting = asyncio.ensure_future(post.publish(letters(20)))
    await settle()
    broker.connects[0].set_exception(SourceRefused("the login was refused"))
    await settle()
    assert len(broker.connects) == 1
    assert told(await waiting) == ["the login was refused"] * 20


async def test_letters_that_lose_their_connection_share_the_next_one(broker: Broker) -> None:
    post, lost = publisher(), Line(error=ConnectionResetError())
    waiting = asyncio.ensure_future(post.publish(letters(20)))
    await settle()
    broker.connects[0].set_result(lost)
    await settle()
    broker.connects[1].set_exception(ProducerError("nobody is there"))
    await settle()
    assert len(broker.connects) == 2
    assert told(await waiting) == ["nobody is there"] * 20


async def test_a_channel_that_does_not_open_is_tried_once_more_for_all_letters(broker: Broker) -> None:
    post = publisher()
    waiting = asyncio.ensure_future(post.publish(letters(20)))
    for attempt in range(2):
        await settle()
        broker.connects[attempt].set_result(Line(unopened=ConnectionResetError()))
    await settle()
    assert len(broker.connects) == 2
    sentence = f"the connection to {WHERE} broke while it was set up (ConnectionResetError)"
    assert told(await waiting) == [sentence] * 20


async def test_the_next_round_connects_again(broker: Broker) -> None:
    post = publisher()
    for attempt in range(2):
        waiting = asyncio.ensure_future(post.publish(letters(1)))
        await settle()
        broker.connects[attempt].set_exception(ProducerError("nobody is there"))
        assert told(await waiting) == ["nobody is there"]
    waiting = asyncio.ensure_future(post.publish(letters(1)))
    await settle()
    broker.connects[2].set_result(Line())
    assert await waiting == [None]
    await post.close()


async def test_whoever_waits_for_a_connect_that_is_cancelled_connects(broker: Broker) -> None:
    post = publisher()
    first, second = (asyncio.ensure_future(post.publish(letters(1))) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    broker.connects[1].set_result(Line())
    assert await second == [None]
    assert first.cancelled()
    await post.close()


async def test_a_declaration_waits_while_the_broker_takes_nothing(broker: Broker) -> None:
    clock, line = FakeClock(), Line()
    post, line.blocked = publisher(clock, connect_timeout=0.01), True
    task = await declaring(post, broker, line)
    await look(line, task)
    await clock.advance(300.0)
    for _ in range(2):
        await look(line, task)
    line.blocked = False
    line.declarations[0].set_result(None)
    # Until the last look it was not declared: its time runs from there.
    assert await task == clock.monotonic()
    assert line.ends == []
    assert await post.declare("work.retry.125", {}) == clock.monotonic()
    assert len(line.declarations) == 1
    await post.close()


async def test_a_declaration_without_an_answer_ends_the_connection(broker: Broker) -> None:
    post, line = publisher(connect_timeout=0.01), Line()
    with pytest.raises(Away) as away:
        await (await declaring(post, broker, line))
    assert str(away.value) == f"RabbitMQ at {WHERE} did not answer when queue 'work.retry.125' was declared"
    assert line.declarations[0].cancelled()
    assert line.ends == ["end"]


async def test_a_declaration_does_not_wait_on_a_connection_that_died_while_it_was_blocked(broker: Broker) -> None:
    post, line = publisher(connect_timeout=0.01), Line()
    line.blocked = True
    task = await declaring(post, broker, line)
    await look(line, task)
    line.writer.end()
    with pytest.raises(Away) as away:
        await task
    assert str(away.value) == f"RabbitMQ at {WHERE} did not answer when queue 'work.retry.125' was declared"


async def test_a_declaration_that_is_cancelled_leaves_nothing_running(broker: Broker) -> None:
    post, line = publisher(), Line()
    task = await declaring(post, broker, line)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert line.declarations[0].cancelled()
    assert line.ends == []
    await post.close()
