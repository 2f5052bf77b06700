"""The sources are asked every ten seconds how many messages they hold, and nothing waits for their answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from broadway_py import Message, ProducerError, Reject
from broadway_py.pipeline.stats import SourceStats
from broadway_py.producer import SourceMessages
from broadway_py.producers import DummyProducer, MemoryProducer
from tests.pipeline.support import ManualProducer, Quiet, running


class Counting(ManualProducer):
    """Answers with what *answers* has first; with the last one for ever. An error is raised, a coroutine awaited."""

    def __init__(self, *answers: Any, **settings: Any) -> None:
        super().__init__(**settings)
        self.answers = list(answers)
        self.asked: list[ManualProducer] = []

    async def source_messages(self) -> SourceMessages | None:
        self.asked.append(self)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        if callable(answer):
            answer = await answer()
        return answer  # type: ignore[no-any-return]  # some tests give what is none


class Counted(Quiet):
    _counts_sources = True


def source_of(pipeline: Counted, producer: int = 0) -> SourceStats | None:
    return pipeline.stats().producers[producer].source


SOME = SourceMessages(3, 2, 1)


async def test_the_first_answer_comes_once_the_source_is_open_and_others_each_ten_seconds() -> None:
    pipeline = Counted(producer=(counting := Counting(SOME, SourceMessages(7, None, 0))))
    async with running(pipeline) as clock:
        await clock.advance(0.0)
        assert source_of(pipeline) == SourceStats(3, 2, 1, 0.0, None)
        await clock.advance(9.0)
        assert source_of(pipeline) == SourceStats(3, 2, 1, 9.0, None)
        await clock.advance(1.0)
        assert source_of(pipeline) == SourceStats(7, None, 0, 0.0, None)
        await clock.advance(100.0)
        assert len(counting.asked) == 12


async def test_a_pipeline_whose_figures_nobody_serves_asks_nothing() -> None:
    pipeline = Quiet(producer=(counting := Counting(SOME)))
    async with running(pipeline) as clock:
        await clock.advance(60.0)
        assert pipeline.stats().producers[0].source is None
    assert counting.asked == []


async def test_of_several_copies_one_is_asked() -> None:
    pipeline = Counted(producer=(counting := Counting(SOME, concurrency=3)))
    async with running(pipeline) as clock:
        await clock.advance(20.0)
        assert source_of(pipeline) == SourceStats(3, 2, 1, 0.0, None)
    assert len(counting.asked) == 3


async def test_each_producer_has_its_own_numbers_and_one_that_cannot_tell_has_none() -> None:
    producers = [Counting(SOME, name="a"), DummyProducer(), Counting(None, name="c")]
    async with running(pipeline := Counted(producer=producers)) as clock:
        await clock.advance(10.0)
        assert [source_of(pipeline, number) for number in range(3)] == [SourceStats(3, 2, 1, 0.0, None), None, None]


async def test_a_source_that_does_not_answer_has_no_numbers_and_is_asked_again() -> None:
    silent = asyncio.Event()
    producers = [Counting(SOME, silent.wait, SourceMessages(4), name="a"), Counting(SOME, name="b")]
    async with running(pipeline := Counted(producer=producers)) as clock:
        await clock.advance(10.0)
        assert source_of(pipeline) == SourceStats(3, 2, 1, 10.0, None)
        assert source_of(pipeline, 1) == SourceStats(3, 2, 1, 0.0, None)
        await clock.advance(5.0)
        assert source_of(pipeline) == SourceStats(None, None, None, 0.0, "no answer within 5 s")
        await clock.advance(5.0)
        assert source_of(pipeline) == SourceStats(4, None, None, 0.0, None)


async def test_a_source_that_ignores_its_cancellation_is_not_asked_a_second_time_meanwhile() -> None:
    end = asyncio.Event()

    async def ignore() -> SourceMessages:
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue
        return SOME

    pipeline = Counted(producer=(counting := Counting(ignore)))
    async with running(pipeline) as clock:
        await clock.advance(60.0)
        assert len(counting.asked) == 1
        assert source_of(pipeline) == SourceStats(None, None, None, 55.0, "no answer within 5 s")
        end.set()
        await clock.advance(0.0)
        assert source_of(pipeline) == SourceStats(3, 2, 1, 0.0, None)


async def test_a_source_that_ignores_its_cancellation_does_not_hold_up_a_stop() -> None:
    end = asyncio.Event()

    async def ignore() -> SourceMessages:
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue
        return SOME

    # At its end the pipeline must have drained without any time passing.
    async with running(Counted(producer=Counting(ignore))) as clock:
        await clock.advance(0.0)
    end.set()


async def test_an_open_question_ends_with_the_pipeline_and_the_numbers_are_forgotten() -> None:
    waiting = asyncio.Event()
    pipeline = Counted(producer=Counting(SOME, waiting.wait))
    before = asyncio.all_tasks()
    async with running(pipeline) as clock:
        await clock.advance(10.0)
    assert source_of(pipeline) is None
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [
        (ProducerError("the broker has no queue 'orders'"), "the broker has no queue 'orders'"),
        (OSError("password=hunter2"), "source_messages() raised OSError"),
        (SystemExit(3), "source_messages() raised SystemExit"),
        (asyncio.CancelledError(), "source_messages() raised CancelledError"),
        ([3, 2, 1], "source_messages() returned a list, not SourceMessages"),
    ],
)
async def test_what_goes_wrong_is_told_and_the_source_is_asked_again(
    answer: Any, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = Counted(producer=Counting(answer, answer, SOME))
    with caplog.at_level(logging.INFO):
        async with running(pipeline) as clock:
            await clock.advance(0.0)
            assert source_of(pipeline) == SourceStats(None, None, None, 0.0, trouble)
            assert pipeline.stats().trouble is None
            await clock.advance(20.0)
            assert source_of(pipeline) == SourceStats(3, 2, 1, 0.0, None)
    told = [line.msg for line in caplog.records if isinstance(line.msg, dict) and "reason" in line.msg]
    assert [(line["event"], line["reason"]) for line in told] == [
        ("how many messages the source holds is not known", trouble)
    ]


async def test_a_source_that_is_away_has_no_numbers_until_it_is_back() -> None:
    pipeline = Counted(producer=(counting := Counting(SOME)))
    async with running(pipeline) as clock:
        await clock.advance(0.0)
        counting.feed.opening.extend([ProducerError("refused")] * 20)
        counting.feed.fail(ProducerError("cut"))
        await clock.advance(20.0)
        assert source_of(pipeline) == SourceStats(None, None, None, 0.0, "not connected: refused")
        counting.feed.opening.clear()
        await clock.advance(60.0)
        assert source_of(pipeline) == SourceStats(3, 2, 1, 0.0, None)


async def test_a_source_that_takes_long_to_count_is_asked_less_often() -> None:
    pipeline = Counted(producer=(counting := Counting(SOME)))
    async with running(pipeline) as clock:

        async def slow() -> SourceMessages:
            await clock.sleep(0.5)
            return SOME

        await clock.advance(0.0)
        counting.answers[:] = [slow]
        await clock.advance(10.5)
        assert len(counting.asked) == 2
        await clock.advance(49.0)
        assert len(counting.asked) == 2
        await clock.advance(2.0)
        assert len(counting.asked) == 3


async def test_a_memory_producer_counts_what_it_knows() -> None:
    class Failing(Counted):
        _uniform = max

        async def handle_message(self, message: Message[Any]) -> None:
            if message.data == "never":
                raise Reject("it is bad")
            raise ValueError

    pipeline = Failing(producer=MemoryProducer(["a", "b", "never"]))
    async with running(pipeline) as clock:
        # The fourth attempts have failed after seven seconds, and the fifth follow after fifteen.
        await clock.advance(10.0)
        assert source_of(pipeline) == SourceStats(0, 2, 1, 0.0, None)


async def test_an_iterable_that_is_not_read_to_its_end_does_not_tell_how_much_is_left() -> None:
    async def forever() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    async with running(pipeline := Counted(producer=MemoryProducer(forever()))) as clock:
        await clock.advance(10.0)
        assert source_of(pipeline) == SourceStats(None, 0, 0, 0.0, None)
