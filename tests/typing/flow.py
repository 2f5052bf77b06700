"""Flows as users write them, without annotations; each ``type: ignore`` is a mistake that must be refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Never, assert_type

from broadway_py import Flow, Window
from broadway_py.flow import Firing


@dataclass
class Order:
    ts: float
    country: str
    amount: int


def count(counts: dict[str, int], word: str) -> dict[str, int]:
    counts[word] = counts.get(word, 0) + 1
    return counts


def tally(counts: Counter[str], word: str) -> Counter[str]:
    counts[word] += 1
    return counts


def merge(counts: dict[str, int], others: dict[str, int]) -> dict[str, int]:
    for word, number in others.items():
        counts[word] = counts.get(word, 0) + number
    return counts


def append(numbers: list[int], number: int) -> list[int]:
    return [*numbers, number]


def collect(words: set[str], word: str) -> set[str]:
    return {*words, word}


def length(word: str) -> int:
    return len(word)


def more(one: int, other: int) -> int:
    return max(one, other)


def late(_element: object, _info: object) -> list[bytes]:
    return [b""]


async def fetch(number: int) -> str:
    return str(number)


async def fetch_value(order: Order) -> float:
    return order.ts


async def add_later(total: int, number: int) -> int:
    return total + number


NUMBERS = Flow.from_iterable(range(1, 101))
WORDS = Flow.from_files("texts/*.txt").flat_map(str.split)
ORDERS = Flow.from_iterable([Order(1.0, "dk", 3)])


def operators() -> None:
    assert_type(NUMBERS, Flow[int])
    assert_type(WORDS, Flow[str])
    assert_type(Flow.from_iterables([[1], {2}, range(3)]), Flow[int])
    assert_type(NUMBERS.map(str), Flow[str])
    assert_type(NUMBERS.map(lambda n: n * 2.5), Flow[float])
    assert_type(NUMBERS.map(fetch), Flow[str])
    assert_type(
        ORDERS.map(lambda order: (order.country, order)).map_values(lambda order: order.ts), Flow[tuple[str, float]]
    )
    assert_type(ORDERS.map(lambda order: (order.country, order)).map_values(fetch_value), Flow[tuple[str, float]])
    assert_type(ORDERS.flat_map(lambda order: [order.country] * order.amount), Flow[str])
    assert_type(ORDERS.filter(lambda order: order.amount > 3).reject(lambda order: order.country), Flow[Order])
    assert_type(NUMBERS.map_batch(lambda numbers: [sum(numbers)]), Flow[int])
    assert_type(ORDERS.uniq(lambda order: order.country), Flow[Order])
    assert_type(ORDERS.partition(key=lambda order: order.country, stages=2), Flow[Order])
    assert_type(ORDERS.partition(hash=lambda order: (order.amount, 0)), Flow[int])
    assert_type(ORDERS.shuffle(max_demand=1), Flow[Order])
    assert_type(Flow.merge(NUMBERS, NUMBERS.map(abs)), Flow[int])
    assert_type(Flow.merge([WORDS, WORDS]), Flow[str])

    NUMBERS.map(lambda n: n.amount)  # type: ignore[attr-defined]  # a number has no such field
    ORDERS.flat_map(lambda order: order.amount)  # type: ignore[arg-type, return-value]  # no iterable
    ORDERS.map_values(lambda order: order)  # type: ignore[misc]  # no pairs
    ORDERS.partition(key=lambda order: order.countries)  # type: ignore[attr-defined]  # no such field
    ORDERS.partition(stges=3)  # type: ignore[call-overload]  # no such option
    ORDERS.shuffle(stages="2")  # type: ignore[arg-type]  # no number
    assert_type(NUMBERS.using("threads", workers=2, progress=True), Flow[int])
    NUMBERS.using(progress="yes")  # type: ignore[call-overload]  # neither True nor False
    NUMBERS.using("thread")  # type: ignore[call-overload]  # no such runner


def reductions() -> None:
    ten = NUMBERS.partition(stages=1, window=Window.count(10))
    assert_type(ten.reduce(lambda: 0, lambda acc, n: acc + n).emit("state"), Flow[int])
    assert_type(NUMBERS.reduce(lambda: 0, add_later).emit("state"), Flow[int])
    assert_type(WORDS.reduce(dict, count).emit("events"), Flow[tuple[str, int]])
    assert_type(WORDS.reduce(dict, count).emit("state"), Flow[dict[str, int]])
    assert_type(WORDS.reduce(dict, count).emit("nothing"), Flow[Never])
    assert_type(WORDS.reduce(dict, count, combine=merge).partition(), Flow[tuple[str, int]])
    assert_type(WORDS.reduce(Counter, tally).emit("state"), Flow[Counter[str]])
    assert_type(WORDS.reduce(Counter, tally).emit("events"), Flow[tuple[str, int]])
    assert_type(NUMBERS.reduce(list, append).emit("events"), Flow[int])
    assert_type(WORDS.reduce(set, collect).emit("events"), Flow[str])
    running = NUMBERS.emit_and_reduce(lambda: 0, lambda acc, n: ([str(acc)], acc + n))
    assert_type(running.emit("state"), Flow[int | str])
    assert_type(running.emit("nothing"), Flow[str])
    assert_type(WORDS.count_by().emit("events"), Flow[tuple[str, int]])
    assert_type(WORDS.count_by(length).emit("state"), Flow[dict[int, int]])
    assert_type(ORDERS.sum_by(lambda o: o.country, lambda o: o.amount).partition(), Flow[tuple[str, int]])
    assert_type(ORDERS.group_by(lambda o: o.country).emit("events"), Flow[tuple[str, list[Order]]])
    assert_type(ORDERS.group_by(lambda o: o.country, lambda o: o.ts).emit("state"), Flow[dict[str, list[float]]])
    assert_type(WORDS.sum_by(None, len).emit("state"), Flow[dict[str, int]])
    assert_type(WORDS.reduce_by(None, lambda: 0, lambda acc, word: acc + len(word)).partition(), Flow[tuple[str, int]])
    most = ORDERS.reduce_by(lambda o: o.country, lambda: 0, lambda acc, o: acc + o.amount, combine=more)
    assert_type(most.emit("events"), Flow[tuple[str, int]])

    NUMBERS.reduce(lambda: 0, lambda acc, n: acc + n.amount)  # type: ignore[attr-defined, arg-type, return-value]
    NUMBERS.reduce(lambda: "", append)  # type: ignore[arg-type, return-value]  # the accumulator is text
    NUMBERS.reduce(dict, count)  # type: ignore[arg-type]  # numbers are no words
    WORDS.reduce({}, count)  # type: ignore[call-overload]  # no function
    WORDS.reduce(list, count)  # type: ignore[arg-type]  # the accumulator is a list
    WORDS.reduce(dict, count, combine=count)  # type: ignore[arg-type]  # it combines nothing
    WORDS.emit("state")  # type: ignore[arg-type]  # nothing is reduced
    WORDS.on_trigger(lambda acc: ([], acc))  # type: ignore[arg-type]  # the same
    WORDS.reduce(dict, count).emit("stat")  # type: ignore[call-overload]  # no such thing


def triggers() -> None:
    words = WORDS.reduce(dict, count)
    assert_type(words.on_trigger(lambda acc: (acc.items(), acc)), Flow[tuple[str, int]])
    assert_type(words.on_trigger(lambda acc: ([len(acc)], {})), Flow[int])
    assert_type(words.on_trigger(lambda acc, partition: ([(partition, len(acc))], acc)), Flow[tuple[int, int]])
    assert_type(words.on_trigger(lambda acc, _, firing: ([firing], acc)), Flow[Firing])
    assert_type(words.on_late(late).emit("events"), Flow[tuple[str, int] | bytes])
    assert_type(words.emit("state").on_late(late), Flow[dict[str, int] | bytes])

    words.on_trigger(lambda acc: acc)  # type: ignore[arg-type, return-value]  # no pair
    words.on_trigger(lambda acc: ([acc], 3))  # type: ignore[arg-type, return-value]  # no accumulator


def one_stage() -> None:
    sums = NUMBERS.partition().reduce(lambda: 0, lambda acc, n: acc + n)
    assert_type(sums.departition(lambda: 0, lambda all_, one: all_ + one, str), Flow[str])
    assert_type(sums.departition(lambda: 0, more, lambda all_, firing: (all_, firing.count)), Flow[tuple[int, int]])
    words = WORDS.reduce(dict, count).emit("events")
    assert_type(words.departition(lambda: 0, lambda all_, pair: all_ + pair[1], float), Flow[float])
    assert_type(WORDS.count_by().take_sort(3, key=lambda pair: pair[1], reverse=True), Flow[list[tuple[str, int]]])

    WORDS.count_by().take_sort(3, key=lambda pair: pair.count + 1)  # type: ignore[operator]  # a method


def joins() -> None:
    joined = Flow.bounded_join("inner", ORDERS, WORDS, lambda o: o.country, str, lambda o, word: (o, word))
    assert_type(joined, Flow[tuple[Order, str]])
    same = Flow.bounded_join(
        "inner", WORDS, WORDS, lambda word: word, lambda word: word, lambda one, other: (one, other)
    )
    assert_type(same, Flow[tuple[str, str]])
    outer = Flow.window_join(
        "left_outer",
        ORDERS,
        WORDS,
        Window.fixed("1m", by=lambda event: event.ts),
        left_key=lambda o: o.country,
        right_key=str,
        join=lambda o, word: (o, word),
    )
    assert_type(outer, Flow[tuple[Order, str | None]])

    Flow.bounded_join("outer", ORDERS, WORDS, lambda o: o.country, str, max)  # type: ignore[call-overload]


def any_flow(flow: Flow[Any]) -> None:
    assert_type(flow.filter(bool).uniq().partition(), Flow[Any])
