"""Context variables: what a callback sets for one message is not there for the next, and is there for its own lines."""

from __future__ import annotations

import contextvars
from typing import Any, Final

import pytest
import structlog

from broadway_py import Batcher, BatchInfo, Message, Pipeline, Processors, telemetry
from broadway_py.producers import MemoryProducer
from tests.pipeline.support import ONE, soon

ONE_BY_ONE: Final = {"default": Batcher(batch_size=1)}
TENANT: contextvars.ContextVar[object] = contextvars.ContextVar("TENANT", default=None)


def look(pipeline: Pipeline[Any], name: object) -> None:
    pipeline.context.append(TENANT.get())
    TENANT.set(name)


class Async(Pipeline[int]):
    processors = ONE

    async def handle_message(self, message: Message[int]) -> None:
        look(self, message.data)


class Thread(Pipeline[int]):
    processors = ONE

    def handle_message(self, message: Message[int]) -> None:
        look(self, message.data)


class Batched(Pipeline[int]):
    processors = ONE
    batchers = ONE_BY_ONE

    async def handle_message(self, message: Message[int]) -> None:
        TENANT.set(message.data)

    async def handle_batch(self, messages: list[Message[int]], info: BatchInfo) -> None:
        look(self, messages[0].data)


class Keyed(Pipeline[int]):
    processors = Processors(concurrency=1)

    def partition_by(self, message: Message[int]) -> int:
        look(self, message.data)
        return 1

    async def handle_message(self, message: Message[int]) -> None:
        assert TENANT.get() is None


async def seen_by(cls: type[Pipeline[Any]], **options: Any) -> list[object]:
    seen: list[object] = []
    pipeline = cls(producer=MemoryProducer(range(20)), context=seen, **options)
    async with pipeline:
        await soon(pipeline.wait())
    return seen


@pytest.mark.parametrize("cls", [Async, Thread, Batched, Keyed])
async def test_what_is_set_for_one_message_is_not_there_for_the_next(cls: type[Pipeline[Any]]) -> None:
    assert await seen_by(cls) == [None] * 20


async def test_a_transformer_and_a_batch_size_function_start_clean_too() -> None:
    seen: list[object] = []

    def noting(message: Message[int], *_: object) -> Any:
        seen.append(TENANT.get())
        TENANT.set(message.data)
        return ("emit", None) if _ else None

    await seen_by(Batched, transformer=noting, batchers={"default": Batcher(batch_size=(None, noting), max_demand=5)})

    assert seen == [None] * 40


class ByAsyncSetup(Async):
    async def setup(self) -> None:
        TENANT.set("base")


class BySetup(Thread):
    def setup(self) -> None:
        TENANT.set("base")


@pytest.mark.parametrize("cls", [ByAsyncSetup, BySetup])
async def test_what_setup_has_set_is_there_for_each_message(cls: type[Pipeline[Any]]) -> None:
    assert await seen_by(cls) == ["base"] * 20


async def test_a_value_that_cannot_be_compared_is_taken_for_a_new_one() -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise RuntimeError("no")

        __hash__ = None  # type: ignore[assignment]  # as of any class with an __eq__

    first = Odd()

    class Setting(Async):
        async def setup(self) -> None:
            TENANT.set(first)

        async def handle_message(self, message: Message[int]) -> None:
            self.context.append(TENANT.get() is first)
            TENANT.set(Odd())

    assert await seen_by(Setting) == [True] * 20


async def test_handle_failed_and_the_log_see_what_their_own_message_has_set(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Pipeline[int]):
        processors = Processors(concurrency=1, max_demand=1, min_demand=0)
        failure = None

        async def handle_message(self, message: Message[int]) -> None:
            if message.data % 2:
                structlog.contextvars.bind_contextvars(tenant=message.data)
            raise ValueError

        async def handle_failed(self, messages: list[Message[int]]) -> None:
            self.context.append(structlog.contextvars.get_contextvars().get("tenant"))

    seen: list[object] = []
    pipeline = Failing(producer=MemoryProducer(range(4)), context=seen)
    async with pipeline:
        await soon(pipeline.wait())

    assert seen == [None, 1, None, 3]
    lines: list[Any] = [record.msg for record in caplog.records if "a message failed" in str(record.msg)]
    assert [line.get("tenant") for line in lines] == [None, 1, None, 3]


async def test_what_a_telemetry_handler_sets_is_there_for_its_message_alone() -> None:
    tokens: dict[str, contextvars.Token[object]] = {}

    def handler(event: str, _: Any, metadata: Any) -> None:
        if event.endswith("start"):
            tokens["one"] = TENANT.set(metadata["message"].data)
        else:
            TENANT.reset(tokens.pop("one"))

    class Seeing(Async):
        async def handle_message(self, message: Message[int]) -> None:
            self.context.append((message.data, TENANT.get()))

    telemetry.attach("test", ["broadway.processor.message.start", "broadway.processor.message.stop"], handler)
    try:
        assert await seen_by(Seeing) == [(n, n) for n in range(20)]
        assert telemetry.active(), "the handler raised and was detached"
    finally:
        telemetry.detach("test")
