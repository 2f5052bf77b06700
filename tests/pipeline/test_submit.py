"""``submit``, ``submit_batch`` and ``push_messages``: feeding a pipeline by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from broadway_py import (
    Batcher,
    BatchFailed,
    BatchInfo,
    CalledInsideCallback,
    CallerAcknowledger,
    Message,
    MessageFailed,
    Pipeline,
    PipelineNotRunning,
    Processors,
)
from broadway_py.producers import DummyProducer
from tests.pipeline.support import ONE, ManualProducer, Quiet, Recorder, clock_of, in_flight, outcomes, running, soon
from tests.support.conformance import conforms


class Doubling(Pipeline[Any]):
    """Doubles numbers; fails what is negative; a batcher of two."""

    producer = DummyProducer()
    processors = ONE
    batchers = {"default": Batcher(batch_size=2)}  # noqa: RUF012  # never changed

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.batches: list[list[Any]] = []

    async def handle_message(self, message: Message[Any]) -> None:
        if message.data < 0:
            message.fail("negative")
        message.data *= 2

    async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        self.batches.append([message.data for message in messages])


@conforms("B-020")
async def test_pushed_messages_go_through_processor_batch_and_acknowledger() -> None:
    recorder = Recorder()
    pipeline = Doubling()

    async with running(pipeline):
        await soon(pipeline.push_messages(recorder.messages([1, 3])))
        await recorder.until(2)

    assert pipeline.batches == [[2, 6]]
    assert [call.data for call in recorder.calls] == [([2, 6], [])]
    (push,) = [producer for producer in pipeline.stats().producers if producer.received]
    assert (push.name, push.received) == ("push", 2)


@conforms("B-021", "B-022")
async def test_metadata_lands_in_the_message_and_is_empty_without() -> None:
    async with running(pipeline := Doubling()):
        with_it = await soon(pipeline.submit(1, metadata={"origin": "test"}))
        without = await soon(pipeline.submit(2))
        given = {"shared": True}
        many = await soon(pipeline.submit_batch([1, 2], metadata=given))

    assert with_it.metadata == {"origin": "test"}
    assert without.metadata == {}
    assert [message.metadata for message in many.successful] == [given, given]
    many.successful[0].metadata["mine"] = 1
    assert given == {"shared": True}
    assert many.successful[1].metadata == given


@conforms("B-023")
async def test_a_pushed_message_keeps_its_own_acknowledger() -> None:
    recorder = Recorder()
    message = recorder.message(1, ref="own", detail="data")

    async with running(pipeline := Quiet()):
        await soon(pipeline.push_messages([message]))
        await recorder.until(1)

    assert message.acknowledgement == (recorder, "own", "data")
    assert recorder.calls[0].ref == "own"


@conforms("B-024")
async def test_a_submitted_message_answers_to_its_caller() -> None:
    async with running(pipeline := Quiet()):
        message = await soon(pipeline.submit("hello"))

    assert isinstance(message.acknowledgement.acknowledger, CallerAcknowledger)
    assert message.acknowledgement.acknowledger.successful == [message]
    assert message.settled
    assert message.producer == "push"


@conforms("B-116")
async def test_the_dummy_producer_lets_a_batch_of_two_through_in_one_call() -> None:
    calls: list[int] = []

    class Counts(CallerAcknowledger):
        async def ack(self, ref: Any, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
            calls.append(len(successful))
            await super().ack(ref, successful, failed)

    caller = Counts(2)
    async with running(pipeline := Doubling()):
        await soon(pipeline.push_messages([Message(number, {}, caller.acknowledgement()) for number in (1, 2)]))
        successful, failed = await soon(caller.settled())

    assert ([message.data for message in successful], failed) == ([2, 4], [])
    assert calls == [2]


async def test_submit_flushes_so_that_one_message_is_enough() -> None:
    async with running(pipeline := Doubling()):
        message = await soon(pipeline.submit(5))

    assert message.data == 10
    assert pipeline.batches == [[10]]


async def test_submit_raises_what_failed_with_its_cause_and_reason() -> None:
    async with running(pipeline := Doubling()):
        with pytest.raises(MessageFailed) as failed:
            await soon(pipeline.submit(-17))

    assert failed.value.message.data == -34
    assert failed.value.message.status.reason == "negative"
    assert str(failed.value) == "the submitted message failed (failed): negative"
    assert (failed.value.cause, failed.value.reason) == ("failed", "negative")


async def test_submit_batch_tells_both_lists_and_raises_when_asked() -> None:
    async with running(pipeline := Doubling()):
        settled = await soon(pipeline.submit_batch([1, -1, 2], batch_mode="bulk"))
        good = await soon(pipeline.submit_batch([1, 2]))

    assert sorted(message.data for message in settled.successful) == [2, 4]
    assert [message.data for message in settled.failed] == [-2]
    with pytest.raises(BatchFailed) as failed:
        settled.raise_for_failed()
    assert str(failed.value) == "1 of 3 submitted messages failed; the first one (failed): negative"
    good.raise_for_failed()


async def test_an_empty_batch_is_settled_at_once() -> None:
    async with running(pipeline := Quiet()):
        settled = await soon(pipeline.submit_batch([]))

    assert (settled.successful, settled.failed) == ([], [])


async def test_submit_gives_up_waiting_after_its_timeout_and_the_message_travels_on() -> None:
    class Slow(Quiet):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.gate = asyncio.Event()

        async def handle_message(self, message: Message[Any]) -> None:
            await self.gate.wait()

    pipeline = Slow()
    async with running(pipeline) as clock:
        waiting = asyncio.ensure_future(pipeline.submit(1, timeout=2.0))
        await clock.advance(1.9)
        assert not waiting.done()
        await clock.advance(0.2)
        with pytest.raises(TimeoutError):
            await soon(waiting)
        assert in_flight(pipeline) == 1
        pipeline.gate.set()

    assert outcomes(pipeline) == {"acked": 1}


async def test_push_waits_while_the_pipeline_is_full_and_drops_nothing() -> None:
    class Slow(Quiet):
        processors = Processors(concurrency=1, max_demand=2)

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.gate = asyncio.Event()

        async def handle_message(self, message: Message[Any]) -> None:
            await self.gate.wait()

    recorder = Recorder()
    pipeline = Slow()
    async with running(pipeline) as clock:
        pushing = asyncio.ensure_future(pipeline.push_messages(recorder.messages(range(20))))
        await clock.advance(1.0)
        assert not pushing.done()
        assert in_flight(pipeline) <= 4
        pipeline.gate.set()
        await soon(pushing)
        await recorder.until(20)

    assert recorder.successful == list(range(20))


async def test_a_push_that_waits_at_the_stop_is_let_through_and_finished() -> None:
    class Slow(Quiet):
        processors = Processors(concurrency=1, max_demand=2)

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.gate = asyncio.Event()

        async def handle_message(self, message: Message[Any]) -> None:
            await self.gate.wait()

    recorder = Recorder()
    pipeline = Slow()
    async with running(pipeline) as clock:
        pushing = asyncio.ensure_future(pipeline.push_messages(recorder.messages(range(20))))
        await clock.advance(1.0)
        stopping = asyncio.ensure_future(pipeline.stop())
        await clock.advance(1.0)
        await soon(pushing)
        pipeline.gate.set()
        await soon(stopping)

    assert outcomes(pipeline) == {"acked": 20}
    recorder.check_once()


@pytest.mark.parametrize("call", ["submit", "submit_batch", "push_messages"])
async def test_a_pipeline_that_has_not_started_takes_nothing_in(call: str) -> None:
    pipeline = Quiet()

    with pytest.raises(PipelineNotRunning) as refused:
        await getattr(pipeline, call)([])

    name = "submit_batch" if call == "submit_batch" else call
    assert str(refused.value) == f"{name}(): pipeline 'Quiet' is new; start it first"


@pytest.mark.parametrize("call", ["submit", "submit_batch", "push_messages"])
async def test_a_pipeline_that_has_stopped_takes_nothing_in(call: str) -> None:
    pipeline = Quiet()
    async with running(pipeline):
        pass

    with pytest.raises(PipelineNotRunning) as refused:
        await soon(getattr(pipeline, call)([Message(1)]))

    assert str(refused.value) == f"{call}(): pipeline 'Quiet' is stopped and takes no messages"


async def test_a_draining_pipeline_takes_nothing_in() -> None:
    class Slow(Quiet):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.gate = asyncio.Event()

        async def handle_message(self, message: Message[Any]) -> None:
            await self.gate.wait()

    pipeline = Slow(producer=ManualProducer(1))
    async with running(pipeline) as clock:
        await clock.advance(0.0)
        stopping = asyncio.ensure_future(pipeline.stop())
        await clock.advance(0.0)
        with pytest.raises(PipelineNotRunning) as refused:
            await soon(pipeline.submit(2))
        assert str(refused.value) == "submit(): pipeline 'Slow' is draining and takes no messages"
        pipeline.gate.set()
        await soon(stopping)


async def test_push_refuses_what_is_no_message_or_in_a_pipeline_already() -> None:
    recorder = Recorder()
    async with running(pipeline := Quiet()):
        with pytest.raises(TypeError) as no_message:
            await pipeline.push_messages(["text"])  # type: ignore[list-item]  # the mistake this test is about
        message = recorder.message(1)
        await soon(pipeline.push_messages([message]))
        await recorder.until(1)
        with pytest.raises(ValueError) as again:  # noqa: PT011  # the sentence follows
            await pipeline.push_messages([message])

    assert str(no_message.value) == "push_messages: expected Message objects, got str"
    assert str(again.value) == ("push_messages: <Message id=None producer='push' size=0 ok> is in a pipeline already")
    recorder.check_once()


async def test_pushing_one_message_twice_at_once_settles_it_once() -> None:
    recorder = Recorder()
    message = recorder.message(1)
    async with running(pipeline := Quiet()):
        try:
            await soon(pipeline.push_messages([message, message]))
        except ValueError:
            return
        await recorder.until(1)

    assert outcomes(pipeline) == {"acked": 1}
    recorder.check_once()


@pytest.mark.parametrize("call", ["stop", "submit", "submit_batch", "push_messages", "wait"])
async def test_what_would_wait_for_its_own_stage_is_refused_inside_a_callback(call: str) -> None:
    class Inside(Quiet):
        async def handle_message(self, message: Message[Any]) -> None:
            await getattr(self, call)(*([["x"]] if call.startswith(("submit", "push")) else []))

    async with running(pipeline := Inside()):
        with pytest.raises(MessageFailed) as failed:
            await soon(pipeline.submit(1))

    error = failed.value.message.status.exception
    assert isinstance(error, CalledInsideCallback)
    assert str(error) == (
        f"{call}() was awaited inside a callback of the same pipeline, which would wait for itself; "
        "use pipeline.request_stop() to end the pipeline, or hand the work to a task of your own"
    )


@pytest.mark.parametrize("callback", ["setup", "teardown"])
async def test_stop_is_refused_in_setup_and_teardown_too(callback: str) -> None:
    seen: list[BaseException] = []

    async def stop_inside(pipeline: Pipeline[Any]) -> None:
        try:
            await pipeline.stop()
        except CalledInsideCallback as refused:
            seen.append(refused)

    pipeline_class = type("Inside", (Quiet,), {callback: stop_inside})
    async with running(pipeline_class()):
        pass

    assert len(seen) == 1


async def test_a_task_of_the_users_own_may_submit() -> None:
    tasks: list[asyncio.Task[Any]] = []

    class Chains(Quiet):
        async def handle_message(self, message: Message[Any]) -> None:
            if message.data == "first":
                tasks.append(asyncio.create_task(self.submit("second")))

    async with running(pipeline := Chains()):
        await soon(pipeline.submit("first"))
        second = await soon(tasks[0])

    assert second.data == "second"


async def test_a_caller_is_told_when_its_message_cannot_be_finished_in_time() -> None:
    class Stuck(Quiet):
        async def handle_message(self, message: Message[Any]) -> None:
            await asyncio.Event().wait()

    pipeline = Stuck()
    clock = clock_of(pipeline)
    async with running(pipeline):
        waiting = asyncio.ensure_future(pipeline.submit(1))
        await clock.advance(0.0)
        stopping = asyncio.ensure_future(pipeline.stop())
        await clock.advance(30.0)
        with pytest.raises(MessageFailed) as failed:
            await soon(waiting)
        await soon(stopping)

    assert failed.value.message.status.cause == "stopped"
