from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice, pairwise
from pathlib import Path

from broadway_py import Message, Pipeline, WindowResult
from broadway_py.examples.revenue import Order, Orders, Revenue, Sales, Tills, orders
from broadway_py.producers import MemoryProducer

NOW = 1_700_000_000.0


def made(count: int) -> Sequence[Order]:
    return [Order.model_validate_json(line) for line in islice(orders(3, now=NOW), count)]


def test_one_seed_makes_the_same_orders() -> None:
    assert made(50) == made(50)
    assert list(islice(orders(4, now=NOW), 50)) != list(islice(orders(3, now=NOW), 50))


def test_orders_arrive_out_of_order_a_few_of_them_very_late() -> None:
    ages = [NOW - order.ts.timestamp() for order in made(10_000)]
    assert any(later > earlier for earlier, later in pairwise(ages))
    very_late = [age for age in ages if age > 8.0]
    assert 5 < len(very_late) < 50
    assert {round(age) for age in very_late} == {300}


def test_times_have_a_zone() -> None:
    assert made(1)[0].ts < datetime.fromtimestamp(NOW, UTC)


def test_tills_make_up_orders(tmp_path: Path) -> None:
    tills = Tills(context={"path": str(tmp_path / "orders.db"), "queue": "orders", "most_waiting": 5})
    assert isinstance(tills, Pipeline)
    assert isinstance(tills.producer, Orders)


def test_all_orders_of_a_country_have_its_name_as_their_key(tmp_path: Path) -> None:
    tills = Tills(context={"path": str(tmp_path / "orders.db"), "queue": "orders"})
    (line,) = islice(orders(3, now=NOW), 1)
    put = tills.to_put(line)
    assert (put.data, put.key) == (line, Order.model_validate_json(line).country)


class Kept(Revenue):
    """Keeps the last result of each window, and what was late."""

    def __init__(self) -> None:
        super().__init__()
        self.results: dict[str, WindowResult[str, int]] = {}
        self.too_late: list[Order] = []

    async def emit(self, results: list[WindowResult[str, int]]) -> None:
        self.results |= {result.id: result for result in results}
        await super().emit(results)

    async def late(self, messages: list[Message[Order]]) -> None:
        self.too_late += [message.data for message in messages]
        await super().late(messages)


async def test_every_order_counts_for_its_minute_or_is_late() -> None:
    lines = list(islice(orders(3, now=NOW), 3_000))
    sales = Sales(producer=MemoryProducer(lines), aggregators={"revenue": Kept()}, state="memory")
    async with sales:
        await sales.wait()
    kept = sales.aggregators["revenue"]
    assert isinstance(kept, Kept)
    expected: Counter[tuple[str, datetime]] = Counter()
    assert 0 < len(kept.too_late) < 20
    for order in map(Order.model_validate_json, lines):
        if order not in kept.too_late:
            expected[order.country, order.ts.replace(second=0, microsecond=0)] += order.amount
    assert {(one.key, one.start): one.value for one in kept.results.values()} == expected
    assert sum(one.count for one in kept.results.values()) + len(kept.too_late) == len(lines)
