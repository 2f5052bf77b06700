"""The test kit as users write it, fully annotated; each ``type: ignore`` is a mistake that must be refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, assert_type

from broadway_py import Message, Pipeline
from broadway_py.message import Cause
from broadway_py.producers import Producer
from broadway_py.publisher import Outgoing
from broadway_py.testing import DeadLetter, Ended, FakeClock, Harness, Harnesses, Left, MessageOutcome, harness
from broadway_py.testing.contract import FailureContract, FailureSource, ProducerContract, SourceUnderTest


class Orders(Pipeline[int]):
    total = 0

    async def handle_message(self, message: Message[int]) -> None:
        self.total += message.data


async def use() -> None:
    async with harness(Orders, name="orders") as h:
        assert_type(h, Harness[Orders])
        assert_type(h.pipeline, Orders)
        assert_type(h.pipeline.total, int)
        assert_type(await h.send({"a": 1}, id="a", key="k", metadata={"x": 1}), str)
        assert_type(await h.send_batch([1, 2], ids=["a", "b"], keys=["k", None]), list[str])
        await h.send(1, id=1)  # type: ignore[arg-type]  # an id is text
        await h.advance("1m")  # type: ignore[arg-type]  # seconds or a timedelta
        assert_type(h.outcomes["a"], MessageOutcome)
        assert_type(h.outcomes["a"].cause, Cause | None)
        assert_type(h.outcomes.history("a"), list[MessageOutcome])
        h.outcomes.count("gone")  # type: ignore[arg-type]  # outcomes are a closed set
        assert_type(h.dead_letters, list[DeadLetter])
        assert_type(h.left, list[Left])
        assert_type(h.published["out"], Sequence[Outgoing])
        assert_type(h.clock, FakeClock)
        assert_type(await h.stop(), Ended)
        h.outcomes["a"] = "acked"  # type: ignore[index]  # only the broker tells outcomes


async def use_the_fixture(broadway: Harnesses) -> None:
    async with broadway(Orders) as h:
        assert_type(h.pipeline, Orders)
    async with broadway.from_settings(Path("orders.yaml"), environ={}) as other:
        assert_type(other.pipeline, Pipeline[Any])
    broadway(Message)  # type: ignore[type-var]  # a pipeline


def make(**options: Any) -> Orders:
    return Orders(**options)


async def use_a_function() -> None:
    async with harness(make) as h:
        assert_type(h.pipeline, Orders)


class Mine(Producer):
    pass


class Source(FailureSource):
    forget = "drop"

    async def publish(self, bodies: Sequence[bytes]) -> None: ...

    def producer(self) -> Mine:
        return Mine()

    def told(self, on_failure: str | None) -> Mine:
        return Mine()

    async def ready_count(self) -> int:
        return 0

    async def held_count(self) -> int:
        return 0

    async def rejected_count(self) -> int:
        return 0


class Suite(ProducerContract, FailureContract):
    pass


def sources() -> list[SourceUnderTest]:
    return [Source()]
