"""The in-flight journal: what one process writes, another reads after its death, however that came."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator

import pytest

from broadway_py.pipeline.poison.isolation import Isolation
from broadway_py.pipeline.poison.journal import (
    CLEARED,
    CONVICTED,
    MOST_ENTRIES,
    SUSPECTED,
    Entry,
    Journal,
    Page,
    Region,
)
from broadway_py.pipeline.poison.memory import MemoryMark
from tests.support.daemon import ROOT


def identity(number: int) -> bytes:
    return number.to_bytes(16, "big")


A, B, C = identity(1), identity(2), identity(3)


@pytest.fixture
def journal() -> Iterator[Journal]:
    journal = Journal.create(2)
    yield journal
    journal.close()


@pytest.fixture
def region(journal: Journal) -> Region:
    return journal.region(0)


def test_a_fresh_region_says_that_nothing_was_going_on(region: Region) -> None:
    trace = region.read()

    assert trace.at_work == frozenset()
    assert not trace.has_unnamed
    assert not trace.is_alone
    assert not trace.has_ended
    assert trace.name == ""


def test_all_pages_are_at_work_together(region: Region) -> None:
    first, second = region.page(), region.page()
    first.set([A, B])
    second.set_one(C)

    assert region.read().at_work == {A, B, C}


def test_each_call_takes_the_place_of_the_one_before(region: Region) -> None:
    page = region.page()
    page.set([A, B, C])
    page.set_one(B)
    assert region.read().at_work == {B}
    page.set([C, A])
    assert region.read().at_work == {A, C}
    page.clear()
    assert region.read().at_work == frozenset()
    page.set([A])
    page.set([])
    assert region.read().at_work == frozenset()


def test_a_page_that_was_never_written_can_be_cleared(region: Region) -> None:
    region.page().clear()

    assert region.read().at_work == frozenset()


def test_a_message_without_an_identity_is_seen_but_not_named(region: Region) -> None:
    page = region.page()
    page.set([A, None])
    assert region.read().at_work == {A}
    assert region.read().has_unnamed
    page.set_one(None)
    assert region.read().at_work == frozenset()
    assert region.read().has_unnamed


def test_a_page_grows_with_its_batches(region: Region) -> None:
    page, other = region.page(), region.page()
    page.set([A])
    other.set([B])

    page.set([identity(number) for number in range(100, 1100)])

    trace = region.read()
    assert trace.at_work == {identity(number) for number in range(100, 1100)} | {B}
    assert not trace.has_unnamed


def test_more_than_a_region_holds_is_at_work_without_names(region: Region) -> None:
    page, other = region.page(), region.page()
    everything = [identity(number) for number in range(1, 100_001)]

    page.set(everything)
    other.set([A])

    trace = region.read()
    assert trace.has_unnamed
    assert 60_000 < len(trace.at_work) < 66_000
    assert trace.at_work < set(everything)
    page.clear()
    assert region.read().has_unnamed, "the other page had no room at all"


def test_the_regions_of_workers_are_their_own(journal: Journal) -> None:
    journal.region(0).page().set([A])
    journal.region(1).page().set([B])

    assert journal.region(0).read().at_work == {A}
    assert journal.region(1).read().at_work == {B}
    assert journal.is_at_work_elsewhere(A, 1)
    assert not journal.is_at_work_elsewhere(A, 0)


def test_a_journal_grows_under_the_workers_that_have_mapped_it(journal: Journal) -> None:
    worker = Journal(os.dup(journal.descriptor), 2)
    page = worker.region(0).page()
    journal.put(A, SUSPECTED, 1, -9)
    journal.grow(1)
    assert journal.workers == 2
    journal.grow(4)
    assert journal.workers == 4
    later = Journal(os.dup(journal.descriptor), 4)
    try:
        page.set([B])
        later.region(3).page().set([C])
        assert journal.region(0).read().at_work == {B}
        assert journal.region(3).read().at_work == {C}
        journal.put(B, SUSPECTED, 1, -9)
        assert {*worker.entries()} == {*later.entries()} == {*journal.entries()} == {A, B}
    finally:
        worker.close()
        later.close()


def test_who_is_alone_is_named_with_the_memory_before(region: Region) -> None:
    region.begin_alone("orders\x00queue\x00" + "7" * 1000, MemoryMark(5000, 2))
    trace = region.read()
    assert trace.is_alone
    assert trace.memory == MemoryMark(5000, 2)
    assert trace.name.startswith("orders\x00queue\x00777")
    assert len(trace.name) == 456

    region.end_alone()

    assert not region.read().is_alone


def test_a_worker_that_leaves_in_order_says_so(region: Region) -> None:
    region.begin()
    assert not region.read().has_ended
    region.end()
    assert region.read().has_ended


def test_a_crash_is_put_down_to_what_its_stage_had_in_hand_whatever_the_others_do_meanwhile(region: Region) -> None:
    own, other = b"o" * 16, b"x" * 16
    page = region.page()
    page.set([other])

    region.blame([own], alone=True, name="orders", memory=MemoryMark(1, 1))
    region.end_alone()
    page.set([other])
    trace = region.read()

    assert (trace.at_work, trace.is_alone, trace.has_ended, trace.name) == (frozenset({own}), True, False, "orders")
    region.reset()
    assert region.read().at_work == frozenset()
    assert not region.is_blamed


def test_the_next_worker_finds_its_region_empty(journal: Journal) -> None:
    region = journal.region(0)
    region.begin()
    for count in (3, 50, 400):
        region.page().set([identity(2**128 - 1 - number) for number in range(count)])
    region.begin_alone("name", MemoryMark(1, 1))
    region.page().set([identity(number) for number in range(1, 100_001)])

    region.reset()

    fresh = journal.region(0)
    assert fresh.read() == journal.region(1).read()
    # Nothing of the old pages stands behind the new ones either.
    fresh.page().set([A])
    assert fresh.read().at_work == {A}
    assert not fresh.read().has_unnamed


# --- words that were cut off

Write = Callable[[Region, Page], None]


@pytest.mark.parametrize("after", range(9))
def test_a_death_between_two_stores_never_names_what_was_not_at_work(
    region: Region, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    stores = 0

    class Died(Exception):
        pass

    def counted(method: Callable[..., None]) -> Callable[..., None]:
        def store(*arguments: object) -> None:
            nonlocal stores
            stores += 1
            if stores > after:
                raise Died
            method(*arguments)

        return store

    page, other = region.page(), region.page()
    other.set([C])
    page.set([A])
    for name in ("set_count", "set_identities"):
        monkeypatch.setattr(region, name, counted(getattr(region, name)))

    def work() -> None:
        for _ in range(3):
            page.set([A, B, *map(identity, range(10, 40))])
            page.set_one(B)

    with pytest.raises(Died):
        work()

    assert region.read().at_work <= {A, B, C, *map(identity, range(10, 40))}
    assert C in region.read().at_work


def test_a_count_out_of_its_bounds_is_taken_for_more_than_was_named(region: Region) -> None:
    region.page().set([A])
    region.set_count(region._start + 512, 2**63)

    trace = region.read()

    assert trace.has_unnamed
    assert A in trace.at_work


@pytest.mark.parametrize("way", ["os.abort()", "os.kill(os.getpid(), 9)", "os._exit(3)"])
def test_what_was_written_survives_the_process(journal: Journal, way: str) -> None:
    program = textwrap.dedent(
        f"""
        import os, resource, sys
        from broadway_py.pipeline.poison.journal import Journal
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        region = Journal(int(sys.argv[1]), 2).region(1)
        region.begin()
        page = region.page()
        page.set([bytes(15) + b"\\1", bytes(15) + b"\\2"])
        page.set_one(bytes(15) + b"\\2")
        {way}
        """
    )

    died = subprocess.run(
        [sys.executable, "-c", program, str(journal.descriptor)],
        pass_fds=[journal.descriptor],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        timeout=60,
    )

    assert died.returncode in (-signal.SIGABRT, -signal.SIGKILL, 3)
    trace = journal.region(1).read()
    assert trace.at_work == {B}
    assert not trace.has_ended


# --- the table


def test_the_table_says_what_was_put(journal: Journal) -> None:
    before = journal.changes
    journal.put(A, SUSPECTED, 1, -9)
    journal.put(B, CONVICTED, 2, 3)

    assert journal.entries() == {A: Entry(0, SUSPECTED, 1, -9), B: Entry(1, CONVICTED, 2, 3)}
    assert journal.changes > before


def test_an_entry_is_changed_in_place_and_its_slot_used_again(journal: Journal) -> None:
    journal.put(A, SUSPECTED, 1, -9)
    journal.put(A, CONVICTED, 2, -6)
    journal.put(B, SUSPECTED, 1, -6)
    journal.drop(A)
    journal.drop(A)
    journal.put(C, SUSPECTED, 1, -6)

    assert journal.entries() == {C: Entry(0, SUSPECTED, 1, -6), B: Entry(1, SUSPECTED, 1, -6)}


def test_a_worker_clears_a_suspect_and_nothing_else(journal: Journal) -> None:
    journal.put(A, SUSPECTED, 1, -9)
    journal.put(B, CONVICTED, 2, -9)

    journal.clear(0)
    journal.clear(1)
    journal.clear(2)

    assert journal.state(0) == CLEARED
    assert journal.state(1) == CONVICTED
    assert journal.state(2) == 0
    assert journal.cleared() == [A]


def test_the_table_can_be_filled_to_the_last_place(journal: Journal) -> None:
    for number in range(1, MOST_ENTRIES + 1):
        journal.put(identity(number), SUSPECTED, 1, -9)

    assert len(journal.entries()) == MOST_ENTRIES
    assert journal.region(0).read().at_work == frozenset(), "and reaches into no region"


def test_a_worker_sees_what_a_later_one_handles_once_it_knows_of_it(journal: Journal) -> None:
    isolation = Isolation(Journal(os.dup(journal.descriptor), 2), 0)
    first = isolation.journal
    journal.grow(3)
    journal.region(2).page().set([A])
    assert not isolation.journal.is_at_work_elsewhere(A, 0)
    isolation.see(2)
    assert isolation.journal is first
    isolation.see(3)
    assert isolation.journal.is_at_work_elsewhere(A, 0)
    # What it handles itself is still seen.
    isolation.region.page().set([B])
    assert journal.region(0).read().at_work == {B}
    first.close()
    isolation.journal.close()
