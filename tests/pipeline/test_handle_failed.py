"""``handle_failed``: the last look at failed messages, just before they are settled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from broadway_py import Batcher, BatchInfo, Failed, Message, Pipeline
from broadway_py.producers import MemoryProducer
from tests.pipeline.support import ONE, Recorder, finish, logged, telemetry_events
from tests.support.conformance import conforms

Messages = list[Message[Any]]


class Failing(Pipeline[Any]):
    """``"fail"`` is marked as failed, ``"raise"`` raises; what happens then is the test's."""

    processors = ONE

    def __init__(self, look: Callable[[Messages], Any], **options: Any) -> None:
        super().__init__(**options)
        self.look = look
        self.calls: list[list[Any]] = []

    async def handle_message(self, message: Message[Any]) -> None:
        if message.data == "fail":
            message.fail("on purpose")
        elif message.data == "raise":
            raise ValueError("by accident")

    async def handle_batch(self, messages: Messages, info: BatchInfo) -> None:
        for message in messages:
            if message.data == "fail later":
                message.fail("on purpose")
            elif message.data == "raise later":
                raise ValueError("by accident")

    async def handle_failed(self, messages: Messages) -> Any:
        self.calls.append([message.data for message in messages])
        return self.look(messages)


def update(messages: Messages) -> None:
    """Change what is settled."""
    for message in messages:
        message.data = f"updated {message.data}"


def broken(messages: Messages) -> None:
    """Raise."""
    raise RuntimeError("handle_failed itself")


async def run_through(look: Callable[[Messages], Any], items: list[Any], **options: Any) -> tuple[Recorder, Failing]:
    """What became of *items*."""
    recorder = Recorder()
    pipeline = Failing(look, producer=MemoryProducer(recorder.messages(items)), **options)
    await finish(pipeline)
    recorder.check_once()
    return recorder, pipeline


BATCH = {"default": Batcher(batch_size=4)}


@conforms("B-063")
async def test_it_sees_a_message_marked_as_failed_and_its_changes_reach_the_acknowledger() -> None:
    recorder, pipeline = await run_through(update, [1, "fail", 2])

    assert pipeline.calls == [["fail"]]
    assert recorder.failed == ["updated fail"]
    assert recorder.successful == [1, 2]


@conforms("B-064")
async def test_it_sees_a_message_whose_handler_raised(caplog: pytest.LogCaptureFixture) -> None:
    recorder, pipeline = await run_through(update, [1, "raise", 2])

    assert pipeline.calls == [["raise"]]
    assert recorder.failed == ["updated raise"]
    assert [line["event"] for line in logged(caplog)] == ["a message failed"]


def told_of_it(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    """The one line about handle_failed."""
    (line,) = (line for line in logged(caplog) if str(line["event"]).startswith("handle_failed raised"))
    return line


@conforms("B-065")
async def test_a_raise_in_it_is_logged_and_the_messages_are_settled_as_they_were(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder, pipeline = await run_through(broken, [1, "fail", 2])

    assert recorder.statuses == {"fail": Failed("failed", "on purpose")}
    assert recorder.successful == [1, 2]
    line = told_of_it(caplog)
    assert line.pop("at").endswith(" broken")
    assert line == {
        "event": "handle_failed raised an error; the messages are settled as they were before it",
        "pipeline": "Failing",
        "stage": "processors",
        "exception": "RuntimeError",
        "reason": "not shown, it may quote the message; broadway_py.log.show_error_texts() shows it",
    }
    assert pipeline.stats().restarts == 0


@conforms("B-066")
async def test_it_sees_the_failed_ones_of_a_batch_in_one_call() -> None:
    recorder, pipeline = await run_through(update, ["fail later", 1, "fail later", 2], batchers=BATCH)

    assert pipeline.calls == [["fail later", "fail later"]]
    assert recorder.failed == ["updated fail later"] * 2
    assert recorder.successful == [1, 2]


@conforms("B-067")
async def test_it_sees_the_whole_batch_when_handle_batch_raises() -> None:
    recorder, pipeline = await run_through(update, [1, 2, "raise later", 3], batchers=BATCH)

    assert pipeline.calls == [[1, 2, "raise later", 3]]
    assert recorder.failed == ["updated 1", "updated 2", "updated raise later", "updated 3"]


@conforms("B-068")
async def test_a_raise_in_it_for_a_batch_is_logged_and_the_batch_is_settled_as_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder, _ = await run_through(broken, [1, 2, "raise later", 3], batchers=BATCH)

    assert recorder.failed == [1, 2, "raise later", 3]
    assert {status.cause for status in recorder.statuses.values()} == {"raised"}
    assert logged(caplog)[-1]["stage"] == "batch_processors:default"


@pytest.mark.parametrize("returned", [[], "text", [Message("mine")], 17, None])
async def test_what_it_returns_is_ignored(returned: Any) -> None:
    recorder, _ = await run_through(lambda _: returned, ["fail", "raise"])

    assert recorder.failed == ["fail", "raise"]


async def test_turning_a_message_back_to_ok_does_not_rescue_it() -> None:
    def rescue(messages: Messages) -> None:
        for message in messages:
            message.status = None

    recorder, _ = await run_through(rescue, ["fail"])

    assert recorder.statuses == {"fail": Failed("failed", "on purpose")}
    assert recorder.successful == []


async def test_giving_a_message_another_reason_is_what_the_acknowledger_sees() -> None:
    recorder, _ = await run_through(lambda messages: messages[0].fail("because"), ["fail"])

    assert recorder.statuses == {"fail": Failed("failed", "because")}


async def test_emptying_the_list_loses_nothing() -> None:
    recorder, _ = await run_through(lambda messages: messages.clear(), ["fail", "raise"])

    assert recorder.failed == ["fail", "raise"]


async def test_a_cancellation_that_nobody_asked_for_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def cancelled(messages: Messages) -> None:
        raise asyncio.CancelledError

    recorder, pipeline = await run_through(cancelled, ["fail", 1])

    assert recorder.failed == ["fail"]
    assert recorder.successful == [1]
    assert pipeline.stats().restarts == 0
    assert told_of_it(caplog)["exception"] == "CancelledError"


async def test_it_is_not_called_when_nothing_failed() -> None:
    _, pipeline = await run_through(broken, [1, 2], batchers=BATCH)

    assert pipeline.calls == []


async def test_a_plain_function_will_do() -> None:
    class Plain(Pipeline[Any]):
        processors = ONE

        async def handle_message(self, message: Message[Any]) -> None:
            message.fail("on purpose")

        def handle_failed(self, messages: Messages) -> None:
            for message in messages:
                message.data = "seen"

    recorder = Recorder()
    await finish(Plain(producer=MemoryProducer(recorder.messages([1, 2]))))

    assert recorder.failed == ["seen", "seen"]


# --- telemetry


@conforms("B-069")
async def test_telemetry_tells_its_begin_and_end_in_a_processor() -> None:
    with telemetry_events("broadway.handle_failed.start", "broadway.handle_failed.stop") as seen:
        await run_through(update, [1, "fail"])

    assert [event for event, _, _ in seen] == ["broadway.handle_failed.start", "broadway.handle_failed.stop"]
    for _, _, metadata in seen:
        assert (metadata["pipeline"], metadata["stage"], metadata["index"]) == ("Failing", "processors", 0)
        assert [message.data for message in metadata["messages"]] == ["updated fail"]


@conforms("B-070")
async def test_telemetry_tells_its_begin_and_end_in_a_batch_processor() -> None:
    with telemetry_events("broadway.handle_failed.start", "broadway.handle_failed.stop") as seen:
        await run_through(update, [1, "fail later"], batchers=BATCH)

    assert [event for event, _, _ in seen] == ["broadway.handle_failed.start", "broadway.handle_failed.stop"]
    assert {metadata["stage"] for _, _, metadata in seen} == {"batch_processors:default"}


@conforms("B-071")
@pytest.mark.parametrize("error", [RuntimeError("x"), asyncio.CancelledError()])
async def test_telemetry_tells_that_it_raised(error: BaseException) -> None:
    def fall(messages: Messages) -> None:
        raise error

    with telemetry_events(
        "broadway.handle_failed.start", "broadway.handle_failed.stop", "broadway.handle_failed.exception"
    ) as seen:
        await run_through(fall, ["fail"])

    assert [event for event, _, _ in seen] == ["broadway.handle_failed.start", "broadway.handle_failed.exception"]
    assert seen[1][2]["exception"] is error
    assert seen[1][1]["duration"] >= 0.0
