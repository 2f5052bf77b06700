"""What the solutions give: for made-up shipments the same as plain loops, for the original's file its numbers."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from broadway_py.examples.playground import solutions
from broadway_py.examples.playground.checking import answers_of
from broadway_py.examples.playground.generator import lines, to_file
from broadway_py.examples.playground.parser import Figures, parse
from broadway_py.examples.playground.register import OWNERS
from tests.examples.playground.tables import BY_LOOPS, ORIGINAL, figures_of, shipments_of


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    path = tmp_path / "sample.data"
    to_file(path, islice(lines(), 1_000))
    return path


def table(name: str, path: Path) -> Any:
    """The solution's answer in the form of the tables."""
    answers = answers_of(name, solutions, path)
    if list(answers) != [""]:
        return answers
    if name == "same_country":
        return sorted(answers[""])
    return answers[""] if name in {"total", "reefers"} else dict(answers[""])


@pytest.mark.parametrize("name", BY_LOOPS)
def test_the_solutions_give_what_plain_loops_give(name: str, made_up: Path) -> None:
    assert table(name, made_up) == BY_LOOPS[name](shipments_of(made_up))


def test_the_windows_of_the_file_are_one_and_those_of_the_stream_several(made_up: Path) -> None:
    whole = figures_of(shipments_of(made_up))
    stream = [parse(line) for line in islice(lines(per_second=10), 1_000)]

    assert table("fixed_windows", made_up) == {
        "the file, windows of 1 s": [(1_582_284_844, whole)],
        "the file, windows of a minute": [(1_582_284_840, whole)],
        "a stream of ten lines a second, windows of a minute": [
            (1_582_284_840, figures_of(stream[:560])),
            (1_582_284_900, figures_of(stream[560:])),
        ],
    }


def test_periodic_windows_have_all_shipments_together(made_up: Path) -> None:
    (windows,) = table("periodic_windows", made_up).values()

    assert Figures(*map(sum, zip(*windows, strict=True))) == figures_of(shipments_of(made_up))


@pytest.mark.parametrize("name", ["owners", "owners_async"])
def test_every_booking_has_its_owner(name: str, made_up: Path) -> None:
    bookings = [each.booking_id for each in shipments_of(made_up)[:300]]

    assert table(name, made_up) == {booking: OWNERS[booking[0]] for booking in bookings}


def test_a_stage_gives_the_lines_of_the_stream(made_up: Path) -> None:
    assert answers_of("stream_stage", solutions, made_up) == {"": [parse(line) for line in islice(lines(), 100)]}


def test_the_numbers_of_the_original_agree_with_each_other() -> None:
    customers, windows = ORIGINAL["per_customer"].values(), ORIGINAL["count_windows"].values()

    assert [sum(column) for column in zip(*customers, strict=True)] == [1_000, 252_785]
    assert [[sum(column) for column in zip(*of_size, strict=True)] for of_size in windows] == [
        [1_000, 252_785, 129_779]
    ] * 3
    assert sum(ORIGINAL["by_size"].values()) == 252_785
    assert sum(ORIGINAL["by_type_and_size"].values()) == 1_000


@pytest.mark.skipif("PLAYGROUND_DATA" not in os.environ, reason="PLAYGROUND_DATA does not name the original's file")
@pytest.mark.parametrize("name", ORIGINAL)
def test_the_original_file_gives_its_own_numbers(name: str) -> None:
    path = Path(os.environ["PLAYGROUND_DATA"])
    found = table(name, path)
    if name == "same_country":
        found = len(found)
    elif name == "per_customer":
        found = {owner: figures[:2] for owner, figures in found.items()}
    elif name == "fixed_windows":
        found = {told: windows for told, windows in found.items() if told in ORIGINAL[name]}

    assert found == ORIGINAL[name]
