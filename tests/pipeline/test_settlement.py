"""Settlement: what an acknowledger is told, and what is written down when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from broadway_py import Acknowledgement, Batcher, BatchInfo, Failed, Message, Pipeline, SettleError
from broadway_py.producers import MemoryProducer
from tests.pipeline.support import (
    ONE,
    Call,
    Fault,
    ManualProducer,
    Quiet,
    Recorder,
    ReturningRecorder,
    clock_of,
    finish,
    logged,
    outcomes,
    running,
    soon,
)
from tests.support.conformance import conforms

Messages = list[Message[Any]]


class Batched(Pipeline[Any]):
    """One batcher of four; ``handle_batch`` does what the test wrote."""

    processors = ONE
    batchers = {"default": Batcher(batch_size=4)}  # noqa: RUF012  # never changed

    def __init__(self, handle: Callable[[Messages], Any] = lambda _: None, **options: Any) -> None:
        super().__init__(**options)
        self.handle = handle
        self.failures: list[list[Any]] = []

    async def handle_message(self, message: Message[Any]) -> None:
        if message.data == "bad":
            message.fail("bad")

    async def handle_batch(self, messages: Messages, info: BatchInfo) -> Any:
        return self.handle(messages)

    async def handle_failed(self, messages: Messages) -> None:
        self.failures.append([message.data for message in messages])


# --- grouping


@conforms("B-081")
async def test_one_call_is_made_for_each_acknowledger_and_ref_with_both_lists() -> None:
    one, other = Recorder(), Recorder()
    messages = [
        one.message(1, ref="a"),
        other.message(2, ref="a"),
        one.message(3, ref="b"),
        one.message(4, ref="a"),
    ]

    def fail_4(given: Messages) -> None:
        given[3].fail("no")

    pipeline = Batched(fail_4, producer=MemoryProducer(messages))

    assert await finish(pipeline) == {"acked": 3, "rejected": 1}
    assert [(call.ref, call.data) for call in one.calls] == [("a", ([1], [4])), ("b", ([3], []))]
    assert [(call.ref, call.data) for call in other.calls] == [("a", ([2], []))]


async def test_the_data_of_the_acknowledgement_takes_no_part_in_grouping() -> None:
    recorder = Recorder()
    messages = [recorder.message(number, detail=number) for number in range(4)]
    pipeline = Batched(producer=MemoryProducer(messages))

    await finish(pipeline)

    (call,) = recorder.calls
    assert [message.acknowledgement.data for message in call.successful] == [0, 1, 2, 3]


async def test_without_batchers_a_chunk_is_settled_in_one_call() -> None:
    recorder = Recorder()
    pipeline = Quiet(producer=MemoryProducer(recorder.messages(range(10))))

    await finish(pipeline)

    assert [call.data for call in recorder.calls] == [([0, 1, 2, 3, 4], []), ([5, 6, 7, 8, 9], [])]


async def test_failures_in_handle_message_are_settled_before_their_neighbours_batch() -> None:
    recorder = Recorder()
    pipeline = Batched(producer=MemoryProducer(recorder.messages([1, "bad", 2, 3, 4])))

    await finish(pipeline)

    assert [call.data for call in recorder.calls] == [([], ["bad"]), ([1, 2, 3, 4], [])]


async def test_messages_without_an_acknowledger_are_counted_all_the_same() -> None:
    pipeline = Batched(producer=MemoryProducer([Message(1), Message("bad"), Message(2)]))

    assert await finish(pipeline) == {"acked": 2, "rejected": 1}


# --- what handle_batch returns and raises


@conforms("B-034")
async def test_a_message_that_handle_batch_keeps_for_itself_fails_as_not_returned() -> None:
    recorder = Recorder()
    pipeline = Batched(lambda given: given[1:], producer=MemoryProducer(recorder.messages([1, 2, 3, 4])))

    assert await finish(pipeline) == {"acked": 3, "rejected": 1}
    assert recorder.statuses == {1: Failed("not_returned", "handle_batch did not return this message")}
    assert pipeline.failures == [[1]]


async def test_a_message_that_handle_batch_returns_twice_is_settled_once() -> None:
    recorder = Recorder()
    pipeline = Batched(lambda given: [*given, given[0]], producer=MemoryProducer(recorder.messages([1, 2])))

    assert await finish(pipeline) == {"acked": 2}
    recorder.check_once()


async def test_one_that_handle_batch_failed_and_left_out_keeps_its_own_reason() -> None:
    def mark(given: Messages) -> Messages:
        given[0].fail("too late")
        return given[1:]

    recorder = Recorder()
    pipeline = Batched(mark, producer=MemoryProducer(recorder.messages([1, 2])))

    await finish(pipeline)

    assert recorder.statuses == {1: Failed("failed", "too late")}


@conforms("B-082")
async def test_a_raise_in_handle_batch_fails_the_whole_batch_and_the_next_one_works() -> None:
    calls = iter([True, False])

    def first_time(given: Messages) -> None:
        if next(calls):
            raise OSError("sink")

    recorder = Recorder()
    pipeline = Batched(first_time, producer=MemoryProducer(recorder.messages(range(8))))

    assert await finish(pipeline) == {"acked": 4, "rejected": 4}
    assert recorder.failed == [0, 1, 2, 3]
    assert {(status.cause, str(status.exception)) for status in recorder.statuses.values()} == {("raised", "sink")}
    assert recorder.successful == [4, 5, 6, 7]
    assert pipeline.stats().restarts == 0


@conforms("B-083")
@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        (lambda _: 17, "handle_batch returned an int; expected None or a list of the messages it was given"),
        (
            lambda given: [*given, "x"],
            (
                "handle_batch returned a list holding a str; expected None or the messages it was given, "
                "changed in place (message.data = …)"
            ),
        ),
        (
            lambda _: [Message(1)],
            (
                "handle_batch returned a Message it was not given; expected None or the messages it was given, "
                "changed in place (message.data = …)"
            ),
        ),
    ],
)
async def test_a_foreign_return_value_fails_the_whole_batch(returned: Callable[[Messages], Any], sentence: str) -> None:
    recorder = Recorder()
    pipeline = Batched(returned, producer=MemoryProducer(recorder.messages([1, 2])))

    assert await finish(pipeline) == {"rejected": 2}
    assert {status.reason for status in recorder.statuses.values()} == {sentence}


@conforms("B-085")
async def test_a_crash_in_a_task_that_handle_batch_waits_for_fails_the_batch() -> None:
    class Parent(Batched):
        async def handle_batch(self, messages: Messages, info: BatchInfo) -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.crash(messages))

        async def crash(self, messages: Messages) -> None:
            if messages[0].data == 0:
                raise RuntimeError("inside")

    recorder = Recorder()
    pipeline = Parent(producer=MemoryProducer(recorder.messages(range(8))))

    assert await finish(pipeline) == {"acked": 4, "rejected": 4}
    assert isinstance(recorder.statuses[0].exception, ExceptionGroup)


async def test_a_generator_that_raises_fails_the_batch() -> None:
    def broken(given: Messages) -> Any:
        yield given[0]
        raise ValueError("half way")

    recorder = Recorder()
    pipeline = Batched(broken, producer=MemoryProducer(recorder.messages([1, 2])))

    assert await finish(pipeline) == {"rejected": 2}
    assert pipeline.stats().restarts == 0


async def test_a_cancellation_that_nobody_asked_for_fails_the_batch_alone() -> None:
    def cancelled(given: Messages) -> None:
        if given[0].data == 0:
            raise asyncio.CancelledError

    recorder = Recorder()
    pipeline = Batched(cancelled, producer=MemoryProducer(recorder.messages(range(8))))

    assert await finish(pipeline) == {"acked": 4, "rejected": 4}
    assert {status.cause for status in recorder.statuses.values()} == {"cancelled"}


async def test_a_batch_processor_that_cancels_its_own_task_fails_its_batch_alone() -> None:
    def suicidal(given: Messages) -> None:
        task = asyncio.current_task()
        assert task is not None
        if given[0].data == 0:
            task.cancel()

    class Suicidal(Batched):
        async def handle_batch(self, messages: Messages, info: BatchInfo) -> None:
            suicidal(messages)
            await asyncio.sleep(0)

    recorder = Recorder()
    pipeline = Suicidal(producer=MemoryProducer(recorder.messages(range(8))))

    assert await finish(pipeline) == {"acked": 4, "rejected": 4}
    assert {status.cause for status in recorder.statuses.values()} == {"cancelled"}


# --- acknowledgers that fail


async def raising(call: Call) -> None:
    """Fails whole."""
    raise ConnectionError("gone")


async def cancelled_by_the_client(call: Call) -> None:
    """As client libraries do when a connection dies."""
    raise asyncio.CancelledError


async def partly(call: Call) -> None:
    """The first of each list is settled."""
    raise SettleError("2 of 4 receipts expired", unsettled=[*call.successful[1:], *call.failed[1:]])


@conforms("B-035", "B-084")
async def test_an_acknowledger_without_ack_leaves_its_messages_unknown_and_the_others_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class NoAcknowledger:
        pass

    recorder = Recorder()
    broken = [Message(number, {}, Acknowledgement(NoAcknowledger(), "ref")) for number in (1, 2)]
    pipeline = Batched(producer=MemoryProducer([*broken, *recorder.messages([3, 4, 5, 6, 7, 8])]))

    assert await finish(pipeline) == {"acked": 6, "unknown": 2}
    assert recorder.successful == [3, 4, 5, 6, 7, 8]
    assert pipeline.stats().restarts == 0
    assert {line["event"] for line in logged(caplog)} == {
        "an acknowledger failed; the outcome of its messages is unknown and left to the source"
    }
    assert {(line["acknowledger"], line["exception"]) for line in logged(caplog)} == {
        ("NoAcknowledger", "AttributeError")
    }


@pytest.mark.parametrize("fault", [raising, cancelled_by_the_client])
async def test_an_acknowledger_that_fails_whole_leaves_its_messages_unknown_and_is_not_asked_again(
    fault: Fault,
) -> None:
    good, bad = Recorder(), Recorder(fault)
    pipeline = Batched(producer=MemoryProducer([*bad.messages([1, 2]), *good.messages([3, 4]), *good.messages([5])]))

    assert await finish(pipeline) == {"acked": 3, "unknown": 2}
    bad.check_once()
    assert good.successful == [3, 4, 5]


async def test_an_acknowledger_that_settles_a_part_leaves_the_rest_unknown() -> None:
    def fail_two(given: Messages) -> None:
        given[2].fail("no")
        given[3].fail("no")

    recorder = Recorder(partly)
    pipeline = Batched(fail_two, producer=MemoryProducer(recorder.messages([1, 2, 3, 4])))

    assert await finish(pipeline) == {"acked": 1, "rejected": 1, "unknown": 2}


async def test_a_settle_error_that_names_nothing_means_that_all_were_settled() -> None:
    async def empty(call: Call) -> None:
        raise SettleError("harmless", unsettled=[])

    recorder = Recorder(empty)
    pipeline = Batched(producer=MemoryProducer(recorder.messages([1, 2])))

    assert await finish(pipeline) == {"acked": 2}


async def test_a_settle_error_may_name_messages_of_others() -> None:
    async def confused(call: Call) -> None:
        raise SettleError("confused", unsettled=[Message("foreign"), "no message", None])

    recorder = Recorder(confused)
    pipeline = Batched(producer=MemoryProducer(recorder.messages([1, 2])))

    assert await finish(pipeline) == {"acked": 2}


async def test_an_acknowledger_that_hangs_holds_up_no_other() -> None:
    gate = asyncio.Event()

    async def hang(call: Call) -> None:
        await gate.wait()

    slow, quick = Recorder(hang), Recorder()
    pipeline = Batched(producer=MemoryProducer([*slow.messages([1, 2]), *quick.messages([3, 4])]))

    async with running(pipeline) as clock:
        await quick.until(2)
        await clock.advance(0.0)
        assert outcomes(pipeline) == {"acked": 2}
        gate.set()

    assert outcomes(pipeline) == {"acked": 4}


async def test_a_ref_that_cannot_be_hashed_harms_nobody_else() -> None:
    recorder = Recorder()
    odd = Message("odd", {}, Acknowledgement(recorder, ["no", "hash"]))  # type: ignore[arg-type]  # a plug-in's mistake
    pipeline = Quiet(producer=MemoryProducer([*recorder.messages([1]), odd, *recorder.messages([2])]))

    ended = await finish(pipeline)

    assert recorder.successful[:1] == [1]
    assert ended["acked"] >= 2
    assert pipeline.stats().restarts == 0


async def test_a_release_that_succeeds_in_part_is_written_down_as_such() -> None:
    recorder = ReturningRecorder(partly)

    class Gated(Quiet):
        async def handle_message(self, message: Message[Any]) -> None:
            await asyncio.Event().wait()

    pipeline = Gated(producer=ManualProducer(*recorder.messages([1, 2, 3])))
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    await clock.advance(0.0)
    stopping = asyncio.ensure_future(pipeline.stop())
    await clock.advance(30.0)
    await soon(stopping)

    # The two that were not started are given back at once, the one in hand at the deadline; of each call the first
    # succeeds.
    assert outcomes(pipeline) == {"returned": 2, "unknown": 1}


async def test_a_rejection_at_the_deadline_that_succeeds_in_part_is_written_down_as_such() -> None:
    recorder = Recorder(partly)

    class Gated(Quiet):
        async def handle_message(self, message: Message[Any]) -> None:
            await asyncio.Event().wait()

    pipeline = Gated(producer=ManualProducer(*recorder.messages([1, 2, 3])))
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    await clock.advance(0.0)
    stopping = asyncio.ensure_future(pipeline.stop())
    await clock.advance(30.0)
    await soon(stopping)

    assert outcomes(pipeline) == {"rejected": 1, "unknown": 2}


async def test_an_acknowledger_says_what_became_of_what_failed() -> None:
    class Buries(Recorder):
        def outcome_of_failed(self, data: Any) -> Any:
            return data

    def fail_all(given: Messages) -> None:
        for message in given:
            message.fail("no")

    recorder = Buries()
    details = ["dead_lettered", "retried", "dropped", "rejected"]
    pipeline = Batched(
        fail_all,
        producer=MemoryProducer([recorder.message(detail, detail=detail) for detail in details]),
    )

    assert await finish(pipeline) == dict.fromkeys(details, 1)


async def test_an_acknowledger_that_cannot_say_what_became_of_them_counts_nothing_twice() -> None:
    class Confused(Recorder):
        def outcome_of_failed(self, data: Any) -> Any:
            raise KeyError(data)

    def fail_the_second(given: Messages) -> None:
        given[1].fail("no")

    confused, plain = Confused(), Recorder()
    pipeline = Batched(fail_the_second, producer=MemoryProducer([*confused.messages([1, 2]), *plain.messages([3, 4])]))

    assert await finish(pipeline) == {"acked": 3, "unknown": 1}
    confused.check_once()


# --- what is written down


async def test_a_settled_message_says_so() -> None:
    seen: list[bool] = []

    class Looks(Recorder):
        async def ack(self, ref: Any, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
            seen.extend(message.settled for message in successful)
            await super().ack(ref, successful, failed)

    recorder = Looks()
    messages = recorder.messages([1])
    await finish(Quiet(producer=MemoryProducer(messages)))

    assert seen == [False]
    assert messages[0].settled


async def test_the_same_message_twice_in_a_list_is_taken_in_once(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    message = recorder.message(1)
    pipeline = Quiet(producer=MemoryProducer([message, message]))

    assert await finish(pipeline) == {"acked": 1}
    recorder.check_once()
    assert [line["event"] for line in logged(caplog)] == [
        "the producer returned a message that is in a pipeline already; it was left out"
    ]


async def test_a_message_that_comes_again_later_is_left_out() -> None:
    recorder = Recorder()
    message = recorder.message(1)
    producer = ManualProducer(message)
    pipeline = Quiet(producer=producer)

    async with running(pipeline) as clock:
        await recorder.until(1)
        producer.feed.put(message)
        await clock.advance(0.0)

    assert outcomes(pipeline) == {"acked": 1}
    recorder.check_once()


async def test_what_a_callback_keeps_and_changes_afterwards_is_not_settled_again() -> None:
    kept: list[Message[Any]] = []

    class Keeps(Pipeline[Any]):
        processors = ONE

        async def handle_message(self, message: Message[Any]) -> None:
            for old in kept:
                old.fail("much too late")
            kept.append(message)

    recorder = Recorder()
    pipeline = Keeps(producer=MemoryProducer(recorder.messages(range(20))))

    async with running(pipeline):
        await soon(pipeline.wait())

    recorder.check_once()
    assert sum(outcomes(pipeline).values()) == 20
