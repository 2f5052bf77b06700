"""Dispatcher, buffer and held-back demand of one producer together, in any order of events, against plain books."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broadway_py.stage import DROP, BroadcastDispatcher, DemandDispatcher, PartitionDispatcher, Subscription
from broadway_py.stage.settings import SubscriptionOptions
from broadway_py.stage.subscribe import connect
from tests.stage.support import Forwarder, Recorder

PARTITIONS = 3


def partition_of(event: int) -> Any:
    return DROP if event % 7 == 0 else None if event % 5 == 0 else event % PARTITIONS


class OutletMachine(RuleBasedStateMachine):
    """One producer, whose task does not run, up to three consumers, and demand that comes to it as numbers."""

    @initialize(
        kind=st.sampled_from(["demand", "partition", "broadcast"]),
        size=st.one_of(st.none(), st.integers(0, 8)),
        keep=st.sampled_from(["first", "last"]),
        accumulates=st.booleans(),
    )
    def make(self, kind: str, size: int | None, keep: Any, accumulates: bool) -> None:
        self.kind, self.size = kind, size
        dispatcher: Any = {
            "demand": DemandDispatcher(),
            "partition": PartitionDispatcher[Any, int](PARTITIONS, partition_of),
            "broadcast": BroadcastDispatcher(),
        }[kind]
        self.discarded = 0
        self.stage = Forwarder(
            dispatcher=dispatcher,
            buffer_size=size,
            buffer_keep=keep,
            on_discard=self.note_discarded,
            demand="accumulate" if accumulates else "forward",
        )
        self.outlet = self.stage.outlet
        self.here: list[Subscription[Any]] = []
        self.sent = 0
        self.dispatched = 0
        self.left_behind = 0
        self.handled: dict[Recorder, list[int]] = {}
        self.told = 0
        self.used = 0
        self.infos = 0
        self.seen_infos: list[Any] = []

    def note_discarded(self, count: int) -> bool:
        self.discarded += count
        return False

    @precondition(lambda self: len(self.here) < PARTITIONS)
    @rule(most=st.integers(1, 6), data=st.data())
    def subscribe(self, most: int, data: st.DataObject) -> None:
        taken = {subscription.options.partition for subscription in self.here}
        partition = None
        if self.kind == "partition":
            partition = data.draw(st.sampled_from(sorted(set(range(PARTITIONS)) - taken)))
        options = SubscriptionOptions(max_demand=most, partition=partition, cancel="temporary")
        recorder = Recorder()
        self.handled[recorder] = []
        self.here.append(connect(recorder, self.stage, options))

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        subscription = data.draw(st.sampled_from(self.here))
        self.here.remove(subscription)
        subscription.cancel()

    @precondition(lambda self: any(recorder.inlet for recorder in self.handled))
    @rule(data=st.data())
    def handle(self, data: st.DataObject) -> None:
        recorder = data.draw(st.sampled_from([each for each in self.handled if each.inlet]))
        edge, chunk, ask = recorder.inlet.take()
        self.handled[recorder] += chunk
        if ask:
            edge.ask(ask)

    @rule(count=st.integers(1, 8))
    def emit(self, count: int) -> None:
        self.give(count)

    def give(self, count: int) -> None:
        events = list(range(self.sent, self.sent + count))
        self.sent += count
        if self.stage.demand == "forward" and not self.stage._held:
            self.note_use(count)
        self.stage.emit(events)

    def note_use(self, count: int) -> None:
        self.dispatched += count
        self.used += min(count, max(0, self.outlet.demand))

    @rule(more=st.integers(-3, 2))
    def work(self, more: int) -> None:
        """Do what the task of the stage would do next."""
        todo: Any
        if self.stage._todo:
            todo = self.stage._todo.popleft()
        elif self.stage._held and self.stage.demand == "forward":
            todo = self.stage._held.replay_next()
            self.stage._let_demand_through()
        else:
            return
        if isinstance(todo, int):
            self.told += todo
            if todo + more > 0:
                self.give(todo + more)
        elif isinstance(todo, list):
            self.note_use(len(todo))
            self.outlet.dispatch(todo)
        elif todo.func == self.stage._tell_info:
            self.seen_infos.append(todo.args[0])

    @rule(mode=st.sampled_from(["forward", "accumulate"]))
    def switch(self, mode: Any) -> None:
        self.stage.demand = mode

    @rule()
    def info(self) -> None:
        self.infos += 1
        self.stage._take_info(self.infos)

    @invariant()
    def every_event_is_handled_or_discarded_or_still_there(self) -> None:
        if not hasattr(self, "stage") or self.kind == "broadcast":
            return
        waiting = [event for recorder in self.handled for event in recorder.inlet.waiting()]
        handled = [event for events in self.handled.values() for event in events]
        assert max(Counter(waiting + handled).values(), default=1) == 1
        if self.kind == "partition":
            # Those that the function drops count when they are dispatched, which cannot be seen one by one here.
            assert not any(partition_of(event) is DROP for event in waiting + handled)
            return
        kept = self.outlet.backlog + self.stage._held.events
        assert self.sent == len(waiting) + len(handled) + kept + self.discarded

    @invariant()
    def each_consumer_gets_its_events_in_order(self) -> None:
        if not hasattr(self, "stage"):
            return
        for recorder, handled in self.handled.items():
            all_of_them = handled + list(recorder.inlet.waiting())
            assert all_of_them == sorted(all_of_them)

    @invariant()
    def demand_is_asked_for_once_and_all_of_it(self) -> None:
        if not hasattr(self, "stage"):
            return
        still_to_ask = {
            subscription: sum(ask for edge, _, ask in subscription.consumer.inlet._items if edge is subscription._edge)
            for subscription in self.here
        }
        wanted = [each._edge.credit.outstanding - still_to_ask[each] for each in self.here]
        assert all(count >= 0 for count in wanted)
        dispatcher: Any = self.outlet._dispatcher
        if self.kind == "broadcast":
            owed = dispatcher._requested
            assert owed >= min(wanted, default=0)
        else:
            owed = sum(wanted) + dispatcher._orphaned
        # What upstream still has to send is what consumers want, less what waits for them already.
        assert self.outlet.demand == owed - self.outlet.backlog
        pending = sum(todo for todo in self.stage._todo if isinstance(todo, int))
        held = sum(entry for entry in self.stage._held._entries if isinstance(entry, int))
        assert self.told + pending + held - self.used >= max(0, self.outlet.demand)

    @invariant()
    def no_more_is_kept_than_the_limit(self) -> None:
        if hasattr(self, "stage") and self.size is not None:
            assert self.outlet.backlog <= self.size
            assert self.stage._held.events <= self.size

    @invariant()
    def nothing_waits_for_a_consumer_that_wants_it(self) -> None:
        if hasattr(self, "stage") and self.outlet._kept:
            assert self.outlet._dispatcher.wanted == 0

    @invariant()
    def infos_come_in_order(self) -> None:
        if hasattr(self, "stage"):
            assert self.seen_infos == sorted(self.seen_infos)


TestOutletMachine = OutletMachine.TestCase
