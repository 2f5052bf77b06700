"""Does memory stay flat? ``python -m benchmarks.bounded STORY``: an endless source, and something slow behind it.

Prints what was handled per second, the most that was in flight, and the memory (resident, in MiB) after a quarter of
the time and at the end. Fails when it has grown by more than 3 MiB in between, or when a message was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import run_async
from broadway_py import Batcher, BatchInfo, Message, Pipeline, Processors
from broadway_py.producers import MemoryProducer

__all__ = ["resident_mib"]

_MOST_GROWTH_MIB: Final = 3.0
#: Of ten messages nine have this key.
_HOT: Final = 0
_KEYS: Final = 1_000
_SLOW_S: Final = 0.01


class Story(Pipeline[int]):
    """Counts what it handled, by what it belongs to."""

    processors = Processors(concurrency=4)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.handled: Counter[str] = Counter()

    async def handle_message(self, message: Message[int]) -> None:
        """Slow."""
        await asyncio.sleep(_SLOW_S)
        self.handled["all"] += 1


class SlowBatches(Story):
    """A quick handler before a slow sink."""

    batchers = {"default": Batcher(batch_size=100, batch_timeout=0.1)}  # noqa: RUF012  # never changed

    async def handle_message(self, message: Message[int]) -> None:
        """Quick."""

    async def handle_batch(self, messages: list[Message[int]], info: BatchInfo) -> None:
        """Slow."""
        await asyncio.sleep(0.2 if info.batcher == "slow" else _SLOW_S)
        self.handled[info.batcher] += len(messages)


class TwoSinks(SlowBatches):
    """One message in a hundred goes to a sink that is twenty times slower than the other."""

    batchers = {  # noqa: RUF012  # never changed
        "quick": Batcher(batch_size=100, batch_timeout=0.1),
        "slow": Batcher(batch_size=10, batch_timeout=0.1),
    }

    async def handle_message(self, message: Message[int]) -> None:
        """Choose."""
        message.batcher = "slow" if message.data % 100 == 0 else "quick"


class HalfToEach(TwoSinks):
    """Every other message goes to the slow sink: what it cannot take holds up the others in the end."""

    async def handle_message(self, message: Message[int]) -> None:
        """Choose."""
        message.batcher = "slow" if message.data % 2 == 0 else "quick"


def key_of(message: Message[int]) -> int:
    """Nine of ten have the hot key."""
    return _HOT if message.data % 10 else 1 + message.data // 10 % _KEYS


class HotKey(Story):
    """The hot key is slow, the others are quick."""

    partition_by = staticmethod(key_of)

    async def handle_message(self, message: Message[int]) -> None:
        """Slow for the hot key alone."""
        if key_of(message) == _HOT:
            await asyncio.sleep(0.001)
            self.handled["hot key"] += 1
        else:
            self.handled["other keys"] += 1


_STORIES: Final[dict[str, type[Story]]] = {
    "slow_handler": Story,
    "slow_batches": SlowBatches,
    "two_sinks": TwoSinks,
    "half_to_each": HalfToEach,
    "hot_key": HotKey,
}


def resident_mib() -> float:
    """The resident memory of this process, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def tell(name: str, seconds: float) -> None:
    """Run the story for so long, and print what came of it."""
    pipeline = _STORIES[name](name=name, producer=MemoryProducer(itertools.count()))
    most_in_flight, early = 0, 0.0
    async with pipeline:
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            await asyncio.sleep(0.25)
            (producer,) = pipeline.stats().producers
            most_in_flight = max(most_in_flight, producer.in_flight)
            if passed < seconds / 4:
                early = resident_mib()
        late = resident_mib()
        handled = dict(pipeline.handled)
    (producer,) = pipeline.stats().producers
    rates = ", ".join(f"{what} {count / seconds:,.0f}/s" for what, count in sorted(handled.items()))
    print(
        f"{name}: {rates}; at most {most_in_flight:,} in flight; {early:.1f} MiB after {seconds / 4:.0f} s, "
        f"{late:.1f} MiB after {seconds:.0f} s"
    )
    if late - early > _MOST_GROWTH_MIB:
        raise SystemExit(f"{name}: memory has grown by {late - early:.1f} MiB")
    ended = {outcome: count for outcome, count in producer.outcomes.items() if count}
    if ended != {"acked": producer.received} or sum(pipeline.handled.values()) != producer.received:
        raise SystemExit(f"{name}: of {producer.received} messages: {ended}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("story", choices=sorted(_STORIES))
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    asked = parser.parse_args()
    run_async(tell(asked.story, asked.seconds))


if __name__ == "__main__":
    main()
