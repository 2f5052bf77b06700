"""The log of failures: the first few of a kind, then a sum; never a payload."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import TypeAdapter

from broadway_py import (
    Acknowledgement,
    Acknowledger,
    Batcher,
    BatchInfo,
    Failed,
    FailurePolicy,
    Message,
    Pipeline,
    Reject,
)
from broadway_py.log import show_error_texts
from broadway_py.message import raised
from broadway_py.pipeline.settlement.failure_log import masked
from broadway_py.producers import MemoryProducer
from tests.pipeline.support import ONE, ManualProducer, Quiet, finish, logged, running


def forgets(message: Message[Any]) -> Any:
    """Returns what it may not."""
    return 5


class Fails(Pipeline[Any]):
    """Calls what the test wrote."""

    processors = ONE
    failure: FailurePolicy | None = None  # one attempt is enough to be logged

    def __init__(self, handle: Callable[[Message[Any]], Any], **options: Any) -> None:
        super().__init__(**options)
        self.handle = handle

    async def handle_message(self, message: Message[Any]) -> Any:
        return self.handle(message)


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
            "becomes": "rejected",
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
    assert line.pop("reason") == "not shown, it may quote the message; broadway_py.log.show_error_texts() shows it"
    assert line == {
        "event": "a message failed",
        "pipeline": "Fails",
        "stage": "processors",
        "message_id": "m-17",
        "cause": "raised",
        "exception": "ValueError",
        "attempt": 3,
        "becomes": "rejected",
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


def quotes_reversed(message: Message[Any]) -> None:
    """In a way that no search finds."""
    raise ValueError(str(message.data)[::-1])


def decides(message: Message[Any]) -> None:
    """As handlers do."""
    raise Reject(f"bad customer {message.data}")


def validates(message: Message[Any]) -> None:
    """With pydantic."""
    TypeAdapter(dict[str, int]).validate_json(message.data)


def sets_status(message: Message[Any]) -> None:
    """With a cause of ours and words of its own."""
    message.status = Failed("timeout", f"too slow: {message.data}")


@pytest.mark.parametrize("handle", [quotes_reversed, decides, validates, sets_status])
async def test_by_default_the_text_of_a_failure_is_not_shown_however_it_quotes(
    caplog: pytest.LogCaptureFixture, handle: Callable[[Message[Any]], None]
) -> None:
    await finish(Fails(handle, producer=MemoryProducer(['{"canary": "yranac"}'])))

    assert logged(caplog)
    assert "canary" not in caplog.text
    assert "yranac" not in caplog.text


async def test_by_default_words_of_a_payload_that_no_masking_finds_are_not_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await finish(Fails(quotes_reversed, producer=MemoryProducer(["canary"])))

    (line,) = logged(caplog)
    assert line["reason"] == "not shown, it may quote the message; broadway_py.log.show_error_texts() shows it"
    assert "yranac" not in caplog.text


async def test_a_line_without_text_says_where_the_handler_failed_its_message(caplog: pytest.LogCaptureFixture) -> None:
    await finish(Fails(marks_with_data, producer=MemoryProducer(["canary"])))

    (line,) = logged(caplog)
    assert line["at"].startswith("test_failure_log.py:")
    assert line["at"].endswith(" marks_with_data")


async def test_validation_in_a_handler_is_told_by_place_and_kind(caplog: pytest.LogCaptureFixture) -> None:
    await finish(Fails(validates, producer=MemoryProducer(['{"canary": "x"}'])))

    assert logged(caplog)[0]["reason"] == "***: int_parsing"


async def test_our_own_words_are_shown(caplog: pytest.LogCaptureFixture) -> None:
    await finish(Fails(forgets, producer=MemoryProducer([1])))

    assert logged(caplog)[-1]["reason"] == (
        "handle_message returned an int; expected None or the message it was given: "
        "change the message in place (message.data = …) and return nothing"
    )


class Picks(Quiet):
    """Chooses the batcher by what is in the message."""

    batchers = {"orders": Batcher(), "audit": Batcher()}  # noqa: RUF012  # as users write it

    async def handle_message(self, message: Message[Any]) -> None:
        if message.data is not None:
            message.batcher = message.data

    async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        """Nothing."""


async def test_a_batcher_that_was_taken_from_a_message_is_not_shown_but_a_forgotten_one_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await finish(Picks(producer=MemoryProducer(["canary", b"canary" * 100_000, None]), failure=None))

    reasons = {line["reason"] for line in logged(caplog)}
    assert "canary" not in caplog.text
    assert (
        "message.batcher is 'default', and this pipeline has no batcher of that name; set it in handle_message, to one "
        "of audit, orders, or to None for no batch"
    ) in reasons
    assert "not shown, it may quote the message; broadway_py.log.show_error_texts() shows it" in reasons


async def test_where_texts_are_asked_for_they_are_shown_without_the_words_of_the_payload(
    caplog: pytest.LogCaptureFixture,
) -> None:
    show_error_texts()
    await finish(Fails(marks_with_data, producer=MemoryProducer(["canary-4711"])))

    assert logged(caplog)[0]["reason"] == "bad customer ***"


async def test_a_line_says_what_becomes_of_its_message(caplog: pytest.LogCaptureFixture) -> None:
    class Keeps(Acknowledger):
        async def ack(self, ref: object, successful: object, failed: object) -> None: ...
        async def retry(self, ref: object, messages_and_delays: object) -> None: ...
        async def dead_letter(self, ref: object, messages: object) -> None: ...
        def dead_letters_go_to(self, data: Any) -> str | None:
            return "orders.dead"

    first, last = (Message(n, None, Acknowledgement(Keeps())) for n in (1, 2))
    first.attempt, last.attempt = 1, 3
    policy = FailurePolicy(attempts=3, backoff=(40.0, 40.0), breaker=None)
    await finish(Fails(raising, producer=MemoryProducer([first, last]), failure=policy))

    retried, dead = (line["becomes"] for line in logged(caplog))
    assert re.fullmatch(r"retry in [234]\d s", retried)
    assert dead == "dead-lettered to orders.dead"


async def test_what_is_said_of_a_final_end_is_counted_apart_from_retries(caplog: pytest.LogCaptureFixture) -> None:
    messages = [Message(n) for n in range(30)]
    for message in messages[:20]:
        message.attempt = 1
    for message in messages[20:]:
        message.attempt = 3

    class Retries(Acknowledger):
        async def ack(self, ref: object, successful: object, failed: object) -> None: ...
        async def retry(self, ref: object, messages_and_delays: object) -> None: ...

    keeper = Retries()
    for message in messages:
        message._acknowledgement = Acknowledgement(keeper)
    policy = FailurePolicy(attempts=3, final="drop", breaker=None)
    await finish(Fails(raising, producer=MemoryProducer(messages), failure=policy))

    shown = [line["becomes"] for line in logged(caplog) if line["event"] == "a message failed"]
    assert (len(shown), shown.count("dropped")) == (10, 5)


async def test_handle_failed_that_raises_for_each_message_is_limited(caplog: pytest.LogCaptureFixture) -> None:
    class Raises(Fails):
        async def handle_failed(self, messages: list[Message[Any]]) -> None:
            raise ValueError("canary")

    await finish(Raises(raising, producer=MemoryProducer(range(300))))

    said = [line for line in logged(caplog) if line["event"].startswith("handle_failed raised")]
    assert len(said) == 20
    assert said[0]["at"].endswith(" handle_failed")
    assert "canary" not in caplog.text


@pytest.mark.parametrize(
    "text",
    ["w1234567 " * 500_000, "x" * 4_000_000, "a" + " b" * 1_000_000],
    ids=["words", "no blank", "short words"],
)
async def test_a_long_text_is_cut_before_it_is_looked_at(caplog: pytest.LogCaptureFixture, text: str) -> None:
    show_error_texts()
    body = json.dumps([f"x{n} euro" for n in range(100_000)]).encode()

    def long(message: Message[Any]) -> None:
        raise ValueError(text)

    message = Message(body)
    message.status = raised(ValueError(text))
    began = time.thread_time()
    masked(message.status.reason, message)
    assert time.thread_time() - began < 0.2
    await finish(Fails(long, producer=MemoryProducer([body])))
    assert len(caplog.text) < 12_000


@pytest.mark.parametrize("texts", [False, True], ids=["type", "text"])
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
    caplog: pytest.LogCaptureFixture, handle: Callable[[Message[Any]], None], payload: Any, texts: bool
) -> None:
    show_error_texts(texts)
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
