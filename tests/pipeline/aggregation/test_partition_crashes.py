"""Partitions of one process, ended between any two steps and started again with other shares, against brute force."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadway_py import Window, WindowResult
from broadway_py.producer import Producer
from broadway_py.producer_description import ProducerDescription
from broadway_py.testing import FakeClock, settle
from tests.pipeline.aggregation.support import START, Order, Shop, Sums
from tests.pipeline.aggregation.test_crashes import DELAY, Broker, Life, Store, World, _copy, minutes_of

#: In which partition a key lies.
OF_KEY = {"a": 0, "b": 1, "c": 1}


@dataclass(eq=False)
class Part(Life):
    """What a process sees of one partition. All parts of the process end together."""

    whole: Life | None = None

    async def step(self) -> None:
        assert self.whole is not None
        await self.whole.step()


class Sharded(ProducerDescription):
    """Describes a broker with a world for each partition."""

    name = "broker"
    redelivers = True
    marks_repeats = True
    outlives_process = True
    keeps_keys_apart = True
    partitions = 2

    def __init__(self, parts: Sequence[Part], index: int | None = None) -> None:
        self.parts = parts
        self.index = index

    def describe_partition(self, index: int) -> Sharded:
        return Sharded(self.parts, index)

    def create(self) -> Producer:
        assert self.index is not None
        return Broker(self.parts[self.index], f"broker.{self.index}")


class Totals(Sums):
    """Writes its results into the world of their partition."""

    parts: ClassVar[Sequence[Part]]
    window = Window.fixed(
        60, by=lambda message: START + message.data.at, delay=DELAY, max_ahead=None, idle_timeout=None
    )

    async def emit(self, results: list[WindowResult[str, int]]) -> None:
        (partition,) = {one.partition for one in results}
        assert partition is not None
        part = Totals.parts[partition]
        await part.step()
        if self.faults and self.faults.pop(0) is not None:
            raise OSError("the sink is away")
        world = part.world
        for one in results:
            known = world.sink.setdefault((one.id, one.firing), one)
            world.check("another value for the same firing", holds=known == one)
            world.check("a key of another partition", holds=OF_KEY[one.key] == partition)
        world.check("emitted before it was stored", holds=len(world.sink) <= world.stored_results)
        await part.step()


@dataclass
class Worlds:
    """What outlives the processes."""

    each: list[World] = field(default_factory=lambda: [World(), World()])
    number: int = 0


DOINGS = st.one_of(
    st.tuples(st.just("put"), st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, DELAY)), max_size=6)),
    st.tuples(st.just("pass"), st.sampled_from([0.01, 0.1, 1.0, 20.0])),
)
LIVES = st.lists(
    st.tuples(
        st.sampled_from([None, "0", "1"]),
        st.lists(DOINGS, max_size=6),
        st.one_of(st.integers(1, 60), st.just(10_000)),
        st.lists(st.sampled_from(["none", "none", "fails", "unknown"]), max_size=4),
        st.lists(st.booleans(), max_size=4),
    ),
    max_size=4,
)


async def live(
    worlds: Worlds,
    own: str | None,
    doings: Sequence[tuple[str, Any]],
    last: int,
    faults: Sequence[str],
    *,
    bad_emits: Sequence[bool],
    until_end: bool,
    monkeypatch: pytest.MonkeyPatch,
    clock: FakeClock,
) -> None:
    """One process, which owns *own*, from its start to its end."""
    life = Life(worlds.each[0], last)
    parts = [Part(world, last, changed=life.changed, whole=life) for world in worlds.each]
    Totals.parts = parts
    place = "broadway_py.pipeline.runtime.stores"
    monkeypatch.setattr(f"{place}.prepare", lambda *_: None)
    monkeypatch.setattr(f"{place}.SQLiteStore", lambda _, partition: Store(parts[partition.number], faults))
    made = Shop(producer=Sharded(parts), own=own, aggregators={"totals": Totals(max_demand=8)})
    totals = made.aggregators["totals"]
    assert isinstance(totals, Totals)
    totals.faults = [OSError() if bad else None for bad in bad_emits]
    made.clock = clock
    await made.start()
    await asyncio.wait_for(made.ready(), 5)
    for name, value in doings:
        if life.is_dead:
            break
        if name == "put":
            for key, back in value:
                worlds.number += 1
                worlds.each[OF_KEY[key]].add(Order(key, float(worlds.number * 7 + DELAY - back)))
            life.changed.set()
        await clock.advance(value if name == "pass" else 0.0)
    if until_end:
        for world in worlds.each:
            world.ended = True
        life.changed.set()
        await clock.advance(100.0)
        await asyncio.wait_for(made.wait(), 5)
        assert not life.is_dead
        return
    stopping = asyncio.ensure_future(made.stop())
    await clock.advance(30.0)
    if life.is_dead:
        made.give_up()
        await clock.advance(30.0)
        for _ in range(3):
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await settle()
        for world in worlds.each:
            world.store = _copy(world.store)
    else:
        await asyncio.wait_for(stopping, 5)
    for world in worlds.each:
        world.bring_back()


@given(lives=LIVES)
@settings(deadline=None, max_examples=40)
def test_values_are_exact_in_each_partition_whatever_ends_the_processes(lives: list[Any]) -> None:
    worlds = Worlds()

    async def all_lives(monkeypatch: pytest.MonkeyPatch) -> None:
        clock = FakeClock()
        for own, doings, last, faults, bad_emits in lives:
            await live(
                worlds,
                own,
                doings,
                last,
                faults,
                bad_emits=bad_emits,
                until_end=False,
                monkeypatch=monkeypatch,
                clock=clock,
            )
            clock = FakeClock(clock.monotonic() + 5.0, clock.wall() + 5.0)
        await live(worlds, None, [], 100_000, [], bad_emits=[], until_end=True, monkeypatch=monkeypatch, clock=clock)

    with pytest.MonkeyPatch.context() as monkeypatch:
        asyncio.run(all_lives(monkeypatch))
    for partition, world in enumerate(worlds.each):
        assert world.problems == []
        newest = {name: world.sink[name, firing] for name, firing in sorted(world.sink)}
        rows = sorted((one.key, one.start, one.end, one.value) for one in newest.values())
        assert rows == minutes_of(world.put)
        assert {one.partition for one in newest.values()} <= {partition}
        assert world.unacked == {}
        assert not world.ready
        kept = world.store._kept["totals"]
        assert kept.results == []
        assert kept.all_rows() == []
