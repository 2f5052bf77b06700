"""Lists of messages with confirms: what goes out when, and what each message is told. On a scripted connection."""

from __future__ import annotations

import asyncio

import pytest
from aiormq.exceptions import ChannelNotFoundEntity, DeliveryError
from pamqp.commands import Basic

from broadway_py.errors import ProducerError
from broadway_py.producers.rabbitmq.retries.letters import Letter
from broadway_py.testing import settle
from tests.producers.scripted_connections import SILENT, WHERE, Broker, Line, letters, publisher, publishing, told

pytestmark = pytest.mark.faults

#: As many as go out in one write, and as many writes as one call has on their way.
PORTION = 250
PORTIONS = 4


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    return Broker.replacing(monkeypatch)


def named(*names: str) -> list[Letter]:
    return [Letter("work.dead", name.encode(), Basic.Properties(message_id=name)) for name in names]


def silent() -> Line:
    return Line(answer=lambda _: SILENT)


class Told(dict[int, str | None]):
    """What a caller was told, by position. Each position is told once."""

    def __call__(self, position: int, reason: ProducerError | None) -> None:
        assert position not in self
        self[position] = None if reason is None else str(reason)


def confirm(line: Line, *tags: int) -> None:
    for tag in tags:
        line.writer.tell(tag)


async def test_a_long_list_goes_out_in_portions_and_so_many_of_them_at_a_time(broker: Broker) -> None:
    post, line = publisher(), silent()
    most = PORTION * PORTIONS
    task = await publishing(post, broker, line, letters(most + PORTION + 1))
    assert line.writer.writes == [PORTION] * PORTIONS

    confirm(line, *range(2, most + 1))
    await settle()
    # The oldest portion lacks one answer.
    assert len(line.writer.published) == most

    confirm(line, 1)
    await settle()
    assert line.writer.writes == [*[PORTION] * (PORTIONS + 1), 1]
    confirm(line, *range(most + 1, most + PORTION + 2))
    assert await task == [None] * (most + PORTION + 1)
    assert line.bodies == [b"%d" % number for number in range(most + PORTION + 1)]
    await post.close()


async def test_an_id_that_another_call_writes_while_a_portion_waits_for_room_is_not_written_twice(
    broker: Broker,
) -> None:
    post, line = publisher(), silent()
    most = PORTION * PORTIONS
    given = [*letters(most), *named("a")]
    task = await publishing(post, broker, line, given)
    other = asyncio.ensure_future(post.publish(named("a")))
    await settle()
    confirm(line, *range(1, most + 1))
    await settle()
    assert line.bodies.count(b"a") == 1
    confirm(line, most + 1)
    assert await other == [None]
    await settle()
    assert line.bodies.count(b"a") == 2
    confirm(line, most + 2)
    assert await task == [None] * len(given)
    await post.close()


@pytest.mark.parametrize(("size", "messages"), [(1, 8_000), (200_000, 42)], ids=["messages", "bytes"])
async def test_callers_that_give_up_leave_a_bounded_number_of_messages_and_bytes(
    broker: Broker, size: int, messages: int
) -> None:
    post, line = publisher(), silent()
    body = bytes(size)

    def given() -> list[Letter]:
        return [Letter("work.dead", body, Basic.Properties()) for _ in range(1000)]

    task = await publishing(post, broker, line, given())
    for _ in range(10):
        task.cancel()
        await settle()
        task = asyncio.ensure_future(post.publish(given()))
        await settle()
    assert len(line.bodies) == messages
    confirm(line, *range(1, messages + 1))
    await settle()
    # What is answered makes room for the last caller.
    assert len(line.bodies) > messages
    task.cancel()
    await settle()
    await post.close()


async def test_large_bodies_make_small_portions(broker: Broker) -> None:
    post, line = publisher(), Line()
    given = [Letter("work.dead", bytes(200_000), Basic.Properties()) for _ in range(5)]
    assert await (await publishing(post, broker, line, given)) == [None] * 5
    assert line.writer.writes == [2, 2, 1]
    assert [len(body) for body in line.bodies] == [200_000] * 5
    await post.close()


async def test_a_letter_without_an_id_gets_one_and_its_own_properties_stay(broker: Broker) -> None:
    post, lost, line = publisher(), silent(), Line()
    given = Letter("work.dead", b"body", Basic.Properties(delivery_mode=2))
    task = await publishing(post, broker, lost, [given, given])
    lost.writer.end(ConnectionResetError())
    await settle()
    broker.connects[1].set_result(line)
    assert await task == [None, None]
    first, second = ([one.properties.message_id for one in each.writer.published] for each in (lost, line))
    assert first == second
    assert len(set(first)) == 2
    assert not given.properties.message_id
    await post.close()


async def test_letters_with_one_id_follow_each_other_and_the_order_stays(broker: Broker) -> None:
    post, line = publisher(), silent()
    task = await publishing(post, broker, line, named("a", "b", "a", "c"))
    assert line.bodies == [b"a", b"b"]
    confirm(line, 2)
    await settle()
    assert line.bodies == [b"a", b"b"]
    confirm(line, 1)
    await settle()
    assert line.bodies == [b"a", b"b", b"a", b"c"]
    confirm(line, 3, 4)
    assert await task == [None] * 4
    await post.close()


async def test_an_id_that_is_on_its_way_for_a_caller_that_was_cancelled_waits_for_the_broker(broker: Broker) -> None:
    post, line = publisher(), silent()
    first = await publishing(post, broker, line, named("a"))
    first.cancel()
    await settle()
    assert first.cancelled()
    second = asyncio.ensure_future(post.publish(named("x", "a", "y")))
    await settle()
    assert line.bodies == [b"a"]
    line.writer.tell(1, DeliveryError(None, Basic.Nack()))
    await settle()
    assert line.bodies == [b"a", b"x", b"a", b"y"]
    confirm(line, 2, 3, 4)
    # What the broker refused was the first caller's message.
    assert await second == [None] * 3
    await post.close()


async def test_a_caller_that_is_cancelled_was_told_what_is_confirmed_and_nothing_after_it(broker: Broker) -> None:
    post, line, heard = publisher(), silent(), Told()
    task = await publishing(post, broker, line, letters(4), heard)
    confirm(line, 1)
    await settle()
    assert heard == {0: None}
    # The answer and the cancellation come in one turn of the event loop.
    task.cancel()
    confirm(line, 3)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert heard == {0: None, 2: None}
    confirm(line, 2, 4)
    await settle()
    assert heard == {0: None, 2: None}
    await post.close()


async def test_an_id_that_is_answered_as_its_caller_is_cancelled_is_free_for_the_next_one(broker: Broker) -> None:
    post, line = publisher(), silent()
    first = await publishing(post, broker, line, named("a"))
    # All three come in one turn of the event loop, and the next caller looks before the answer is noted.
    first.cancel()
    second = asyncio.ensure_future(post.publish(named("a")))
    confirm(line, 1)
    await settle()
    assert line.bodies == [b"a", b"a"]
    confirm(line, 2)
    assert await second == [None]
    await post.close()


async def test_a_caller_that_is_cancelled_amid_a_long_list_writes_nothing_more(broker: Broker) -> None:
    post, line = publisher(), silent()
    task = await publishing(post, broker, line, letters(3000))
    task.cancel()
    await settle()
    assert task.cancelled()
    confirm(line, *range(1, PORTION * PORTIONS + 1))
    await settle()
    assert len(line.bodies) == PORTION * PORTIONS
    assert line.ends == []
    await post.close()


async def test_what_a_lost_connection_has_not_confirmed_is_published_again_once(broker: Broker) -> None:
    post, lost, heard = publisher(), silent(), Told()
    task = await publishing(post, broker, lost, letters(4), heard)
    confirm(lost, 1, 3)
    lost.writer.end(ConnectionResetError())
    await settle()
    assert heard == {0: None, 2: None}
    again = silent()
    broker.connects[1].set_result(again)
    await settle()
    assert again.bodies == [b"1", b"3"]
    confirm(again, 2)
    again.writer.end(ConnectionResetError())
    sentence = f"a message for queue 'work.dead' may not have arrived: the connection to {WHERE} was cut"
    assert told(await task) == [None, sentence, None, None]
    assert heard == {0: None, 1: sentence, 2: None, 3: None}
    assert len(broker.connects) == 2
    assert (lost.ends, again.ends) == (["end"], ["end"])


async def test_a_connection_that_closes_while_a_list_goes_out_gets_nothing_more(broker: Broker) -> None:
    post, lost, line = publisher(), Line(), Line()
    lost.writer.is_going = True
    task = await publishing(post, broker, lost, letters(3))
    assert lost.bodies == []
    broker.connects[1].set_result(line)
    assert await task == [None] * 3
    await post.close()


async def test_a_confirm_that_does_not_come_in_time_ends_the_connection(broker: Broker) -> None:
    post, silent_line, again = publisher(publish_timeout=0.01), silent(), silent()
    task = await publishing(post, broker, silent_line, letters(2))
    confirm(silent_line, 2)
    while len(broker.connects) < 2 and not task.done():
        await settle()
    assert silent_line.ends == ["end"]
    broker.connects[1].set_result(again)
    sentence = f"RabbitMQ at {WHERE} did not confirm a message for queue 'work.dead' in 0.01 s"
    assert told(await task) == [sentence, None]
    assert again.bodies == [b"0"]
    assert again.ends == ["end"]


async def test_a_list_waits_while_the_broker_takes_nothing(broker: Broker) -> None:
    post, line = publisher(publish_timeout=0.01), silent()
    line.blocked = True
    task = await publishing(post, broker, line, letters(2))
    for _ in range(3):
        looking = asyncio.ensure_future(line.looks.acquire())
        await asyncio.wait({looking, task}, return_when=asyncio.FIRST_COMPLETED)
        assert not task.done()
    confirm(line, 1, 2)
    assert await task == [None, None]
    assert line.ends == []
    await post.close()


async def test_an_exchange_that_is_missing_is_told_to_all_that_wait_and_ends_the_connection(broker: Broker) -> None:
    post, line = publisher(), silent()
    given = [letter._replace(exchange="results") for letter in letters(2)]
    task = await publishing(post, broker, line, given)
    other = asyncio.ensure_future(post.publish([letter._replace(exchange="results") for letter in letters(1, 2)]))
    await settle()
    confirm(line, 1)
    line.writer.end(ChannelNotFoundEntity("NOT_FOUND - no exchange 'results' in vhost '/'"))
    sentence = f"there is no exchange 'results' on {WHERE}; create it"
    assert told(await task) == [None, sentence]
    assert told(await other) == [sentence]
    assert set(line.ends) == {"end"}
    assert len(broker.connects) == 1


async def test_a_close_gives_up_what_is_on_its_way(broker: Broker) -> None:
    post, line = publisher(), silent()
    task = await publishing(post, broker, line, letters(2))
    confirm(line, 2)
    await settle()
    await post.close()
    assert told(await task) == [f"the connection to {WHERE} was closed", None]
    assert line.ends == ["abort", "end"]
