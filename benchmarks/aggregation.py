"""Ours: events of this process through a whole pipeline with an aggregator, of ``benchmarks/config/aggregation.yaml``.

With ``--fill`` each key has an open window before the clock starts, and none closes while it runs. So only the number
of keys makes a difference.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

from benchmarks.aggregation_pipelines import Marking, WindowedByDay
from benchmarks.measure import Meter, arguments, run_async
from benchmarks.ours import PACKAGES, all_acked, scraped, settings_of
from benchmarks.queue_file import directory
from benchmarks.window_events import BEGIN, KEYS, Event, check, events
from broadway_py import Pipeline
from broadway_py.daemon.pipelines.loader import pipeline_class
from broadway_py.producers import MemoryProducer

__all__ = ["KINDS", "Kind", "build"]

#: Where the state is: in memory; in a file; in a file that also has the identity of each message, as with a broker.
Kind = Literal["memory", "durable", "identified"]
KINDS: Final[tuple[Kind, ...]] = ("memory", "durable", "identified")


def build(
    kind: Kind,
    source: Iterable[Event],
    path: Path,
    *,
    by_day: bool = False,
    dedup_s: float = 1,
    max_demand: int | None = None,
) -> Pipeline[Event]:
    """The pipeline with this *source*, and its state in the file *path*, unless that is in memory.

    Its windows have a minute, or a day. Identities are kept for *dedup_s* seconds. A checkpoint has half as many
    messages as *max_demand*, which is in the settings file unless it is given.
    """
    name = "memory" if kind == "memory" else "durable"
    section = dict(settings_of("aggregation.yaml", {"BENCHMARK_STATE": str(path)}).pipelines[name])
    made: type[Pipeline[Any]] = pipeline_class(section.pop("class"), ("pipelines", name, "class"))
    if kind != "memory":
        section["state"] = section["state"] | {"dedup": dedup_s}
    if max_demand is not None:
        section["aggregators"] = {"sums": section["aggregators"]["sums"] | {"max_demand": max_demand}}
    producer = Marking(source) if kind == "identified" else MemoryProducer(source)
    return (WindowedByDay if by_day else made).from_settings(section, name=name, producer=producer)


async def measure(asked: argparse.Namespace) -> None:
    """Run the pipeline once, until its source has ended and everything is stored and emitted, and print it."""
    given = events(asked.messages, asked.keys)
    with directory() as place:
        pipeline = build(asked.kind, given, place / "state.db", max_demand=asked.max_demand)
        meter = Meter(gate=asked.gate)
        async with pipeline, scraped(pipeline):
            await pipeline.wait()
        all_acked(pipeline, asked.messages)
        _report(meter, asked, place)
    check(pipeline.aggregators["sums"].total, asked.messages)  # type: ignore[union-attr]  # an instance of Sums
    _check_late(pipeline)


async def measure_filled(asked: argparse.Namespace) -> None:
    """Open a window for each key, then run the pipeline until all messages are stored, and print this part."""
    given = events(asked.messages, asked.keys)
    meter: Meter | None = None

    def source() -> Iterator[Event]:
        nonlocal meter
        for key in range(asked.keys):
            yield (BEGIN, key, 0)
        meter = Meter(gate=asked.gate)
        yield from given
        # If the source ended by itself, all windows would fire.
        pipeline.request_stop()

    with directory() as place:
        pipeline = build(asked.kind, source(), place / "state.db", by_day=True, max_demand=asked.max_demand)
        async with pipeline, scraped(pipeline):
            await pipeline.wait()
        assert meter is not None, "the source was read"
        all_acked(pipeline, asked.keys + asked.messages)
        _report(meter, asked, place)
    _check_late(pipeline)


def _report(meter: Meter, asked: argparse.Namespace, place: Path) -> None:
    size = sum(file.stat().st_size for file in place.iterdir())
    meter.report(f"aggregation, {asked.kind}, {asked.keys} keys", asked.messages, *PACKAGES, file_bytes=size)


def _check_late(pipeline: Pipeline[Event]) -> None:
    (figures,) = pipeline.stats().aggregators
    if any(figures.late.values()):
        raise RuntimeError(f"expected no late events, got {figures.late}")


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("kind", choices=KINDS, help="where the state is")
    parser.add_argument("--keys", type=int, default=KEYS, help=f"how many keys ({KEYS})")
    parser.add_argument("--max-demand", type=int, help="messages that are held at most (as in the settings file)")
    parser.add_argument("--fill", action="store_true", help="every key has a window before the clock starts")
    wanted = parser.parse_args()
    run_async(measure_filled(wanted) if wanted.fill else measure(wanted))
