"""What windows give, in the plainest code: events are judged by the definitions, the clock goes second by second.

All times and durations are whole seconds here. Nothing is optimised, and nothing is taken from the engine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Record:
    """One window (of one key)."""

    start: int
    end: int
    key: Any
    opened: tuple[int, int]
    events: list[Any] = field(default_factory=list)
    number: int = 0
    since_every: int = 0
    #: The place in the story of the first event since it last fired; 0 if there was none.
    changed: int = 0
    on_time: bool = False


@dataclass(eq=False)
class Upstream:
    """What is known of one upstream."""

    highest: int | None = None
    silent: int = 0
    asked: bool = True

    def is_idle(self, idle_timeout: int | None) -> bool:
        """True if it was silent for long enough, while it was asked."""
        return idle_timeout is not None and self.silent >= idle_timeout


@dataclass(frozen=True)
class Settings:
    """Of sliding (or fixed) windows if *size* is given, else of sessions with this *gap*."""

    size: int = 0
    every: int = 0
    offset: int = 0
    gap: int = 0
    delay: int = 0
    lateness: int = 0
    idle_timeout: int | None = None
    on_time: bool = False
    trigger_every: int | None = None


class BruteForce:
    """Windows with the rules of Flow, or, with *by_key*, with those of aggregators."""

    def __init__(self, settings: Settings, *, by_key: bool = False) -> None:
        self.size, self.every, self.offset = settings.size, settings.every, settings.offset
        self.gap, self.delay, self.lateness = settings.gap, settings.delay, settings.lateness
        self.idle_timeout, self.on_time = settings.idle_timeout, settings.on_time
        self.trigger_every, self.by_key = settings.trigger_every, by_key
        self.now = 0
        self.upstreams: dict[Any, Upstream] = {}
        self.newest: int | None = None
        self.watermark: int | None = None
        self.records: list[Record] = []
        self.opened = 0
        self.serials: dict[tuple[int, int], int] = {}
        self.ended_sessions: list[Record] = []
        self.story: list[tuple[Any, ...]] = []

    # --- what happens

    def join(self, upstream: Any) -> None:
        self.upstreams[upstream] = Upstream()

    def leave(self, upstream: Any) -> None:
        del self.upstreams[upstream]
        if not self.upstreams:
            self.end()
        else:
            self.renew()
            self.settle()

    def hold(self, upstream: Any) -> None:
        self.upstreams[upstream].asked = False

    def resume(self, upstream: Any) -> None:
        self.upstreams[upstream].asked = True
        self.renew()
        self.settle()

    def go_to(self, now: int) -> None:
        """A second after the other."""
        while self.now < now:
            all_were_idle = self.all_idle()
            all_asked = all(one.asked for one in self.upstreams.values())
            self.now += 1
            for one in self.upstreams.values():
                one.silent += one.asked
            if all_were_idle and all_asked and self.watermark is not None and self.newest is not None:
                self.watermark += 1
            self.renew()
            self.settle()

    def give(self, event: tuple[int, Any, int], upstream: Any = None) -> None:
        """*event* is (time, key, id)."""
        time, key, _ = event
        if not self.by_key:
            self.upstreams[upstream].silent = 0
        line = None if self.watermark is None else self.watermark - self.lateness
        homes = self.session_of(time, key, line) if self.gap else self.windows_of(time, key, line)
        if not homes:
            self.story.append(("late", event))
        for record in homes:
            record.events.append(event)
            record.since_every += 1
            record.changed = record.changed or len(self.story) + 1
            self.story.append(("add", event))
        for record in homes:
            if self.trigger_every is not None and record.since_every >= self.trigger_every:
                record.since_every = 0
                self.fire(record, "every")
        if not self.by_key:
            one = self.upstreams[upstream]
            one.highest = time if one.highest is None else max(one.highest, time)
            self.newest = time if self.newest is None else max(self.newest, time)
            self.renew()
        self.settle()

    def advance(self, watermark: int) -> None:
        self.watermark = watermark if self.watermark is None else max(self.watermark, watermark)
        self.settle()

    def fire_late(self) -> None:
        for record in self.in_order():
            if record.on_time and record.changed:
                self.fire(record, "late")

    def end(self) -> None:
        for record in self.in_order():
            self.close(record, "end")

    # --- the definitions

    def windows_of(self, time: int, key: Any, line: int | None) -> list[Record]:
        first = (time - self.size - self.offset) // self.every - 1
        homes = []
        for number in range(first, first + self.size // self.every + 5):
            start = number * self.every + self.offset
            end = start + self.size
            if start <= time < end and (line is None or end > line):
                homes.append(self.record_for(start, end, key if self.by_key else None))
        return homes

    def record_for(self, start: int, end: int, key: Any) -> Record:
        for record in self.records:
            if (record.start, record.end, record.key) == (start, end, key):
                return record
        return self.open(start, end, key)

    def open(self, start: int, end: int, key: Any) -> Record:
        self.opened += 1
        serial = self.opened if self.gap else self.serials.setdefault((start, end), self.opened)
        record = Record(start, end, key, (serial, self.opened))
        # Behind the watermark: it has missed its time.
        record.on_time = self.fires_on_time() and self.watermark is not None and end <= self.watermark
        self.records.append(record)
        return record

    def session_of(self, time: int, key: Any, line: int | None) -> list[Record]:
        end = time + self.gap
        if line is not None and end <= line:
            return []
        if any(each.key == key and each.start < end and time < each.end for each in self.ended_sessions):
            return []
        joined = [each for each in self.records if each.key == key and each.start < end and time < each.end]
        if not joined:
            return [self.open(time, end, key)]
        session, *others = sorted(joined, key=lambda each: each.start)
        session.start = min(time, session.start)
        session.end = max(end, *(each.end for each in joined))
        for other in others:
            session.events += other.events
            session.since_every += other.since_every
            self.records.remove(other)
        if self.watermark is not None and session.end > self.watermark:
            session.on_time = False
        return [session]

    def fires_on_time(self) -> bool:
        return (self.on_time or self.by_key) and self.lateness > 0

    def all_idle(self) -> bool:
        return bool(self.upstreams) and all(one.is_idle(self.idle_timeout) for one in self.upstreams.values())

    def renew(self) -> None:
        """The watermark, by those that are not idle; it never goes back."""
        heard = [one.highest for one in self.upstreams.values() if not one.is_idle(self.idle_timeout)]
        if self.all_idle():
            heard = [self.newest]
        highest = [each for each in heard if each is not None]
        if heard and len(highest) == len(heard):
            value = min(highest) - self.delay
            self.watermark = value if self.watermark is None else max(self.watermark, value)

    def in_order(self) -> list[Record]:
        """By end, by start, as they were opened; the keys of a window that has fired on time as they changed."""
        return sorted(
            self.records,
            key=lambda each: (each.end, each.start, each.opened[0], each.changed if each.on_time else each.opened[1]),
        )

    def settle(self) -> None:
        """What is due at this watermark."""
        if self.watermark is None:
            return
        for record in self.in_order():
            if record.end <= self.watermark - self.lateness:
                self.close(record, "gap" if self.gap else "watermark")
        for record in self.in_order():
            if self.fires_on_time() and not record.on_time and record.end <= self.watermark:
                record.on_time = True
                self.fire(record, "gap" if self.gap and self.by_key else "watermark")

    def close(self, record: Record, reason: str) -> None:
        self.records.remove(record)
        if self.gap:
            self.ended_sessions.append(record)
        if not self.by_key:
            self.fire(record, "done", final=True)
        elif not record.on_time:
            self.fire(record, reason, final=True)
        elif record.changed:
            self.fire(record, "end" if reason == "end" else "late", final=True)

    def fire(self, record: Record, trigger: str, *, final: bool = False) -> None:
        record.number += 1
        record.changed = 0
        self.story.append(("fire", trigger, record.number, final, record.key, sorted(record.events)))
