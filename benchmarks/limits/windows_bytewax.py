"""Peer: Bytewax's ``fold_window`` over the same events, in memory, or with its recovery and its default epochs.

Runs in an environment of its own (see ``benchmarks.peers``). Its events have the forms that it wants before the clock
starts: text as key, an aware datetime as time. It need not keep them in order.
"""

from __future__ import annotations

import gc
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op  # type: ignore[import-not-found]  # only in its own environment
from bytewax.dataflow import Dataflow  # type: ignore[import-not-found]  # as above
from bytewax.operators.windowing import (  # type: ignore[import-not-found]  # as above
    EventClock,
    TumblingWindower,
    fold_window,
)
from bytewax.recovery import RecoveryConfig, init_db_dir  # type: ignore[import-not-found]  # as above
from bytewax.testing import TestingSink, TestingSource, run_main  # type: ignore[import-not-found]  # as above

from benchmarks.measure import Meter, arguments
from benchmarks.queue_file import directory
from benchmarks.window_events import BEGIN, KEYS, LATENESS_S, SIZE_S, check, events

#: Items that its source hands over at once: the default demand of ours.
_LIST = 1_000

#: Time and value.
Timed = tuple[datetime, int]


def time_of(event: Timed) -> datetime:
    """A user's function."""
    return event[0]


def add(total: int, event: Timed) -> int:
    """A user's function."""
    return total + event[1]


def flow_of(given: list[tuple[str, Timed]], results: list[Any]) -> Any:
    """The dataflow: one source, one window for each minute and key, one sink."""
    flow = Dataflow("windows")
    source = op.input("source", flow, TestingSource(given, _LIST))
    windows = fold_window(
        "sums",
        source,
        EventClock(time_of, wait_for_system_duration=timedelta(seconds=LATENESS_S)),
        TumblingWindower(length=timedelta(seconds=SIZE_S), align_to=datetime.fromtimestamp(BEGIN // 60 * 60, UTC)),
        int,
        add,
        int.__add__,
        ordered=False,
    )
    op.output("sink", windows.down, TestingSink(results))
    return flow


def measure(messages: int, keys: int, *, recovery: bool, gate: bool) -> None:
    """Run the dataflow once and print the measurement."""
    given = [(str(key), (datetime.fromtimestamp(time, UTC), value)) for time, key, value in events(messages, keys)]
    gc.freeze()  # as for the events themselves
    results: list[Any] = []
    flow = flow_of(given, results)
    with directory() as place:
        config = None
        if recovery:
            init_db_dir(place, 1)
            config = RecoveryConfig(str(place))
        meter = Meter(gate=gate)
        run_main(flow, recovery_config=config)
        meter.report("windows_bytewax", messages, "bytewax")
    check(sum(value for _, (_, value) in results), messages)


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--keys", type=int, default=KEYS, help=f"how many keys ({KEYS})")
    parser.add_argument("--recovery", action="store_true", help="what is in the windows survives")
    asked = parser.parse_args()
    measure(asked.messages, asked.keys, recovery=asked.recovery, gate=asked.gate)
