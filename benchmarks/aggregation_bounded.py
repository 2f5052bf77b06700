"""Does the state of an aggregator stay small, and the event loop free? ``python -m benchmarks.aggregation_bounded``.

Runs a pipeline with a durable aggregator over ``--messages`` events in windows of a minute, and looks at it ten times a
second. Prints the rate; the largest size of the state file and its companions in the first sixteenth of the events, and
later; the resident memory then; and for how long the event loop was held at most. Fails when the file or the memory has
grown after the first sixteenth, or when the loop was held for longer than the bar.

With ``--fill`` each key has an open window first, which stays open. Then only the event loop is judged: the file has up
to three times what is open, and reaches that late.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.aggregation import build
from benchmarks.bounded import resident_mib
from benchmarks.measure import run_async
from benchmarks.ours import all_acked
from benchmarks.queue_file import directory
from benchmarks.window_events import BEGIN, KEYS, Event
from broadway_py import Pipeline

__all__: list[str] = []

#: What happens between two looks differs a little from one minute of events to the next.
_MOST_GROWTH: Final = 1.25
_MOST_GROWTH_MIB: Final = 3.0
_LOOK_EACH_S: Final = 0.1
_A_SECOND: Final = 1_000
_SPREAD_S: Final = 5.0
#: Identities are kept for so long in connected time. At the default of ten minutes the file grows for ten minutes.
_DEDUP_S: Final = 1.0


class Watch:
    """Looks at the file, at the memory and at how late a timer of a millisecond is."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self.file_bytes: list[int] = []
        self.memory_mib: list[float] = []
        self.held_s = 0.0
        self.is_watching = False

    async def look(self) -> None:
        """Look at the size of the file and of the memory, again and again."""
        while True:
            await asyncio.sleep(_LOOK_EACH_S)
            if self.is_watching:
                self.file_bytes.append(sum(file.stat().st_size for file in self._place.iterdir()))
                self.memory_mib.append(resident_mib())

    async def time(self) -> None:
        """Note by how much the longest wait for the event loop was too long."""
        while True:
            asked = time.perf_counter()
            await asyncio.sleep(0.001)
            if self.is_watching:
                self.held_s = max(self.held_s, time.perf_counter() - asked - 0.001)


def stream(messages: int, keys: int) -> Iterator[Event]:
    """So many events, made one by one."""
    chance = random.Random(7)
    for number in range(messages):
        yield (BEGIN + number / _A_SECOND - chance.random() * _SPREAD_S, chance.randrange(keys), 1)


async def tell(messages: int, keys: int, most_held_s: float, *, fill: bool) -> None:
    """Run the pipeline over so many events, and print what came of it."""
    with directory() as place:
        watch = Watch(place)
        first, began, early = 0, 0.0, 0

        def source() -> Iterator[Event]:
            nonlocal began, early, first
            if fill:
                for key in range(keys):
                    yield (BEGIN, key, 0)
                first = keys
            began, watch.is_watching = time.monotonic(), True
            yield from stream(messages // 16, keys)
            early = len(watch.file_bytes)
            yield from (
                (at + messages // 16 / _A_SECOND, key, value)
                for at, key, value in stream(messages - messages // 16, keys)
            )
            watch.is_watching = False
            pipeline.request_stop()

        pipeline: Pipeline[Event] = build("identified", source(), place / "state.db", by_day=fill, dedup_s=_DEDUP_S)
        async with pipeline:
            watching = [asyncio.create_task(watch.look()), asyncio.create_task(watch.time())]
            await pipeline.wait()
            took = time.monotonic() - began
            for task in watching:
                task.cancel()
            await asyncio.wait(watching)
        all_acked(pipeline, first + messages)
    if not early or len(watch.file_bytes) == early:
        raise SystemExit(f"{messages:,} messages are too few: nobody has looked at the file in each part")
    files = max(watch.file_bytes[:early]), max(watch.file_bytes[early:])
    memory = max(watch.memory_mib[:early]), max(watch.memory_mib[early:])
    print(
        f"{messages:,} messages of {keys:,} keys: {messages / took:,.0f}/s; in the first sixteenth, and later: file "
        f"{files[0] / 2**20:.1f} MiB, {files[1] / 2**20:.1f} MiB; memory {memory[0]:.1f} MiB, {memory[1]:.1f} MiB; the "
        f"event loop was held for {watch.held_s * 1e3:.0f} ms at most"
    )
    if not fill and files[1] > files[0] * _MOST_GROWTH:
        raise SystemExit("the file has grown")
    if not fill and memory[1] > memory[0] + _MOST_GROWTH_MIB:
        raise SystemExit("memory has grown")
    if watch.held_s > most_held_s:
        raise SystemExit(f"the event loop was held for longer than {most_held_s * 1e3:.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=16_000_000, help="how many events (16 million)")
    parser.add_argument("--keys", type=int, default=KEYS, help=f"how many keys ({KEYS})")
    parser.add_argument("--fill", action="store_true", help="every key has a window first")
    parser.add_argument("--most-held", type=float, default=0.02, help="seconds that the loop may be held (0.02)")
    asked = parser.parse_args()
    run_async(tell(asked.messages, asked.keys, asked.most_held, fill=asked.fill))


if __name__ == "__main__":
    main()
