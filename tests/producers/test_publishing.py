"""What every sink of the box does with a call of publish, on a connection that is scripted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from broadway_py.clock import Clock
from broadway_py.errors import ProducerError, PublishError, SourceRefused
from broadway_py.producers.publishing import ConnectingSink, SinkConnection, Unconfirmed
from broadway_py.publisher import Outgoing
from broadway_py.testing import FakeClock, settle
from tests.pipeline.support import logged

Script = Callable[["Line", Unconfirmed], object]


class Line(SinkConnection):
    """A connection that plays a part of a script at each try, and confirms everything after its end."""

    def __init__(self, script: Sequence[Script]) -> None:
        self.script = list(script)
        #: The payloads of each try.
        self.tries: list[list[bytes]] = []
        self.is_closed = asyncio.Event()

    async def open(self) -> None:
        self._play(Unconfirmed([]))

    async def send(self, unconfirmed: Unconfirmed) -> None:
        self.tries.append([message.data for message in unconfirmed.waiting.values()])
        waits = self._play(unconfirmed)
        if waits is not None:
            await self.is_closed.wait()
            raise ProducerError("the connection was closed")

    def _play(self, unconfirmed: Unconfirmed) -> object:
        if self.script:
            return self.script.pop(0)(self, unconfirmed)
        for position in list(unconfirmed.waiting):
            unconfirmed.confirm(position)
        return None

    async def close(self) -> None:
        self.is_closed.set()


class Place(ConnectingSink):
    """A place with one connection after the other."""

    def __init__(self, *script: Script) -> None:
        self.line = Line(script)
        self.names: list[str] = []

    @property
    def place(self) -> str:
        return "queue 'out'"

    def connection(self, name: str, clock: Clock) -> SinkConnection:
        self.names.append(name)
        return self.line


def away(_: Line, unconfirmed: Unconfirmed) -> None:
    raise ProducerError("the broker is away")


def refused(_: Line, unconfirmed: Unconfirmed) -> None:
    raise SourceRefused("the broker refused the login")


def only_the_first(_: Line, unconfirmed: Unconfirmed) -> None:
    unconfirmed.confirm(0)
    unconfirmed.fail("the queue is full")


def never(_: Line, unconfirmed: Unconfirmed) -> object:
    unconfirmed.confirm(0)
    return "waits"


def second_too_long(_: Line, unconfirmed: Unconfirmed) -> None:
    unconfirmed.confirm(0)
    unconfirmed.refuse(1, "a message is too long")
    unconfirmed.confirm(2)


def messages(count: int) -> list[Outgoing]:
    return [Outgoing(data=b"%d" % number, message_id=str(number)) for number in range(count)]


async def test_a_call_returns_when_all_are_confirmed() -> None:
    sink = Place()
    publisher = sink.create("shop.revenue", FakeClock())

    await publisher.publish(messages(2), timeout=60.0)

    assert sink.line.tries == [[b"0", b"1"]]
    assert sink.names == ["shop.revenue"]
    await publisher.close()


async def test_nothing_to_publish_needs_no_connection() -> None:
    sink = Place(away)
    publisher = sink.create("shop.revenue", FakeClock())

    await publisher.publish([], timeout=60.0)

    assert sink.line.tries == []
    await publisher.close()


async def test_what_was_not_confirmed_is_tried_again_and_the_confirmed_are_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink, clock = Place(away, only_the_first, away), FakeClock()
    publisher = sink.create("shop.revenue", clock)
    publishing = asyncio.ensure_future(publisher.publish(messages(3), timeout=60.0))

    await clock.advance(20.0)

    await publishing
    assert sink.line.tries == [[b"0", b"1", b"2"], [b"0", b"1", b"2"], [b"1", b"2"], [b"1", b"2"]]
    assert [(line["reason"], line["messages"]) for line in logged(caplog)] == [
        ("the broker is away", 3),
        ("the queue is full", 2),
        ("the broker is away", 2),
    ]
    await publisher.close()


async def test_the_tries_are_further_and_further_apart() -> None:
    sink, clock = Place(*[away] * 50_000), FakeClock()
    publisher = sink.create("shop.revenue", clock)
    publishing = asyncio.ensure_future(publisher.publish(messages(1), timeout=3_600.0))

    await clock.advance(3_600.0)

    with pytest.raises(PublishError):
        await publishing
    # The waits are random, from nothing to a ceiling of 5 s, so there is about one try in 2.5 s.
    assert 1_200 < len(sink.line.tries) < 1_700
    await publisher.close()


async def test_after_the_time_of_the_caller_the_error_says_which_are_not_confirmed_and_why() -> None:
    sink, clock = Place(only_the_first, *[away] * 1_000), FakeClock()
    publisher = sink.create("shop.revenue", clock)
    given = messages(3)
    publishing = asyncio.ensure_future(publisher.publish(given, timeout=10.0))

    await clock.advance(10.0)

    with pytest.raises(PublishError) as error:
        await publishing
    assert str(error.value) == "2 of 3 messages were not confirmed: the broker is away"
    assert error.value.unpublished == given[1:]
    assert error.value.refused == []
    await publisher.close()


async def test_a_try_that_does_not_end_is_given_up_and_what_it_has_confirmed_counts() -> None:
    sink, clock = Place(never), FakeClock()
    publisher = sink.create("shop.revenue", clock)
    given = messages(2)
    publishing = asyncio.ensure_future(publisher.publish(given, timeout=10.0))

    await clock.advance(10.0)

    with pytest.raises(PublishError) as error:
        await publishing
    assert str(error.value) == "1 of 2 messages were not confirmed: queue 'out': no confirmation within 10 s"
    assert error.value.unpublished == given[1:]
    await publisher.close()


async def test_a_message_that_the_place_will_not_take_holds_up_no_other() -> None:
    sink = Place(second_too_long)
    publisher = sink.create("shop.revenue", FakeClock())
    given = messages(3)

    with pytest.raises(PublishError) as error:
        await publisher.publish(given, timeout=60.0)

    assert str(error.value) == "1 of 3 messages were not confirmed: a message is too long"
    assert error.value.unpublished == error.value.refused == [given[1]]
    assert len(sink.line.tries) == 1
    await publisher.close()


async def test_what_somebody_must_mend_is_told_at_once_and_the_next_call_tries_again() -> None:
    sink = Place(refused)
    publisher = sink.create("shop.revenue", FakeClock())
    given = messages(2)

    with pytest.raises(PublishError) as error:
        await publisher.publish(given, timeout=60.0)
    assert str(error.value) == "2 of 2 messages were not confirmed: the broker refused the login"
    assert (error.value.unpublished, error.value.refused) == (given, [])

    await publisher.publish(given, timeout=60.0)
    await publisher.close()


async def test_open_tells_why_the_place_is_not_available_and_publishing_may_work_later() -> None:
    sink = Place(away)
    publisher = sink.create("shop.revenue", FakeClock())

    with pytest.raises(ProducerError, match=r"^the broker is away$"):
        await publisher.open()

    await publisher.publish(messages(1), timeout=60.0)
    await publisher.close()


async def test_close_gives_up_what_is_on_its_way() -> None:
    sink = Place(never)
    publisher = sink.create("shop.revenue", FakeClock())
    given = messages(2)
    publishing = asyncio.ensure_future(publisher.publish(given, timeout=60.0))
    await settle()

    await publisher.close()

    with pytest.raises(PublishError) as error:
        await publishing
    assert str(error.value) == "1 of 2 messages were not confirmed: the connection was closed"


async def test_close_ends_the_wait_for_the_next_try() -> None:
    sink = Place(away, away)
    publisher = sink.create("shop.revenue", FakeClock())
    publishing = asyncio.ensure_future(publisher.publish(messages(1), timeout=60.0))
    await settle()

    await publisher.close()

    with pytest.raises(PublishError, match=r"^1 of 1 messages were not confirmed: the broker is away$"):
        await publishing
    assert len(sink.line.tries) == 1


async def test_a_closed_publisher_publishes_nothing() -> None:
    sink = Place()
    publisher = sink.create("shop.revenue", FakeClock())
    await publisher.close()
    await publisher.close()

    with pytest.raises(PublishError) as error:
        await publisher.publish(messages(1), timeout=60.0)

    assert str(error.value) == "1 of 1 messages were not confirmed: queue 'out': the publisher is closed"
    assert sink.line.tries == []


async def test_a_closed_publisher_is_not_opened_again() -> None:
    publisher = Place().create("shop.revenue", FakeClock())
    await publisher.close()

    with pytest.raises(ProducerError, match=r"^queue 'out': the publisher is closed$"):
        await publisher.open()


async def test_a_cancelled_call_is_cancelled() -> None:
    sink = Place(never)
    publisher = sink.create("shop.revenue", FakeClock())
    publishing = asyncio.ensure_future(publisher.publish(messages(2), timeout=60.0))
    await settle()

    publishing.cancel()

    with pytest.raises(asyncio.CancelledError):
        await publishing
    await publisher.close()


async def test_after_a_failure_settings_from_files_are_read_again() -> None:
    sink, other, clock = Place(refused), Place(), FakeClock()
    sink.renew_by(lambda: other)
    publisher = sink.create("shop.revenue", clock)
    with pytest.raises(PublishError):
        await publisher.publish(messages(1), timeout=60.0)

    await publisher.publish(messages(1), timeout=60.0)

    assert (sink.line.tries, other.line.tries) == ([[b"0"]], [[b"0"]])
    assert sink.line.is_closed.is_set()
    await publisher.close()


async def test_while_all_goes_well_no_file_is_read() -> None:
    sink = Place()

    def read() -> Place | None:
        raise AssertionError("read")

    sink.renew_by(read)
    publisher = sink.create("shop.revenue", FakeClock())

    await publisher.publish(messages(1), timeout=60.0)
    await publisher.publish(messages(1), timeout=60.0)

    assert sink.line.tries == [[b"0"], [b"0"]]
    await publisher.close()


async def test_a_list_that_waits_for_its_turn_is_told_why_the_place_is_away() -> None:
    sink, clock = Place(*[away] * 100_000), FakeClock()
    publisher = sink.create("shop.out", clock)
    first = asyncio.ensure_future(publisher.publish(messages(1), timeout=600.0))
    await clock.advance(60.0)
    waiting = [asyncio.ensure_future(publisher.publish(messages(1), timeout=0.001)) for _ in range(3)]
    await clock.advance(0.001)

    for each in waiting:
        with pytest.raises(PublishError, match=r"^1 of 1 messages were not confirmed: the broker is away$"):
            await each
    assert publisher.trouble == "the broker is away"
    await publisher.close()
    with pytest.raises(PublishError, match=r"^1 of 1 messages were not confirmed: the broker is away$"):
        await first


def test_a_message_without_an_id_has_the_same_name_at_each_try() -> None:
    first, second = Unconfirmed([Outgoing(data=b"1"), Outgoing(data=b"2", message_id="mine")]), Unconfirmed(messages(1))

    assert first.name(0) == first.name(0)
    assert first.name(1) == "mine"
    assert second.name(0) == "0"
    assert Unconfirmed([Outgoing(data=b"1")]).name(0) != first.name(0)


async def test_while_the_place_is_away_one_list_tries_and_all_share_its_waits() -> None:
    sink, clock = Place(*[away] * 1_000), FakeClock()
    publisher = sink.create("shop.out", clock)
    publishing = [asyncio.ensure_future(publisher.publish(messages(1), timeout=3_600.0)) for _ in range(20)]

    await clock.advance(600.0)
    assert len(sink.line.tries) < 20 + 600, "20 lists try as often as one does, after their first tries"
    sink.line.script.clear()
    await clock.advance(6.0)

    await asyncio.gather(*publishing)
    await publisher.close()


def test_the_payload_the_key_and_the_headers_are_not_shown() -> None:
    message = Outgoing(data=b"canary", message_id="a#1", key="canary", headers={"x": "canary"})

    assert repr(message) == "Outgoing(message_id='a#1', content_type=None)"
    assert repr(Place()) == "<Place queue 'out'>"
