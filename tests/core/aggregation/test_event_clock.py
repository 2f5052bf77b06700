"""The watermark of an aggregator: what moves it, what holds it, and when to look again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_py._core.aggregation import awaited, saved_holds
from broadway_py._core.aggregation.event_clock import EventClock
from broadway_py._core.aggregation.progress import Progress
from broadway_py._core.aggregation.receipts import Receipt
from broadway_py._core.aggregation.saved_holds import SavedHold
from broadway_py._core.aggregation.tracked_ledger import TrackedLedger
from broadway_py._core.ledger import Ledger, LedgerEntry

DELAY = 10.0
WALL = 1_700_000_000.0


def us(seconds: float) -> int:
    return round(seconds * 1_000_000)


def reading(copies: int = 1) -> Progress:
    progress = Progress(copies)
    for reader in progress.readers:
        reader.reads(0.0)
    return progress


class Told:
    """Counts how often the stage was told."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def clock_of(
    *progresses: Progress,
    hold_timeout: float = 60.0,
    idle_timeout: float | None = None,
    watermark: int | None = None,
    saved: Mapping[str, Sequence[SavedHold]] | None = None,
    changed: Told | None = None,
) -> EventClock:
    return EventClock(
        progresses,
        0.0,
        delay=DELAY,
        hold_timeout=hold_timeout,
        idle_timeout=idle_timeout,
        watermark=watermark,
        saved=saved,
        changed=Told() if changed is None else changed,
    )


def entry_of(receipt: Receipt) -> LedgerEntry:
    ledger = TrackedLedger("orders", progress=Progress(), identity_of=lambda _: None)
    entry = ledger.begin(0.0)
    entry.receipt = receipt
    return entry


def add(clock: EventClock, receipt: Receipt, seconds: float, now: float = 1.0) -> None:
    """One message of *receipt* with this event time is added, and arrives."""
    clock.note(entry_of(receipt), us(seconds))
    assert isinstance(receipt.source, Progress)
    receipt.source.arrived(receipt, 1, now)


def mark(clock: EventClock, now: float, wall: float = WALL) -> float | None:
    value = clock.watermark(now, wall)
    return None if value is None else value / 1_000_000


# --- what has arrived


def test_the_watermark_waits_for_all_that_came_in_before() -> None:
    progress = reading()
    clock = clock_of(progress)
    first, second = progress.received(2, 1.0), progress.received(1, 1.0)

    add(clock, second, 500.0)
    add(clock, first, 100.0)
    assert mark(clock, 1.0) is None

    progress.arrived(first, 1, 2.0)
    assert mark(clock, 2.0) == 490.0


def test_it_tells_the_stage_only_when_it_has_moved_and_once_for_a_receipt() -> None:
    progress, told = reading(), Told()
    clock = clock_of(progress, changed=told)
    first, second = progress.received(3, 1.0), progress.received(1, 1.0)
    before = told.times

    progress.arrived(second, 1, 1.0)
    progress.arrived(first, 2, 1.0)
    assert told.times == before
    progress.arrived(first, 1, 1.0)
    assert told.times == before + 1
    assert clock.next_change(1.0, WALL) is None


def test_a_stored_watermark_does_not_fall() -> None:
    progress = reading()
    clock = clock_of(progress, watermark=us(1_000.0))
    assert mark(clock, 0.0) == 1_000.0

    add(clock, progress.received(1, 1.0), 500.0)
    assert mark(clock, 1.0) == 1_000.0
    add(clock, progress.received(1, 1.0), 1_500.0)
    assert mark(clock, 1.0) == 1_490.0


def test_of_several_producers_the_lowest_counts() -> None:
    one, other = reading(), reading()
    clock = clock_of(one, other)
    add(clock, one.received(1, 1.0), 500.0)
    assert mark(clock, 1.0) is None
    assert clock.held(4.0) == {"in_work": 0.0, "retry": 0.0, "reconnect": 0.0, "source": 4.0}

    add(clock, other.received(1, 5.0), 100.0)
    assert mark(clock, 5.0) == 90.0
    assert clock.held(8.0)["source"] == 3.0

    add(clock, other.received(1, 9.0), 800.0)
    assert mark(clock, 9.0) == 490.0


def test_a_producer_that_has_ended_leaves_when_all_of_it_has_arrived() -> None:
    one, other = reading(), reading(2)
    clock = clock_of(one, other)
    add(clock, one.received(1, 1.0), 500.0)
    last = other.received(1, 1.0)
    other.readers[0].ended(1.0)
    assert mark(clock, 1.0) is None
    other.readers[1].ended(1.0)
    assert mark(clock, 1.0) is None

    add(clock, last, 100.0)
    assert mark(clock, 1.0) == 490.0


def test_what_no_producer_delivered_moves_and_holds_nothing() -> None:
    progress = reading()
    clock = clock_of(progress)
    submitted = LedgerEntry(Ledger("push"), 0.0)

    clock.note(submitted, us(500.0))

    assert mark(clock, 1.0) is None
    assert not clock.was_held_too_long(submitted, lambda: None)


# --- holds


def test_a_message_holds_it_for_the_time_of_each_aggregator() -> None:
    progress = reading()
    short, long = clock_of(progress, hold_timeout=5.0), clock_of(progress, hold_timeout=20.0)
    stuck = progress.received(1, 1.0)
    later = progress.received(1, 2.0)
    for clock in (short, long):
        clock.note(entry_of(later), us(500.0))
    progress.arrived(later, 1, 2.0)

    assert (short.next_change(2.0, WALL), long.next_change(2.0, WALL)) == (6.0, 21.0)
    assert short.held(5.0)["in_work"] == 4.0
    assert mark(short, 5.9) is None
    assert mark(short, 6.0) == 490.0
    assert mark(long, 6.0) is None
    assert short.was_held_too_long(entry_of(stuck), lambda: None)
    assert not long.was_held_too_long(entry_of(stuck), lambda: None)


def test_what_arrives_after_its_hold_still_counts() -> None:
    progress = reading()
    clock = clock_of(progress, hold_timeout=5.0)
    stuck = progress.received(1, 1.0)
    assert mark(clock, 6.0) is None

    add(clock, stuck, 500.0, 7.0)

    assert mark(clock, 7.0) == 490.0


def test_a_retried_message_holds_it_until_the_whole_receipt_with_it_has_arrived() -> None:
    progress = reading()
    clock = clock_of(progress)
    first = progress.received(1, 1.0)
    progress.came_back(first, [b"a"])
    progress.arrived(first, 1, 2.0)
    add(clock, progress.received(1, 3.0), 500.0)
    assert clock.held(4.0)["retry"] == 3.0
    awaited_before = progress.awaits

    again = progress.received(2, 5.0, [b"a", b"b"])
    assert (awaited_before, progress.awaits) == (True, False)
    add(clock, again, 100.0, 5.0)
    assert mark(clock, 5.0) is None
    add(clock, again, 110.0, 6.0)
    assert mark(clock, 6.0) == 490.0


def test_a_message_that_is_retried_again_and_again_is_held_from_its_first_receipt() -> None:
    progress = reading()
    clock = clock_of(progress, hold_timeout=10.0)
    for now in (1.0, 4.0, 8.0):
        receipt = progress.received(1, now, [b"a"])
        progress.came_back(receipt, [b"a"])
        progress.arrived(receipt, 1, now)

    assert clock.next_change(8.0, WALL) == 11.0
    assert mark(clock, 11.0) is None
    assert clock.next_change(11.0, WALL) is None
    progress.received(1, 12.0, [b"a"])
    assert not progress.awaits


def test_a_message_without_an_identity_is_held_by_time_alone() -> None:
    progress = reading()
    clock = clock_of(progress, hold_timeout=10.0)
    receipt = progress.received(1, 1.0)
    progress.came_back(receipt, [None])
    progress.arrived(receipt, 1, 1.0)
    add(clock, progress.received(1, 2.0), 500.0)

    assert not progress.awaits
    assert mark(clock, 10.9) is None
    assert mark(clock, 11.0) == 490.0


def test_beyond_the_most_that_are_awaited_messages_are_held_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awaited, "MOST_AWAITED", 1)
    progress = reading()
    clock = clock_of(progress, hold_timeout=10.0)
    receipt = progress.received(2, 1.0)
    progress.came_back(receipt, [b"a", b"b"])
    progress.arrived(receipt, 2, 1.0)

    for identity in (b"a", b"b"):
        again = progress.received(1, 2.0, [identity])
        progress.arrived(again, 1, 2.0)

    assert clock.held(2.0)["retry"] == 1.0
    assert clock.next_change(2.0, WALL) == 11.0


def test_no_hold_runs_out_while_nothing_can_come() -> None:
    progress = reading()
    clock = clock_of(progress, hold_timeout=10.0)
    progress.received(1, 1.0)
    add(clock, progress.received(1, 1.0), 500.0)

    progress.readers[0].pauses(3.0)
    assert clock.next_change(500.0, WALL) is None
    assert mark(clock, 500.0) is None

    progress.readers[0].reads(500.0)
    assert clock.next_change(500.0, WALL) == 508.0
    assert mark(clock, 508.0) == 490.0


def test_waiting_receipts_that_have_arrived_become_one() -> None:
    progress = reading()
    clock = clock_of(progress)
    stuck = progress.received(1, 1.0)
    for number in range(1_000):
        add(clock, progress.received(1, 2.0), 500.0 + number)

    assert len(list(progress._receipts)) == 2
    progress.arrived(stuck, 1, 3.0)
    assert list(progress._receipts) == []
    assert mark(clock, 3.0) == 500.0 + 999 - DELAY


# --- lost connections


def test_after_a_loss_it_stands_until_all_that_came_in_that_time_has_arrived() -> None:
    progress = reading(2)
    clock = clock_of(progress)
    add(clock, progress.received(1, 1.0), 500.0)
    progress.readers[0].lost(2.0, 5.0)
    add(clock, progress.received(1, 3.0), 900.0)
    returned = progress.received(1, 6.0)
    assert mark(clock, 6.0) == 490.0
    assert clock.held(6.0)["reconnect"] == 4.0
    assert clock.next_change(6.0, WALL) == 7.0

    assert mark(clock, 7.0) == 490.0
    assert clock.held(8.0)["reconnect"] == 6.0
    add(clock, progress.received(1, 8.0), 950.0, 8.0)
    assert mark(clock, 8.0) == 490.0

    add(clock, returned, 495.0, 9.0)
    assert mark(clock, 9.0) == 940.0
    assert clock.held(9.0)["reconnect"] == 0.0


@pytest.mark.parametrize("something_comes_between", [False, True])
def test_after_a_second_loss_within_the_time_of_the_first_it_stands_until_both_are_over(
    something_comes_between: bool,
) -> None:
    progress = reading(2)
    clock = clock_of(progress)
    add(clock, progress.received(1, 1.0), 500.0)
    progress.readers[0].lost(2.0, 5.0)
    if something_comes_between:
        add(clock, progress.received(1, 3.0), 900.0, 3.0)
    progress.readers[0].reads(3.5)
    progress.readers[0].lost(4.0, 5.0)
    add(clock, progress.received(1, 5.0), 950.0, 5.0)
    assert mark(clock, 7.0) == 490.0

    returned = progress.received(1, 8.0)
    assert mark(clock, 9.0) == 490.0
    assert clock.held(9.0)["reconnect"] == 7.0
    add(clock, returned, 495.0, 10.0)
    assert mark(clock, 10.0) == 940.0


def test_a_second_loss_that_is_over_sooner_does_not_end_the_first() -> None:
    progress = reading(2)
    clock = clock_of(progress)
    add(clock, progress.received(1, 1.0), 500.0)
    progress.readers[0].lost(2.0, 8.0)
    add(clock, progress.received(1, 3.0), 900.0, 3.0)
    progress.stand(4.0, 2.0)
    add(clock, progress.received(1, 8.0), 950.0, 8.0)
    returned = progress.received(1, 9.0)
    assert mark(clock, 10.0) == 490.0

    add(clock, returned, 495.0, 11.0)
    assert mark(clock, 11.0) == 940.0


def test_what_came_in_before_a_second_loss_and_arrives_after_its_hold_waits_for_the_first() -> None:
    progress = reading(2)
    clock = clock_of(progress, hold_timeout=4.0)
    add(clock, progress.received(1, 1.0), 500.0)
    progress.readers[0].lost(2.0, 8.0)
    held_too_long = progress.received(1, 3.0)
    progress.stand(4.0, 2.0)
    returned = progress.received(1, 9.0)
    assert mark(clock, 10.0) == 490.0

    add(clock, held_too_long, 900.0, 11.0)
    assert mark(clock, 11.0) == 490.0
    add(clock, returned, 495.0, 12.0)
    assert mark(clock, 12.0) == 890.0


def test_the_time_after_a_loss_runs_only_while_a_copy_reads() -> None:
    progress = reading()
    clock = clock_of(progress)
    add(clock, progress.received(1, 1.0), 500.0)
    progress.readers[0].lost(2.0, 5.0)
    assert clock.next_change(100.0, WALL) is None

    progress.readers[0].reads(100.0)
    add(clock, progress.received(1, 104.0), 900.0, 104.0)
    assert mark(clock, 104.9) == 490.0
    assert mark(clock, 105.0) == 890.0


def test_a_process_that_did_not_end_well_counts_as_a_lost_reader() -> None:
    progress = Progress()
    clock = clock_of(progress)
    progress.stand(0.0, 30.0)
    progress.readers[0].reads(2.0)
    add(clock, progress.received(1, 3.0), 500.0)

    assert mark(clock, 31.9) is None
    assert mark(clock, 32.0) == 490.0


def test_what_came_in_before_a_lost_reader_counts_at_once_although_its_hold_has_run_out() -> None:
    progress = asked()
    clock = clock_of(progress, hold_timeout=4.0)
    before = progress.received(1, 1.0)
    progress.stand(5.5, 1.5)
    progress.received(1, 6.0)
    assert mark(clock, 7.5, WALL + 7.5) is None
    add(clock, before, WALL, 7.5)
    assert mark(clock, 7.5, WALL + 7.5) == WALL - DELAY


def test_a_source_that_delivers_again_at_once_needs_no_standstill() -> None:
    progress = reading()
    clock = clock_of(progress)
    progress.readers[0].lost(1.0, 0.0)
    add(clock, progress.received(1, 2.0), 500.0)

    assert mark(clock, 2.0) == 490.0


# --- idle


def asked(copies: int = 1) -> Progress:
    progress = reading(copies)
    for reader in progress.readers:
        reader.asks(0.0)
    return progress


def test_a_quiet_producer_goes_with_the_wall_clock() -> None:
    progress = asked()
    clock = clock_of(progress, idle_timeout=60.0)
    add(clock, progress.received(1, 5.0), WALL - 20.0, 5.0)
    assert clock.next_change(5.0, WALL + 5) == 65.0
    assert mark(clock, 64.9, WALL + 64.9) == WALL - 30.0

    assert mark(clock, 65.0, WALL + 65.0) == WALL - 5.0
    assert mark(clock, 100.0, WALL + 100.0) == WALL + 30.0
    assert clock.next_change(100.0, WALL + 100.0) is None
    due = clock.next_change(100.0, WALL + 100.0, us(WALL + 50.0))
    assert due is not None
    assert due == pytest.approx(120.0, abs=0.001)
    assert clock.watermark(due, WALL + due) == pytest.approx(us(WALL + 50.0), abs=2)


def test_what_time_has_moved_since_the_last_question_changes_now() -> None:
    """The clock goes on between the two questions of an aggregator. It would sleep on what it has not seen."""
    progress = asked()
    clock = clock_of(progress, idle_timeout=60.0)
    add(clock, progress.received(1, 5.0), WALL - 20.0, 5.0)
    due = us(WALL - 10.0)
    assert mark(clock, 64.999, WALL + 64.999) == WALL - 30.0
    assert clock.next_change(65.001, WALL + 65.001, due) == 65.001
    assert mark(clock, 65.002, WALL + 65.002) == pytest.approx(WALL - 5.0, abs=0.01)
    assert clock.next_change(65.003, WALL + 65.003, due) is None


def test_a_producer_that_never_had_a_message_is_idle_too() -> None:
    clock = clock_of(asked(), idle_timeout=60.0)

    assert mark(clock, 59.9, WALL + 59.9) is None
    assert mark(clock, 60.0, WALL + 60.0) == WALL - DELAY


def test_a_step_back_of_the_wall_clock_does_not_take_it_back() -> None:
    clock = clock_of(asked(), idle_timeout=60.0)
    assert mark(clock, 60.0, WALL + 60.0) == WALL - DELAY

    assert mark(clock, 61.0, WALL - 3_600.0) == WALL - DELAY


def test_a_producer_that_becomes_idle_between_two_looks_is_not_forgotten() -> None:
    """The stage asks for the watermark, and then when to look again. Time goes on between the two."""
    clock = clock_of(asked(), idle_timeout=60.0)
    due = us(WALL - 1_000.0)
    assert clock.watermark(59.999, WALL + 59.999) is None
    assert clock.next_change(60.001, WALL + 60.001, due) == 60.001
    assert clock.watermark(60.001, WALL + 60.001) == us(WALL + 60.001 - 60.0 - DELAY)


def test_without_an_idle_timeout_no_producer_is_idle() -> None:
    clock = clock_of(asked(), idle_timeout=None)

    assert mark(clock, 1e6, WALL + 1e6) is None
    assert clock.next_change(1e6, WALL + 1e6) is None


@pytest.mark.parametrize("why", ["full", "paused", "lost", "one of two", "in work", "obstacle"])
def test_a_producer_that_does_not_work_is_not_idle(why: str) -> None:
    progress = asked(2 if why == "one of two" else 1)
    clock = clock_of(progress, idle_timeout=60.0, hold_timeout=1e9)
    reader = progress.readers[-1]
    if why == "full":
        reader.rests()
    elif why in ("paused", "one of two"):
        reader.pauses(1.0)
    elif why == "lost":
        reader.lost(1.0, 0.0)
    elif why == "obstacle":
        reader.works = lambda: False
    else:
        progress.received(1, 1.0)

    assert mark(clock, 500.0, WALL + 500.0) is None
    # One that has an obstacle is looked at again when it could be idle at the earliest, if the obstacle goes away.
    assert clock.next_change(500.0, WALL) == {"obstacle": 560.0, "in work": 1e9 + 1.0}.get(why)


def test_a_producer_is_quiet_from_when_it_is_asked_again() -> None:
    progress = asked()
    clock = clock_of(progress, idle_timeout=60.0)
    reader = progress.readers[0]
    reader.pauses(50.0)
    assert mark(clock, 100.0, WALL + 100.0) is None

    reader.reads(100.0)
    assert clock.next_change(100.0, WALL + 100.0) == 160.0
    reader.rests()
    assert clock.next_change(120.0, WALL + 120.0) is None
    reader.asks(130.0)
    assert clock.next_change(130.0, WALL + 130.0) == 190.0


def test_a_message_ends_the_quiet() -> None:
    progress = asked()
    clock = clock_of(progress, idle_timeout=60.0)
    assert mark(clock, 70.0, WALL + 70.0) == WALL

    receipt = progress.received(1, 80.0)
    for now in (80.0, 80.5):
        assert mark(clock, now, WALL + now) == WALL + 10.0
    add(clock, receipt, WALL + 75.0, 81.0)
    assert mark(clock, 81.0, WALL + 81.0) == WALL + 65.0
    assert clock.next_change(81.0, WALL + 81.0) == 141.0


def test_a_producer_that_delivers_only_to_others_is_idle_for_this_aggregator() -> None:
    progress = asked()
    clock = clock_of(progress, idle_timeout=60.0)
    add(clock, progress.received(1, 5.0), WALL - 20.0, 5.0)
    for now in (30.0, 64.0, 64.5):
        progress.arrived(progress.received(1, now), 1, now)
    assert clock.next_change(64.5, WALL + 64.5) == 65.0
    assert mark(clock, 64.9, WALL + 64.9) == WALL - 30.0
    assert mark(clock, 65.0, WALL + 65.0) == WALL - 5.0
    # A message in work may be one of ours.
    in_work = progress.received(1, 70.0)
    assert mark(clock, 80.0, WALL + 80.0) == WALL
    progress.received(1, 90.0)
    progress.arrived(in_work, 1, 95.0)
    assert mark(clock, 95.0, WALL + 95.0) == WALL + 20.0


def test_it_is_not_idle_while_it_may_have_a_backlog() -> None:
    progress = asked()
    clock = clock_of(progress, idle_timeout=60.0)
    progress.readers[0].rests()
    progress.readers[0].asks(50.0)
    progress.received(1, 109.0)
    assert mark(clock, 109.5, WALL + 109.5) is None


def test_it_goes_no_further_than_the_events_of_others_while_they_have_some() -> None:
    progress = asked()
    clock, other = clock_of(progress, idle_timeout=60.0), clock_of(progress, idle_timeout=60.0)
    for now in (30.0, 70.0, 100.0):
        add(other, progress.received(1, now), WALL + now - 86_400.0, now)
    assert mark(clock, 100.0, WALL + 100.0) == WALL - 86_400.0 + 30.0
    # They are silent, too.
    assert mark(clock, 161.0, WALL + 161.0) == WALL + 91.0


@pytest.mark.parametrize("identity", [b"a", None])
def test_it_is_not_idle_while_messages_may_come_that_were_awaited_for_too_long(identity: bytes | None) -> None:
    progress = asked()
    clock = clock_of(progress, idle_timeout=60.0, hold_timeout=10.0)
    put_off(progress, identity, 1.0)
    for now in (20.0, 60.0, 100.0, 140.0):
        progress.arrived(progress.received(1, now), 1, now)
        assert mark(clock, now, WALL + now) is None


@given(
    steps=st.lists(st.sampled_from(["ours", "others", "arrive", "arrive last", "rest", "ask", 2, 4, 7]), max_size=40)
)
def test_what_others_get_takes_it_no_further_than_the_history_says(steps: list[str | int]) -> None:
    progress = asked()
    clock = clock_of(progress, idle_timeout=10.0, hold_timeout=1e9)
    now, asked_at, taken_at, passed, reached = 0.0, 0.0, 0.0, 0, -math.inf
    came: list[tuple[float, Receipt, float | None]] = []
    for step in steps:
        if isinstance(step, int):
            now += step
        elif step in ("ours", "others"):
            came.append((now, progress.received(1, now), WALL + now if step == "ours" else None))
        elif step == "rest":
            progress.readers[0].rests()
            asked_at = math.inf
        elif step == "ask":
            progress.readers[0].asks(now)
            asked_at = min(asked_at, now)
        elif waiting := [one for one in came if one[1].pending]:
            _, receipt, time = waiting[-1 if step == "arrive last" else 0]
            if time is not None:
                clock.note(entry_of(receipt), us(time))
            progress.arrived(receipt, 1, now)
        complete = next((place for place, one in enumerate(came) if one[1].pending), len(came))
        for _, _, time in came[passed:complete]:
            if time is not None:
                taken_at = now
                reached = max(reached, time - DELAY)
        passed = complete
        until = now if complete == len(came) else came[complete][0]
        # A moment before which all has arrived, and nothing was for us for the idle timeout, while it was asked.
        if until >= max(asked_at, taken_at) + 10.0:
            reached = max(reached, WALL + until - 10.0 - DELAY)
        assert mark(clock, now, WALL + now) == (None if reached == -math.inf else pytest.approx(reached, abs=1e-5))


# --- over a restart


def restarted(clock: EventClock, progress: Progress, now: float, **options: Any) -> tuple[EventClock, Progress]:
    """A new process, with what the clock has saved as JSON."""
    stored = json.loads(json.dumps(clock.saved(now)))
    saved = {name: [SavedHold.of(one) for one in holds] for name, holds in stored.items()}
    known = clock.watermark(now, WALL)
    follower = reading()
    follower.name = progress.name
    return clock_of(follower, saved=saved, watermark=known, **options), follower


def put_off(progress: Progress, identity: bytes | None, now: float) -> None:
    """A message comes in, fails and will be delivered again."""
    receipt = progress.received(1, now)
    progress.came_back(receipt, [identity])
    progress.arrived(receipt, 1, now)


def test_what_is_awaited_holds_the_watermark_after_a_restart_until_it_has_arrived() -> None:
    before = reading()
    clock = clock_of(before)
    add(clock, before.received(1, 1.0), 100.0)
    put_off(before, b"a", 2.0)
    add(clock, before.received(1, 3.0), 300.0)
    assert mark(clock, 4.0) == 90.0

    clock, progress = restarted(clock, before, 5.0)
    assert progress.awaits
    add(clock, progress.received(1, 1.0), 500.0)
    assert mark(clock, 2.0) == 90.0
    assert clock.held(2.0)["retry"] == 5.0  # it came in at 2.0, three seconds before the restart
    add(clock, progress.received(1, 3.0, [b"a"]), 110.0, 4.0)
    assert mark(clock, 4.0) == 490.0


def test_what_counts_behind_an_awaited_message_still_counts_after_a_restart() -> None:
    before = reading()
    clock = clock_of(before)
    put_off(before, b"a", 1.0)
    add(clock, before.received(1, 2.0), 300.0)
    put_off(before, b"b", 3.0)
    add(clock, before.received(1, 4.0), 200.0)
    add(clock, before.received(1, 4.0), 400.0)

    clock, progress = restarted(clock, before, 5.0)
    add(clock, progress.received(1, 1.0, [b"a"]), 110.0, 1.0)
    assert mark(clock, 1.0) == 290.0
    add(clock, progress.received(1, 2.0, [b"b"]), 110.0, 2.0)
    assert mark(clock, 2.0) == 390.0


def test_a_hold_goes_on_after_a_restart_where_it_was() -> None:
    before = reading()
    clock = clock_of(before, hold_timeout=10.0)
    put_off(before, b"a", 1.0)
    clock, progress = restarted(clock, before, 7.0, hold_timeout=10.0)
    add(clock, progress.received(1, 1.0), 500.0)
    assert clock.next_change(1.0, WALL) == 4.0
    assert mark(clock, 3.9) is None
    assert mark(clock, 4.0) == 490.0


def test_a_message_without_an_identity_holds_by_time_after_a_restart_too() -> None:
    before = reading()
    clock = clock_of(before, hold_timeout=10.0)
    put_off(before, None, 1.0)
    clock, progress = restarted(clock, before, 2.0, hold_timeout=10.0)
    assert not progress.awaits
    assert clock.next_change(0.0, WALL) == 9.0


def test_what_has_come_in_again_is_saved_until_it_has_arrived() -> None:
    progress = reading()
    clock = clock_of(progress)
    put_off(progress, b"a", 1.0)
    again = progress.received(1, 2.0, [b"a"])
    assert clock.saved(3.0) == {"": [(2.0, 0, [("61", 2.0)], [], None)]}
    assert not progress.is_settled
    add(clock, again, 100.0)
    assert clock.saved(3.0) == {}
    assert progress.is_settled


def test_a_lost_reader_is_not_settled_before_its_messages_can_be_back() -> None:
    progress = reading()
    clock_of(progress)
    progress.stand(1.0, 30.0)
    assert not progress.is_settled
    progress.refresh(31.0)
    assert progress.is_settled


def test_beyond_the_most_that_are_saved_messages_are_held_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_holds, "MOST_SAVED", 3)
    progress = reading()
    clock = clock_of(progress)
    receipt = progress.received(4, 1.0)
    progress.came_back(receipt, [b"a", b"b", b"c", b"d"])
    progress.arrived(receipt, 4, 1.0)
    first: tuple[Any, ...] = (1.0, 1, [("61", 1.0), ("62", 1.0), ("63", 1.0)], [], None)
    assert clock.saved(2.0) == {"": [first]}
    for _ in range(5):
        put_off(progress, b"e", 2.0)
    assert clock.saved(2.0) == {"": [first, *[(0.0, 1, [], [], None)] * 3]}


def test_two_aggregators_wait_for_the_same_message_after_a_restart() -> None:
    before = reading()
    clocks = [clock_of(before), clock_of(before)]
    put_off(before, b"a", 1.0)
    saved = [clock.saved(2.0) for clock in clocks]
    progress = reading()
    one, other = (clock_of(progress, saved=each) for each in saved)
    add(one, progress.received(1, 1.0), 500.0)
    assert mark(one, 2.0) is None
    again = progress.received(1, 3.0, [b"a"])
    add(one, again, 110.0, 3.0)
    assert (mark(one, 3.0), mark(other, 3.0)) == (490.0, None)
    assert (one.saved(3.0), other.saved(3.0)) == ({}, {})


# --- why a message is late


@pytest.mark.parametrize("returns_at", [11.5, 30.0, 3000.0])
def test_a_retried_message_is_late_because_its_hold_ran_out_before_it_came_back(returns_at: float) -> None:
    progress = reading()
    clock = clock_of(progress, hold_timeout=10.0)
    put_off(progress, b"a", 1.0)
    add(clock, progress.received(1, 2.0), 500.0)
    assert mark(clock, 11.0) == 490.0
    for now in (returns_at - 0.25, returns_at - 0.125):
        progress.received(1, now, [b"c"])
    again = entry_of(progress.received(2, returns_at, [b"a", b"b"]))
    assert clock.was_held_too_long(again, lambda: b"a")
    assert not clock.was_held_too_long(again, lambda: b"b")
    assert not clock.was_held_too_long(again, lambda: None)
    # It was delivered once more.
    assert not clock.was_held_too_long(entry_of(progress.received(1, returns_at, [b"a"])), lambda: b"a")


def test_a_message_that_came_back_in_time_and_was_handled_for_too_long_is_held_too_long() -> None:
    progress = reading()
    clock = clock_of(progress, hold_timeout=10.0)
    put_off(progress, b"a", 1.0)
    again = progress.received(1, 10.0, [b"a"])
    assert not clock.was_held_too_long(entry_of(again), lambda: b"a")
    add(clock, progress.received(1, 10.5), 500.0)
    assert mark(clock, 11.0) is None
    assert clock.was_held_too_long(entry_of(again), lambda: b"a")


def test_those_that_never_come_back_are_forgotten() -> None:
    progress = reading()
    clock = clock_of(progress, hold_timeout=10.0)
    put_off(progress, b"a", 1.0)
    for now in (12.0, 14.0, 3_700.0):
        progress.received(1, now, [b"c"])
    assert not progress.awaits
    assert not clock.was_held_too_long(entry_of(progress.received(1, 3_701.0, [b"a"])), lambda: b"a")
