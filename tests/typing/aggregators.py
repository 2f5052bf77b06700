"""Aggregators as a user writes them, fully annotated; each ``type: ignore`` is a mistake that must be refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_type

from broadway_py import Aggregator, Message, Pipeline, State, Window, WindowResult
from broadway_py._core.window.times import EventTime
from broadway_py.aggregates import Collect, Count, Greatest, Latest, Least, Mean, Total
from broadway_py.aggregator import ResultTrigger
from broadway_py.producers import MemoryProducer


@dataclass
class Order:
    ts: float
    country: str
    amount: int


class Revenue(Aggregator[str, Order, int]):
    window = Window.fixed("1m", by=lambda message: message.data.ts, delay="10s")
    max_demand = 500
    delay = "20s"
    version = 2

    def key(self, message: Message[Order]) -> str:
        assert_type(message.data, Order)
        assert_type(self.name, str)
        return message.data.country

    def initial(self) -> int:
        return 0

    def add(self, acc: int, message: Message[Order]) -> int:
        message.data.amounts  # type: ignore[attr-defined]  # noqa: B018  # an order has no such field
        return acc + message.data.amount

    def merge(self, a: int, b: int) -> int:
        return a + b

    def identity(self, message: Message[Order]) -> str | None:
        return str(message.metadata["order_id"])

    def upgrade(self, version: int, value: Any) -> int:
        return int(value)

    async def emit(self, results: list[WindowResult[str, int]]) -> None:
        for result in results:
            assert_type(result.key, str)
            assert_type(result.value, int)
            assert_type(result.start, EventTime | None)
            assert_type(result.trigger, ResultTrigger)
            assert_type(result.replaces, tuple[str, ...])
            result.value = 3  # type: ignore[misc]  # a result is frozen

    async def late(self, messages: list[Message[Order]]) -> None:
        assert_type(messages[0].data, Order)

    async def setup(self) -> None:
        self.rows: list[str] = []


class Wrong(Aggregator[str, Order, int]):
    window = "1m"  # type: ignore[assignment]  # no window
    max_demand = "many"  # type: ignore[assignment]  # no number

    def key(self, message: Message[Order]) -> int:  # type: ignore[override]  # the key is text
        return message.data.amount

    def initial(self) -> str:  # type: ignore[override]  # the accumulator is a number
        return ""

    def add(self, acc: str, message: Message[Order]) -> int:  # type: ignore[override]  # the same
        return len(acc)

    def merge(self, a: int, b: str) -> int:  # type: ignore[override]  # the same
        return a

    async def emit(self, results: list[WindowResult[str, str]]) -> None:  # type: ignore[override]  # the same
        pass

    def late(self, messages: list[Message[Order]]) -> None:  # type: ignore[override]  # it must be async
        pass


class Unfinished(Aggregator[str, Order, int]):
    def key(self, message: Message[Order]) -> str:
        return ""


class Ages(Aggregator[str, Order, Mean]):
    window = Window.session("10m", by=lambda message: message.data.ts, delay=5)

    def key(self, message: Message[Order]) -> str:
        return message.data.country

    def initial(self) -> Mean:
        return Mean()

    def add(self, acc: Mean, message: Message[Order]) -> Mean:
        return acc.add(message.data.amount)

    def merge(self, a: Mean, b: Mean) -> Mean:
        return a.merge(b)


class Shop(Pipeline[Order]):
    aggregators = {"revenue": Revenue, "ages": Ages(emit_timeout="1m")}  # noqa: RUF012  # an option
    state = "var/shop.db"

    async def handle_message(self, message: Message[Order]) -> None:
        message.batcher = "revenue"


def use() -> None:
    Shop(producer=MemoryProducer([]), state=State("memory"), aggregators={"revenue": Revenue(max_demand=5)})
    Unfinished()  # type: ignore[abstract]  # initial and add are missing
    assert_type(Count().add("x").merge(Count()).value, int)
    assert_type(Total(1).add(2), Total[int])
    assert_type(Total(1.5).value, float)
    assert_type(Mean().add(3).value, float)
    assert_type(Least(3).merge(Least(4)).value, int | None)
    assert_type(Greatest[str]().add("a"), Greatest[str])
    assert_type(Latest("a", 1.0).value, str | None)
    assert_type(Collect[int](most=3).add(4).values, tuple[int, ...])
    Least(3).add("a")  # type: ignore[arg-type]  # they do not compare
    Least[complex]()  # type: ignore[type-var]  # complex numbers have no order
