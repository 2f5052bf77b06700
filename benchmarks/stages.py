"""Ours: a producer, a producer-consumer and a consumer, with the same lists as the queues of the limit."""

from __future__ import annotations

from benchmarks.measure import Meter, arguments, run_async
from broadway_py.stage import ConsumerStage, ProducerConsumerStage, ProducerStage, subscribe


class Numbers(ProducerStage[int]):
    """Counts, and ends."""

    def __init__(self, end: int) -> None:
        super().__init__()
        self.next, self.end = 0, end

    def handle_demand(self, demand: int) -> list[int] | None:
        """Returns the next numbers."""
        first = self.next
        if first == self.end:
            return None
        self.next = min(self.end, first + demand)
        return list(range(first, self.next))


class AddOne(ProducerConsumerStage[int, int]):
    """Adds one to each number."""

    def handle_events(self, events: list[int]) -> list[int]:
        """Returns the sums."""
        return [event + 1 for event in events]


class Total(ConsumerStage[int]):
    """Adds the numbers up."""

    total = 0

    def handle_events(self, events: list[int]) -> None:
        """Adds *events* to the total."""
        self.total += sum(events)


async def measure(events: int, max_demand: int, *, gate: bool) -> None:
    """Run the three stages once, until all have ended, and print the measurement."""
    meter = Meter(gate=gate)
    async with Numbers(events) as numbers, AddOne() as add_one, Total() as total:
        await subscribe(total, to=add_one, max_demand=max_demand)
        await subscribe(add_one, to=numbers, max_demand=max_demand)
        for stage in (numbers, add_one, total):
            await stage.wait()
    assert total.total == events * (events + 1) // 2
    meter.report("stages", events, "broadway-py")


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--max-demand", type=int, default=1000, help="of both subscriptions (1000)")
    asked = parser.parse_args()
    run_async(measure(asked.messages, asked.max_demand, gate=asked.gate))
