"""Whatever code of a user lets out, returns or leaves in a message harms that message at most."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadway_py import (
    Batcher,
    BatchInfo,
    FailurePolicy,
    Message,
    OptionsError,
    Pipeline,
    Processors,
    Reject,
    RetryLater,
)
from broadway_py.errors import SettleError
from broadway_py.message import Failed
from broadway_py.producers import MemoryProducer
from tests.pipeline.support import Recorder, check_books, outcomes, soon

ONE_BY_ONE: Final = {"default": Batcher(batch_size=1)}


class Panic(BaseException):
    """As pyo3_runtime.PanicException."""


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise Panic("no")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def poison(message: Message[int], error: BaseException) -> None:
    if message.data == 3:
        raise error


class Base(Pipeline[int]):
    processors = Processors(concurrency=1, max_demand=1, min_demand=0)
    failure = None

    async def handle_message(self, message: Message[int]) -> Any:
        pass


class InLoop(Base):
    async def handle_message(self, message: Message[int]) -> None:
        poison(message, self.context)


class InThread(Pipeline[int]):
    processors = Base.processors
    failure = None

    def handle_message(self, message: Message[int]) -> Any:
        poison(message, self.context)


class InPrepare(Base):
    async def prepare_messages(self, messages: list[Message[int]]) -> None:
        poison(messages[0], self.context)


class InBatch(Base):
    batchers = ONE_BY_ONE

    async def handle_batch(self, messages: list[Message[int]], info: BatchInfo) -> None:
        poison(messages[0], self.context)


class InThreadedBatch(Base):
    batchers = ONE_BY_ONE

    def handle_batch(self, messages: list[Message[int]], info: BatchInfo) -> None:
        poison(messages[0], self.context)


class InKey(Base):
    def partition_by(self, message: Message[int]) -> int:
        poison(message, self.context)
        return 1


class InHandleFailed(InLoop):
    def handle_failed(self, messages: list[Message[int]]) -> None:
        raise self.context


EVERYWHERE = [InLoop, InThread, InPrepare, InBatch, InThreadedBatch, InKey, InHandleFailed]


async def outcome(cls: type[Pipeline[Any]], recorder: Recorder, **options: Any) -> Pipeline[Any]:
    pipeline = cls(producer=MemoryProducer(recorder.messages(range(6))), **options)
    async with pipeline:
        await soon(pipeline.wait())
    return pipeline


@pytest.mark.parametrize("cls", EVERYWHERE)
@pytest.mark.parametrize(
    "error",
    [Panic("boom"), GeneratorExit(), SystemExit(3), BaseExceptionGroup("two", [Panic("boom")]), Unspeakable()],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_a_callback_lets_out_fails_its_message_alone(
    cls: type[Pipeline[Any]], error: BaseException
) -> None:
    recorder = Recorder()

    pipeline = await outcome(cls, recorder, context=error)

    assert (recorder.successful, recorder.failed) == ([0, 1, 2, 4, 5], [3])
    assert recorder.statuses[3].cause == "raised"
    assert pipeline.stats().restarts == 0


async def test_an_acknowledger_that_panics_leaves_its_outcome_unknown_and_the_others_alone() -> None:
    async def fault(call: Any) -> None:
        if 3 in call.data[0]:
            raise Panic("boom")

    pipeline = await outcome(Base, Recorder(fault))

    assert {k: v for k, v in pipeline.stats().producers[0].outcomes.items() if v} == {"acked": 5, "unknown": 1}


@pytest.mark.parametrize(
    ("after", "came"),
    [("soon", "'soon'"), (float("nan"), "nan"), (float("inf"), "inf"), (True, "True"), (object(), "an object")],
)
async def test_a_delay_that_is_none_is_said_to_be_wrong_and_the_message_fails_like_any_other(
    after: Any, came: str
) -> None:
    recorder = Recorder()

    await outcome(InLoop, recorder, context=RetryLater(after=after))

    assert recorder.statuses[3].reason == (
        f"RetryLater(after=…): expected seconds as a finite number, a timedelta, or text such as '2s', got {came}"
    )


@pytest.mark.parametrize("after", [dt.timedelta(milliseconds=1), decimal.Decimal("0.001"), "1ms", -5, 0.001])
async def test_a_delay_may_be_said_in_many_ways(after: Any) -> None:
    producer = MemoryProducer(range(6))
    pipeline = InLoop(
        producer=producer,
        context=RetryLater(after=after),
        failure=FailurePolicy(attempts=2, backoff=(60, 60), breaker=None),
    )
    async with pipeline:
        await soon(pipeline.wait())

    assert [message.data for message in producer.dead_letters] == [3]


class Leaving(Base):
    batchers = ONE_BY_ONE

    async def handle_message(self, message: Message[int]) -> None:
        if message.data == 3:
            self.context(message)

    async def handle_batch(self, messages: list[Message[int]], info: BatchInfo) -> None:
        pass


class Fickle:
    """Neither hashes nor compares twice in the same way."""

    count = 0

    def __hash__(self) -> int:
        Fickle.count += 1
        return Fickle.count

    def __eq__(self, other: object) -> bool:
        raise Panic("no")


class Mute:
    def __repr__(self) -> str:
        raise Panic("no")


def leave(name: str, value: object) -> Callable[[Message[Any]], None]:
    return lambda message: setattr(message, name, value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (leave("batcher", Mute()), "handle_message chose batcher a Mute; this pipeline has default"),
        (leave("batcher", ["x"]), "handle_message chose batcher a list; this pipeline has default"),
        (
            leave("batch_key", ["x"]),
            (
                "TypeError: message.batch_key is a list, which is not hashable (TypeError: unhashable type: 'list'); "
                "expected a key such as text, a number, or a tuple of them"
            ),
        ),
        (
            leave("batch_mode", Mute()),
            "ValueError: batch_mode takes 'bulk' or 'flush', got a Mute that cannot be shown",
        ),
        (leave("status", "bad"), "TypeError: message.status takes None or a Failed, got str; use message.fail(reason)"),
        (
            leave("size", 7),
            "AttributeError: message.size cannot change in a pipeline, because the pipeline counts these bytes",
        ),
        (
            lambda message: message.spawn(1, "x"),
            "TypeError: spawn: expected metadata as a dict or None, got a str",
        ),
        (
            lambda message: message.spawn(1, batcher=["x"]),
            "TypeError: spawn: expected the name of a batcher or None, got a list",
        ),
        (lambda _: Failed("bored"), None),  # type: ignore[arg-type]  # that is what is tested
        (lambda _: Failed("raised", Mute()), "TypeError: Failed: reason takes a str, got a Mute"),  # type: ignore[arg-type]  # as above
    ],
)
async def test_an_odd_value_in_a_message_fails_it_alone_with_the_sentence(
    change: Callable[[Message[Any]], object], reason: str | None
) -> None:
    recorder = Recorder()

    pipeline = await outcome(Leaving, recorder, context=change)

    assert (sorted(recorder.successful), recorder.failed) == ([0, 1, 2, 4, 5], [3])
    if reason is not None:
        assert recorder.statuses[3].reason == reason
    assert pipeline.stats().restarts == 0


@pytest.mark.parametrize("change", [leave("batch_key", Fickle()), leave("metadata", 5), leave("data", Mute())])
async def test_a_value_that_need_not_be_looked_at_harms_nobody(change: Callable[[Message[Any]], object]) -> None:
    recorder = Recorder()

    pipeline = await outcome(Leaving, recorder, context=change)

    assert (recorder.count, recorder.failed) == (6, [])
    assert pipeline.stats().restarts == 0


async def test_a_message_whose_attempt_was_overwritten_is_not_tried_again() -> None:
    def change(message: Message[Any]) -> None:
        message.attempt = "third"  # type: ignore[assignment]  # that is what is tested
        raise ValueError

    producer = MemoryProducer(range(6))
    pipeline = Leaving(producer=producer, context=change, failure=FailurePolicy(attempts=2, backoff=(0.01, 0.01)))
    async with pipeline:
        await soon(pipeline.wait())

    (letter,) = producer.dead_letters
    assert letter.status is not None
    assert letter.status.reason == (
        "message.attempt was set to 'third'; expected the number that stood there (1, 2, …) or None. The message is "
        "not tried again; do not change this attribute"
    )


async def test_an_endless_list_is_refused() -> None:
    class Endless(Base):
        batchers = ONE_BY_ONE

        async def handle_batch(self, messages: list[Message[int]], info: BatchInfo) -> Any:
            return iter(lambda: messages[0], None)

    recorder = Recorder()

    await outcome(Endless, recorder)

    assert recorder.failed == list(range(6))
    assert recorder.statuses[3].reason == (
        "handle_batch returned a callable_iterator of more than 1010 items for the 1 messages it was given; expected "
        "None or a list of them"
    )


async def test_setup_may_panic_and_start_says_so() -> None:
    class Broken(Base):
        def setup(self) -> None:
            raise Panic("boom")

    with pytest.raises(Panic):
        await Broken(producer=MemoryProducer([])).start()


async def test_timeouts_take_a_timedelta_and_say_what_else_is_wrong() -> None:
    async with Base(producer=MemoryProducer([])) as pipeline:
        await pipeline.ready(timeout=dt.timedelta(seconds=5))
        with pytest.raises(OptionsError) as wrong:
            await pipeline.stop(timeout="tomorrow")  # type: ignore[arg-type]  # that is what is tested
        assert str(wrong.value) == (
            "stop(timeout=…): expected seconds as a finite number, a timedelta, or text such as '2s', got 'tomorrow'"
        )
        await pipeline.stop(timeout=dt.timedelta(seconds=1))


async def test_a_rejection_with_an_odd_reason_is_one_all_the_same() -> None:
    producer = MemoryProducer(range(6))
    pipeline = InLoop(producer=producer, context=Reject(Mute()), failure=FailurePolicy(backoff=(60, 60)))  # type: ignore[arg-type]  # that is what is tested
    async with asyncio.timeout(5):
        async with pipeline:
            await pipeline.wait()

    assert [message.data for message in producer.dead_letters] == [3]


# --- what callbacks delete --------------------------------------------------------------------------------------------

NAMES: Final = ("data", "raw", "metadata", "attempt", "batcher", "batch_key")


class Deleting(Pipeline[int]):
    """Deletes attributes of message 3: its context maps the names of callbacks to those, or to an error to raise."""

    processors = Processors(concurrency=1, max_demand=2, min_demand=0)
    batchers = {"default": Batcher(batch_size=2, batch_timeout=0.01)}  # noqa: RUF012  # as users write it
    failure = FailurePolicy(attempts=2, backoff=(0.001, 0.001), breaker=None)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.bad: list[Message[int]] = []
        self.well: set[int] = set()

    def _delete(self, callback: str, messages: list[Message[int]]) -> None:
        deleted, raises = self.context.get(callback, ((), False))
        for message in messages:
            if any(message is one for one in self.bad):
                for name in deleted:
                    if hasattr(message, name):
                        delattr(message, name)
                if raises:
                    raise ValueError

    async def prepare_messages(self, messages: list[Message[int]]) -> None:
        self.bad += [message for message in messages if message.raw == 3]
        self._delete("prepare_messages", messages)

    async def handle_message(self, message: Message[int]) -> None:
        self._delete("handle_message", [message])

    async def handle_batch(self, messages: list[Message[int]], info: BatchInfo) -> None:
        self._delete("handle_batch", messages)
        self.well |= {message.raw for message in messages if not any(message is one for one in self.bad)}

    async def handle_failed(self, messages: list[Message[int]]) -> None:
        self._delete("handle_failed", messages)


class DeletingInThreads(Deleting):
    def handle_message(self, message: Message[int]) -> None:  # type: ignore[override]  # a plain function is one, too
        self._delete("handle_message", [message])


class DeletingInOrder(Deleting):
    ordered = True

    def partition_by(self, message: Message[int]) -> int:
        return int(message.raw) % 2


CALLBACKS: Final = ("prepare_messages", "handle_message", "handle_batch", "handle_failed")
_calls: Final = st.tuples(st.lists(st.sampled_from(NAMES), unique=True), st.booleans())


@pytest.mark.parametrize("cls", [Deleting, DeletingInThreads, DeletingInOrder])
@given(calls=st.fixed_dictionaries({}, optional=dict.fromkeys(CALLBACKS, _calls)))
@settings(max_examples=60)
def test_what_a_callback_deletes_crashes_no_stage(
    cls: type[Deleting], calls: dict[str, tuple[list[str], bool]]
) -> None:
    async def run() -> Deleting:
        pipeline = cls(producer=MemoryProducer(range(6)), context=calls)
        async with pipeline:
            await soon(pipeline.wait())
        return pipeline

    pipeline = asyncio.run(run())

    stats = pipeline.stats()
    assert stats.restarts == 0
    check_books(pipeline)
    assert outcomes(pipeline).get("unknown", 0) == 0
    if not any(calls.get(callback, ((), False))[1] for callback in ("prepare_messages", "handle_batch")):
        assert pipeline.well == {0, 1, 2, 4, 5}


def delete(name: str) -> Callable[[Message[Any]], None]:
    return lambda message: delattr(message, name)


@pytest.mark.parametrize(
    ("name", "cause", "reason"),
    [
        (
            "batcher",
            "unknown_batcher",
            ("message.batcher was deleted; this pipeline has default: set it to one of them, or to None for no batch"),
        ),
        (
            "batch_key",
            "raised",
            (
                "TypeError: message.batch_key was deleted; keep it, or set it to a key such as text, a number, or a "
                "tuple of them"
            ),
        ),
        ("batch_mode", "raised", None),
        ("status", "raised", None),
        ("size", "raised", None),
        ("acknowledgement", "raised", None),
    ],
)
async def test_a_message_that_lacks_what_it_needs_fails_alone_with_the_sentence(
    name: str, cause: str, reason: str | None
) -> None:
    recorder = Recorder()

    pipeline = await outcome(Leaving, recorder, context=delete(name))

    assert (sorted(recorder.successful), recorder.failed) == ([0, 1, 2, 4, 5], [3])
    assert recorder.statuses[3].cause == cause
    if reason is not None:
        assert recorder.statuses[3].reason == reason
    assert pipeline.stats().restarts == 0


@pytest.mark.parametrize("name", ["raw", "attempt"])
async def test_a_message_that_cannot_be_tried_again_says_so(name: str) -> None:
    def spoil(message: Message[int]) -> None:
        delattr(message, name)
        raise ValueError

    policy = FailurePolicy(attempts=3, backoff=(0.001, 0.001), breaker=None)
    producer = MemoryProducer(range(6))
    pipeline = Leaving(producer=producer, context=spoil, failure=policy)
    async with pipeline:
        await soon(pipeline.wait())

    (letter,) = producer.dead_letters
    assert letter.status is not None
    assert letter.status.reason == (
        f"message.{name} was deleted. The message is not tried again; do not change this attribute"
    )
    assert outcomes(pipeline) == {"acked": 5, "dead_lettered": 1}


@pytest.mark.parametrize("name", ["data", "metadata", "batcher"])
async def test_a_transformer_that_deletes_fails_its_message(name: str) -> None:
    recorder = Recorder()

    def transformer(message: Message[int]) -> None:
        if message.data == 3:
            delattr(message, name)

    producer = MemoryProducer(recorder.messages(range(6)))
    pipeline = Leaving(producer=producer, transformer=transformer, context=None)
    async with pipeline:
        await soon(pipeline.wait())

    (status,) = recorder.statuses.values()
    assert (
        status.reason
        == f"TypeError: transformer deleted message.{name}; keep the attribute, or set it to another value"
    )
    assert pipeline.stats().restarts == 0


async def test_a_child_whose_batcher_was_deleted_fails_with_its_parent() -> None:
    recorder = Recorder()

    def spoil(message: Message[int]) -> None:
        del message.spawn("child").batcher

    pipeline = await outcome(Leaving, recorder, context=spoil)

    assert (sorted(recorder.successful), recorder.failed) == ([0, 1, 2, 4, 5], [3])
    assert recorder.statuses[3].cause == "unknown_batcher"
    assert pipeline.stats().restarts == 0


class Partly(SettleError):
    """Of somebody else: it does not say what it was asked for."""

    def __init__(self) -> None:
        Exception.__init__(self, "a part")


async def test_a_settle_error_that_does_not_say_which_leaves_all_unknown() -> None:
    async def fault(call: Any) -> None:
        if 3 in call.data[0]:
            raise Partly

    pipeline = await outcome(Base, Recorder(fault))

    assert {k: v for k, v in pipeline.stats().producers[0].outcomes.items() if v} == {"acked": 5, "unknown": 1}
    assert pipeline.stats().restarts == 0
