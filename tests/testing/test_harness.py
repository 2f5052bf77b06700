"""A pipeline of a user, run by a harness: what a test can send, wait for and see."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from broadway_py import (
    Aggregator,
    Batcher,
    BatchInfo,
    BroadwayError,
    FailurePolicy,
    Message,
    OptionsError,
    Pipeline,
    PipelineCrashed,
    PipelineNotRunning,
    Processors,
    QueueSink,
    RateLimit,
    Reject,
    RetryLater,
    State,
    Unavailable,
    Window,
    WindowResult,
    ack_immediately,
)
from broadway_py.producers import MemoryProducer, MemoryPublisher, QueueProducer, QueuePublisher
from broadway_py.testing import FakeClock, Harness, MessagesLeft, StillAtWork, harness
from broadway_py.testing.outcomes import NoOutcome


class Order(BaseModel):
    number: int
    customer: str = "ann"


class Orders(Pipeline[Order]):
    """Fails what has a negative number."""

    schema = Order
    producer = QueueProducer("never-opened.db", "orders")
    processors = Processors(concurrency=2)
    failure = FailurePolicy(attempts=3, backoff=(1.0, 60.0))

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.handled: list[tuple[int, int | None]] = []

    async def handle_message(self, message: Message[Order]) -> None:
        self.handled.append((message.data.number, message.attempt))
        if message.data.number < 0:
            raise ValueError("negative")


class Doing(Pipeline[Any]):
    """Does with each message what its context says."""

    context: Callable[[Message[Any]], Any]

    async def handle_message(self, message: Message[Any]) -> None:
        await self.context(message)


class InProcess(Pipeline[bytes]):
    """Fails what is longer than one byte."""

    failure = FailurePolicy(attempts=2, backoff=(1, 1))

    def handle_message(self, message: Message[bytes]) -> None:
        if len(message.data) > 1:
            raise ValueError


class Batched(Pipeline[Any]):
    batchers = {"default": Batcher(batch_size=3, batch_timeout=2.0)}  # noqa: RUF012  # never changed
    batches: list[tuple[list[Any], str]]

    async def setup(self) -> None:
        self.batches = []

    async def handle_message(self, message: Message[Any]) -> None:
        pass

    async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        self.batches.append(([message.data for message in messages], info.trigger))


# --- sending --------------------------------------------------------------------------------------------------------


async def test_a_message_that_is_handled_is_acked() -> None:
    async with harness(Orders) as h:
        assert await h.send({"number": 1}, id="a") == "a"

        assert h.outcomes["a"] == "acked"
        assert h.outcomes == {"a": "acked"}
        assert h.pipeline.handled == [(1, 1)]
        assert h.left == []


async def test_the_payload_is_bytes_as_a_broker_brings_them() -> None:
    seen: list[tuple[Any, Any]] = []

    async def note(message: Message[Any]) -> None:
        seen.append((message.data, message.metadata))

    async with harness(Doing, context=note, producer=QueueProducer("never-opened.db", "orders")) as h:
        await h.send(b"bytes", id="a", metadata={"headers": {"x": 1}})
        await h.send("täxt", key="k")
        await h.send(bytearray(b"array"))
        await h.send(Order(number=3))
        await h.send({"when": [1, None]})

    assert [data for data, _ in seen] == [
        b"bytes",
        "täxt".encode(),
        b"array",
        b'{"number":3,"customer":"ann"}',
        b'{"when":[1,null]}',
    ]
    assert seen[0][1] == {"headers": {"x": 1}, "message_id": "a", "redelivered": False}
    assert seen[1][1] == {"message_id": "1", "key": "k", "redelivered": False}


async def test_objects_of_a_producer_of_this_process_stay_as_they_are() -> None:
    given = object()
    seen: list[Any] = []

    async def note(message: Message[Any]) -> None:
        seen.append(message.data)

    async with harness(Doing, context=note, producer=MemoryProducer([])) as h:
        await h.send(given)

    assert seen == [given]


async def test_a_message_is_not_data() -> None:
    async with harness(Orders) as h:
        with pytest.raises(TypeError) as error:
            await h.send(Message(b"x"))

    assert str(error.value) == "send: expected the data of a message, got a Message; send message.data"


async def test_what_is_no_json_is_refused() -> None:
    async with harness(Orders) as h:
        with pytest.raises(TypeError) as error:
            await h.send({"number": object()})

    assert str(error.value) == (
        "send: expected bytes, text, or what pydantic can write as JSON, got a dict: Unable to serialize unknown type: "
        "<class 'object'>"
    )


async def test_ids_that_are_not_given_count_from_1_and_leave_out_those_that_were() -> None:
    async with harness(Orders) as h:
        assert await h.send({"number": 1}, id="2") == "2"
        assert await h.send_batch([{"number": 2}, {"number": 3}]) == ["1", "3"]
        assert await h.send_batch([{"number": 4}], ids=["x"]) == ["x"]
        assert h.outcomes.counts == {"acked": 4}


async def test_as_many_ids_and_keys_as_messages_are_asked_for() -> None:
    async with harness(Orders) as h:
        with pytest.raises(ValueError, match=r"^send_batch\(ids=…\): expected 2 of them, one for each item, got 1$"):
            await h.send_batch([1, 2], ids=["a"])
        with pytest.raises(ValueError, match=r"^send_batch\(keys=…\): expected 1 of them, one for each item, got 2$"):
            await h.send_batch([1], keys=["a", "b"])


@pytest.mark.parametrize(
    ("items", "got"),
    [
        ({"number": 1}, "a dict"),
        ("abc", "a str"),
        ((each for each in "abc"), "a generator"),
        (Order(number=1), "an Order"),
    ],
)
async def test_one_message_is_not_taken_for_several(items: Any, got: str) -> None:
    async with harness(Orders) as h:
        with pytest.raises(TypeError) as error:
            await h.send_batch(items)

    assert str(error.value) == (
        f"send_batch: expected a list with the data of each message, got {got}; for one message, use send"
    )


async def test_a_pipeline_that_was_stopped_takes_nothing_more() -> None:
    async with harness(Orders) as h:
        await h.send({"number": 1}, id="a")
        await h.stop()
        sentence = (
            "{}: the pipeline was stopped, so nobody would take the message; a new one starts with `async with` or "
            "h.crash()"
        )
        with pytest.raises(PipelineNotRunning) as error:
            await h.send({"number": 2})
        assert str(error.value) == sentence.format("send")
        with pytest.raises(PipelineNotRunning) as error:
            await h.redeliver("a")
        assert str(error.value) == sentence.format("redeliver")

        await h.crash()
        await h.send({"number": 2}, id="b")
        assert h.outcomes == {"a": "acked", "b": "acked"}


async def test_each_of_several_producers_is_named() -> None:
    producers = [QueueProducer("never-opened.db", "a", name="web"), QueueProducer("never-opened.db", "b", name="shop")]
    seen: list[Any] = []

    async def note(message: Message[Any]) -> None:
        seen.append((message.producer, message.data))

    async with harness(Doing, context=note, producer=producers) as h:
        await h.send(b"1", producer="shop")
        await h.send(b"2", producer="web")
        with pytest.raises(ValueError, match=r"^send: expected producer= with one of web, shop, got none$"):
            await h.send(b"3")
        sentence = "send(producer='shp'): unknown; known: web, shop; did you mean 'shop'?"
        with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
            await h.send(b"3", producer="shp")

    assert seen == [("shop", b"1"), ("web", b"2")]


async def test_the_pipeline_is_of_the_users_class_and_takes_its_options() -> None:
    async with harness(Orders, name="shop", processors=Processors(concurrency=1)) as h:
        assert type(h.pipeline) is Orders
        assert h.pipeline.name == "shop"
        assert h.pipeline.topology()["producers"][0]["name"] == "shop.producer:queue"


async def test_a_wrong_option_is_refused_as_always() -> None:
    with pytest.raises(OptionsError, match=r"^procesors: unknown option; known: .*; did you mean 'processors'\?$"):
        async with harness(Orders, procesors=Processors()):
            pass


def test_an_object_in_the_place_of_its_class_is_refused() -> None:
    with pytest.raises(TypeError) as error:
        harness(Orders())  # type: ignore[arg-type]  # as users without mypy do it

    assert str(error.value) == (
        "harness: expected the class of a pipeline, got an Orders; give the class and its options: "
        "harness(Orders, context=…)"
    )


def test_without_a_loop_of_asyncio_it_says_what_to_do() -> None:
    entering = harness(Orders).__aenter__()

    with pytest.raises(RuntimeError) as error:
        entering.send(None)

    assert str(error.value) == (
        "a harness needs an event loop of asyncio, and none runs. With anyio, let a fixture anyio_backend return "
        '"asyncio"'
    )


async def test_a_function_may_make_the_pipeline() -> None:
    def make(**options: Any) -> Orders:
        return Orders(name="made", **options)

    async with harness(make) as h:
        await h.send({"number": 1})
        assert h.pipeline.name == "made"
        assert h.outcomes.counts == {"acked": 1}


async def test_without_async_with_nothing_runs() -> None:
    h = harness(Orders)
    sentence = "the harness does not run: use it as `async with harness(Orders) as h:`"

    for call in (lambda: h.pipeline, lambda: h.published):
        with pytest.raises(PipelineNotRunning, match=f"^{re.escape(sentence)}$"):
            call()
    with pytest.raises(PipelineNotRunning, match=f"^{re.escape(sentence)}$"):
        await h.send(b"")


# --- failures -------------------------------------------------------------------------------------------------------


async def test_a_failed_message_is_tried_again_on_the_clock_of_the_test_and_then_dead_lettered() -> None:
    async with harness(Orders) as h:
        await h.send({"number": -1}, id="a")
        assert h.outcomes["a"] == "retried"
        assert (h.outcomes["a"].attempt, h.outcomes["a"].cause, h.outcomes["a"].delay) == (1, "raised", 1.0)
        assert h.outcomes["a"].reason == "ValueError: negative"
        assert type(h.outcomes["a"].exception) is ValueError

        await h.advance(0.9)
        assert h.pipeline.handled == [(-1, 1)]
        await h.advance(0.1)
        assert h.pipeline.handled == [(-1, 1), (-1, 2)]
        await h.advance(1.9)
        assert len(h.pipeline.handled) == 2
        await h.advance(0.1)

        assert h.outcomes["a"] == "dead_lettered"
        assert h.outcomes.history("a") == ["retried", "retried", "dead_lettered"]
        (letter,) = h.dead_letters
        assert (letter.id, letter.data, letter.cause, letter.attempts) == ("a", b'{"number":-1}', "raised", 3)
        assert (letter.exception, letter.reason, letter.producer) == ("ValueError", "ValueError: negative", "queue")
        assert letter.headers == {
            "x-broadway-queue": "queue",
            "x-broadway-attempts": 3,
            "x-broadway-cause": "raised",
            "x-broadway-exception": "ValueError",
            "x-broadway-first-failed-at": "2023-11-14T22:13:20Z",
            "x-broadway-failed-at": "2023-11-14T22:13:23Z",
            "x-broadway-pipeline": "Orders",
        }


async def test_what_does_not_fit_the_schema_is_a_dead_letter_at_once() -> None:
    async with harness(Orders) as h:
        await h.send("nonsense", id="a")

        assert (h.outcomes["a"], h.outcomes["a"].cause) == ("dead_lettered", "invalid")


@pytest.mark.parametrize(
    ("policy", "raised", "expected"),
    [
        (FailurePolicy(attempts=1, final="drop"), ValueError(), "dropped"),
        (FailurePolicy(attempts=1, final="reject"), ValueError(), "rejected"),
        (FailurePolicy(), Reject("no"), "dead_lettered"),
        (FailurePolicy(), RetryLater(after=7.0), "retried"),
        (FailurePolicy(), Unavailable("away"), "returned"),
        (FailurePolicy(classify={KeyError: "drop"}), KeyError(), "dropped"),
        (FailurePolicy(attempts=1, final="stop"), ValueError(), "returned"),
    ],
)
async def test_each_policy_leads_to_its_outcome(policy: FailurePolicy, raised: Exception, expected: str) -> None:
    async def fail(message: Message[Any]) -> None:
        raise raised

    async with harness(Doing, context=fail, failure=policy) as h:
        await h.send(b"", id="a")
        assert h.outcomes["a"] == expected
        await h.stop()


async def test_retry_later_says_when() -> None:
    async def later(message: Message[Any]) -> None:
        if message.attempt == 1:
            raise RetryLater(after=30)

    async with harness(Doing, context=later) as h:
        await h.send(b"", id="a")
        assert h.outcomes["a"].delay == 30
        assert str(h.left[0]) == "'a': attempt 2 comes in 30 s: await h.advance(30)"
        await h.advance(30)
        assert h.outcomes["a"] == "acked"


async def test_a_service_that_is_away_costs_no_attempt_and_the_breaker_lets_one_through_when_it_is_back() -> None:
    is_away = True
    attempts: list[int | None] = []

    async def call(message: Message[Any]) -> None:
        attempts.append(message.attempt)
        if is_away:
            raise Unavailable("the database is away")

    async with harness(Doing, context=call, failure=FailurePolicy(attempts=2)) as h:
        await h.send(b"", id="a")
        for _ in range(5):
            await h.advance(60)
        assert set(attempts) == {1}
        is_away = False
        await h.advance(600)

        assert h.outcomes["a"] == "acked"


@pytest.mark.parametrize(
    ("on_failure", "expected"),
    [("dead_letter", "dead_lettered"), ("drop", "dropped")],
)
async def test_the_settings_of_the_source_decide_where_they_would(on_failure: Any, expected: str) -> None:
    async def fail(message: Message[Any]) -> None:
        raise ValueError

    producer = QueueProducer("never-opened.db", "orders", on_failure=on_failure)
    async with harness(Doing, context=fail, producer=producer) as h:
        await h.send(b"", id="a")
        assert h.outcomes["a"] == expected


async def test_a_message_may_be_configured_alone() -> None:
    async def fail(message: Message[Any]) -> None:
        message.configure_ack(on_failure="drop")
        message.fail("no")

    async with harness(Doing, context=fail) as h:
        await h.send(b"", id="a")
        assert (h.outcomes["a"], h.outcomes["a"].reason) == ("dropped", "no")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"retries": 1}, "configure_ack(retries=…): the broker of a test knows on_success and on_failure only"),
        (
            {"on_failure": "perhaps"},
            (
                "configure_ack(on_failure=…): expected one of ack, drop, dead_letter, reject, reject_and_requeue, "
                "reject_and_requeue_once, noop, nack, got 'perhaps'"
            ),
        ),
    ],
)
async def test_a_wrong_configuration_is_refused(options: dict[str, Any], sentence: str) -> None:
    async def configure(message: Message[Any]) -> None:
        message.configure_ack(**options)

    async with harness(Doing, context=configure, failure=FailurePolicy(attempts=1)) as h:
        await h.send(b"", id="a")
        assert h.outcomes["a"].reason == f"ValueError: {sentence}"


async def test_what_was_acked_by_hand_stays_acked() -> None:
    async def ack_and_fail(message: Message[Any]) -> None:
        await ack_immediately(message)
        raise ValueError

    async with harness(Doing, context=ack_and_fail) as h:
        await h.send(b"", id="a")
        assert h.outcomes.history("a") == ["acked"]


async def test_ordered_messages_of_a_key_wait_for_the_one_that_failed() -> None:
    seen: list[tuple[str, str, int | None]] = []
    failures = {"1"}

    async def note(message: Message[Any]) -> None:
        seen.append((message.metadata["key"], message.metadata["message_id"], message.attempt))
        if message.metadata["message_id"] in failures:
            failures.clear()
            raise ValueError

    def key(message: Message[Any]) -> str:
        return str(message.metadata["key"])

    async with harness(Doing, context=note, partition_by=key, ordered=True) as h:
        await h.send_batch([b""] * 4, keys=["x", "x", "y", "x"])
        assert [seen_id for _, seen_id, _ in seen if seen_id != "3"] == ["1"]
        await h.advance(1)

    assert [one for one, *_ in [(seen_id, key) for key, seen_id, _ in seen if key == "x"]] == ["1", "1", "2", "4"]


# --- time -----------------------------------------------------------------------------------------------------------


async def test_a_batch_waits_for_its_size_or_its_time() -> None:
    async with harness(Batched) as h:
        await h.send_batch(["a", "b"])
        assert h.pipeline.batches == []
        assert [left.id for left in h.left] == ["1", "2"]
        assert str(h.left[0]) == (
            "'1': the pipeline has it (attempt 1), in a handler, a batch or a window, or behind a limit; "
            "let time pass: await h.advance(…)"
        )
        await h.send("c")
        assert h.pipeline.batches == [([b"a", b"b", b"c"], "size")]
        await h.send("d")
        await h.advance(2)
        assert h.pipeline.batches[1:] == [([b"d"], "timeout")]
        assert h.outcomes.count("acked") == 4


async def test_a_rate_limit_follows_the_clock_of_the_test() -> None:
    async with harness(Orders, rate_limit=RateLimit(allowed_messages=2, interval=10)) as h:
        await h.send_batch([{"number": number} for number in range(5)])
        assert len(h.pipeline.handled) == 2
        await h.advance(10)
        assert len(h.pipeline.handled) == 4
        await h.advance(10)
        assert h.outcomes.counts == {"acked": 5}


async def test_a_time_out_ends_what_hangs() -> None:
    async def hang(message: Message[Any]) -> None:
        await asyncio.Event().wait()

    policy = FailurePolicy(attempts=1)
    async with harness(Doing, context=hang, processors=Processors(timeout=5), failure=policy) as h:
        await h.send(b"", id="a")
        assert h.left[0].where == "at work"
        await h.advance(5)

        assert (h.outcomes["a"], h.outcomes["a"].cause) == ("dead_lettered", "timeout")


async def test_what_is_slow_takes_time_of_the_tests_clock() -> None:
    async def slow(message: Message[Any]) -> None:
        await h.clock.sleep(30)

    async with harness(Doing, context=slow) as h:
        await h.send_batch([b""] * 3)
        await h.advance(29)
        assert len(h.left) == 3
        await h.advance(1)
        assert h.outcomes.counts == {"acked": 3}


@pytest.mark.parametrize("how", ["thread", "timer", "awaitable", "task"])
async def test_what_happens_outside_of_the_loop_is_waited_for(how: str) -> None:
    may_go_on = threading.Event()

    async def work(message: Message[Any]) -> None:
        if how == "thread":
            await asyncio.to_thread(may_go_on.wait, 5)
        elif how == "timer":
            await asyncio.sleep(0.01)
        elif how == "awaitable":
            await asyncio.get_running_loop().run_in_executor(None, may_go_on.wait, 5)
        else:
            await asyncio.gather(*(asyncio.to_thread(may_go_on.wait, 5) for _ in range(2)))

    async with harness(Doing, context=work) as h:
        asyncio.get_running_loop().call_later(0.02, may_go_on.set)
        await h.send(b"", id="a")
        assert h.outcomes["a"] == "acked"


async def test_plain_functions_run_in_threads_and_are_waited_for() -> None:
    class Plain(Pipeline[Any]):
        batchers = {"default": Batcher(batch_size=2)}  # noqa: RUF012  # never changed

        def setup(self) -> None:
            self.threads: set[str] = set()

        def handle_message(self, message: Message[Any]) -> None:
            self.threads.add(threading.current_thread().name)

        def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            self.threads.add(threading.current_thread().name)

    async with harness(Plain) as h:
        await h.send_batch([b"1", b"2"])
        assert h.outcomes.counts == {"acked": 2}
        assert threading.current_thread().name not in h.pipeline.threads


async def test_a_plain_function_may_take_time_of_the_tests_clock_and_time_out() -> None:
    class Slow(Pipeline[Any]):
        processors = Processors(concurrency=1, timeout=10)
        failure = FailurePolicy(attempts=2, backoff=(1, 1))

        def handle_message(self, message: Message[Any]) -> None:
            if message.data == b"slow":
                h.clock.block(60 if message.attempt == 1 else 5)

    async with harness(Slow) as h:
        await h.send("slow", id="slow")
        await h.send("quick", id="quick")
        assert h.outcomes == {}
        await h.advance(10)
        assert (h.outcomes["slow"], h.outcomes["slow"].cause) == ("retried", "timeout")
        # The slot is taken until the thread returns.
        assert "quick" not in h.outcomes
        await h.advance(50)
        # The second attempt is at work in the same thread.
        assert h.clock.blocked == 1
        await h.advance(5)
        assert h.outcomes == {"slow": "acked", "quick": "acked"}


async def test_a_thread_that_works_is_waited_for_also_while_another_one_is_blocked() -> None:
    may_go_on = threading.Event()

    class Mixed(Pipeline[Any]):
        processors = Processors(concurrency=2, max_demand=1)

        def handle_message(self, message: Message[Any]) -> None:
            if message.data == b"blocked":
                h.clock.block(math.inf)
            else:
                may_go_on.wait(5)

    async with harness(Mixed) as h:
        await h.send("blocked", id="blocked")
        asyncio.get_running_loop().call_later(0.02, may_go_on.set)
        await h.send("works", id="works")
        assert h.outcomes == {"works": "acked"}
        assert not (await h.stop()).in_time
    assert h.clock.blocked == 0


async def test_blocking_the_event_loop_is_refused() -> None:
    with pytest.raises(RuntimeError) as error:
        FakeClock().block(1)

    assert str(error.value) == "block() would stop the event loop, and with it the clock: await clock.sleep(…)"


async def test_time_does_not_run_back() -> None:
    async with harness(Orders) as h:
        sentence = "advance(…): expected 0 or more seconds, because time does not run back, got -1"
        with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
            await h.advance(-1)


async def test_callbacks_in_worker_processes_are_waited_for() -> None:
    processors = Processors(concurrency=1, executor="process")
    async with harness(InProcess, processors=processors, patience=60) as h:
        await h.send_batch([b"1", b"22"])
        assert h.outcomes.counts == {"acked": 1, "retried": 1}
        await h.advance(1)
        assert h.outcomes.counts == {"acked": 1, "dead_lettered": 1}


async def waits_for_a_socket(message: Message[Any]) -> None:
    await asyncio.sleep(3600)


async def test_what_is_outside_for_too_long_is_named() -> None:
    h = harness(Doing, context=waits_for_a_socket, patience=0.05)
    with pytest.raises(StillAtWork) as error:
        async with h:
            await h.send(b"", id="a")

    line = waits_for_a_socket.__code__.co_firstlineno + 1
    assert str(error.value) == (
        f"not quiet after 0.05 s of real time: waits_for_a_socket (test_harness.py:{line}) waits for something "
        "outside of the test, or takes long. Give it a fake that answers at once, or one that takes time of the "
        "test's clock: await h.clock.sleep(…); the argument patience= sets the limit"
    )
    assert not h.pipeline.is_running


async def test_a_plain_function_that_takes_too_long_is_named_by_its_thread() -> None:
    may_end = threading.Event()

    class Slow(Pipeline[Any]):
        def handle_message(self, message: Message[Any]) -> None:
            may_end.wait(20)

    async with harness(Slow, patience=0.05) as h:
        try:
            with pytest.raises(StillAtWork) as error:
                await h.send(b"")
        finally:
            may_end.set()

    line = Slow.handle_message.__code__.co_firstlineno + 1
    assert re.search(rf"Slow\.handle_message \(test_harness\.py:{line}\) waits for something", str(error.value))


async def test_a_task_that_never_rests_is_told() -> None:
    rested = False

    async def spin(message: Message[Any]) -> None:
        while not rested:
            await asyncio.sleep(0)

    async with harness(Doing, context=spin, patience=0.05) as h:
        with pytest.raises(StillAtWork) as error:
            await h.send(b"")
        rested = True

    assert str(error.value) == (
        "not quiet after 0.05 s of processor time: a task runs again and again without waiting for anything, such as a "
        "loop around asyncio.sleep(0); let it wait for an event"
    )


async def test_a_handler_that_waits_for_the_test_does_not_hold_it_up() -> None:
    gate = asyncio.Event()

    async def wait(message: Message[Any]) -> None:
        await gate.wait()

    async with harness(Doing, context=wait) as h:
        await h.send_batch([b""] * 2)
        assert [left.where for left in h.left] == ["at work"] * 2
        gate.set()
        await h.advance(0)
        assert h.outcomes.counts == {"acked": 2}


async def test_the_clock_is_known_also_where_a_socket_may_wake_the_loop() -> None:
    async def slow(message: Message[Any]) -> None:
        await h.clock.sleep(30)

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0), harness(Doing, context=slow) as h:
        await h.send(b"", id="a")
        await h.advance(30)
        assert h.outcomes["a"] == "acked"


async def test_a_handler_that_waits_for_a_task_that_waits_for_a_thread_is_waited_for() -> None:
    done = asyncio.Event()
    may_go_on = threading.Event()

    async def fetch() -> None:
        await asyncio.to_thread(may_go_on.wait, 5)
        done.set()

    async def wait(message: Message[Any]) -> None:
        fetching = asyncio.create_task(fetch())
        await done.wait()
        await fetching

    async with harness(Doing, context=wait) as h:
        asyncio.get_running_loop().call_later(0.02, may_go_on.set)
        await h.send(b"", id="a")
        assert h.outcomes["a"] == "acked"


# --- what a broker may do -------------------------------------------------------------------------------------------


async def test_a_message_may_come_again_although_it_was_acked() -> None:
    async with harness(Orders) as h:
        await h.send({"number": 1}, id="a")
        await h.redeliver("a")

        assert h.pipeline.handled == [(1, 1), (1, 2)]
        assert h.outcomes.history("a") == ["acked", "acked"]


async def test_a_message_may_come_again_while_it_is_at_work() -> None:
    gate = asyncio.Event()
    seen: list[tuple[int | None, bool]] = []

    async def wait(message: Message[Any]) -> None:
        seen.append((message.attempt, message.metadata["redelivered"]))
        await gate.wait()

    async with harness(Doing, context=wait) as h:
        await h.send(b"", id="a")
        await h.redeliver("a")
        assert seen == [(1, False), (2, True)]
        gate.set()
        await h.advance(0)
        assert h.outcomes.history("a") == ["acked", "acked"]


async def test_only_what_was_sent_can_come_again() -> None:
    async with harness(Orders) as h:
        await h.send({"number": 1}, id="first")
        with pytest.raises(ValueError, match=r"^redeliver: no message 'frist' was sent; did you mean 'first'\?$"):
            await h.redeliver("frist")


async def test_after_a_crash_what_was_not_settled_comes_again() -> None:
    ended: list[str] = []

    class Crashing(Orders):
        async def handle_message(self, message: Message[Order]) -> None:
            await super().handle_message(message)
            if message.attempt == 1 and message.data.number == 2:
                await self.clock.sleep(math.inf)

        async def teardown(self) -> None:
            ended.append("teardown")

    async with harness(Crashing) as h:
        first = h.pipeline
        await h.send({"number": 1}, id="done")
        await h.send({"number": 2}, id="at work")
        await h.send({"number": -3}, id="retry")
        await h.crash()

        assert ended == []
        assert h.pipeline is not first
        assert h.pipeline.handled == [(2, 2)]
        assert h.outcomes.history("at work") == ["unknown", "acked"]
        assert h.outcomes.history("done") == ["acked"]
        assert h.outcomes["retry"] == "retried"
        await h.advance(1)
        assert h.pipeline.handled == [(2, 2), (-3, 2)]
        await h.advance(2)
    assert ended == ["teardown"]


async def test_after_a_crash_open_batches_are_gathered_anew() -> None:
    async with harness(Batched) as h:
        await h.send_batch(["a", "b"])
        await h.crash()
        await h.send("c")
        assert h.pipeline.batches == [([b"a", b"b", b"c"], "size")]
        assert h.outcomes.history("1") == ["unknown", "acked"]


async def test_what_is_left_of_a_dead_process_settles_nothing() -> None:
    async def linger(message: Message[Any]) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if message.attempt == 1:
                message.fail("too late")
            return

    async with harness(Doing, context=linger, failure=FailurePolicy(attempts=1)) as h:
        await h.send(b"", id="a")
        await h.crash()
        assert h.outcomes.history("a") == ["unknown"]
        assert h.left[0].attempt == 2
        ended = await h.stop()
        assert not ended.in_time


async def test_a_pipeline_may_crash_again_and_again() -> None:
    async with harness(Orders) as h:
        for number in range(5):
            await h.send({"number": number})
            await h.crash()
        assert h.outcomes.counts == {"acked": 5}


# --- the end --------------------------------------------------------------------------------------------------------


async def test_leaving_flushes_batches() -> None:
    async with harness(Batched) as h:
        await h.send("a", id="a")

    assert h.pipeline.batches == [([b"a"], "flush")]
    assert h.outcomes == {"a": "acked"}


async def test_leaving_tells_what_waits_for_a_retry() -> None:
    with pytest.warns(MessagesLeft) as told:
        async with harness(Orders) as h:
            await h.send({"number": -1}, id="a")

    (warning,) = told
    assert warning.filename == __file__
    assert str(warning.message) == (
        "1 messages have no final outcome: 'a': attempt 2 comes in 1 s: await h.advance(1). If that is what the test "
        "wants, let it say so: (await h.stop()).left"
    )


async def test_of_many_messages_ten_are_told() -> None:
    with pytest.warns(MessagesLeft) as told:
        async with harness(Orders) as h:
            await h.send_batch([{"number": -1}] * 12)

    (warning,) = told
    assert str(warning.message).startswith("12 messages have no final outcome: '1': attempt 2 comes in 1 s: ")
    assert str(warning.message).endswith(
        "; '10': attempt 2 comes in 1 s: await h.advance(1); and 2 more. If that is what the test wants, let it say "
        "so: (await h.stop()).left"
    )


async def test_a_test_that_asks_for_what_is_left_is_not_told() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with harness(Orders) as h:
            await h.send({"number": -1}, id="a")
            ended = await h.stop()
            assert [(left.id, left.where, left.attempt, left.due_in) for left in ended.left] == [("a", "retry", 2, 1.0)]
            assert ended.in_time
            assert ended.outcomes["retried"] == 1
            assert await h.stop() is ended


async def test_a_handler_that_waits_for_the_clock_is_cut_off_at_the_deadline() -> None:
    async def hang(message: Message[Any]) -> None:
        await h.clock.sleep(math.inf)

    async with harness(Doing, context=hang, shutdown_timeout=25.0) as h:
        await h.send(b"", id="a")
        ended = await h.stop()

    assert not ended.in_time
    assert [(left.id, left.where) for left in ended.left] == [("a", "ready")]
    assert str(ended.left[0]) == (
        "'a': the pipeline gave it back before its handler had ended, and attempt 1 waits until a pipeline takes it"
    )
    assert h.outcomes["a"] == "returned"


async def test_a_teardown_that_never_ends_is_told_and_cancelled() -> None:
    cancelled = False

    class Hanging(Orders):
        async def teardown(self) -> None:
            nonlocal cancelled
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled = True
                raise

    with pytest.raises(StillAtWork) as error:
        async with harness(Hanging, patience=0.1):
            pass

    assert str(error.value) == (
        "the pipeline does not end: teardown, or something that a handler has started, waits for what never comes"
    )
    assert cancelled


async def test_a_handler_that_ignores_its_cancellation_is_left_behind() -> None:
    may_end = asyncio.Event()

    async def stubborn(message: Message[Any]) -> None:
        while not may_end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await may_end.wait()

    try:
        async with harness(Doing, context=stubborn) as h:
            await h.send(b"", id="a")
            ended = await h.stop()
    finally:
        may_end.set()

    assert not ended.in_time
    assert [left.id for left in ended.left] == ["a"]


async def test_the_error_of_a_test_is_what_is_raised() -> None:
    h = harness(Doing, context=lambda _: asyncio.Event().wait())

    async def fail() -> None:
        async with h:
            await h.send(b"")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert not h.pipeline.is_running


async def test_a_crash_of_the_pipeline_reaches_the_test() -> None:
    class Broken(Batched):
        max_restarts = 0

    async def crash() -> None:
        async with h:
            h.pipeline._meters["processors"].duration = None  # type: ignore[assignment]  # a defect of ours
            await h.send("a")

    h = harness(Broken)
    with pytest.raises(PipelineCrashed, match=r"^pipeline 'Broken': processors crashed too often "):
        await crash()
    assert not h.pipeline.is_running


async def test_what_setup_raises_reaches_the_test() -> None:
    class Refusing(Orders):
        async def setup(self) -> None:
            raise ConnectionError("no database")

    with pytest.raises(ConnectionError, match=r"^no database$"):
        async with harness(Refusing):
            pass


async def test_a_pipeline_that_does_not_rest_at_its_start_is_ended() -> None:
    rested = False

    class Busy(Orders):
        async def setup(self) -> None:
            self.task = asyncio.ensure_future(self.spin())

        async def teardown(self) -> None:
            nonlocal rested
            rested = True
            await self.task

        async def spin(self) -> None:
            while not rested:
                await asyncio.sleep(0)

    h = harness(Busy, patience=0.05)
    with pytest.raises(StillAtWork, match=r"^not quiet after 0\.05 s of processor time: "):
        async with h:
            pass
    assert rested
    assert not h.pipeline.is_running


async def test_a_setup_that_never_ends_is_told() -> None:
    class Hanging(Orders):
        async def setup(self) -> None:
            await asyncio.Event().wait()

    with pytest.raises(StillAtWork) as error:
        async with harness(Hanging):
            pass

    assert re.fullmatch(
        r"setup of the pipeline does not end: test_a_setup_that_never_ends_is_told\.<locals>\.Hanging\.setup "
        r"\(test_harness\.py:\d+\) waits for something that never comes, or for time, which stands still here",
        str(error.value),
    )


# --- what a test asks for in vain -----------------------------------------------------------------------------------


async def test_an_outcome_that_is_not_there_says_why() -> None:
    async with harness(Batched) as h:
        await h.send("a", id="waiting")
        with pytest.raises(NoOutcome) as error:
            h.outcomes["waiting"]
        assert str(error.value) == (
            "message 'waiting' has no outcome yet: the pipeline has it (attempt 1), in a handler, a batch or a window, "
            "or behind a limit; let time pass: await h.advance(…)"
        )
        with pytest.raises(KeyError) as missing:
            h.outcomes["wating"]
        assert str(missing.value) == "no message 'wating' was sent; sent: 'waiting'; did you mean 'waiting'?"
        assert "waiting" not in h.outcomes


async def test_the_story_tells_each_delivery() -> None:
    async with harness(Orders) as h:
        await h.send({"number": -1}, id="a")
        await h.advance(1)
        assert h.story().splitlines() == [
            "    0.00 s  'a' <retried at attempt 1, raised: ValueError, again in 1 s>",
            "    1.00 s  'a' <retried at attempt 2, raised: ValueError, again in 2 s>",
            "      left  'a': attempt 3 comes in 2 s: await h.advance(2)",
        ]
        await h.advance(2)


async def test_the_story_of_a_failed_test_ends_at_its_error() -> None:
    async def hang(message: Message[Any]) -> None:
        if message.data == b"bad":
            raise ValueError
        await h.clock.sleep(math.inf)

    h = harness(Doing, context=hang, failure=FailurePolicy(attempts=3, backoff=(1.0, 60.0)))

    async def failing() -> None:
        async with h:
            await h.send("bad", id="a")
            await h.send("slow", id="b")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await failing()
    assert h.story().splitlines() == [
        "    0.00 s  'a' <retried at attempt 1, raised: ValueError, again in 1 s>",
        "      left  'a': attempt 2 comes in 1 s: await h.advance(1)",
        (
            "      left  'b': the pipeline has it (attempt 1), in a handler, a batch or a window, or behind a limit; "
            "let time pass: await h.advance(…)"
        ),
    ]


# --- windows --------------------------------------------------------------------------------------------------------


@dataclass
class Sale:
    country: str
    amount: int
    at: float


class Revenue(Aggregator[str, Sale, int]):
    window = Window.fixed("1m", by=lambda message: message.data.at, delay="10s", max_ahead=None)

    def key(self, message: Message[Sale]) -> str:
        return message.data.country

    def initial(self) -> int:
        return 0

    def add(self, total: int, message: Message[Sale]) -> int:
        return total + message.data.amount

    async def emit(self, results: list[WindowResult[str, int]]) -> None:
        self.context.extend((result.key, result.value) for result in results)


class Shop(Pipeline[Sale]):
    schema = Sale
    producer = QueueProducer("never-opened.db", "sales")
    aggregators = {"revenue": Revenue}  # noqa: RUF012  # never changed
    state = "never-made/shop.db"

    async def handle_message(self, message: Message[Sale]) -> None:
        message.batcher = "revenue"


async def test_a_message_of_a_window_is_acked_with_the_checkpoint_and_counts_once(tmp_path: Path) -> None:
    results: list[tuple[str, int]] = []
    async with harness(Shop, context=results) as h:
        await h.send(Sale("de", 5, 1_000_020.0), id="a")
        assert "a" not in h.outcomes
        await h.advance(0.1)
        assert h.outcomes["a"] == "acked"

        await h.redeliver("a")
        await h.send(Sale("de", 7, 1_000_030.0), id="b")
        await h.crash()
        await h.advance(0.1)
        assert h.outcomes["b"] == "acked"
        await h.send(Sale("fr", 1, 1_000_100.0), id="c")
        await h.advance(0.1)

        assert results == [("de", 12)]
        assert not Path("never-made").exists()


async def test_results_that_go_to_a_sink_are_published() -> None:
    class Sending(Revenue):
        emit_to = QueueSink("never-opened.db", "revenue")

    async with harness(Shop, aggregators={"revenue": Sending}) as h:
        await h.send_batch([Sale("de", 5, 1_000_020.0), Sale("fr", 1, 1_000_100.0)])
        await h.advance(0.1)

        (result,) = h.published["revenue"]
        assert json.loads(result.data)["value"] == 5
        assert result.message_id is not None


async def test_each_partition_has_its_own_windows_and_a_key_lies_in_one_of_them() -> None:
    results: list[tuple[str, int]] = []
    producer = QueueProducer("never-opened.db", "sales", partitions=2)
    countries = ["de", "fr", "it", "es"]
    async with harness(Shop, context=results, producer=producer) as h:
        for _ in range(2):
            await h.send_batch([Sale(country, 1, 1_000_020.0) for country in countries], keys=countries)
        await h.crash()
        await h.send_batch([Sale(country, 1, 1_000_100.0) for country in countries], keys=countries)
        await h.advance(1)
        assert h.outcomes.counts == {"acked": 12}
        assert {stats.name for stats in h.pipeline.stats().producers if stats.received} == {"queue.0", "queue.1"}
    assert sorted(results) == [("de", 2), ("es", 2), ("fr", 2), ("it", 2)]


class Forwarding(Pipeline[Any]):
    publishers = {"out": QueuePublisher("never-opened.db", "out")}  # noqa: RUF012  # never changed

    async def handle_message(self, message: Message[Any]) -> None:
        await self.publishers["out"].publish(message, key="k")


async def test_what_handlers_publish_is_in_lists() -> None:
    async with harness(Forwarding) as h:
        await h.send("hello", id="a")
        assert h.outcomes["a"] == "acked"
        assert [(one.data, one.message_id, one.key) for one in h.published["out"]] == [(b"hello", "a", "k")]
        await h.crash()
        await h.redeliver("a")
        assert [one.message_id for one in h.published["out"]] == ["a", "a"]
        with pytest.raises(KeyError) as error:
            h.published["outt"]
        assert error.value.args == ("no publisher or aggregator 'outt' publishes; known: 'out'; did you mean 'out'?",)


async def test_a_memory_publisher_of_the_test_stays_and_may_be_away() -> None:
    out = MemoryPublisher()
    async with harness(Forwarding, publishers={"out": out}) as h:
        out.go_away()
        await h.send("hello", id="a")
        assert "a" not in h.outcomes
        out.come_back()
        await h.advance(60)
        assert h.outcomes["a"] == "acked"
        assert list(h.published["out"]) == out.messages
        assert [one.data for one in out.messages] == [b"hello"]


async def test_the_publishers_of_a_settings_file_are_exchanged(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
pipelines:
  forward:
    class: tests.testing.test_harness:Forwarding
    producer: {kind: queue, path: never-opened.db, queue: in}
    publishers: {out: {kind: queue, path: never-made/out.db, queue: out}}
""",
    )
    async with harness.from_settings(file) as h:
        await h.send("hello")
        assert [one.data for one in h.published["out"]] == [b"hello"]


async def test_a_state_that_the_test_gives_stays_where_it_is(tmp_path: Path) -> None:
    async with harness(Shop, context=[], state=State(tmp_path / "own.db")) as h:
        await h.send(Sale("de", 5, 1_000_020.0))
        await h.advance(0.1)

    assert (tmp_path / "own.db").exists()


# --- settings -------------------------------------------------------------------------------------------------------


FILE = """
pipelines:
  orders:
    class: tests.testing.test_harness:Orders
    producer: {kind: queue, path: "${DIRECTORY}/orders.db", queue: orders, name: incoming}
    failure: {attempts: 2}
  batched:
    class: tests.testing.test_harness:Batched
    producer: {kind: queue, path: never-opened.db, queue: orders}
    batchers: {default: {batch_size: 2}}
"""


def written(tmp_path: Path, text: str = FILE) -> Path:
    (tmp_path / "shop.yaml").write_text(text)
    return tmp_path / "shop.yaml"


async def test_a_pipeline_of_a_settings_file(tmp_path: Path) -> None:
    h = harness.from_settings(written(tmp_path), pipeline="orders", environ={"DIRECTORY": "nowhere"})
    async with h:
        assert isinstance(h.pipeline, Orders)
        assert (h.pipeline.name, h.pipeline.failure) == ("orders", FailurePolicy(attempts=2, backoff=(1.0, 60.0)))
        await h.send({"number": -1}, id="a", producer="incoming")
        await h.advance(1)
        assert h.outcomes["a"] == "dead_lettered"

    async with harness.from_settings(
        written(tmp_path),
        pipeline="batched",
        environ={"DIRECTORY": "nowhere", "BROADWAY_PIPELINES__BATCHED__BATCHERS__DEFAULT__BATCH_SIZE": "1"},
        name="other",
    ) as other:
        await other.send("a")
        assert isinstance(other.pipeline, Batched)
        assert other.pipeline.batches == [([b"a"], "size")]
        assert other.pipeline.name == "other"


async def test_a_settings_file_is_checked_as_the_daemon_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIRECTORY", "the test does not see it")
    with pytest.raises(OptionsError) as error:
        harness.from_settings(written(tmp_path), pipeline="batched")
    assert str(error.value).startswith(f"{tmp_path}/shop.yaml:5: pipelines.orders.producer.path: ")
    assert error.value.__notes__ == ["a harness sees only the variables that it is given: environ={…}"]

    with pytest.raises(OptionsError) as error:
        harness.from_settings(
            written(tmp_path, FILE.replace("attempts", "atempts")), pipeline="batched", environ={"DIRECTORY": "x"}
        )
    assert str(error.value).startswith(f"{tmp_path}/shop.yaml:6: pipelines.orders.failure.atempts: unknown setting; ")
    assert not hasattr(error.value, "__notes__")


def test_a_pipeline_that_is_not_in_the_file_is_told(tmp_path: Path) -> None:
    environ = {"DIRECTORY": "x"}
    with pytest.raises(BroadwayError) as error:
        harness.from_settings(written(tmp_path), environ=environ)
    assert str(error.value) == "from_settings: expected pipeline= with one of orders, batched, got none"
    with pytest.raises(BroadwayError) as error:
        harness.from_settings(written(tmp_path), pipeline="order", environ=environ)
    assert str(error.value) == (
        "from_settings: there is no pipeline 'order'; known: orders, batched; did you mean 'orders'?"
    )


def test_harness_is_the_class() -> None:
    assert harness is Harness
