"""The producer's port: weather, losses, crashes, ends, several sources, and things that are no messages."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from broadway_py import (
    Message,
    OptionsError,
    PipelineCrashed,
    PipelineNotRunning,
    Processors,
    ProducerError,
    SourceRefused,
)
from broadway_py.producers import DummyProducer, MemoryProducer, Producer
from tests.pipeline.support import (
    ONE,
    ManualProducer,
    Quiet,
    Recorder,
    clock_of,
    events_logged,
    finish,
    in_flight,
    logged,
    outcomes,
    received,
    running,
    soon,
    telemetry_events,
)
from tests.support.conformance import conforms

# --- weather


async def test_a_source_that_is_away_is_tried_again_and_nobody_notices_more_than_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    producer = ManualProducer(1)
    producer.feed.opening.extend([ProducerError("no route"), ProducerError("no route")])
    pipeline = Quiet(producer=producer)

    async with running(pipeline) as clock:
        await producer.feed.until("close")
        assert pipeline.stats().trouble == "manual: no route"
        await clock.advance(10.0)
        assert pipeline.stats().trouble is None
        assert outcomes(pipeline) == {"acked": 1}

    assert producer.feed.journal[:6] == ["open", "close", "open", "close", "open", "opened"]
    lines = logged(caplog)
    assert [line["event"] for line in lines] == ["the source is not available; trying again"] * 2
    assert {line["reason"] for line in lines} == {"no route"}
    assert 0 <= lines[0]["wait_seconds"] <= 1
    assert 0 <= lines[1]["wait_seconds"] <= 2
    assert pipeline.stats().restarts == 0


async def test_a_fresh_copy_is_opened_each_time() -> None:
    producer = ManualProducer()
    producer.feed.opening.append(ProducerError("away"))
    pipeline = Quiet(producer=producer)

    async with running(pipeline) as clock:
        await clock.advance(5.0)

    first, second = producer.feed.copies
    assert first is not second
    assert producer is not first
    assert not hasattr(producer, "draining")


async def test_a_source_that_refused_us_is_asked_again_no_sooner_than_after_ten_seconds() -> None:
    producer = ManualProducer()
    producer.feed.opening.append(SourceRefused("login refused"))
    pipeline = Quiet(producer=producer)

    async with running(pipeline) as clock:
        await producer.feed.until("close")
        await clock.advance(9.9)
        assert producer.feed.journal.count("open") == 1
        await clock.advance(1.2)
        assert producer.feed.journal.count("opened") == 1


@conforms("B-130")
async def test_a_source_that_is_lost_while_it_is_asked_is_closed_and_opened_anew() -> None:
    recorder = Recorder()
    producer = ManualProducer(recorder.message(1))
    pipeline = Quiet(producer=producer)

    async with running(pipeline) as clock:
        await producer.feed.until("demand", 2)
        producer.feed.fail(ProducerError("connection reset"))
        await producer.feed.until("close")
        await clock.advance(0.0)
        assert pipeline.stats().producers[0].connected == 0
        assert pipeline.stats().trouble == "manual: connection reset"
        producer.feed.put(recorder.message(2))
        await clock.advance(2.0)
        assert pipeline.stats().producers[0].connections_lost == 1
        assert recorder.successful == [1, 2]


async def test_a_source_that_is_lost_while_nobody_asks_is_opened_anew() -> None:
    gate = asyncio.Event()

    class Gated(Quiet):
        processors = Processors(concurrency=1, max_demand=1)

        async def handle_message(self, message: Message[Any]) -> None:
            await gate.wait()

    producer = ManualProducer(1, 2, 3)
    pipeline = Gated(producer=producer)

    async with running(pipeline) as clock:
        await clock.advance(0.0)
        producer.feed.copies[0].context.lost(ProducerError("gone in silence"))
        await clock.advance(2.0)
        assert producer.feed.journal.count("opened") == 2
        gate.set()
        await clock.advance(0.0)
        assert outcomes(pipeline) == {"acked": 3}


async def test_what_an_old_copy_says_about_its_loss_concerns_the_new_one_not() -> None:
    producer = ManualProducer()
    pipeline = Quiet(producer=producer)

    async with running(pipeline) as clock:
        await producer.feed.until("demand")
        producer.feed.fail(ProducerError("gone"))
        await clock.advance(2.0)
        await producer.feed.until("demand", 2)
        producer.feed.copies[0].context.lost(ProducerError("heard of it late"))
        await clock.advance(60.0)
        assert producer.feed.journal.count("opened") == 2
        assert pipeline.stats().producers[0].connections_lost == 1


async def test_messages_of_a_lost_copy_are_settled_all_the_same() -> None:
    gate = asyncio.Event()

    class Gated(Quiet):
        async def handle_message(self, message: Message[Any]) -> None:
            await gate.wait()

    recorder = Recorder()
    producer = ManualProducer(*recorder.messages([1, 2]))
    pipeline = Gated(producer=producer)

    async with running(pipeline) as clock:
        await clock.advance(0.0)
        producer.feed.fail(ProducerError("gone"))
        await clock.advance(2.0)
        gate.set()

    assert recorder.successful == [1, 2]


@pytest.mark.parametrize("where", ["open", "handle_demand", "close"])
async def test_a_client_library_that_cancels_is_weather_too(where: str) -> None:
    recorder = Recorder()

    class Cancelling(ManualProducer):
        async def close(self) -> None:
            await super().close()
            if where == "close" and self.feed.journal.count("close") == 1:
                raise asyncio.CancelledError

    producer = Cancelling()
    if where == "open":
        producer.feed.opening.append(asyncio.CancelledError())
    pipeline = Quiet(producer=producer)

    async with running(pipeline) as clock:
        if where != "open":
            await producer.feed.until("demand")
            producer.feed.fail(asyncio.CancelledError() if where == "handle_demand" else ProducerError("gone"))
        await clock.advance(5.0)
        producer.feed.put(recorder.message(1))
        await recorder.until(1)
        assert pipeline.stats().restarts == 0


async def test_the_growth_of_the_waits_begins_anew_only_after_thirty_seconds_of_health(
    caplog: pytest.LogCaptureFixture,
) -> None:
    random.seed(7)
    producer = ManualProducer()

    async with running(Quiet(producer=producer)) as clock:
        for number in range(1, 8):
            await producer.feed.until("demand", number)
            if number == 7:
                await clock.advance(30.0)
            producer.feed.fail(ProducerError("flapping"))
            await clock.advance(30.0 - 1e-6)

    waits = [line["wait_seconds"] for line in logged(caplog)]
    assert len(waits) == 7
    assert waits[6] <= 1.0
    assert max(waits) > 1.0, "six failures in a row, and no wait grew"


@conforms("B-018")
async def test_a_copy_knows_its_index_capacity_and_pipeline_before_it_is_opened() -> None:
    seen: list[tuple[int, int, str]] = []

    class Asks(DummyProducer):
        concurrency = 2

        async def open(self) -> None:
            seen.append((self.context.index, self.context.capacity, self.context.pipeline))

    pipeline = Quiet(producer=Asks(), name="knows", processors=Processors(concurrency=3, max_demand=10))
    async with running(pipeline):
        await soon(pipeline.ready())

    assert sorted(seen) == [(0, 15, "knows"), (1, 15, "knows")]


@conforms("B-015")
async def test_a_producer_may_start_helpers_of_its_own_when_it_is_opened() -> None:
    class WithHelper(Producer):
        async def open(self) -> None:
            self._helper = asyncio.create_task(self._fetch())

        async def _fetch(self) -> None:
            number = 0
            while not self.draining.is_set():
                await self.wait_for_demand()
                await self.push([Message(number)])
                number += 1
                if number == 5:
                    return

        async def close(self) -> None:
            self._helper.cancel()
            await asyncio.wait({self._helper})

    recorder: list[Any] = []

    class Notes(Quiet):
        async def handle_message(self, message: Message[Any]) -> None:
            recorder.append(message.data)

    pipeline = Notes(producer=WithHelper())
    async with running(pipeline) as clock:
        await clock.advance(1.0)

    assert recorder == [0, 1, 2, 3, 4]


# --- ready


async def test_ready_waits_for_every_producer() -> None:
    gate = asyncio.Event()
    slow = ManualProducer(name="slow")
    slow.feed.opening.append(gate.wait)
    pipeline = Quiet(producer=[ManualProducer(name="quick"), slow])

    async with running(pipeline) as clock:
        waiting = asyncio.ensure_future(pipeline.ready())
        await clock.advance(1.0)
        assert not waiting.done()
        assert pipeline.stats().trouble == "slow: not connected yet"
        gate.set()
        await soon(waiting)


async def test_ready_gives_up_after_its_timeout() -> None:
    producer = ManualProducer()
    producer.feed.opening.append(asyncio.Event().wait)
    pipeline = Quiet(producer=producer)

    async with running(pipeline) as clock:
        waiting = asyncio.ensure_future(pipeline.ready(timeout=3.0))
        await clock.advance(2.9)
        assert not waiting.done()
        await clock.advance(0.2)
        with pytest.raises(TimeoutError) as late:
            await soon(waiting)
    assert str(late.value) == "pipeline 'Quiet' was not ready within 3 s: manual: not connected yet"


async def test_ready_tells_when_the_pipeline_stopped_before() -> None:
    producer = ManualProducer()
    producer.feed.opening.append(asyncio.Event().wait)
    pipeline = Quiet(producer=producer)

    async with running(pipeline):
        waiting = asyncio.ensure_future(pipeline.ready())
        await producer.feed.until("open")
        pipeline.request_stop()
        with pytest.raises(PipelineNotRunning) as refused:
            await soon(waiting)

    assert str(refused.value) == "pipeline 'Quiet' stopped before it was ready"


async def test_with_fail_fast_the_first_connect_must_succeed() -> None:
    producer = ManualProducer()
    producer.feed.opening.append(ProducerError("no such host"))
    pipeline = Quiet(producer=producer, fail_fast=True)
    clock_of(pipeline)
    await soon(pipeline.start())

    with pytest.raises(PipelineCrashed) as crashed:
        await soon(pipeline.wait())

    assert str(crashed.value) == "producer 'manual' could not connect at the start: no such host"
    assert isinstance(crashed.value.__cause__, ProducerError)
    assert pipeline.phase == "crashed"
    assert producer.feed.journal == ["open", "close"]


async def test_with_fail_fast_a_later_loss_is_still_weather() -> None:
    producer = ManualProducer()
    pipeline = Quiet(producer=producer, fail_fast=True)

    async with running(pipeline) as clock:
        await producer.feed.until("demand")
        producer.feed.fail(ProducerError("gone"))
        await clock.advance(5.0)
        assert producer.feed.journal.count("opened") == 2


# --- ends


@conforms("B-125")
async def test_a_pipeline_ends_by_itself_when_its_source_has_ended() -> None:
    recorder = Recorder()
    pipeline = Quiet(producer=MemoryProducer(recorder.messages([1, 2, 3])))

    assert await finish(pipeline) == {"acked": 3}
    assert pipeline.phase == "stopped"
    assert pipeline.stats().producers[0].ended


async def test_it_ends_when_all_sources_have_ended_and_not_before() -> None:
    late = ManualProducer(name="late")
    pipeline = Quiet(producer=[MemoryProducer([1, 2]), late])

    async with running(pipeline) as clock:
        await clock.advance(1.0)
        assert pipeline.is_running
        late.feed.put(3)
        late.feed.end()
        await soon(pipeline.wait())

    assert outcomes(pipeline) == {"acked": 3}


async def test_an_empty_source_ends_at_once() -> None:
    assert await finish(Quiet(producer=MemoryProducer([]))) == {}


async def test_an_async_iterable_is_read_to_its_end() -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(20):
            await asyncio.sleep(0)
            yield number

    assert await finish(Quiet(producer=MemoryProducer(numbers()))) == {"acked": 20}


async def test_an_iterable_that_raises_half_way_loses_nothing_that_came_before() -> None:
    def numbers() -> Iterator[int]:
        yield from (1, 2, 3)
        raise OSError("disk")

    pipeline = Quiet(producer=MemoryProducer(numbers()))
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    await clock.advance(10.0)
    await soon(pipeline.wait())

    assert outcomes(pipeline) == {"acked": 3}
    assert pipeline.stats().restarts == 1


class Two(MemoryProducer):
    concurrency = 2


async def test_two_copies_of_a_memory_producer_read_each_item_once() -> None:
    recorder = Recorder()
    assert await finish(Quiet(producer=Two(recorder.messages(range(100))))) == {"acked": 100}
    recorder.check_once()


@pytest.mark.parametrize("is_async", [False, True])
async def test_two_copies_of_a_memory_producer_end_when_all_items_are_settled(is_async: bool) -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(20):
            await asyncio.sleep(0)
            yield number

    class Slow(Quiet):
        async def handle_message(self, message: Message[Any]) -> None:
            seen.append(message.data)
            for _ in range(20):
                await asyncio.sleep(0)

    seen: list[int] = []
    pipeline = Slow(producer=Two(numbers() if is_async else range(20)))
    assert await finish(pipeline) == {"acked": 20}
    assert sorted(seen) == list(range(20))


@conforms("B-133", "B-134")
async def test_close_is_called_once_after_the_last_settlement_and_may_be_left_out() -> None:
    recorder = Recorder()
    counts: list[int] = []

    class Closing(ManualProducer):
        async def close(self) -> None:
            counts.append(recorder.count)

    class Bare(Producer):
        async def handle_demand(self, demand: int) -> None:
            return None

    producer = Closing(*recorder.messages([1, 2, 3]))
    async with running(Quiet(producer=[producer, Bare()])):
        await recorder.until(1)

    assert counts == [3]


# --- what they return


@conforms("B-126")
async def test_what_is_no_message_is_left_out_wherever_it_stands_and_the_rest_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder = Recorder()
    producer = ManualProducer("text", recorder.message(1), None, 17, recorder.message(2), object())
    producer.feed.wraps = False
    pipeline = Quiet(producer=producer)

    async with running(pipeline):
        await recorder.until(2)

    assert outcomes(pipeline) == {"acked": 2}
    assert received(pipeline) == 2
    lines = logged(caplog)
    assert lines[0] == {
        "event": "the producer returned something that is not a Message; it was left out",
        "pipeline": "Quiet",
        "producer": "manual",
        "index": 0,
        "expected": "broadway_py.Message",
        "got": "str",
    }
    assert [line["got"] for line in lines] == ["str", "NoneType", "int", "object"]


@conforms("B-128", "B-131")
async def test_what_a_producer_pushes_by_itself_is_taken_in_and_checked_alike(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder = Recorder()

    class Pushes(Producer):
        async def open(self) -> None:
            self._task = asyncio.create_task(
                self.push([recorder.message(1), "text", recorder.message(2)])  # type: ignore[list-item]  # on purpose
            )

        async def close(self) -> None:
            await asyncio.wait({self._task})

    async with running(pipeline := Quiet(producer=Pushes())):
        await recorder.until(2)

    assert outcomes(pipeline) == {"acked": 2}
    assert events_logged(caplog) == ["the producer returned something that is not a Message; it was left out"]


@conforms("B-122")
@pytest.mark.parametrize("returned", [17, object()])
async def test_a_return_that_is_no_list_crashes_the_source_alone(returned: Any) -> None:
    class Foreign(ManualProducer):
        async def handle_demand(self, demand: int) -> Any:
            if self.feed.journal.count("open") == 1:
                return returned
            return await super().handle_demand(demand)

    producer = Foreign(1)
    pipeline = Quiet(producer=producer)

    async with running(pipeline) as clock:
        await clock.advance(5.0)
        assert outcomes(pipeline) == {"acked": 1}
        assert pipeline.stats().restarts == 1

    assert producer.feed.journal[:3] == ["open", "opened", "close"]


async def test_a_source_that_returns_nothing_again_and_again_does_not_stop_everybody_else() -> None:
    calls = 0
    over = asyncio.Event()

    class Impatient(Producer):
        async def handle_demand(self, demand: int) -> list[Message[Any]] | None:
            nonlocal calls
            calls += 1
            return None if over.is_set() or calls > 50_000 else []

    pipeline = Quiet(producer=Impatient())
    clock_of(pipeline)
    await soon(pipeline.start())
    asyncio.get_running_loop().call_soon(over.set)
    await soon(pipeline.wait())

    assert calls < 50_000


async def test_a_source_that_returns_more_than_it_was_asked_for_keeps_a_bounded_number_waiting() -> None:
    gate = asyncio.Event()

    class Slow(Quiet):
        processors = Processors(concurrency=1, max_demand=2)

        async def handle_message(self, message: Message[Any]) -> None:
            if message.data > 100:
                await gate.wait()

    class Generous(ManualProducer):
        async def handle_demand(self, demand: int) -> Any:
            found = await super().handle_demand(demand)
            extra = [Message(self.feed.items.popleft()) for _ in range(min(2, len(self.feed.items)))]
            return None if found is None else [*found, *extra]

    producer = Generous(*range(2000))
    pipeline = Slow(producer=producer)

    async with running(pipeline) as clock:
        await clock.advance(1.0)
        assert in_flight(pipeline) <= 10
        gate.set()
        producer.feed.end()
        await soon(pipeline.wait())

    assert outcomes(pipeline) == {"acked": 2000}


async def test_a_source_that_pushes_faster_than_it_is_asked_waits() -> None:
    gate = asyncio.Event()
    pushed = 0

    class Slow(Quiet):
        processors = Processors(concurrency=1, max_demand=4)

        async def handle_message(self, message: Message[Any]) -> None:
            await gate.wait()

    class Fast(Producer):
        async def open(self) -> None:
            self._task = asyncio.create_task(self._fetch())

        async def _fetch(self) -> None:
            nonlocal pushed
            try:
                for number in range(200):
                    await self.push([Message(number)])
                    pushed += 1
            except ProducerError:
                return

        async def close(self) -> None:
            self._task.cancel()
            await asyncio.wait({self._task})

    pipeline = Slow(producer=Fast())
    async with running(pipeline) as clock:
        await clock.advance(1.0)
        assert pushed <= 4
        assert in_flight(pipeline) <= 4
        gate.set()
        await clock.advance(1.0)

    assert outcomes(pipeline) == {"acked": received(pipeline)}
    assert received(pipeline) >= pushed


# --- transformer


def upper(message: Message[Any]) -> None:
    """Changes in place."""
    message.data = str(message.data).upper()


@conforms("B-127", "B-059")
async def test_the_transformer_sees_what_is_returned_on_demand() -> None:
    recorder = Recorder()
    await finish(Quiet(producer=MemoryProducer(recorder.messages(["a", "b"])), transformer=upper))

    assert recorder.successful == ["A", "B"]


@conforms("B-132", "B-061")
async def test_the_transformer_sees_what_a_producer_pushes_by_itself() -> None:
    recorder = Recorder()

    class Pushes(Producer):
        async def open(self) -> None:
            self._task = asyncio.create_task(self.push(recorder.messages(["a", "b"])))

        async def close(self) -> None:
            await asyncio.wait({self._task})

    async with running(Quiet(producer=Pushes(), transformer=upper)):
        await recorder.until(2)

    assert recorder.successful == ["A", "B"]


@conforms("B-060")
async def test_the_transformer_sees_what_is_handed_over_while_draining() -> None:
    recorder = Recorder()

    class LastWords(ManualProducer):
        async def prepare_for_draining(self) -> None:
            await super().prepare_for_draining()
            await self.push([recorder.message("last")])

    producer = LastWords()
    async with running(Quiet(producer=producer, transformer=upper)):
        await producer.feed.until("demand")

    assert recorder.successful == ["LAST"]


@conforms("B-062")
async def test_a_transformer_that_raises_fails_that_message_alone() -> None:
    def fragile(message: Message[Any]) -> Message[Any]:
        if message.data == 2:
            raise ValueError("two")
        return message

    recorder = Recorder()
    handled: list[Any] = []

    class Notes(Quiet):
        async def handle_message(self, message: Message[Any]) -> None:
            handled.append(message.data)

    pipeline = Notes(producer=MemoryProducer(recorder.messages([1, 2, 3])), transformer=fragile)

    assert await finish(pipeline) == {"acked": 2, "rejected": 1}
    assert handled == [1, 3]
    assert recorder.statuses[2].cause == "raised"
    assert pipeline.stats().restarts == 0


async def test_a_transformer_that_returns_something_else_fails_the_message_and_says_what_to_do() -> None:
    recorder = Recorder()
    pipeline = Quiet(producer=MemoryProducer(recorder.messages([1])), transformer=lambda m: m.data)

    assert await finish(pipeline) == {"rejected": 1}
    assert recorder.statuses[1].reason == (
        "TypeError: transformer returned an int; expected None or the message it was given: change the message in "
        "place, in a plain function"
    )


async def test_the_transformer_leaves_submitted_messages_alone() -> None:
    async with running(pipeline := Quiet(transformer=upper)):
        message = await soon(pipeline.submit("a"))

    assert message.data == "a"


# --- several


async def test_a_message_names_the_producer_it_came_from() -> None:
    names: set[tuple[str | None, Any]] = set()

    class Notes(Quiet):
        async def handle_message(self, message: Message[Any]) -> None:
            names.add((message.producer, message.data))

    await finish(Notes(producer=[MemoryProducer([1], name="one"), MemoryProducer([2], name="two")]))

    assert names == {("one", 1), ("two", 2)}


async def test_the_books_are_kept_for_each_producer() -> None:
    class Fails(Quiet):
        async def handle_message(self, message: Message[Any]) -> None:
            if message.producer == "two":
                message.fail("no")

    pipeline = Fails(producer=[MemoryProducer([1] * 3, name="one"), MemoryProducer([2] * 4, name="two")], failure=None)
    await finish(pipeline)

    figures = {each.name: each for each in pipeline.stats().producers}
    assert figures["one"].outcomes["acked"] == figures["one"].received == 3
    assert figures["two"].outcomes["rejected"] == figures["two"].received == 4


async def test_a_source_that_is_away_does_not_keep_the_others_from_working() -> None:
    away = ManualProducer(name="away")
    away.feed.opening.extend([ProducerError("away")] * 50)
    recorder = Recorder()
    pipeline = Quiet(producer=[away, ManualProducer(*recorder.messages([1, 2, 3]), name="here")])

    async with running(pipeline) as clock:
        await recorder.until(3)
        await clock.advance(30.0)
        assert pipeline.stats().trouble == "away: away"


@pytest.mark.parametrize(
    ("producers", "sentence"),
    [
        (17, "producer: expected a Producer or a list of them, got int"),
        ([], "producer: expected a Producer or a list of them, got list"),
        ([DummyProducer(), "text"], "producer: expected a Producer or a list of them, got str"),
        (
            [MemoryProducer([]), MemoryProducer([])],
            "producer: two producers are called 'memory'; give each a name= of its own",
        ),
        (
            MemoryProducer([], name="push"),
            "producer: the name 'push' is taken by the pipeline itself; choose another",
        ),
        (None, "producer: required, but missing; give producer=… or a class attribute `producer`"),
        (DummyProducer, "producer: expected a Producer or a list of them, got type"),
    ],
)
def test_what_is_no_producer_is_refused_with_the_whole_sentence(producers: Any, sentence: str) -> None:
    with pytest.raises(OptionsError) as refused:
        Quiet(producer=producers)

    assert str(refused.value) == sentence


def test_a_memory_producer_takes_iterables_only() -> None:
    with pytest.raises(TypeError) as refused:
        MemoryProducer(17)  # type: ignore[arg-type]  # the mistake this test is about

    assert str(refused.value) == "MemoryProducer: expected an iterable or async iterable, got int"


async def test_connected_and_lost_are_told_to_telemetry() -> None:
    producer = ManualProducer()
    with telemetry_events("broadway.producer.connected", "broadway.producer.lost") as seen:
        async with running(Quiet(producer=producer)) as clock:
            await producer.feed.until("demand")
            producer.feed.fail(ProducerError("gone"))
            await clock.advance(5.0)

    about = {"pipeline": "Quiet", "producer": "manual", "index": 0}
    assert [(event, metadata) for event, _, metadata in seen] == [
        ("broadway.producer.connected", about),
        ("broadway.producer.lost", {**about, "reason": "gone"}),
        ("broadway.producer.connected", about),
    ]


async def test_a_wide_pool_and_one_processor_settle_the_same() -> None:
    for processors in (ONE, Processors(concurrency=50, max_demand=1)):
        recorder = Recorder()
        pipeline = Quiet(producer=MemoryProducer(recorder.messages(range(500))), processors=processors)
        assert await finish(pipeline) == {"acked": 500}
        recorder.check_once()
