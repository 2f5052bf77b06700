"""What callers of one publisher get: together, within bounds, each for itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from broadway_py import DefinitionError, OptionsError, PublishError, Unavailable
from broadway_py.pipeline.publishing.calls import PublishUnavailable
from broadway_py.pipeline.publishing.outbox import Outbox
from broadway_py.pipeline.publishing.publishers import Publishers
from broadway_py.publisher import Sink
from broadway_py.testing import FakeClock, settle
from tests.pipeline.publishing.support import Box, away
from tests.pipeline.support import events_logged, soon, telemetry_events
from tests.support.turns import turns

Publishing = asyncio.Task[None]


class Bench:
    """A publisher called ``out``, on a fake clock."""

    def __init__(self, box: Box) -> None:
        self.state = box.state
        self.clock = FakeClock()
        self.publishers = Publishers({"out": box})
        self.publishers.start("shop", self.clock, None)

    @property
    def out(self) -> Sink:
        return self.publishers["out"]

    @property
    def outbox(self) -> Outbox:
        return self.publishers.outboxes["out"]

    def begin(self, call: Coroutine[Any, Any, None]) -> Publishing:
        return asyncio.ensure_future(call)

    async def failed(self, publishing: Publishing) -> PublishError:
        with pytest.raises(PublishError) as error:
            await soon(publishing)
        return error.value


@asynccontextmanager
async def bench(*, confirms: bool = True) -> AsyncIterator[Bench]:
    made = Bench(Box(confirms=confirms))
    try:
        yield made
    finally:
        await made.publishers.close()
        assert (made.outbox.waiting, made.outbox.in_flight) == (0, 0), "something is still on its way"


# --- together


async def test_a_lone_message_is_sent_without_a_wait() -> None:
    async with bench() as it:
        await soon(it.out.publish(b"1"))

        assert it.state.came == [[b"1"]]
        assert it.state.names == ["shop.out"]


async def test_what_is_published_at_the_same_time_travels_together() -> None:
    async with bench() as it:
        await soon(asyncio.gather(*(it.out.publish(b"%d" % number) for number in range(20))))

        assert it.state.came == [[b"%d" % number for number in range(20)]]


async def test_lists_are_sent_side_by_side_and_messages_gather_while_there_are_enough() -> None:
    async with bench(confirms=False) as it:
        calls: list[Publishing] = []
        for number in range(16):
            calls.append(it.begin(it.out.publish(b"%d" % number)))
            await settle()
        assert it.state.came == [[b"%d" % number] for number in range(16)]

        calls += [it.begin(it.out.publish(b"late")) for _ in range(3)]
        await settle()
        assert len(it.state.came) == 16
        assert (it.outbox.waiting, it.outbox.in_flight) == (3, 16)
        it.state.lists[0].confirm(0)
        it.state.notify()
        await settle()
        assert it.state.came[16:] == [[b"late"] * 3]

        it.state.confirm_all()
        await soon(asyncio.gather(*calls))


async def test_a_caller_goes_on_as_soon_as_its_message_is_confirmed() -> None:
    async with bench(confirms=False) as it:
        one, other = it.begin(it.out.publish(b"1")), it.begin(it.out.publish(b"2"))
        await settle()
        it.state.lists[0].confirm(1)

        await soon(other)
        assert not one.done()
        it.state.confirm_all()
        await soon(one)


async def test_many_items_keep_their_order_over_several_lists() -> None:
    async with bench() as it:
        await soon(it.out.publish_many([b"%d" % number for number in range(1_234)]))

        assert [len(came) for came in it.state.came] == [500, 500, 234]
        assert [data for came in it.state.came for data in came] == [b"%d" % number for number in range(1_234)]


async def test_nothing_to_publish_is_published_at_once() -> None:
    async with bench() as it:
        await soon(it.out.publish_many([]))

        assert it.state.came == []


# --- bounds


async def test_a_caller_waits_while_too_much_is_on_its_way() -> None:
    async with bench(confirms=False) as it:
        many = it.begin(it.out.publish_many([b"x"] * 5_000))
        await settle()
        assert it.outbox.waiting + it.outbox.in_flight == 2_000
        lone = it.begin(it.out.publish(b"lone"))
        await settle()
        assert it.outbox.waiting + it.outbox.in_flight == 2_000

        while not many.done() or not lone.done():
            it.state.confirm_all()
            await settle()
            assert it.outbox.waiting + it.outbox.in_flight <= 2_000
        await soon(many)
        assert sum(map(len, it.state.came)) == 5_001
        before = [data for came in it.state.came for data in came].index(b"lone")
        assert before <= 4_000, "the lone one had its turn only when the long call was over"


async def test_bytes_are_bounded_too_and_a_message_of_any_size_goes() -> None:
    large = b"x" * (6 * 1024 * 1024)
    async with bench(confirms=False) as it:
        calls = [it.begin(it.out.publish(large)) for _ in range(4)]
        await settle()
        assert it.outbox.waiting + it.outbox.in_flight == 3
        assert [len(came) for came in it.state.came] == [1, 1, 1]
        while not all(call.done() for call in calls):
            it.state.confirm_all()
            await settle()
        await soon(it.begin(it.out.publish_many([])))


async def test_one_who_waits_for_room_and_is_cancelled_leaves_the_turn_to_the_next() -> None:
    async with bench(confirms=False) as it:
        many = it.begin(it.out.publish_many([b"x"] * 2_000))
        await settle()
        first, second, third = (it.begin(it.out.publish(name)) for name in (b"1", b"2", b"3"))
        await settle()
        first.cancel()
        it.state.confirm_all()
        second.cancel()
        await settle()
        it.state.confirm_all()
        await soon(third)
        await soon(many)
        assert it.state.came[-1] == [b"3"]


# --- what goes wrong


async def test_a_message_that_is_refused_is_the_fault_of_its_caller_alone() -> None:
    async with bench(confirms=False) as it:
        one, other = it.begin(it.out.publish("too long")), it.begin(it.out.publish("fine"))
        await settle()
        it.state.lists[0].refuse(0, "queue 'out' takes 3 bytes at most")
        it.state.confirm_all()

        error = await it.failed(one)
        await soon(other)
        assert str(error) == "publisher 'out': the message was not confirmed: queue 'out' takes 3 bytes at most"
        assert (error.unpublished, error.refused) == (["too long"], ["too long"])
        assert not isinstance(error, Unavailable)


async def test_a_place_that_is_away_is_not_the_fault_of_the_message() -> None:
    async with bench(confirms=False) as it:
        publishing = it.begin(it.out.publish(b"1"))
        await settle()
        it.state.lists[0].fail("the broker is away")
        await it.clock.advance(30.0)

        error = await it.failed(publishing)
        assert type(error) is PublishUnavailable
        assert isinstance(error, Unavailable)
        assert str(error) == "publisher 'out': the message was not confirmed: the broker is away"
        assert error.reason == str(error)
        assert (error.unpublished, error.refused) == ([b"1"], [])


async def test_the_error_of_many_names_the_items_as_they_were_given() -> None:
    async with bench(confirms=False) as it:
        items = [{"n": number} for number in range(4)]
        publishing = it.begin(it.out.publish_many(items))
        await settle()
        unconfirmed = it.state.lists[0]
        unconfirmed.confirm(0)
        unconfirmed.refuse(2, "too long")
        unconfirmed.fail("the queue is full", position=3)
        unconfirmed.confirm(1)
        await it.clock.advance(30.0)

        error = await it.failed(publishing)
        assert str(error) == "publisher 'out': 2 of 4 messages were not confirmed: too long"
        assert error.unpublished == items[2:]
        assert error.unpublished[0] is items[2]
        assert error.refused == [items[2]]
        assert type(error) is PublishError


async def test_after_a_lasting_trouble_the_rest_of_many_is_not_tried() -> None:
    async with bench(confirms=False) as it:
        publishing = it.begin(it.out.publish_many([b"x"] * 10_000))
        await settle()
        came = len(it.state.lists)
        for unconfirmed in list(it.state.lists):
            unconfirmed.fail("there is no queue 'out'", lasting=True)
        it.state.notify()

        error = await it.failed(publishing)
        assert str(error) == "publisher 'out': 10000 of 10000 messages were not confirmed: there is no queue 'out'"
        assert len(error.unpublished) == 10_000
        assert len(it.state.lists) == came


async def test_without_a_reason_the_error_says_how_long_it_waited() -> None:
    async with bench(confirms=False) as it:
        publishing = it.begin(it.out.publish(b"1", timeout=timedelta(seconds=7)))
        await it.clock.advance(7.0)

        error = await it.failed(publishing)
        assert str(error) == "publisher 'out': the message was not confirmed: no confirmation within 7 s"
        assert it.state.timeouts == [7.0]
        assert it.state.cancelled == 1, "nobody waits for the list"


async def test_a_caller_with_less_time_does_not_end_the_wait_of_the_others() -> None:
    async with bench(confirms=False) as it:
        hurried, patient = it.begin(it.out.publish(b"1", timeout=1.0)), it.begin(it.out.publish(b"2", timeout=60.0))
        await settle()
        assert it.state.timeouts == [60.0]
        await it.clock.advance(1.0)

        await it.failed(hurried)
        assert not patient.done()
        assert [message.data for message in it.state.lists[0].waiting.values()] == [b"2"]
        it.state.confirm_all()
        await soon(patient)


async def test_what_was_withdrawn_may_be_on_its_way_and_so_takes_room_until_its_list_ends() -> None:
    async with bench(confirms=False) as it:
        gone, patient = it.begin(it.out.publish(b"1", timeout=1.0)), it.begin(it.out.publish(b"2"))
        await it.clock.advance(1.0)
        await it.failed(gone)
        assert it.outbox.in_flight == 2

        it.state.lists[0].confirm(0)
        it.state.confirm_all()
        await soon(patient)
        await settle()
        assert it.outbox.in_flight == 0


@pytest.mark.parametrize("count", [0, 1, 5])
async def test_a_cancelled_call_withdraws_its_messages(count: int) -> None:
    async with bench(confirms=False) as it:
        publishing = it.begin(it.out.publish(b"1"))
        await turns(count)
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing
        await settle()

        assert (it.outbox.waiting, it.outbox.in_flight) == (0, 0)
        assert all(not unconfirmed.waiting for unconfirmed in it.state.lists)
        it.state.confirms = True
        await soon(it.out.publish(b"2"))


async def test_a_list_that_waits_for_another_try_leaves_its_place_to_others() -> None:
    async with bench(confirms=False) as it:
        full = [it.begin(it.out.publish(b"full")) for _ in range(1)]
        await settle()
        for _ in range(15):
            full.append(it.begin(it.out.publish(b"full")))
            await settle()
        other = it.begin(it.out.publish(b"other"))
        await settle()
        assert [b"other"] not in it.state.came

        it.state.lists[3].fail("the queue is full", position=0)
        await settle()
        assert it.state.came[-1] == [b"other"]
        it.state.confirm_all()
        await soon(asyncio.gather(*full, other))


async def test_an_error_that_no_publisher_may_raise_is_told_and_holds_up_nothing() -> None:
    async with bench() as it:
        it.state.error = ValueError("canary")
        error = await it.failed(it.begin(it.out.publish(b"1")))
        assert str(error) == "publisher 'out': the message was not confirmed: publishing raised ValueError"
        it.state.error = None

        await soon(it.out.publish(b"2"))


async def test_what_cannot_be_written_as_json_is_refused_and_the_rest_is_published() -> None:
    async with bench() as it:
        odd = object()
        error = await it.failed(it.begin(it.out.publish_many([1, odd, "x"])))

        assert str(error) == (
            "publisher 'out': 1 of 3 messages were not confirmed: an object cannot be written as JSON: give a value "
            "that pydantic can serialize, or bytes"
        )
        assert error.refused == [odd]
        assert it.state.came == [[b"1", b"x"]]


async def test_an_error_of_a_users_function_is_raised_as_it_is() -> None:
    def raising(item: object) -> str:
        raise KeyError("of the user")

    async with bench() as it:
        with pytest.raises(KeyError, match="of the user"):
            await soon(it.out.publish_many(["a"], key=raising))


# --- wrong calls


async def test_a_plain_function_is_told_to_become_async() -> None:
    async with bench() as it:
        with pytest.raises(DefinitionError) as refused:
            await (await asyncio.to_thread(it.out.publish, b"1"))
        assert str(refused.value) == (
            "publishers['out'].publish() was called in a thread, as plain `def` callbacks run; a publisher works in "
            "the event loop of its pipeline: write the callback as `async def`, and await the call"
        )


async def test_another_event_loop_is_refused() -> None:
    async with bench() as it:

        async def elsewhere() -> None:
            await it.out.publish_many([b"1"])

        with pytest.raises(DefinitionError) as refused:
            await asyncio.to_thread(asyncio.run, elsewhere())
        assert str(refused.value) == (
            "publishers['out'].publish_many() was called in another event loop than that of its pipeline: await it in "
            "an `async def` callback of the pipeline"
        )


@pytest.mark.parametrize(
    ("options", "kind", "sentence"),
    [
        ({"key": 1}, TypeError, "key: expected text or None, got an int"),
        ({"message_id": b"1"}, TypeError, "message_id: expected text or None, got a bytes"),
        ({"content_type": 1}, TypeError, "content_type: expected text or None, got an int"),
        ({"headers": "x"}, TypeError, "headers: expected a mapping of texts, got a str"),
        ({"headers": {1: "x"}}, TypeError, "headers: expected names as text, got an int"),
        ({"headers": {"x": 1}}, TypeError, "headers: expected text for 'x', got an int; write it as text"),
        (
            {"timeout": None},
            OptionsError,
            "publishers['out'].publish(timeout=…): expected seconds; a call without a limit might wait for ever",
        ),
        (
            {"timeout": "soon"},
            OptionsError,
            (
                "publishers['out'].publish(timeout=…): expected seconds as a finite number, a timedelta, or text such "
                "as '2s', got 'soon'"
            ),
        ),
    ],
)
async def test_a_wrong_option_is_refused(options: dict[str, Any], kind: type[Exception], sentence: str) -> None:
    async with bench() as it:
        with pytest.raises(kind) as refused:
            await it.out.publish(b"1", **options)
        assert str(refused.value) == sentence
        assert it.state.came == []


# --- connection


async def test_it_connects_at_once_and_tries_again_until_it_can(caplog: pytest.LogCaptureFixture) -> None:
    async with bench() as it:
        it.state.opening = [away(), away(), None]
        await it.publishers.open(fail_fast=False)
        await settle()
        assert (it.outbox.trouble, it.outbox.is_up) == ("the broker is away", False)

        await it.clock.advance(5.0)
        assert it.state.opened == 3
        assert (it.outbox.trouble, it.outbox.is_up) == (None, True)
        assert events_logged(caplog) == ["a publisher is not connected; it tries again"]


async def test_with_fail_fast_the_first_try_counts() -> None:
    async with bench() as it:
        it.state.opening = [away()]
        with pytest.raises(type(away()), match=r"^publisher 'out' could not connect at the start: the broker is away$"):
            await it.publishers.open(fail_fast=True)


async def test_a_publish_that_succeeds_ends_the_trouble() -> None:
    async with bench() as it:
        it.state.opening = [away()] * 10
        await it.publishers.open(fail_fast=False)
        await settle()
        await soon(it.out.publish(b"1"))
        await settle()
        assert it.outbox.is_up
        await it.clock.advance(60.0)
        assert it.state.opened == 1


async def test_after_a_trouble_it_connects_again_while_nobody_publishes() -> None:
    async with bench(confirms=False) as it:
        await it.publishers.open(fail_fast=False)
        publishing = it.begin(it.out.publish(b"1", timeout=1.0))
        await settle()
        it.state.lines[0].trouble = "the connection was lost"
        await it.clock.advance(1.0)
        await it.failed(publishing)
        assert (it.outbox.is_up, it.state.opened) == (False, 1)
        await it.clock.advance(1.0)
        assert (it.outbox.is_up, it.state.opened) == (True, 2)


async def test_an_error_that_open_may_not_raise_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with bench() as it:
        it.state.opening = [ValueError("canary")]
        await it.publishers.open(fail_fast=False)
        await settle()
        assert it.outbox.trouble == "opening it raised ValueError"
        await it.clock.advance(1.0)
        assert it.outbox.is_up
        assert "canary" not in caplog.text


# --- the end


async def test_close_gives_up_what_is_on_its_way_and_what_waits() -> None:
    async with bench(confirms=False) as it:
        many = it.begin(it.out.publish_many([b"x"] * 3_000))
        lone = it.begin(it.out.publish(b"1"))
        await settle()
        await soon(it.publishers.close())

        for publishing, count in ((many, "3000 of 3000 messages were"), (lone, "the message was")):
            error = await it.failed(publishing)
            assert str(error) == f"publisher 'out': {count} not confirmed: the publisher is closed"
            assert isinstance(error, Unavailable)
        publishing = it.begin(it.out.publish(b"2"))
        await it.clock.advance(0.0)
        error = await it.failed(publishing)
        assert str(error) == "publisher 'out': the message was not confirmed: the publisher is closed"


async def test_flush_returns_when_nothing_is_on_its_way() -> None:
    async with bench(confirms=False) as it:
        await soon(it.publishers.flush())
        publishing = it.begin(it.out.publish(b"1"))
        await settle()
        flushing = asyncio.ensure_future(it.publishers.flush())
        await settle()
        assert not flushing.done()
        it.state.confirm_all()
        await soon(flushing)
        await soon(publishing)


async def test_at_the_end_no_call_lasts_longer_than_the_stop() -> None:
    async with bench(confirms=False) as it:
        it.publishers.end_by(it.clock.monotonic() + 3.0)
        publishing = it.begin(it.out.publish(b"1"))
        await it.clock.advance(3.0)
        await it.failed(publishing)
        await it.clock.advance(1.0)
        publishing = it.begin(it.out.publish(b"2"))
        await it.clock.advance(0.0)
        error = await it.failed(publishing)
        assert str(error) == "publisher 'out': the message was not confirmed: no confirmation within 0 s"


# --- what is told


async def test_calls_and_messages_are_counted() -> None:
    async with bench() as it:
        await soon(it.out.publish_many(["a", "b"]))
        await it.failed(it.begin(it.out.publish(object())))
        it.state.error = ValueError()
        await it.failed(it.begin(it.out.publish(b"1")))

        assert it.outbox.outcomes == {"confirmed": 2, "refused": 1, "unconfirmed": 1}
        assert sum(it.outbox.duration.counts) == 3


async def test_telemetry_is_told_of_each_call() -> None:
    names = [f"broadway.publisher.publish.{kind}" for kind in ("start", "stop", "exception")]
    with telemetry_events(*names) as seen:
        async with bench(confirms=False) as it:
            good = it.begin(it.out.publish_many(["a", "b"]))
            await settle()
            it.state.confirm_all()
            await soon(good)
            bad = it.begin(it.out.publish(b"1", timeout=1.0))
            await it.clock.advance(1.0)
            error = await it.failed(bad)
            gone = it.begin(it.out.publish(b"1"))
            await settle()
            gone.cancel()
            await asyncio.wait({gone})

    assert [name for name, _, _ in seen] == [names[0], names[1], names[0], names[2], names[0], names[2]]
    common = {"pipeline": "shop", "context": None, "index": 0, "publisher": "out", "messages": 2}
    assert seen[0][2] == seen[1][2] == common
    assert seen[3][2] == {**common, "messages": 1, "exception": error}
    assert isinstance(seen[5][2]["exception"], asyncio.CancelledError)
