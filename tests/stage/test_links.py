"""The two ends of a subscription: demand goes up, events come down, and both add up."""

from __future__ import annotations

import asyncio

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broadway_py._core.dispatch import DemandDispatcher, PartitionDispatcher
from broadway_py.stage import Edge, Inlet, Outlet, Wake
from tests.support.conformance import conforms


def outlet() -> Outlet[int]:
    return Outlet(DemandDispatcher(), Wake())


def inlet_of(edge: Edge[int]) -> Inlet[int]:
    assert isinstance(edge.inlet, Inlet)
    return edge.inlet


def take(inlet: Inlet[int]) -> list[int]:
    """Handle one chunk, and ask again when it is due."""
    edge, chunk, ask = inlet.take()
    if ask:
        edge.ask(ask)
    return list(chunk)


def take_all(inlet: Inlet[int]) -> list[list[int]]:
    chunks = []
    while inlet:
        chunks.append(take(inlet))
    return chunks


# --- demand and events ----------------------------------------------------------------------------------------------


def test_a_subscription_asks_for_its_most_at_once() -> None:
    source, one, other = outlet(), Inlet[int](Wake()), Inlet[int](Wake())

    source.subscribe(one, 10, 5)
    source.subscribe(other, 4, 2)

    assert source.demand == 14


def test_what_is_dispatched_arrives_in_chunks_and_lowers_the_demand() -> None:
    source, inlet = outlet(), Inlet[int](Wake())
    source.subscribe(inlet, 10, 6)

    source.dispatch(range(10))

    assert source.demand == 0
    assert take_all(inlet) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    # 4 after the first chunk, 4 after the second; the last two are not made up for yet.
    assert source.demand == 8


@conforms("B-120")
def test_a_consumer_of_at_most_six_that_refills_at_three_takes_threes() -> None:
    source, inlet = outlet(), Inlet[int](Wake())
    source.subscribe(inlet, 6, 3)

    source.dispatch(range(6))

    assert source.demand == 0
    assert take(inlet) == [0, 1, 2]
    assert source.demand == 3


def test_what_nobody_asked_for_waits_at_the_outlet() -> None:
    source, inlet = outlet(), Inlet[int](Wake())
    source.subscribe(inlet, 2, 0)

    source.dispatch(range(5))

    assert source.backlog == 3
    assert take(inlet) == [0, 1]
    assert source.backlog == 1
    assert take_all(inlet) == [[2, 3], [4]]
    assert source.backlog == 0


def test_a_backlog_can_be_taken_back() -> None:
    source, inlet = outlet(), Inlet[int](Wake())
    source.subscribe(inlet, 2, 0)
    source.dispatch(range(5))

    assert source.take_backlog() == [2, 3, 4]
    assert (source.backlog, take_all(inlet)) == (0, [[0, 1]])


def test_each_partition_has_its_inlet() -> None:
    source: Outlet[int] = Outlet(PartitionDispatcher(range(2), lambda event: event % 2), Wake())
    even, odd = Inlet[int](Wake()), Inlet[int](Wake())
    source.subscribe(even, 10, 0, partition=0)
    source.subscribe(odd, 10, 0, partition=1)

    source.dispatch(range(5))

    assert (take_all(even), take_all(odd)) == ([[0, 2, 4]], [[1, 3]])


def test_an_inlet_with_several_producers_says_whence_each_chunk_came() -> None:
    first, second, inlet = outlet(), outlet(), Inlet[int](Wake())
    edges = [source.subscribe(inlet, 4, 2) for source in (first, second)]

    second.dispatch([1])
    first.dispatch([2])

    assert [inlet.take()[:2] for _ in range(2)] == [(edges[1], [1]), (edges[0], [2])]


# --- the end --------------------------------------------------------------------------------------------------------


def test_an_inlet_is_finished_when_every_producer_has_ended_and_everything_was_taken() -> None:
    first, second, inlet = outlet(), outlet(), Inlet[int](Wake())
    first.subscribe(inlet, 4, 2)
    second.subscribe(inlet, 4, 2)
    first.dispatch([1])

    first.close()
    assert not inlet.finished
    second.close()
    assert not inlet.finished
    assert take(inlet) == [1]
    assert inlet.finished


def test_asking_a_closed_outlet_does_nothing() -> None:
    source, inlet = outlet(), Inlet[int](Wake())
    source.subscribe(inlet, 2, 0)
    source.dispatch([1, 2])
    source.close()

    assert take_all(inlet) == [[1, 2]]
    assert (source.closed, source.demand, inlet.finished) == (True, 0, True)


async def test_arrivals_the_end_and_new_demand_wake_their_stages() -> None:
    above, below = Wake(), Wake()
    source: Outlet[int] = Outlet(DemandDispatcher(), above)
    inlet = Inlet[int](below)

    async with asyncio.timeout(10):
        source.subscribe(inlet, 2, 0)
        await above.wait()
        source.dispatch([1, 2])
        await below.wait()
        take(inlet)
        await above.wait()
        source.close()
        await below.wait()


# --- a consumer that leaves -------------------------------------------------------------------------------------------


def test_who_has_unsubscribed_gets_nothing_more_and_keeps_what_arrived() -> None:
    source, leaver, stayer = outlet(), Inlet[int](Wake()), Inlet[int](Wake())
    edge = source.subscribe(leaver, 4, 2)
    source.dispatch([0, 1])
    source.subscribe(stayer, 4, 2)

    source.unsubscribe(edge)
    source.dispatch([2, 3, 4])

    assert (edge.active, leaver.edges, leaver.finished) == (False, set(), False)
    assert (take_all(leaver), leaver.finished) == ([[0, 1]], True)
    assert [event for chunk in take_all(stayer) for event in chunk] == [2, 3, 4]


def test_what_a_leaver_had_asked_for_is_not_asked_for_twice() -> None:
    source, leaver, stayer = outlet(), Inlet[int](Wake()), Inlet[int](Wake())
    edge = source.subscribe(leaver, 4, 2)
    source.subscribe(stayer, 2, 0)

    source.unsubscribe(edge)
    source.dispatch(range(6))

    # All six had been asked for: two arrive, four wait for the next who asks, upstream hears of nothing new.
    assert (source.demand, source.backlog) == (0, 4)
    assert take_all(stayer) == [[0, 1], [2, 3], [4, 5]]
    assert (source.demand, source.backlog) == (2, 0)


def test_asking_after_the_unsubscription_does_nothing() -> None:
    source, inlet = outlet(), Inlet[int](Wake())
    edge = source.subscribe(inlet, 4, 2)
    source.dispatch(range(4))
    source.unsubscribe(edge)

    assert take_all(inlet) == [[0, 1], [2, 3]]
    assert inlet.remove(lambda _: True) == []
    edge.ask(3)
    assert source.demand == 0


def test_a_successor_gets_what_nobody_was_left_for() -> None:
    source, inlet, successor = outlet(), Inlet[int](Wake()), Inlet[int](Wake())
    source.unsubscribe(source.subscribe(inlet, 3, 1))
    source.dispatch(range(3))
    assert source.backlog == 3

    source.subscribe(successor, 5, 2)

    assert [event for chunk in take_all(successor) for event in chunk] == [0, 1, 2]
    assert source.backlog == 0


async def test_an_unsubscription_wakes_the_stage_that_left() -> None:
    below = Wake()
    source, inlet = outlet(), Inlet[int](below)
    edge = source.subscribe(inlet, 2, 0)

    source.unsubscribe(edge)

    async with asyncio.timeout(10):
        await below.wait()
    assert inlet.finished


def test_who_has_unsubscribed_hears_of_no_flush_and_no_end() -> None:
    source, inlet = outlet(), Inlet[int](Wake())
    edge = source.subscribe(inlet, 2, 0)
    source.unsubscribe(edge)

    source.flush()
    source.close()

    assert (inlet.flush_wanted, inlet.finished) == (False, True)


# --- a consumer that steps aside --------------------------------------------------------------------------------------


def test_who_steps_aside_leaves_what_waits_to_the_others_and_hears_of_the_end() -> None:
    source, aside, other = outlet(), Inlet[int](Wake()), Inlet[int](Wake())
    source.subscribe(aside, 4, 2)
    source.dispatch(range(4))
    source.subscribe(other, 10, 5)

    assert aside.step_aside([10, 11]) == ()
    source.dispatch([4])

    assert (list(aside.waiting()), source.backlog) == ([], 0)
    assert sorted(event for chunk in take_all(other) for event in chunk) == [0, 1, 2, 3, 4, 10, 11]
    source.close()
    assert aside.finished


def test_who_joins_again_asks_as_at_first_but_not_twice() -> None:
    source, inlet = outlet(), Inlet[int](Wake())
    source.subscribe(inlet, 4, 2)
    source.dispatch(range(3))
    inlet.step_aside()
    # Of four that were asked for, three came; they wait for somebody to ask for them again.
    assert (source.demand, source.backlog, source.is_served) == (1 - 3, 3, False)

    inlet.rejoin()

    assert (source.demand, len(list(inlet.waiting()))) == (1, 3)
    assert [event for chunk in take_all(inlet) for event in chunk] == [0, 1, 2]
    assert (source.backlog, source.is_served) == (0, True)


def test_who_joins_where_it_is_needed_leaves_a_producer_that_is_served_alone() -> None:
    source, aside, other = outlet(), Inlet[int](Wake()), Inlet[int](Wake())
    source.subscribe(aside, 4, 2)
    edge = source.subscribe(other, 4, 2)
    aside.step_aside()

    aside.rejoin(where_needed=True)
    source.dispatch([1])
    assert not aside
    source.unsubscribe(edge)
    aside.rejoin(where_needed=True)
    source.dispatch([2])
    assert take_all(aside) == [[2]]


def test_what_came_from_a_producer_that_has_ended_stays() -> None:
    source, inlet = outlet(), Inlet[int](Wake())
    source.subscribe(inlet, 4, 2)
    source.dispatch([1, 2])
    source.close()

    assert inlet.step_aside([3]) == [3]
    assert take_all(inlet) == [[1, 2]]


def test_who_has_stepped_aside_can_leave() -> None:
    source, inlet = outlet(), Inlet[int](Wake())
    edge = source.subscribe(inlet, 4, 2)
    inlet.step_aside()

    source.unsubscribe(edge)
    inlet.rejoin()

    source.dispatch([1])
    assert (source.backlog, inlet.finished) == (1, True)


# --- taking out what waits ------------------------------------------------------------------------------------------


def test_what_is_taken_out_is_asked_for_anew_once_its_chunk_is_empty() -> None:
    source, inlet = outlet(), Inlet[int](Wake())
    source.subscribe(inlet, 4, 2)
    source.dispatch(range(4))

    assert inlet.remove(lambda event: event < 2) == [0, 1]
    assert source.demand == 2
    assert list(inlet.waiting()) == [2, 3]
    assert inlet.remove(lambda event: event == 3) == [3]
    assert source.demand == 2  # the chunk of 2 and 3 asks when it is handled
    assert take_all(inlet) == [[2]]
    assert source.demand == 4


def test_what_is_taken_out_behind_a_chunk_that_stays_is_asked_for_after_that_chunk() -> None:
    source, inlet = outlet(), Inlet[int](Wake())
    source.subscribe(inlet, 3, 1)
    source.dispatch([1])
    source.dispatch([2])  # the second chunk is the one that asks for two

    assert inlet.remove(lambda event: event == 2) == [2]
    # One waits and one is to come: two more now would make four of at most three.
    assert source.demand == 1
    assert take_all(inlet) == [[1]]
    assert source.demand == 3


def test_taking_out_makes_room_for_what_waits_at_the_outlet() -> None:
    source, inlet = outlet(), Inlet[int](Wake())
    source.subscribe(inlet, 2, 1)
    source.dispatch(range(4))

    assert inlet.remove(lambda event: event < 2) == [0, 1]
    assert take_all(inlet) == [[2], [3]]


def test_taking_out_nothing_changes_nothing() -> None:
    source, inlet = outlet(), Inlet[int](Wake())
    source.subscribe(inlet, 4, 2)
    source.dispatch(range(3))

    assert inlet.remove(lambda _: False) == []
    assert take_all(inlet) == [[0, 1], [2]]
    assert source.demand == 3


def test_what_was_sent_unasked_counts_against_the_next_demand() -> None:
    source, inlet = outlet(), Inlet[int](Wake())
    source.subscribe(inlet, 2, 0)
    source.dispatch(range(5))

    assert (source.demand, source.backlog) == (-3, 3)
    assert take_all(inlet) == [[0, 1], [2, 3], [4]]
    # Of the six that were asked for in all, five have come.
    assert (source.demand, source.backlog) == (1, 0)


def test_what_was_taken_back_can_be_put_back() -> None:
    source, inlet = outlet(), Inlet[int](Wake())
    source.subscribe(inlet, 2, 0)
    source.dispatch(range(4))

    source.dispatch(source.take_backlog())

    assert (source.demand, source.backlog) == (-2, 2)
    assert take_all(inlet) == [[0, 1], [2, 3]]
    assert (source.demand, source.backlog) == (2, 0)


class LinkMachine(RuleBasedStateMachine):
    """One producer, which may send a little more than it was asked for, three consumers, any order of events."""

    @initialize(
        demands=st.lists(st.tuples(st.integers(1, 8), st.integers(0, 7)), min_size=1, max_size=3),
        partitioned=st.booleans(),
    )
    def connect(self, demands: list[tuple[int, int]], partitioned: bool) -> None:
        consumers = len(demands)
        self.source: Outlet[int] = Outlet(
            PartitionDispatcher(range(consumers), lambda event: None if event % 5 == 0 else event % consumers)
            if partitioned
            else DemandDispatcher(),
            Wake(),
        )
        self.inlets = [Inlet[int](Wake()) for _ in demands]
        self.edges: list[Edge[int]] = []
        for index, (inlet, (most, least)) in enumerate(zip(self.inlets, demands, strict=True)):
            self.edges.append(self.source.subscribe(inlet, most, min(least, most - 1), index))
        self.sent = 0
        self.gone: set[int] = set()

    @rule(data=st.data())
    def dispatch(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(0, max(0, self.source.demand) + 2))
        self.source.dispatch(range(self.sent, self.sent + count))
        self.sent += count

    def leave(self, events: list[int]) -> None:
        assert events == sorted(events), "in order, within a consumer"
        assert self.gone.isdisjoint(events)
        self.gone.update(events)

    @precondition(lambda self: any(self.inlets))
    @rule(data=st.data())
    def handle(self, data: st.DataObject) -> None:
        inlet = data.draw(st.sampled_from([inlet for inlet in self.inlets if inlet]))
        self.leave(take(inlet))

    @rule(data=st.data(), divisor=st.integers(1, 3))
    def take_out(self, data: st.DataObject, divisor: int) -> None:
        inlet = data.draw(st.sampled_from(self.inlets))
        self.leave(inlet.remove(lambda event: event % divisor == 0))

    @rule()
    def put_back(self) -> None:
        self.source.dispatch(sorted(self.source.take_backlog()))

    @rule()
    def take_back(self) -> None:
        self.leave(sorted(self.source.take_backlog()))

    @invariant()
    def nothing_is_lost_and_demand_adds_up(self) -> None:
        if not hasattr(self, "source"):
            return
        waiting = [event for inlet in self.inlets for event in inlet.waiting()]
        assert len(waiting) == len(set(waiting))
        assert self.gone.isdisjoint(waiting)
        assert self.source.backlog == self.sent - len(self.gone) - len(waiting)
        still_to_ask = 0
        for inlet, edge in zip(self.inlets, self.edges, strict=True):
            assert len(list(inlet.waiting())) <= edge.credit.max_demand
            still_to_ask += sum(ask for _, _, ask in inlet._items)
        # What consumers have asked for, less what waits for them already: none is starved, none is asked for twice.
        asked = sum(edge.credit.outstanding for edge in self.edges) - still_to_ask
        assert self.source.demand == asked - self.source.backlog


TestLinkMachine = LinkMachine.TestCase


class LeavingMachine(RuleBasedStateMachine):
    """Consumers come and go under load, as when a pipeline is resized."""

    def __init__(self) -> None:
        super().__init__()
        self.source = outlet()
        self.here: list[Edge[int]] = []
        self.left: list[Edge[int]] = []
        self.aside: list[Edge[int]] = []
        self.sent = 0
        self.gone: list[int] = []

    @rule(most=st.integers(1, 8))
    def join(self, most: int) -> None:
        self.here.append(self.source.subscribe(Inlet[int](Wake()), most, most // 2))

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        edge = data.draw(st.sampled_from(self.here))
        self.here.remove(edge)
        self.left.append(edge)
        self.source.unsubscribe(edge)

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def step_aside(self, data: st.DataObject) -> None:
        edge = data.draw(st.sampled_from(self.here))
        self.here.remove(edge)
        self.aside.append(edge)
        assert inlet_of(edge).step_aside() == ()
        assert not inlet_of(edge)

    @precondition(lambda self: self.aside)
    @rule(data=st.data())
    def rejoin(self, data: st.DataObject) -> None:
        edge = data.draw(st.sampled_from(self.aside))
        self.aside.remove(edge)
        self.here.append(edge)
        inlet_of(edge).rejoin()

    @rule(data=st.data())
    def dispatch(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(0, max(0, self.source.demand)))
        waiting = [len(list(inlet_of(edge).waiting())) for edge in self.left]
        self.source.dispatch(range(self.sent, self.sent + count))
        self.sent += count
        assert [len(list(inlet_of(edge).waiting())) for edge in self.left] == waiting

    @precondition(lambda self: any(inlet_of(edge) for edge in [*self.here, *self.left]))
    @rule(data=st.data())
    def handle(self, data: st.DataObject) -> None:
        busy = [edge for edge in [*self.here, *self.left] if inlet_of(edge)]
        self.gone += take(inlet_of(data.draw(st.sampled_from(busy))))

    @invariant()
    def nothing_is_lost_or_doubled_and_who_stays_is_served(self) -> None:
        waiting = [event for edge in [*self.here, *self.left] for event in inlet_of(edge).waiting()]
        assert len({*waiting, *self.gone}) == len(waiting) + len(self.gone) == self.sent - self.source.backlog
        for edge in self.here:
            assert len(list(inlet_of(edge).waiting())) <= edge.credit.max_demand
        assert not any(inlet_of(edge) for edge in self.aside)
        if self.here and not any(inlet_of(edge) for edge in self.here):
            # All of them are idle, so all of them have asked: more may be sent, or what waits is on its way.
            assert self.source.demand > 0


TestLeavingMachine = LeavingMachine.TestCase


def test_what_was_taken_out_of_the_backlog_is_asked_for_anew() -> None:
    source, inlet = outlet(), Inlet[int](Wake())
    source.subscribe(inlet, 2, 0)
    source.dispatch(range(5))

    assert source.take_backlog() == [2, 3, 4]
    edge, _, ask = inlet.take()
    edge.ask(ask)

    assert source.demand == 2
