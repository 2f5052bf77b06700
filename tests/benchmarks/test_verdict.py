from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.document import PAGE, written
from benchmarks.measure import Ids
from benchmarks.rows import BARS, ROWS, Bar, row_named
from benchmarks.spread import of_median, of_ratio
from benchmarks.table import bars_table, growth_table, rates_table
from benchmarks.turns import Results, Run
from benchmarks.verdict import judge


def run(rate: float, *, peak_mib: int = 1, children_peak_mib: int = 0) -> Run:
    return Run(
        (
            {
                "messages": 1000,
                "seconds": 1000 / rate,
                "cpu_seconds": 0.5,
                "peak_rss_bytes": peak_mib * 2**20,
                "children_peak_rss_bytes": children_peak_mib * 2**20,
            },
        )
    )


def results(**rates: list[float]) -> Results:
    found = Results(row_named("memory"))
    found.runs = {name: [run(rate) for rate in many] for name, many in rates.items()}
    return found


def test_the_median_of_equal_runs_has_no_spread() -> None:
    spread = of_median([7.0] * 5)

    assert (spread.median, spread.low, spread.high) == (7.0, 7.0, 7.0)


def test_one_slow_run_widens_the_spread_and_leaves_the_median() -> None:
    spread = of_median([100.0, 101.0, 102.0, 103.0, 10.0])

    assert spread.median == 101.0
    assert spread.low < 100.0
    assert spread.high >= 102.0


def test_a_ratio_is_that_of_the_medians_and_the_same_each_time() -> None:
    ours, theirs = [4.0, 5.0, 6.0], [1.0, 2.0, 3.0]

    assert of_ratio(ours, theirs).median == 2.5
    assert of_ratio(ours, theirs) == of_ratio(ours, theirs)


def test_a_bar_is_met_only_when_the_lower_end_of_the_spread_meets_it() -> None:
    steady, shaky = results(ours=[100.0] * 5), results(ours=[120.0, 120.0, 120.0, 50.0, 50.0])
    bar = Bar("memory", 100.0)

    assert [verdict.word for verdict in judge([steady], [bar])] == ["met"]
    assert [verdict.word for verdict in judge([shaky], [bar])] == ["MISSED"]


def test_a_ratio_bar_compares_with_the_program_it_names() -> None:
    found = results(ours=[50.0] * 5, limit=[100.0] * 5)
    bars = [Bar("memory", 0.5, over="limit"), Bar("memory", 0.51, over="limit")]

    assert [verdict.is_missed for verdict in judge([found], bars)] == [False, True]


def test_a_bar_for_later_and_an_aim_are_measured_and_never_fail_the_run() -> None:
    found = results(ours=[1.0] * 5)
    verdicts = judge([found], [Bar("memory", 2.0, when="later"), Bar("memory", 2.0, when="aim")])

    assert [verdict.word for verdict in verdicts] == ["not yet (due later)", "not yet (an aim)"]
    assert not any(verdict.is_missed for verdict in verdicts)


def test_a_bar_that_is_due_and_was_not_measured_is_missed() -> None:
    (verdict,) = judge([results(limit=[1.0] * 5)], [Bar("memory", 2.0)])

    assert verdict.is_missed
    assert "not measured" in bars_table([verdict])


def test_a_cost_that_grows_with_the_work_is_missed() -> None:
    flat, growing = results(), results()
    flat.growth = {1: [run(100.0)] * 5, 4: [run(99.0)] * 5, 16: [run(98.0)] * 5}
    growing.growth = {1: [run(100.0)] * 5, 4: [run(80.0)] * 5, 16: [run(40.0)] * 5}

    assert [verdict.is_missed for verdict in judge([flat, growing], [])] == [False, True]


@pytest.mark.parametrize(("largest", "missed"), [(110, [False, False]), (112, [False, True])])
def test_where_memory_must_be_flat_the_largest_process_may_grow_by_a_tenth(largest: int, missed: list[bool]) -> None:
    found = Results(replace(row_named("memory"), is_flat=True))
    peaks = {1: 100, 4: 109, 16: largest}
    found.growth = {step: [run(100.0, peak_mib=50, children_peak_mib=peak)] * 5 for step, peak in peaks.items()}

    speed, *memory = judge([found], [])

    assert not speed.is_missed
    assert [(verdict.bar.ours, verdict.bar.over) for verdict in memory] == [
        ("4 x the work", "1 x the work"),
        ("16 x the work", "1 x the work"),
    ]
    assert [verdict.is_missed for verdict in memory] == missed


def test_a_bar_of_time_and_one_of_memory_are_met_by_less() -> None:
    found = results()
    found.runs = {"ours": [run(2000.0, peak_mib=64, children_peak_mib=32)] * 5}
    bars = [Bar("memory", 120, figure="runs_per_minute"), Bar("memory", 16, figure="processes_per_gib")]

    assert [verdict.word for verdict in judge([found], bars)] == ["met", "met"]
    for text in ("ours at least 120 runs per minute ", "120.00 (120.00-120.00)", "ours at least 16 processes per gib "):
        assert text in bars_table(judge([found], bars))


def test_the_table_says_how_long_it_took_and_how_large_the_largest_process_was() -> None:
    found = results(ours=[50.0] * 5)
    found.runs["ours, 2 workers"] = [run(2e5, peak_mib=30, children_peak_mib=40)] * 5
    cells = [[cell.strip() for cell in line.split("|")] for line in rates_table([found]).splitlines()]
    by_name = {line[2]: line for line in cells}

    assert by_name["ours"][3:5] == ["50.0 (50.0-50.0)", "20.00"]
    assert by_name["ours, 2 workers"][3:5] == ["200.0 k (200.0 k-200.0 k)", "0.01"]
    assert by_name["ours, 2 workers"][7] == "40 MiB"


def test_the_rates_of_two_processes_are_added() -> None:
    both = Run(
        (
            {"messages": 100, "seconds": 1.0, "cpu_seconds": 1.0},
            {"messages": 100, "seconds": 2.0, "cpu_seconds": 1.0},
        )
    )

    assert both.rate == 150.0
    assert both.cpu_us == 10_000.0


def test_every_bar_names_a_row_and_programs_that_exist() -> None:
    names = {row.name: {program.name for program in row.programs} for row in ROWS}

    for bar in BARS:
        assert bar.ours in names[bar.row]
        assert bar.over is None or bar.over in names[bar.row]


def test_the_table_says_who_was_absent() -> None:
    found = results(limit=[2e6] * 5, ours=[5e5] * 5)

    assert "| ours, 2 workers | absent" in rates_table([found])
    assert "500.0 k (500.0 k-500.0 k)" in rates_table([found])
    assert growth_table([found]).count("\n") == 1


@pytest.mark.parametrize(
    ("seen", "sentence"),
    [
        ([0, 1, 2], None),
        ([0, 1], "expected each of 3 ids once; 1 never came, 0 came more than once"),
        ([0, 1, 2, 2], "expected each of 3 ids once; 0 never came, 1 came more than once"),
    ],
)
def test_each_id_must_come_exactly_once(seen: list[int], sentence: str | None) -> None:
    ids = Ids(3)
    for number in seen:
        ids.seen[number] += 1

    if sentence is None:
        ids.check()
    else:
        with pytest.raises(RuntimeError) as raised:
            ids.check()
        assert str(raised.value) == sentence


def test_the_page_is_filled_between_its_marks_and_nowhere_else() -> None:
    row: dict[str, Any] = {
        "taken": "2000-01-01T00:00:00+00:00",
        "commit": None,
        "changed_since_commit": False,
        "machine": {"processor": "p", "cores": 2, "memory_bytes": 2**30, "system": "s", "load_before": 0.0},
        "tables": {"rates": "RATES", "growth": "GROWTH", "bars": "BARS"},
    }
    found = {"memory": row, "a row of the past": row}
    page = PAGE.read_text(encoding="utf-8")

    once = written(page, json.loads(json.dumps(found)))

    assert once.count("RATES") == 1
    assert written(once, found) == once
    assert once.partition("<!--")[0] == page.partition("<!--")[0]
