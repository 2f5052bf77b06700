"""What comes within the delay is never late, whatever handlers, retries and lost connections do to the order.

The model of a broker delivers again what was retried, given back or lost. One keeps the order of what it delivers
again, one brings it back later and in any order. The watermark is compared with one that is computed from the whole
history at every step.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broadway_py._core.aggregation.event_clock import EventClock
from broadway_py._core.aggregation.progress import Progress
from broadway_py._core.aggregation.saved_holds import SavedHold
from broadway_py._core.aggregation.tracked_ledger import TrackedLedger, arrive
from broadway_py._core.identity import identity_of
from broadway_py._core.settlement import record
from broadway_py.message import SETTLED, Message, Outcome

DELAY = 10.0
RETURNS_WITHIN = 2.0
#: In seconds. With the shorter ones only, what was held for too long is forgotten.
HOLDS = ((4.0, 9.0, math.inf), (4.0, 9.0))


def us(seconds: float) -> int:
    return round(seconds * 1_000_000)


@dataclass
class Came:
    """A receipt in the whole history."""

    since: float
    #: Message -> None while it is in work; True once it has arrived; the moment of its first receipt while awaited.
    states: dict[int, float | bool | None]
    noted: list[int] = field(default_factory=list)
    awaited_since: float = 0.0
    brings: dict[int, list[tuple[Came, float]]] = field(default_factory=dict)

    def lets_pass(self, active: float, hold: float) -> bool:
        states = self.states.values()
        if all(state is True for state in states):
            return True
        return active >= hold + (self.since if None in states else self.awaited_since)

    def check(self) -> None:
        """Once all have arrived, what they were delivered again for has arrived too."""
        if all(state is True for state in self.states.values()):
            brings, self.brings = self.brings, {}
            for event, others in brings.items():
                for other, _ in others:
                    other.states[event] = True
                    other.check()


@dataclass
class Lost:
    ends_at: float
    last: int | None = None


class History:
    """The watermark by its definition, from the whole history each time."""

    def __init__(self, holds: tuple[float, ...]) -> None:
        self.holds = holds
        self.items: list[Came | Lost] = []
        self.awaited: dict[int, list[tuple[Came, float]]] = {}
        self.highest: dict[float, int] = {}

    def pass_time(self, active: float) -> None:
        for item in self.items:
            if isinstance(item, Lost) and item.last is None and item.ends_at <= active:
                item.last = len(self.items)

    def evaluate(self, active: float) -> None:
        self.pass_time(active)
        for hold in self.holds:
            until = 0
            taken: list[int] = []
            place = 0
            for place, item in enumerate(self.items, 1):
                if isinstance(item, Lost):
                    if item.last is None:
                        break
                    if place - 1 >= until and taken:
                        self.highest[hold] = max(taken)
                    until = max(until, item.last)
                elif not item.lets_pass(active, hold):
                    break
                else:
                    taken += item.noted
            else:
                place += 1
            if place - 1 >= until and taken:
                self.highest[hold] = max(taken)

    def came(self, events: Iterable[int], active: float) -> Came:
        self.pass_time(active)
        came = Came(active, dict.fromkeys(events))
        for event in came.states:
            found = self.awaited.pop(event, [])
            came.brings[event] = [one for one in found if one[1] > active - max(self.holds)]
            for other, first in found:
                if first <= active - max(self.holds):
                    other.states[event] = True
                    other.check()
        self.items.append(came)
        return came

    def came_back(self, came: Came, event: int) -> None:
        first = min((since for _, since in came.brings.get(event, ())), default=came.since)
        is_first = all(state is True or state is None for state in came.states.values())
        came.awaited_since = first if is_first else max(first, came.awaited_since)
        came.states[event] = first
        self.awaited.setdefault(event, []).append((came, first))


class Broker(RuleBasedStateMachine):
    """One queue, two copies of one producer, three aggregators that differ in how long they hold."""

    @initialize(keeps_order=st.booleans(), holds=st.sampled_from(HOLDS))
    def begin(self, keeps_order: bool, holds: tuple[float, ...]) -> None:
        self.keeps_order = keeps_order
        self.now = 1_000.0
        self.base = 0.0
        self.before_start = 0.0
        self.history = History(holds)
        self.start(dict.fromkeys(holds, "{}"), dict.fromkeys(holds))
        self.times: list[int] = []
        self.ready: list[int] = []  # in the queue, never handed over and never lost, in order
        self.unseen: set[int] = set()  # these, and those of them that a copy has in its buffer
        self.again: list[int] = []  # in the queue once more
        self.must: list[tuple[float, int]] = []  # lost: comes in before this moment
        self.buffers: dict[int, list[int]] = {0: [], 1: []}
        self.unsettled: dict[int, list[Message[bytes]]] = {0: [], 1: []}
        self.work: list[tuple[Message[bytes], Came]] = []
        self.added: set[int] = set()
        self.connected = {0: False, 1: False}
        self.connect(0)
        self.marks: dict[float, int | None] = dict.fromkeys(holds)

    def start(self, stored: dict[float, str], marks: dict[float, int | None]) -> None:
        self.progress = Progress(2, "orders")
        self.ledger = TrackedLedger("orders", progress=self.progress, identity_of=partial(identity_of, pipeline="shop"))
        self.clocks = {}
        for hold, saved in stored.items():
            holds = {name: [SavedHold.of(one) for one in ones] for name, ones in json.loads(saved).items()}
            self.clocks[hold] = EventClock(
                [self.progress],
                self.now,
                delay=DELAY,
                hold_timeout=hold,
                idle_timeout=None,
                watermark=marks[hold],
                saved=holds,
                changed=lambda: None,
            )

    @property
    def active(self) -> float:
        return self.before_start + self.progress.active(self.now)

    # --- the broker

    @precondition(lambda self: len(self.ready) < 6)
    @rule(steps=st.lists(st.tuples(st.floats(0, 8), st.floats(0, DELAY)), min_size=3, max_size=6))
    def publish(self, steps: list[tuple[float, float]]) -> None:
        """Each comes within the delay of all before it."""
        for step, behind in steps:
            self.base += step
            self.ready.append(len(self.times))
            self.unseen.add(len(self.times))
            self.times.append(us(self.base - behind))

    @rule(copy=st.integers(0, 1), count=st.integers(1, 4))
    def prefetch(self, copy: int, count: int) -> None:
        """The broker sends ahead: these are out of the queue, and the pipeline does not have them."""
        if self.connected[copy]:
            self.buffers[copy] += self._take(count, None)

    def _take(self, count: int, data: st.DataObject | None) -> list[int]:
        taken: list[int] = []
        while len(taken) < count and (self.ready or self.again):
            # What is delivered again stands at its old place, or anywhere.
            if not self.ready or not self.again:
                use_again = bool(self.again)
            elif self.keeps_order:
                use_again = self.again[0] < self.ready[0]
            else:
                use_again = data is None or data.draw(st.booleans())
            pile = self.again if use_again else self.ready
            at = 0
            if pile is self.again and not self.keeps_order and data is not None:
                at = data.draw(st.integers(0, len(pile) - 1))
            taken.append(pile.pop(at))
        return taken

    @rule(copy=st.integers(0, 1), count=st.integers(1, 4), data=st.data())
    def receive(self, copy: int, count: int, data: st.DataObject) -> None:
        if not self.connected[copy]:
            return
        buffer = self.buffers[copy]
        events, self.buffers[copy] = buffer[:count], buffer[count:]
        self._hand_over(copy, events or self._take(count, data))

    def _hand_over(self, copy: int, events: list[int]) -> None:
        """Hands over *events*, and before them what lies before them in the queue and is not handed over yet.

        No watermark can wait for a message that the pipeline never had and no lost reader held: nobody has told of it.
        It may be in the queue, or in the buffer of a copy. So these come in the order of the queue, whichever copy has
        them, also after a pause, which makes them available again at once. What brokers and copies change in that
        order is a part of the delay, as with publishers. What was handed over or lost before comes in any order.
        """
        earlier = {event for event in self.unseen if event < max(events, default=0)} - {*events}
        for other, buffer in self.buffers.items():
            self._come(other, [event for event in buffer if event in earlier])
            buffer[:] = [event for event in buffer if event not in earlier]
        self._come(copy, [event for event in self.ready if event in earlier])
        self.ready = [event for event in self.ready if event not in earlier]
        self._come(copy, events)

    def _come(self, copy: int, events: list[int]) -> None:
        events = list(dict.fromkeys(events))
        if not events:
            return
        self.must = [(moment, event) for moment, event in self.must if event not in events]
        self.unseen -= {*events}
        messages = [Message(b"", {"message_id": str(event)}) for event in events]
        entry = self.ledger.begin(self.now)
        for message in messages:
            message._ledger_entry = entry
        self.ledger.receive(entry, messages, 0)
        came = self.history.came(events, self.active)
        self.work += [(message, came) for message in messages]
        self.unsettled[copy] += messages

    def _put_back(self, events: Iterable[int]) -> None:
        self.again = sorted({*self.again, *events}) if self.keeps_order else [*self.again, *events]

    # --- the pipeline

    def _pick(self, data: st.DataObject) -> list[tuple[Message[bytes], Came]]:
        places = data.draw(st.lists(st.integers(0, len(self.work) - 1), unique=True, min_size=1, max_size=5))
        picked = [self.work[place] for place in places]
        self.work = [one for place, one in enumerate(self.work) if place not in places]
        return picked

    @precondition(lambda self: self.work)
    @rule(data=st.data(), to_batcher=st.booleans())
    def handled(self, data: st.DataObject, to_batcher: bool) -> None:
        self._handled(self._pick(data), to_batcher=to_batcher)

    def _handled(self, picked: list[tuple[Message[bytes], Came]], *, to_batcher: bool = False) -> None:
        """Handlers end in any order; what is known already is not added again."""
        for message, came in picked:
            event = int(message.metadata["message_id"])
            if event not in self.added and not to_batcher:
                self.added.add(event)
                time = self.times[event]
                self._check_in_time(message, time)
                for clock in self.clocks.values():
                    clock.note(message._ledger_entry, time)
                came.noted.append(time)
            elif to_batcher:
                self.added.add(event)
            came.states[event] = True
        arrive([message for message, _ in picked], self.now)
        for _, came in picked:
            came.check()
        # What counts now may be withheld later in the same step: after another loss.
        self.the_watermark_is_what_the_history_says_and_never_falls()

    def _check_in_time(self, message: Message[bytes], time: int) -> None:
        if math.inf not in self.clocks:
            return  # a hold may have run out
        watermark = self.clocks[math.inf].watermark(self.now, 0.0)
        assert watermark is None or time >= watermark, f"late by {watermark - time} us"
        assert not self.clocks[math.inf].was_held_too_long(message._ledger_entry, lambda: None)

    @precondition(lambda self: self.work)
    @rule(data=st.data(), outcome=st.sampled_from(["retried", "returned", "unknown"]))
    def let_go(self, data: st.DataObject, outcome: Outcome) -> None:
        """It failed and will be tried again, or it was given back, or nobody knows whether it was."""
        for message, came in self._pick(data):
            event = int(message.metadata["message_id"])
            self.history.came_back(came, event)
            record([message], outcome, self.now)
            self._forget(message)
            self._put_back([event])

    @rule(data=st.data())
    def acked(self, data: st.DataObject) -> None:
        """What has arrived is acked some time after."""
        busy = {id(message) for message, _ in self.work}
        done = [message for messages in self.unsettled.values() for message in messages if id(message) not in busy]
        if done:
            chosen = data.draw(st.lists(st.sampled_from(range(len(done))), unique=True, max_size=4))
            for place in chosen:
                record([done[place]], "acked", self.now)
                self._forget(done[place])

    def _forget(self, message: Message[bytes]) -> None:
        for messages in self.unsettled.values():
            messages[:] = [one for one in messages if one is not message]

    # --- connections and time

    @rule(copy=st.integers(0, 1))
    def connect(self, copy: int) -> None:
        self.connected[copy] = True
        self.progress.readers[copy].reads(self.now)

    @rule(copy=st.integers(0, 1))
    def pause(self, copy: int) -> None:
        """What it has not handed over goes back to its place in the queue."""
        if self.connected[copy]:
            self.connected[copy] = False
            self.progress.readers[copy].pauses(self.now)
            buffer, self.buffers[copy] = self.buffers[copy], []
            self.ready = sorted([*self.ready, *(event for event in buffer if event in self.unseen)])
            self._put_back(event for event in buffer if event not in self.unseen)

    @rule(copy=st.integers(0, 1), reconnects=st.booleans())
    def lose(self, copy: int, reconnects: bool) -> None:
        """All that this copy has not settled comes again, also what is still in work here."""
        if not self.connected[copy]:
            return
        ends_at = self.active + RETURNS_WITHIN
        self.history.pass_time(self.active)
        self.history.items.append(Lost(ends_at))
        self.progress.readers[copy].lost(self.now, RETURNS_WITHIN)
        self.connected[copy] = False
        lost = [*self.buffers[copy], *(int(one.metadata["message_id"]) for one in self.unsettled[copy])]
        self.buffers[copy] = []
        working = {id(message) for message, _ in self.work}
        for message in self.unsettled[copy]:
            if id(message) not in working:
                record([message], "unknown", self.now)
        self.unsettled[copy] = []
        self._put_back(lost)
        self.unseen -= {*lost}
        # What had come back to this copy, and was not handed over, is away once more: its time begins anew.
        self.must = [(moment, event) for moment, event in self.must if event not in lost]
        self.must += [(ends_at, event) for event in dict.fromkeys(lost)]
        if reconnects:
            self.connect(copy)

    @precondition(lambda self: all(item.last is not None for item in self.history.items if isinstance(item, Lost)))
    @rule(reconnects=st.integers(0, 1))
    def stop_and_start(self, reconnects: int) -> None:
        """All in work is given back, all that has arrived is acked. What is awaited holds in the next process."""
        for message, came in self.work:
            self.history.came_back(came, int(message.metadata["message_id"]))
            record([message], "returned", self.now)
            self._forget(message)
            self._put_back([int(message.metadata["message_id"])])
        self.work = []
        for messages in self.unsettled.values():
            record(messages, "acked", self.now)
            messages.clear()
        for copy in self.connected:
            self.pause(copy)
        self.the_watermark_is_what_the_history_says_and_never_falls()
        assert self.progress.is_settled
        stored = {hold: json.dumps(clock.saved(self.now)) for hold, clock in self.clocks.items()}
        self.before_start = self.active
        self.start(stored, self.marks)
        self.connect(reconnects)

    @rule(data=st.data(), seconds=st.integers(16, 32).map(lambda eighths: eighths / 8))
    def lose_and_go_on(self, data: st.DataObject, seconds: float) -> None:
        """After a loss, one receipt is handled and the next one is not, when the time is over."""
        self.connect(0)
        self.publish([(5.0, 0.0)] * 4)
        self.prefetch(0, 2)
        self.lose(0, reconnects=True)
        self.receive(0, 2, data)
        picked, self.work = self.work, []
        self._handled(picked)
        self.receive(0, 4, data)
        self.time_passes(seconds)

    @rule(
        data=st.data(),
        something_comes_between=st.booleans(),
        seconds=st.integers(4, 15).map(lambda eighths: eighths / 8),
    )
    def lose_twice_and_go_on(self, data: st.DataObject, something_comes_between: bool, seconds: float) -> None:
        """The second loss is within the time of the first. Something is handled before its own time is over."""
        self.connect(0)
        self.publish([(5.0, 0.0)] * 4)
        self.prefetch(0, 2)
        self.lose(0, reconnects=True)
        if something_comes_between:
            self.receive(0, 1, data)
        self.time_passes(seconds)
        self.prefetch(0, 1)
        self.lose(0, reconnects=True)
        self.receive(0, 2, data)
        picked, self.work = self.work, []
        self._handled(picked)
        self.time_passes(seconds)

    @rule(seconds=st.integers(4, 24).map(lambda eighths: eighths / 8))
    def time_passes(self, seconds: float) -> None:
        due = {event for moment, event in self.must if moment <= self.active + seconds}
        copies = [copy for copy, is_connected in self.connected.items() if is_connected]
        if copies and due:
            self.again = [event for event in self.again if event not in due]
            for buffer in self.buffers.values():
                buffer[:] = [event for event in buffer if event not in due]
            self._hand_over(copies[0], sorted(due))
        self.now += seconds

    # --- what holds

    @invariant()
    def the_watermark_is_what_the_history_says_and_never_falls(self) -> None:
        if not hasattr(self, "marks"):
            return
        self.history.evaluate(self.active)
        for hold, clock in self.clocks.items():
            watermark = clock.watermark(self.now, 0.0)
            highest = self.history.highest.get(hold)
            expected = None if highest is None else highest - us(DELAY)
            before = self.marks[hold]
            assert before is None or (watermark is not None and watermark >= before)
            assert watermark == max((one for one in (expected, before) if one is not None), default=None)
            self.marks[hold] = watermark

    @invariant()
    def the_books_add_up(self) -> None:
        if hasattr(self, "marks"):
            ledger = self.ledger
            assert ledger.received == sum(ledger.outcomes.values()) + ledger.in_flight

    @invariant()
    def nothing_waits_longer_than_it_is_asked_to(self) -> None:
        """When time alone ends a hold or a standstill, the clock says when."""
        if not hasattr(self, "marks"):
            return
        for hold, clock in self.clocks.items():
            change = clock.next_change(self.now, 0.0)
            assert change is None or change >= self.now
            held = clock.held(self.now)
            assert hold == math.inf or max(held["in_work"], held["retry"]) <= hold

    def teardown(self) -> None:
        if not hasattr(self, "marks"):
            return
        for copy in self.connected:
            self.connect(copy)
        for _ in range(3):
            for copy, buffer in self.buffers.items():
                events, self.buffers[copy] = buffer, []
                self._hand_over(copy, events)
            events, self.again, self.ready = [*self.again, *self.ready], [], []
            self._hand_over(0, events)
            picked, self.work = self.work, []
            self._handled([one for one in picked if one[0]._settlement != SETTLED])
            self.time_passes(RETURNS_WITHIN)
            self.the_watermark_is_what_the_history_says_and_never_falls()
        noted = [time for item in self.history.items if isinstance(item, Came) for time in item.noted]
        for clock in self.clocks.values():
            assert clock.watermark(self.now, 0.0) == (max(noted) - us(DELAY) if noted else None)
            assert not any(clock.held(self.now)[by] for by in ("in_work", "retry", "reconnect"))


TestBroker = Broker.TestCase
