"""Whole pipelines with an aggregator, ended between any two steps and started again, against brute force."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadway_py import Acknowledgement, Acknowledger, Message, Window, WindowResult
from broadway_py._core.identity import identity_by_id
from broadway_py.producers import Producer
from broadway_py.state.memory import MemoryStore
from broadway_py.state.store import AggregatorFacts, Commit
from broadway_py.storage.errors import StorageError
from broadway_py.testing import FakeClock, settle
from tests.pipeline.aggregation.support import START, Order, Shop, Sums

DELAY = 30


@dataclass(eq=False)
class World:
    """What outlives a process: the broker, the store, and the sink."""

    ready: deque[tuple[str, Order, bool]] = field(default_factory=deque)
    unacked: dict[str, Order] = field(default_factory=dict)
    store: MemoryStore = field(default_factory=MemoryStore)
    #: The identities that some checkpoint has stored.
    durable: set[bytes] = field(default_factory=set)
    #: (id, firing) -> the result as it was first emitted.
    sink: dict[tuple[str, int], WindowResult[str, int]] = field(default_factory=dict)
    #: The results that stand in a stored checkpoint.
    stored_results: int = 0
    put: list[Order] = field(default_factory=list)
    ended: bool = False
    #: What must not happen. An error in an acknowledger or in emit would only be logged.
    problems: list[str] = field(default_factory=list)

    def check(self, sentence: str, *, holds: bool) -> None:
        if not holds:
            self.problems.append(sentence)

    def add(self, order: Order) -> None:
        self.ready.append((str(len(self.put)), order, False))
        self.put.append(order)

    def bring_back(self, names: Sequence[str] | None = None) -> None:
        """Puts unacked messages back to the front, in their order, marked."""
        back = sorted(self.unacked if names is None else names, key=int, reverse=True)
        for name in back:
            self.ready.appendleft((name, self.unacked.pop(name), True))


class Dead(Exception):
    """The process has ended."""


@dataclass(eq=False)
class Life:
    """One process. It ends at the step number *last*, in the middle of whatever happens then."""

    world: World
    last: int
    count: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_dead(self) -> bool:
        return self.count >= self.last

    async def step(self) -> None:
        """Passes a point where the process may end. After that nothing goes on."""
        if not self.is_dead:
            self.count += 1
        if self.is_dead:
            await asyncio.Event().wait()


class Broker(Producer):
    """A broker that keeps order and marks what it delivers again."""

    redelivers = True
    marks_repeats = True
    outlives_process = True

    def __init__(self, life: Life, name: str = "broker") -> None:
        self.life = life
        self.name = name
        self.settles = Settles(life, name)

    async def handle_demand(self, demand: int) -> list[Message[Any]] | None:
        world = self.life.world
        while True:
            await self.life.step()
            if world.ready:
                break
            if world.ended:
                return None
            if self.draining.is_set():
                return []
            self.life.changed.clear()
            await self.life.changed.wait()
        made: list[Message[Any]] = []
        while world.ready and len(made) < min(demand, 4):
            name, order, is_repeat = world.ready.popleft()
            world.unacked[name] = order
            made.append(Message(order, {"message_id": name}, Acknowledgement(self.settles, None, is_repeat)))
        return made

    async def prepare_for_draining(self) -> None:
        self.life.changed.set()


class Settles(Acknowledger):
    """Tells the broker."""

    def __init__(self, life: Life, producer: str) -> None:
        self.life = life
        self.producer = producer

    def is_repeat(self, data: Any) -> bool:
        return bool(data)

    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        await self.life.step()
        world = self.life.world
        world.check(f"failed: {[message.status for message in failed]}", holds=not failed)
        for message in successful:
            world.check("acked before it was stored", holds=identity_by_id(message, self.producer) in world.durable)
            world.unacked.pop(str(message.metadata["message_id"]))
        await self.life.step()

    async def release(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        await self.life.step()
        world = self.life.world
        for message in messages:
            is_repeat = bool(message._acknowledgement[2])
            world.check(
                "given back although stored",
                holds=is_repeat or identity_by_id(message, self.producer) not in world.durable,
            )
        world.bring_back([str(message.metadata["message_id"]) for message in messages])


class Store:
    """The store as one process sees it."""

    def __init__(self, life: Life, faults: Sequence[str]) -> None:
        self._life = life
        self._inner = life.world.store
        self._faults = list(faults)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def open(self, aggregators: Mapping[str, AggregatorFacts], *, waiting: Callable[[str], object] = str) -> None:
        await self._inner.open(aggregators)

    async def commit(self, commit: Commit) -> None:
        await self._life.step()
        fault = self._faults.pop(0) if self._faults else "none"
        if fault == "fails":
            raise StorageError("the disk is full")
        await self._inner.commit(commit)
        size = 16
        self._life.world.durable |= {commit.identities[at : at + size] for at in range(0, len(commit.identities), size)}
        self._life.world.stored_results += sum(count for *_, count in commit.results)
        if fault == "unknown":
            raise StorageError("nobody knows", is_unknown=True)
        await self._life.step()

    async def close(self) -> None:
        await self._inner.close()


class Totals(Sums):
    """Writes its results into the world."""

    life: Life
    window = Window.fixed(
        60, by=lambda message: START + message.data.at, delay=DELAY, max_ahead=None, idle_timeout=None
    )

    async def emit(self, results: list[WindowResult[str, int]]) -> None:
        await self.life.step()
        if self.faults and self.faults.pop(0) is not None:
            raise OSError("the sink is away")
        world = self.life.world
        for one in results:
            known = world.sink.setdefault((one.id, one.firing), one)
            world.check("another value for the same firing", holds=known == one)
        world.check("emitted before it was stored", holds=len(world.sink) <= world.stored_results)
        await self.life.step()


class Visits(Totals):
    """Sessions, which may merge after they have fired."""

    window = Window.session(
        15,
        by=lambda message: START + message.data.at,
        delay=DELAY,
        lateness=60,
        max_ahead=None,
        idle_timeout=None,
    )

    def merge(self, a: int, b: int) -> int:
        return a + b


#: Key, start, end, value of each window.
Rows = list[tuple[str, float, float, int]]


def minutes_of(orders: Sequence[Order]) -> Rows:
    found: dict[tuple[str, float], int] = {}
    for order in orders:
        place = (order.key, START + order.at // 60 * 60)
        found[place] = found.get(place, 0) + 1
    return sorted((key, start, start + 60, value) for (key, start), value in found.items())


def visits_of(orders: Sequence[Order]) -> Rows:
    rows: Rows = []
    for key in sorted({order.key for order in orders}):
        times = sorted(START + order.at for order in orders if order.key == key)
        begin, value = times[0], 1
        for before, time in pairwise(times):
            if time >= before + 15:
                rows.append((key, begin, before + 15, value))
                begin, value = time, 0
            value += 1
        rows.append((key, begin, times[-1] + 15, value))
    return sorted(rows)


DOINGS = st.one_of(
    st.tuples(st.just("put"), st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, DELAY)), max_size=6)),
    st.tuples(st.just("pass"), st.sampled_from([0.01, 0.1, 1.0, 20.0])),
)
LIVES = st.lists(
    st.tuples(
        st.lists(DOINGS, max_size=6),
        st.one_of(st.integers(1, 40), st.just(10_000)),
        st.lists(st.sampled_from(["none", "none", "fails", "unknown"]), max_size=4),
        st.lists(st.booleans(), max_size=4),
        st.booleans(),
    ),
    max_size=5,
)


async def live(
    world: World,
    doings: Sequence[tuple[str, Any]],
    last: int,
    faults: Sequence[str],
    bad_emits: Sequence[bool],
    *,
    until_end: bool,
    monkeypatch: pytest.MonkeyPatch,
    clock: FakeClock,
    base: list[int],
    kind: type[Totals],
) -> None:
    """One process from its start to its end, by a stop, by the end of the source, or in the middle of something."""
    life = Life(world, last)
    monkeypatch.setattr("broadway_py.pipeline.runtime.stores.SQLiteStore", lambda _: Store(life, faults))
    totals = kind(max_demand=8)
    made = Shop(producer=Broker(life), aggregators={"totals": totals})
    own = made.aggregators["totals"]
    assert isinstance(own, Totals)
    own.life = life
    own.faults = [OSError() if bad else None for bad in bad_emits]
    made.clock = clock
    await made.start()
    for name, value in doings:
        if life.is_dead:
            break
        if name == "put":
            for key, back in value:
                # No order lies further back than the delay.
                base[0] += 1
                world.add(Order(key, float(base[0] * 7 + DELAY - back)))
            life.changed.set()
        await clock.advance(value if name == "pass" else 0.0)
    if until_end:
        world.ended = True
        life.changed.set()
        await clock.advance(100.0)
        await asyncio.wait_for(made.wait(), 5)
        assert not life.is_dead
        return
    stopping = asyncio.ensure_future(made.stop())
    await clock.advance(30.0)
    if life.is_dead:
        # What is left of a dead process does nothing more. Its messages come back.
        made.give_up()
        await clock.advance(30.0)
        for _ in range(3):
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await settle()
        world.store = _copy(world.store)
    else:
        await asyncio.wait_for(stopping, 5)
        stats = made.stats().producers[0]
        assert stats.received == sum(stats.outcomes.values())
    world.bring_back()


def _copy(store: MemoryStore) -> MemoryStore:
    """Returns a store with the same contents, which the tasks of a dead process do not have."""
    made = MemoryStore()
    made._kept = store._kept
    return made


@pytest.mark.parametrize(("kind", "expected"), [(Totals, minutes_of), (Visits, visits_of)], ids=["fixed", "session"])
@given(lives=LIVES, most=st.sampled_from([1, 10_000]))
@settings(deadline=None, max_examples=50)
def test_values_are_exact_whatever_ends_the_process(
    kind: type[Totals], expected: Callable[[Sequence[Order]], Rows], lives: list[Any], most: int
) -> None:
    world = World()
    base = [0]

    async def all_lives(monkeypatch: pytest.MonkeyPatch) -> None:
        clock = FakeClock()
        for doings, last, faults, bad_emits, _ in lives:
            await live(
                world,
                doings,
                last,
                faults,
                bad_emits,
                until_end=False,
                monkeypatch=monkeypatch,
                clock=clock,
                base=base,
                kind=kind,
            )
            clock = FakeClock(clock.monotonic() + 5.0, clock.wall() + 5.0)
        await live(
            world, [], 100_000, [], [], until_end=True, monkeypatch=monkeypatch, clock=clock, base=base, kind=kind
        )

    with pytest.MonkeyPatch.context() as monkeypatch:
        # So many last results of a window has a checkpoint, and so many sessions close at once.
        monkeypatch.setattr("broadway_py.pipeline.stages.checkpoints._MOST_IN_PARTS", most)
        monkeypatch.setattr("broadway_py._core.window.session._MOST_AT_ONCE", most)
        asyncio.run(all_lives(monkeypatch))
    assert world.problems == []
    newest: dict[str, WindowResult[str, int]] = {}
    for place in sorted(world.sink):
        one = world.sink[place]
        newest[one.id] = one
    replaced = {name for one in world.sink.values() for name in one.replaces}
    rows = [(one.key, one.start, one.end, one.value) for one in newest.values() if one.id not in replaced]
    assert sorted(rows, key=repr) == sorted(expected(world.put), key=repr)
    for name, firing in world.sink:
        assert firing == 1 or (name, firing - 1) in world.sink
    assert world.unacked == {}
    assert not world.ready
    kept = world.store._kept["totals"]
    assert kept.results == []
    # The ends of sessions are remembered for some time.
    assert kind is Visits or kept.all_rows() == []
