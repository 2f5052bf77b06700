from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from itertools import islice

from broadway_py import WindowResult
from broadway_py.examples.arrivals import Arrivals, Containers
from broadway_py.examples.shipments import lines
from broadway_py.producers import MemoryProducer

NOW = 1_700_000_000


class Kept(Containers):
    """Keeps the last result of each window."""

    def __init__(self) -> None:
        super().__init__()
        self.results: dict[str, WindowResult[str, int]] = {}

    async def emit(self, results: list[WindowResult[str, int]]) -> None:
        self.results |= {result.id: result for result in results}
        await super().emit(results)


async def test_every_shipment_counts_once_for_its_country_and_minute_also_if_its_line_is_sent_twice() -> None:
    made = [line for minute in range(3) for line in islice(lines(minute, broken=0.1, now=NOW + 60 * minute), 200)]
    expected: Counter[tuple[str, datetime]] = Counter()
    for line in made:
        to, *_, amount, _, ts = line.split(", ")
        if amount != "many":
            minute_of = datetime.fromtimestamp(int(ts), UTC).replace(second=0)
            expected[to, minute_of] += int(amount)
    sent_twice = [line.encode() for line in made for _ in range(2)]
    arrivals = Arrivals(producer=MemoryProducer(sent_twice), aggregators={"containers": Kept()}, state="memory")
    async with arrivals:
        await arrivals.wait()

    kept = arrivals.aggregators["containers"]
    assert isinstance(kept, Kept)
    assert {(one.key, one.start): one.value for one in kept.results.values()} == expected
    (stats,) = arrivals.stats().aggregators
    assert stats.duplicates == sum(", many, " not in line for line in made)
    assert stats.without_identity == 0
