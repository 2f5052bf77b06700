"""The log of failures: the first few of a kind, then a sum; never a payload."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from broadway_py import FailurePolicy, Message, Pipeline
from broadway_py.producers import MemoryProducer
from tests.pipeline.support import ONE, ManualProducer, Quiet, finish, logged, running


class Fails(Pipeline[Any]):
    """Calls what the test wrote."""

    processors = ONE
    failure: FailurePolicy | None = None  # one attempt is enough to be logged

    def __init__(self, handle: Callable[[Message[Any]], None], **options: Any) -> None:
        super().__init__(**options)
        self.handle = handle

    async def handle_message(self, message: Message[Any]) -> None:
        self.handle(message)


def raising(message: Message[Any]) -> None:
    """Always."""
    raise ValueError("no good")


async def test_five_of_a_kind_are_shown_and_the_rest_of_the_minute_is_summed_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    producer = ManualProducer(*range(20))
    async with running(Fails(raising, producer=producer)) as clock:
        await clock.advance(59.0)
        assert [line["event"] for line in logged(caplog)] == ["a message failed"] * 5
        await clock.advance(2.0)
        assert logged(caplog)[5] == {
            "event": "more messages failed in the same way",
            "pipeline": "Fails",
            "stage": "processors",
            "cause": "raised",
            "exception": "ValueError",
            "not_shown": 15,
        }
        producer.feed.put(*range(7))
        await clock.advance(1.0)
        assert [line["event"] for line in logged(caplog)][6:] == ["a message failed"] * 5

    assert logged(caplog)[-1]["not_shown"] == 2


async def test_what_was_not_shown_is_summed_up_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    await finish(Fails(raising, producer=MemoryProducer(range(12))))

    assert logged(caplog)[-1]["not_shown"] == 7


async def test_each_kind_is_counted_on_its_own(caplog: pytest.LogCaptureFixture) -> None:
    def kinds(message: Message[Any]) -> None:
        if message.data % 3 == 0:
            raise ValueError
        if message.data % 3 == 1:
            raise LookupError
        message.fail("marked")

    await finish(Fails(kinds, producer=MemoryProducer(range(12))))

    assert len([line for line in logged(caplog) if line["event"] == "a message failed"]) == 12


async def test_a_flood_of_kinds_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    def new_kind(message: Message[Any]) -> None:
        raise type(f"Kind{message.data}", (Exception,), {})

    await finish(Fails(new_kind, producer=MemoryProducer(range(1000))))

    assert len(logged(caplog)) <= 210


async def test_a_line_names_pipeline_stage_message_cause_and_place(caplog: pytest.LogCaptureFixture) -> None:
    message = Message("payload", {"message_id": "m-17"})
    message.attempt = 3
    await finish(Fails(raising, producer=MemoryProducer([message])))

    (line,) = logged(caplog)
    assert line.pop("at").endswith(" raising")
    line.pop("reason", None)
    assert line == {
        "event": "a message failed",
        "pipeline": "Fails",
        "stage": "processors",
        "message_id": "m-17",
        "cause": "raised",
        "exception": "ValueError",
        "attempt": 3,
    }


def quotes_data(message: Message[Any]) -> None:
    """As int() and dict lookups do."""
    raise ValueError(f"cannot use {message.data!r}")


def quotes_parsed(message: Message[Any]) -> None:
    """Quotes a part of what is in the payload."""
    raise KeyError(json.loads(message.data)["name"])


def marks_with_data(message: Message[Any]) -> None:
    """Quotes the payload in a reason."""
    message.fail(f"bad customer {message.data}")


@pytest.mark.parametrize(
    ("handle", "payload"),
    [
        (quotes_data, "canary-4711"),
        (quotes_data, b"canary-4711"),
        (quotes_data, "canary-münchen".encode()),
        (quotes_data, {"card": "canary-4711"}),
        (quotes_parsed, '{"name": "canary-4711"}'),
        (quotes_parsed, json.dumps({"name": "canary-Müller"})),
        (quotes_parsed, json.dumps({"name": "canary line\none"})),
        (marks_with_data, "canary-4711"),
        (marks_with_data, b"canary-4711"),
    ],
)
async def test_no_part_of_a_payload_is_shown(
    caplog: pytest.LogCaptureFixture, handle: Callable[[Message[Any]], None], payload: Any
) -> None:
    pipeline = Fails(handle, producer=MemoryProducer([payload]))
    await finish(pipeline)

    assert logged(caplog)
    assert "canary" not in caplog.text
    assert "canary" not in repr(pipeline.stats())


async def test_a_failed_message_and_its_status_show_no_payload() -> None:
    messages: list[Message[Any]] = []

    class Keeps(Quiet):
        async def handle_message(self, message: Message[Any]) -> None:
            messages.append(message)
            quotes_data(message)

    await finish(Keeps(producer=MemoryProducer(["canary"]), failure=None))

    assert "canary" not in f"{messages[0]!r} {messages[0].status!r} {messages[0].status}"
