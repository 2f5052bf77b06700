"""A window with many keys closes at once, and gives its last results in several checkpoints."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broadway_py import Window, WindowResult
from broadway_py._core.aggregation.outcome import Results
from broadway_py._core.aggregation.pending import DueResult
from broadway_py.pipeline.aggregation.records import Records
from broadway_py.producers import MemoryProducer
from broadway_py.state.codec import Codec
from broadway_py.state.store import Commit
from broadway_py.storage.errors import StorageError
from tests.pipeline.aggregation.support import START, ObeyingStore, Order, Shop, Sums, use, when
from tests.pipeline.support import ManualProducer, Recorder, clock_of, finish, outcomes, running, soon

KEYS = [f"key {number}" for number in range(7)]
BOUNDS = f"{START:.0f}000000_{START + 60:.0f}000000"
OF_ALL = [(key, place + 1) for place, key in enumerate(KEYS)]
#: So many results has a checkpoint here.
MOST = 3
#: As many parts as there are.
ALL = 1_000


class LimitedStore(ObeyingStore):
    """A store that takes only so many checkpoints with results, and any number of others."""

    most_parts = ALL
    #: More of them wait for the gate, and do not fail.
    waits = False

    async def commit(self, commit: Commit) -> None:
        if commit.results and len(sizes(self)) >= self.most_parts:
            if not self.waits:
                raise StorageError("the disk is full")
            self.gate.clear()
        await super().commit(commit)


@pytest.fixture(name="store")
def _store(monkeypatch: pytest.MonkeyPatch) -> LimitedStore:
    store = LimitedStore()
    use(monkeypatch, store)
    monkeypatch.setattr("broadway_py.pipeline.stages.checkpoints._MOST_IN_PARTS", MOST)
    return store


def orders() -> list[Order]:
    """One for each key in the first minute, then one that closes it."""
    return [*(Order(key, 1, amount) for key, amount in OF_ALL), Order("next", 61)]


def shop(source: ManualProducer, sums: Sums | None = None) -> tuple[Shop, Sums]:
    made = Shop(producer=source, aggregators={"sums": sums or Sums()})
    own = made.aggregators["sums"]
    assert isinstance(own, Sums)
    return made, own


def sizes(store: ObeyingStore) -> list[int]:
    """How many results each checkpoint has, of those with results."""
    return [sum(count for *_, count in commit.results) for commit in store.commits if commit.results]


async def test_the_keys_come_in_the_order_of_their_first_messages(store: LimitedStore) -> None:
    recorder = Recorder()
    made, sums = shop(ManualProducer(*recorder.messages(orders())))
    async with running(made) as clock:
        await clock.advance(0.2)
        assert sums.values == OF_ALL
        assert sizes(store) == [3, 3, 1]
        assert {(one.firing, one.is_last, one.trigger) for results in sums.emitted for one in results} == {
            (1, True, "watermark")
        }
    assert await rows_of(store) == {"next"}


async def test_each_part_has_its_bound_and_the_next_one_follows_at_once(store: LimitedStore) -> None:
    recorder = Recorder()
    made, _ = shop(ManualProducer(*recorder.messages(orders())))
    async with running(made) as clock:
        # The first one waits for its time, and the others wait only for the one before.
        await clock.advance(0.09)
        assert sizes(store) == []
        await clock.advance(0.01)
        assert sizes(store) == [3, 3, 1]


@pytest.mark.parametrize("parts", [1, 2])
async def test_a_stop_between_two_parts_gives_each_result_once_with_the_same_id(
    store: LimitedStore, parts: int
) -> None:
    recorder = Recorder()
    made, sums = shop(ManualProducer(*recorder.messages(orders())))
    store.most_parts = parts
    clock = clock_of(made)
    await soon(made.start())
    await clock.advance(1.0)
    await stop_late(made)
    before = [one for results in sums.emitted for one in results]
    assert [(one.key, one.value) for one in before] == OF_ALL[: MOST * parts]

    store.most_parts = ALL
    again, later = shop(ManualProducer())
    async with running(again) as clock:
        await clock.advance(0.2)
        (stats,) = again.stats().aggregators
        assert (stats.windows_open, sum(stats.results.values())) == (1, len(KEYS) - MOST * parts)
    after = [one for results in later.emitted for one in results]
    # That the last part was handed out is not in the file, so it comes again.
    assert after[:MOST] == before[-MOST:]
    # After a restart, keys come in the order in which they were stored.
    both = sorted([*before, *after[MOST:]], key=lambda one: one.key)
    assert [(one.key, one.value, one.firing) for one in both] == [(key, amount, 1) for key, amount in OF_ALL]
    assert [one.id for one in both] == [f'sums/{BOUNDS}/"{key}"' for key in KEYS]
    assert await rows_of(store) == {"next"}


async def test_a_message_for_the_window_is_late_from_the_first_part_on(store: LimitedStore) -> None:
    recorder = Recorder()
    source = ManualProducer(*recorder.messages(orders()))
    made, sums = shop(source)
    store.most_parts, store.waits = 1, True
    async with running(made) as clock:
        await clock.advance(0.2)
        assert sums.values == OF_ALL[:MOST]
        source.feed.put(*recorder.messages([Order(KEYS[-1], 2, 100)]))
        await clock.advance(0.2)
        assert made.stats().aggregators[0].late == {"event_time": 1, "held": 0}
        store.most_parts = ALL
        store.gate.set()
        await clock.advance(0.2)
        assert sums.values == OF_ALL
    assert outcomes(made) == {"acked": 8, "rejected": 1}


async def test_a_stop_waits_for_the_parts_that_are_left(store: LimitedStore) -> None:
    recorder = Recorder()
    made, sums = shop(ManualProducer(*recorder.messages(orders())))
    store.gate.clear()
    clock = clock_of(made)
    await soon(made.start())
    await clock.advance(0.2)
    stopping = asyncio.ensure_future(made.stop())
    await clock.advance(0.1)
    assert sums.values == []
    store.gate.set()
    await soon(stopping)
    assert sums.values == OF_ALL
    assert sizes(store) == [3, 3, 1]


async def test_the_end_of_the_sources_waits_for_all_parts(store: LimitedStore) -> None:
    recorder = Recorder()
    source = ManualProducer(*recorder.messages(orders()))
    source.feed.end()
    made, sums = shop(source)
    assert await finish(made) == {"acked": 8}
    assert sorted(sums.values) == sorted([*OF_ALL, ("next", 1)])
    assert max(sizes(store)) == MOST
    assert await rows_of(store) == set()


async def test_no_more_is_stored_while_emit_takes_nothing(store: LimitedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broadway_py.pipeline.stages.checkpoints._MOST_IN_PARTS", 2)
    recorder = Recorder()
    made, sums = shop(ManualProducer(*recorder.messages(orders())))
    sums.faults = [OSError("away")] * 5
    async with running(made) as clock:
        await clock.advance(0.2)
        # The first two are tried one by one and hold up nobody. While four more wait, no others follow.
        assert sizes(store) == [2, 2, 2]
        await clock.advance(60.0)
        assert sorted(sums.values) == sorted(OF_ALL)
        assert sizes(store) == [2, 2, 2, 1]


async def test_a_stop_ends_while_emit_takes_nothing_and_the_parts_that_are_left_come_with_the_next_start(
    store: LimitedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broadway_py.pipeline.stages.checkpoints._MOST_IN_PARTS", 2)
    monkeypatch.setattr("broadway_py._core.aggregation.pending._MOST_LAST_FAILURES", 1)
    made, sums = shop(ManualProducer(*Recorder().messages(orders())), Sums(emit_batch=1))
    sums.faults = [OSError("away")] * 1_000
    clock = clock_of(made)
    await soon(made.start())
    await clock.advance(0.2)
    assert sizes(store) == [2, 2, 2]
    report = await soon(made.stop())
    assert report.in_time
    assert sizes(store) == [2, 2, 2]

    again, later = shop(ManualProducer())
    async with running(again) as clock:
        await clock.advance(0.2)
        assert sorted(later.values) == OF_ALL
    assert {(one.firing, one.is_last) for results in later.emitted for one in results} == {(1, True)}
    assert await rows_of(store) == {"next"}


class Slow(Sums):
    """Raises, but only when the test lets it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.gate = asyncio.Event()
        self.gate.set()

    async def emit(self, results: list[WindowResult[str, int]]) -> None:
        await self.gate.wait()
        raise OSError("away")


async def test_a_stop_ends_with_the_last_failure_however_long_that_takes(
    store: LimitedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else happens meanwhile that would make the aggregator look: the last checkpoint is stored long before."""
    monkeypatch.setattr("broadway_py.pipeline.stages.checkpoints._MOST_IN_PARTS", 2)
    monkeypatch.setattr("broadway_py._core.aggregation.pending._MOST_LAST_FAILURES", 1)
    made, sums = shop(ManualProducer(*Recorder().messages(orders())), Slow(emit_batch=1))
    assert isinstance(sums, Slow)
    clock = clock_of(made)
    await soon(made.start())
    await clock.advance(0.2)
    assert sizes(store) == [2, 2, 2]
    sums.gate.clear()
    stopping = asyncio.ensure_future(made.stop())
    await clock.advance(2.0)
    sums.gate.set()

    assert (await soon(stopping)).in_time


class Gated(Sums):
    """Fires for every second message. Refuses results of the key ``bad``, and waits for a gate before it says so."""

    window = Sums.window.trigger_every(2)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.gates = {"bad": asyncio.Event(), "good": asyncio.Event()}

    async def emit(self, results: list[WindowResult[str, int]]) -> None:
        key = "bad" if results[0].key == "bad" else "good"
        await self.gates[key].wait()
        if key == "bad":
            raise OSError("refused")
        await super().emit(results)


async def test_a_stop_stores_the_parts_that_are_left_once_all_else_waits_for_results_that_failed(
    store: LimitedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits behind a failed result holds up no last results, also if nothing is handed out after it was found."""
    monkeypatch.setattr("broadway_py.pipeline.stages.checkpoints._MOST_IN_PARTS", 2)
    recorder, source = Recorder(), ManualProducer()
    made, sums = shop(source, Gated(emit_batch=1))
    assert isinstance(sums, Gated)
    clock = clock_of(made)
    await soon(made.start())
    sums.gates["bad"].set()
    source.feed.put(*recorder.messages([Order("bad", 1)] * 2))
    await clock.advance(1.5)
    # One of these is being handed out and three wait, so no last results are stored with what comes next.
    source.feed.put(*recorder.messages(Order(key, 1) for key in KEYS[:4] for _ in range(2)))
    await clock.advance(1.5)
    sums.gates["bad"].clear()
    store.gate.clear()
    source.feed.put(*recorder.messages([*[Order("bad", 1)] * 6, Order("next", 61)]))
    await clock.advance(1.5)
    stopping = asyncio.ensure_future(made.stop())
    await clock.advance(0.1)
    sums.gates["good"].set()
    await clock.advance(0.5)
    store.gate.set()
    await clock.advance(0.5)
    sums.gates["bad"].set()

    assert (await soon(stopping)).in_time
    assert sizes(store)[:3] == [1, 4, 3]
    assert sum(sizes(store)[3:]) == 5  # the last result of each key


class Picky(Sums):
    """Fires for each message. It refuses each list with a result of the key ``bad``."""

    window = Sums.window.trigger_every(1)
    refuses = True

    async def emit(self, results: list[WindowResult[str, int]]) -> None:
        if self.refuses and any(one.key == "bad" for one in results):
            raise OSError("refused")
        await super().emit(results)


async def test_firings_that_wait_for_a_result_that_fails_alone_hold_up_no_last_results(store: LimitedStore) -> None:
    recorder = Recorder()
    source = ManualProducer(*recorder.messages(Order("bad", 1) for _ in range(6)))
    made, sums = shop(source, Picky())
    assert isinstance(sums, Picky)
    async with running(made) as clock:
        await clock.advance(10.0)
        assert made.stats().aggregators[0].results_pending == 6
        source.feed.put(*recorder.messages(orders()))
        await clock.advance(60.0)
        last = [(one.key, one.value) for results in sums.emitted for one in results if one.is_last]
        assert sorted(last) == OF_ALL
        sums.refuses = False
        await clock.advance(60.0)
        assert [one.firing for results in sums.emitted for one in results if one.key == "bad"] == list(range(1, 8))


async def test_only_keys_with_late_messages_fire_again_when_the_window_closes(store: LimitedStore) -> None:
    """With lateness, the last results are those of keys with news. A restart between two parts does not lose them."""
    lasting = type("Lasting", (Sums,), {"window": Window.fixed(60, by=when, delay=0, lateness=60, max_ahead=None)})
    recorder = Recorder()
    source = ManualProducer(*recorder.messages(orders()))
    made, sums = shop(source, lasting())
    clock = clock_of(made)
    await soon(made.start())
    await clock.advance(0.2)
    assert sums.values == OF_ALL
    source.feed.put(*recorder.messages([*(Order(key, 2) for key in KEYS[:5]), Order("next", 121)]))
    store.most_parts = len(sizes(store)) + 1
    await clock.advance(0.2)
    await stop_late(made)

    store.most_parts = ALL
    again, later = shop(ManualProducer(), lasting())
    async with running(again) as clock:
        await clock.advance(0.2)
    again_fired = [[one for results in each.emitted for one in results if one.firing == 2] for each in (sums, later)]
    expected = [(key, amount + 1) for key, amount in OF_ALL[:5]]
    assert [(one.key, one.value) for one in again_fired[0]] == expected[:MOST]
    assert sorted({(one.key, one.value) for fired in again_fired for one in fired}) == expected
    assert {(one.is_last, one.trigger) for fired in again_fired for one in fired} == {(True, "late")}
    assert await rows_of(store) == {"next"}


async def test_others_run_after_so_many_results_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound of a step is a number of results. It does not depend on the speed of the machine."""
    turns = [0]
    written: dict[int, int] = {}
    due = Records.due

    def counted(self: Records, results: Results, *args: Any, **options: Any) -> tuple[list[DueResult], bytes]:
        made, content = due(self, results, *args, **options)
        written[turns[0]] = written.get(turns[0], 0) + len(made)
        return made, content

    class Many(Sums):
        taken = 0

        async def emit(self, results: list[WindowResult[str, int]]) -> None:
            self.taken += len(results)

    async def count_turns() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(Records, "due", counted)
    made = Shop(
        producer=MemoryProducer([Order(f"key {number}", 1) for number in range(1_500)]),
        aggregators={"sums": Many()},
        state="memory",
    )
    counting = asyncio.create_task(count_turns())
    assert await finish(made) == {"acked": 1_500}
    counting.cancel()
    assert sum(written.values()) == 1_500
    assert max(written.values()) == 200


async def stop_late(made: Shop) -> None:
    """Stop *made*, whose last checkpoint can never be stored."""
    stopping = asyncio.ensure_future(made.stop(10.0))
    await clock_of(made).advance(11.0)
    await soon(stopping)


async def rows_of(store: ObeyingStore) -> set[str]:
    """The keys with an accumulator in the store."""
    await store.inner.open({})
    records = Records("sums", Codec(str, int), lambda _, value: value, 1)
    parts = [records.read_part(row.bucket, row.blob, 1) async for rows in store.inner.buckets("sums") for row in rows]
    return {entry[0] for part in parts for entry in part.entries}
