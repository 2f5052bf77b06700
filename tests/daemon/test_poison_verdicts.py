"""What a supervisor concludes from the death of a worker."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from broadway_py.daemon.workers.poison_verdicts import PoisonVerdicts
from broadway_py.pipeline.poison.journal import CONVICTED, REPEATED, SUSPECTED, Entry
from broadway_py.pipeline.poison.memory import GROWN_KIB, MemoryMark, memory_mark, ran_out, to_kib
from tests.pipeline.support import logged

A, B, C = (bytes([number]) * 16 for number in (1, 2, 3))
ABORT, KILL = -signal.SIGABRT, -signal.SIGKILL

#: No machine has killed as many.
KILLS = 2**40


@pytest.fixture
def verdicts() -> Iterator[PoisonVerdicts]:
    verdicts = PoisonVerdicts(2)
    yield verdicts
    verdicts.close()


def die(
    verdicts: PoisonVerdicts,
    *at_work: bytes | None,
    alone: bool = False,
    code: int = ABORT,
    peak_kib: int = 0,
    index: int = 0,
) -> int:
    """A worker begins, has these at work, and dies."""
    region = verdicts.journal.region(index)
    region.begin()
    region.page().set(at_work)
    if alone:
        region.begin_alone("orders\x00queue\x007", MemoryMark(0, KILLS))
    return verdicts.died(index, code, peak_kib)


def states(verdicts: PoisonVerdicts) -> dict[bytes, int]:
    return {identity: entry.state for identity, entry in verdicts.journal.entries().items()}


def test_what_was_at_work_is_suspected_by_all_workers_from_then_on(verdicts: PoisonVerdicts) -> None:
    assert die(verdicts, A, B) == 2

    assert states(verdicts) == {A: SUSPECTED, B: SUSPECTED}
    assert verdicts.journal.region(0).read().at_work == frozenset(), "the next worker begins with an empty region"


def test_a_death_with_nothing_at_work_accuses_nobody(verdicts: PoisonVerdicts) -> None:
    assert die(verdicts) == 0

    assert states(verdicts) == {}


def test_what_a_worker_leaves_behind_that_ended_in_order_accuses_nobody(verdicts: PoisonVerdicts) -> None:
    region = verdicts.journal.region(0)
    region.begin()
    region.page().set([A])
    region.end()

    assert verdicts.died(0, 1, 0) == 0

    assert states(verdicts) == {}
    assert not region.read().has_ended


@pytest.mark.parametrize(
    ("code", "how"),
    [
        (ABORT, "killed by SIGABRT"),
        (-signal.SIGSEGV, "killed by SIGSEGV"),
        (-signal.SIGBUS, "killed by SIGBUS"),
        (0, "exit code 0"),
        (3, "exit code 3"),
    ],
)
def test_the_second_death_alone_convicts_and_is_told(
    verdicts: PoisonVerdicts, code: int, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    die(verdicts, A, B, code=code)

    assert die(verdicts, A, alone=True, code=code, index=1) == 0

    assert verdicts.journal.entries() == {A: Entry(0, CONVICTED, 2, code), B: Entry(1, SUSPECTED, 1, code)} or (
        verdicts.journal.entries() == {A: Entry(1, CONVICTED, 2, code), B: Entry(0, SUSPECTED, 1, code)}
    )
    assert logged(caplog) == [
        {
            "event": "a message ends the workers that handle it; it will not be handled any more",
            "pipeline": "orders",
            "producer": "queue",
            "message_id": "7",
            "deaths": 2,
            "exit": how,
        }
    ]


@pytest.mark.parametrize("beside", [B, None], ids=["another", "one without a name"])
def test_one_that_should_have_been_alone_but_was_not_is_not_convicted(
    verdicts: PoisonVerdicts, beside: bytes | None
) -> None:
    die(verdicts, A)

    die(verdicts, A, beside, alone=True)

    assert states(verdicts)[A] == SUSPECTED


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_anybody_may_send_convicts_at_the_third_death_alone(
    verdicts: PoisonVerdicts, number: int
) -> None:
    die(verdicts, A, B, code=-number)
    seen = []
    for _ in range(3):
        die(verdicts, A, alone=True, code=-number)
        seen.append(states(verdicts)[A])

    assert seen == [SUSPECTED, SUSPECTED, CONVICTED]


def test_a_kill_convicts_at_once_when_the_one_alone_had_taken_much_memory(verdicts: PoisonVerdicts) -> None:
    die(verdicts, A, B, code=KILL)

    die(verdicts, A, alone=True, code=KILL, peak_kib=GROWN_KIB)

    assert states(verdicts)[A] == CONVICTED


@pytest.mark.parametrize(
    ("before", "after", "has"),
    [
        (MemoryMark(100, 5), MemoryMark(100 + GROWN_KIB - 1, 5), False),
        (MemoryMark(100, 5), MemoryMark(100 + GROWN_KIB, 5), True),
        (MemoryMark(100, 5), MemoryMark(100, 6), True),
        (MemoryMark(100, 5), MemoryMark(100, 0), False),
    ],
)
def test_whether_memory_ran_out_is_seen_by_the_peak_and_by_the_kernels_count(
    before: MemoryMark, after: MemoryMark, has: bool
) -> None:
    assert ran_out(before, after) is has


def test_the_memory_of_a_process_is_told_in_kib() -> None:
    peak, kills = memory_mark()

    assert 5_000 < peak < 50_000_000
    assert kills >= 0
    assert memory_mark(17).peak_kib == 17
    assert to_kib(4096) in (4096, 4)


def test_one_that_workers_have_cleared_starts_anew(verdicts: PoisonVerdicts) -> None:
    die(verdicts, A)
    verdicts.journal.clear(0)

    die(verdicts, A, alone=True)

    assert states(verdicts) == {A: SUSPECTED}


def test_what_workers_have_cleared_leaves_the_table(verdicts: PoisonVerdicts) -> None:
    die(verdicts, A, B)
    verdicts.journal.clear(0)

    verdicts.forget_cleared()

    assert len(states(verdicts)) == 1


def test_a_convicted_one_that_ends_a_further_worker_is_told_to_nobody(verdicts: PoisonVerdicts) -> None:
    for _ in range(2):
        die(verdicts, A, alone=True)

    assert die(verdicts, A, alone=True) == 0

    assert verdicts.journal.entries() == {A: Entry(0, REPEATED, 3, ABORT)}


def test_too_many_suspects_are_forgotten_aloud(caplog: pytest.LogCaptureFixture) -> None:
    verdicts = PoisonVerdicts(1, most=2)
    for one in (A, B, C):
        die(verdicts, one)

    assert states(verdicts) == {B: SUSPECTED, C: SUSPECTED}
    assert logged(caplog) == [
        {"event": "too many messages are suspected of ending workers; the oldest are forgotten", "messages": 1}
    ]
    verdicts.close()


def test_a_very_long_name_is_told_as_far_as_it_goes(verdicts: PoisonVerdicts, caplog: pytest.LogCaptureFixture) -> None:
    die(verdicts, A)
    region = verdicts.journal.region(0)
    region.page().set([A])
    region.begin_alone("x" * 1000, MemoryMark(0, KILLS))

    verdicts.died(0, ABORT, 0)

    (line,) = logged(caplog)
    assert (line["pipeline"], line["producer"], line["message_id"]) == ("x" * 456, "", "")
