"""``ack_immediately``: settled now, and once, whatever happens afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broadway_py import Batcher, BatchInfo, Message, Pipeline, SettleError, ack_immediately
from broadway_py.producers import MemoryProducer
from tests.pipeline.support import ONE, Call, Recorder, finish, logged, outcomes, running, soon
from tests.support.conformance import conforms

Messages = list[Message[Any]]


class Immediate(Pipeline[Any]):
    """Calls what the test wrote."""

    processors = ONE

    def __init__(self, handle: Callable[[Message[Any]], Awaitable[None]], **options: Any) -> None:
        super().__init__(**options)
        self.handle = handle
        self.failures: list[Any] = []

    async def handle_message(self, message: Message[Any]) -> None:
        await self.handle(message)

    async def handle_failed(self, messages: Messages) -> None:
        self.failures.extend(message.data for message in messages)


@conforms("B-055")
async def test_a_message_is_settled_before_the_callback_ends_and_only_once() -> None:
    recorder = Recorder()
    settled_inside: list[tuple[bool, list[Any]]] = []

    async def handle(message: Message[Any]) -> None:
        await ack_immediately(message)
        settled_inside.append((message.settled, list(recorder.successful)))

    pipeline = Immediate(handle, producer=MemoryProducer(recorder.messages([1, 2])))

    assert await finish(pipeline) == {"acked": 2}
    assert settled_inside == [(True, [1]), (True, [1, 2])]
    recorder.check_once()


@conforms("B-056")
async def test_a_list_is_settled_by_the_status_of_each_in_one_call() -> None:
    recorder = Recorder()

    class InBatch(Pipeline[Any]):
        processors = ONE
        batchers = {"default": Batcher(batch_size=4)}  # noqa: RUF012  # never changed

        async def handle_message(self, message: Message[Any]) -> None:
            pass

        async def handle_batch(self, messages: Messages, info: BatchInfo) -> None:
            messages[3].fail("no")
            await ack_immediately(messages)

    pipeline = InBatch(producer=MemoryProducer(recorder.messages([1, 2, 3, 4])))

    assert await finish(pipeline) == {"acked": 3, "rejected": 1}
    assert [call.data for call in recorder.calls] == [([1, 2, 3], [4])]


async def test_a_later_raise_reaches_handle_failed_and_the_log_but_not_the_acknowledger(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder = Recorder()

    async def handle(message: Message[Any]) -> None:
        await ack_immediately(message)
        raise ValueError("afterwards")

    pipeline = Immediate(handle, producer=MemoryProducer(recorder.messages([1])))

    assert await finish(pipeline) == {"acked": 1}
    assert pipeline.failures == [1]
    assert [line["event"] for line in logged(caplog)] == ["a message failed"]
    recorder.check_once()


async def test_a_raise_in_handle_batch_after_it_settles_nothing_twice() -> None:
    recorder = Recorder()

    class InBatch(Pipeline[Any]):
        processors = ONE
        batchers = {"default": Batcher(batch_size=4)}  # noqa: RUF012  # never changed

        async def handle_message(self, message: Message[Any]) -> None:
            pass

        async def handle_batch(self, messages: Messages, info: BatchInfo) -> None:
            await ack_immediately(messages[:2])
            raise OSError("then the sink broke")

    pipeline = InBatch(producer=MemoryProducer(recorder.messages([1, 2, 3, 4])))

    assert await finish(pipeline) == {"acked": 2, "rejected": 2}
    recorder.check_once()


async def test_calling_it_twice_settles_once() -> None:
    recorder = Recorder()

    async def handle(message: Message[Any]) -> None:
        await ack_immediately(message)
        message.fail("changed my mind")
        await ack_immediately([message, message])

    pipeline = Immediate(handle, producer=MemoryProducer(recorder.messages([1])))

    assert await finish(pipeline) == {"acked": 1}
    assert len(recorder.calls) == 1


async def test_a_settled_message_travels_on_to_its_batch() -> None:
    recorder = Recorder()
    batches: list[list[Any]] = []

    class TravelsOn(Pipeline[Any]):
        processors = ONE
        batchers = {"default": Batcher(batch_size=2)}  # noqa: RUF012  # never changed

        async def handle_message(self, message: Message[Any]) -> None:
            await ack_immediately(message)

        async def handle_batch(self, messages: Messages, info: BatchInfo) -> None:
            batches.append([message.data for message in messages])

    pipeline = TravelsOn(producer=MemoryProducer(recorder.messages([1, 2])))

    assert await finish(pipeline) == {"acked": 2}
    assert batches == [[1, 2]]
    recorder.check_once()


async def test_a_failed_message_is_settled_as_failed() -> None:
    recorder = Recorder()

    async def handle(message: Message[Any]) -> None:
        message.fail("no")
        await ack_immediately(message)
        message.status = None

    pipeline = Immediate(handle, producer=MemoryProducer(recorder.messages([1])))

    assert await finish(pipeline) == {"rejected": 1}
    assert recorder.failed == [1]


async def test_the_caller_sees_what_the_acknowledger_raised_and_the_outcome_is_unknown() -> None:
    async def fault(call: Call) -> None:
        raise ConnectionError("gone")

    recorder = Recorder(fault)
    seen: list[BaseException] = []

    async def handle(message: Message[Any]) -> None:
        try:
            await ack_immediately(message)
        except ConnectionError as error:
            seen.append(error)

    pipeline = Immediate(handle, producer=MemoryProducer(recorder.messages([1])))

    assert await finish(pipeline) == {"unknown": 1}
    assert [str(error) for error in seen] == ["gone"]
    recorder.check_once()


async def test_the_caller_sees_a_partial_failure_too() -> None:
    async def fault(call: Call) -> None:
        raise SettleError("receipts expired", unsettled=call.successful)

    recorder = Recorder(fault)

    async def handle(message: Message[Any]) -> None:
        await ack_immediately(message)

    pipeline = Immediate(handle, producer=MemoryProducer(recorder.messages([1])))

    assert await finish(pipeline) == {"unknown": 1}
    assert pipeline.failures == [1]


async def test_a_caller_that_stops_waiting_does_not_interrupt_it() -> None:
    gate = asyncio.Event()

    async def slow(call: Call) -> None:
        await gate.wait()

    recorder = Recorder(slow)

    async def handle(message: Message[Any]) -> None:
        task = asyncio.ensure_future(ack_immediately(message))
        await recorder.until(1)
        task.cancel()
        await asyncio.wait({task})
        gate.set()

    pipeline = Immediate(handle, producer=MemoryProducer(recorder.messages([1])))

    assert await finish(pipeline) == {"acked": 1}
    recorder.check_once()


async def test_one_that_hangs_is_unknown_once_the_drain_runs_out_of_time() -> None:
    async def hang(call: Call) -> None:
        await asyncio.Event().wait()

    recorder = Recorder(hang)

    async def handle(message: Message[Any]) -> None:
        await ack_immediately(message)

    pipeline = Immediate(handle, producer=MemoryProducer(recorder.messages([1])))
    async with running(pipeline) as clock:
        await recorder.until(1)
        stopping = asyncio.ensure_future(pipeline.stop())
        await clock.advance(30.0)
        report = await soon(stopping)

    assert not report.in_time
    assert outcomes(pipeline) == {"unknown": 1}
    recorder.check_once()


async def test_messages_of_several_acknowledgers_are_all_tried_although_the_first_raises() -> None:
    async def fault(call: Call) -> None:
        raise ConnectionError("gone")

    bad, good = Recorder(fault), Recorder()

    class InBatch(Pipeline[Any]):
        processors = ONE
        batchers = {"default": Batcher(batch_size=4)}  # noqa: RUF012  # never changed

        async def handle_message(self, message: Message[Any]) -> None:
            pass

        async def handle_batch(self, messages: Messages, info: BatchInfo) -> None:
            await ack_immediately(messages)

    pipeline = InBatch(producer=MemoryProducer([*bad.messages([1, 2]), *good.messages([3, 4])]))

    assert await finish(pipeline) == {"acked": 2, "unknown": 2}
    assert good.successful == [3, 4]


async def test_a_message_of_no_pipeline_is_refused_with_the_whole_sentence() -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011  # the sentence follows
        await ack_immediately(Message("mine"))

    assert str(refused.value) == (
        "ack_immediately: <Message id=None producer=None size=4 ok> is not in a pipeline; nothing can be settled"
    )


async def test_an_empty_list_is_fine() -> None:
    await ack_immediately([])


async def test_it_may_be_called_in_every_callback() -> None:
    recorder = Recorder()

    class Everywhere(Pipeline[Any]):
        processors = ONE

        async def prepare_messages(self, messages: Messages) -> None:
            await ack_immediately(messages[0])

        async def handle_message(self, message: Message[Any]) -> None:
            message.fail("all of them")

        async def handle_failed(self, messages: Messages) -> None:
            await ack_immediately(messages)

    pipeline = Everywhere(producer=MemoryProducer(recorder.messages([1, 2])))

    assert await finish(pipeline) == {"acked": 1, "rejected": 1}
    assert [call.data for call in recorder.calls] == [([1], []), ([], [2])]
