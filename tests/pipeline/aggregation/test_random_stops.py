"""Stops at random moments, of pipelines whose ``emit`` and store fail at random: each ends, and no result is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from broadway_py import Window, WindowResult
from broadway_py.producers import MemoryProducer
from broadway_py.storage.errors import StorageError
from broadway_py.testing import FakeClock
from tests.pipeline.aggregation.support import ObeyingStore, Order, Shop, Sums, use, when
from tests.pipeline.support import ManualProducer, Recorder, check_books, clock_of, soon

#: The first of a thousand, each of which takes some 0.2 s. The others are only run by ``make soak``.
_ALWAYS = 16
_KEYS = [f"key {number}" for number in range(9)]


#: Results that come early, and results on time of windows that stay open.
_WINDOWS = {
    "early": Sums.window.trigger_every(2),
    "lasting": Window.fixed(60, by=when, delay=0, lateness=60, max_ahead=None),
}


class Moody(Sums):
    """Takes results, refuses them, and takes its time, as *dice* say. None: it takes them."""

    #: The clock of its pipeline.
    clock: FakeClock

    def __init__(self, dice: random.Random | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._dice = dice
        self._rate = 0.0 if dice is None else dice.choice([0.0, 0.3, 0.7, 1.0])
        self._bad = set() if dice is None else set(dice.sample(_KEYS, dice.randrange(4)))

    async def emit(self, results: list[WindowResult[str, int]]) -> None:
        dice = self._dice
        if dice is not None:
            if dice.random() < 0.4:
                await self.clock.sleep(dice.choice([0.001, 0.01, 0.05]))
            for _ in range(dice.randrange(3)):
                await asyncio.sleep(0)
            if not self._bad.isdisjoint(one.key for one in results):
                raise ValueError("refused")
            if dice.random() < self._rate:
                raise dice.choice([OSError("away"), TimeoutError(), asyncio.CancelledError()])
        await super().emit(results)


async def run(
    store: ObeyingStore, orders: Sequence[Order], dice: random.Random, *, fails: bool, is_finite: bool = False
) -> list[WindowResult[str, int]]:
    """Run a pipeline and stop it in time. Returns the results that it handed out."""
    sums = Moody(dice if fails else None, emit_batch=dice.choice([1, 2, 5]))
    source = MemoryProducer(orders) if is_finite else ManualProducer(*Recorder().messages(orders))
    made = Shop(producer=source, aggregators={"sums": sums})
    clock = sums.clock = clock_of(made)
    await soon(made.start())
    await clock.advance(dice.choice([1.5, 2.0, 5.0, 40.0]) if fails else 30.0)
    if fails and dice.random() < 0.5:
        faults = [StorageError("the disk is full"), StorageError("the disk fails", is_unknown=True), None]
        store.faults = dice.choices(faults, [5, 2, 3], k=6)
    stopping = asyncio.ensure_future(made.stop(30.0))
    for _ in range(500):
        if not stopping.done():
            await clock.advance(0.05)
    assert stopping.done()
    assert (await stopping).in_time
    check_books(made)
    return [one for results in sums.emitted for one in results]


@pytest.mark.parametrize("window", _WINDOWS)
@pytest.mark.parametrize(
    "seed", [*range(_ALWAYS), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(_ALWAYS, 1_000))]
)
async def test_each_stop_ends_and_each_result_comes_with_the_same_value(
    seed: int, window: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(seed)
    monkeypatch.setattr(Moody, "window", _WINDOWS[window])
    monkeypatch.setattr("broadway_py.pipeline.stages.checkpoints._MOST_IN_PARTS", dice.choice([1, 2, 3, 10_000]))
    monkeypatch.setattr("broadway_py._core.aggregation.pending._MOST_LAST_FAILURES", dice.choice([1, 3, 100]))
    orders = [Order(dice.choice(_KEYS), dice.randrange(1, 4), dice.randrange(1, 5)) for _ in range(dice.randrange(40))]
    more = [Order(dice.choice(_KEYS), 62, 3) for _ in range(dice.randrange(8))]
    orders = [*orders, Order("next", 61), *more, Order("next", 125)]
    is_finite = dice.random() < 0.4

    undisturbed = ObeyingStore()
    use(monkeypatch, undisturbed)
    wanted = await run(undisturbed, orders, dice, fails=False, is_finite=is_finite)
    store = ObeyingStore()
    use(monkeypatch, store)
    came = await run(store, orders, dice, fails=True, is_finite=is_finite)
    for _ in range(dice.randrange(3)):
        came += await run(store, [], dice, fails=True)
    store.faults = []
    came += await run(store, [], dice, fails=False)

    assert {(one.id, one.firing, one.value) for one in came} == {(one.id, one.firing, one.value) for one in wanted}
    firings: dict[str, int] = {}
    for one in came:
        assert firings.get(one.id, 0) <= one.firing
        firings[one.id] = one.firing
    await store.inner.open({})
    assert [row async for rows in store.inner.results("sums") for row in rows] == []
