"""Ours: the window engine alone, with a shell that adds events to sums by key and collects what fires."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.measure import Meter, arguments
from benchmarks.ours import PACKAGES
from benchmarks.window_events import LATENESS_S, SIZE_S, Event, check, events
from broadway_py._core.window.effects import Add, Effect, Fire, FireKeys, FireLast, FireOnTime
from broadway_py._core.window.engine import Engine
from broadway_py._core.window.firing import MISSING
from broadway_py._core.window.spec import Window

#: Events in a list: the default demand of a stage.
_LIST: Final = 1_000


def time_of(event: Event) -> float:
    """A user's function."""
    return event[0]


class Shell:
    """Carries out what the engine says, with sums by key for each window."""

    def __init__(self, *, by_key: bool) -> None:
        window = Window.fixed(SIZE_S, by=time_of, lateness=LATENESS_S, delay=0, max_ahead=None)
        self.engine = Engine(window, 0.0, by_key=by_key)
        self.total = 0
        self._by_key = by_key
        if not by_key:
            self.engine.join("source", 0.0)

    def give(self, given: list[Event]) -> None:
        """Feeds the events of a list."""
        stamped = self.engine.read(given)
        stamped.keys = [event[1] for event in given]
        self.carry_out(self.engine.feed(stamped, 0.0, upstream="source"))
        if self._by_key:
            self.carry_out(self.engine.advance(stamped.high, 0.0))

    def carry_out(self, effects: list[Effect]) -> None:
        """Adds, and collects the last firing of each window."""
        for effect in effects:
            if isinstance(effect, Add):
                self._add(effect)
            elif isinstance(effect, FireKeys):
                # A value is whole, and a window fires again for late events: only what is new is added here.
                for record, _, _ in effect.fired:
                    self.total += record.state
                    record.state = 0
            elif isinstance(effect, FireOnTime):
                for record in effect.take(len(effect)):
                    self.total += record.state
                    record.state = 0
            elif isinstance(effect, FireLast):
                self.total += sum(record.state for record in effect.take(len(effect)))
            elif isinstance(effect, Fire) and effect.final:
                self.total += sum(effect.window.state.values())

    def _add(self, effect: Add) -> None:
        if self._by_key:
            for records in effect.records:
                for record, event in zip(records, effect.events, strict=True):
                    record.state = event[2] if record.state is MISSING else record.state + event[2]
            return
        for window in effect.windows:
            sums: dict[Any, int] | None = window.state
            if sums is None:
                sums = window.state = {}
            for key, event in zip(effect.keys or (), effect.events, strict=True):
                sums[key] = sums.get(key, 0) + event[2]


def measure(messages: int, *, by_key: bool, gate: bool) -> None:
    """Feed all events once and print the measurement."""
    given = events(messages)
    shell = Shell(by_key=by_key)
    meter = Meter(gate=gate)
    for begin in range(0, messages, _LIST):
        shell.give(given[begin : begin + _LIST])
    shell.carry_out(shell.engine.end(0.0))
    meter.report("windows by key" if by_key else "windows", messages, *PACKAGES)
    check(shell.total, messages)
    if shell.engine.late:
        raise RuntimeError(f"expected no late events, got {shell.engine.late}")


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--by-key", action="store_true", help="with the rules of aggregators")
    asked = parser.parse_args()
    measure(asked.messages, by_key=asked.by_key, gate=asked.gate)
