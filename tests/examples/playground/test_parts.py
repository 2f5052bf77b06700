"""The parser, the register, the generator and the help of the playground."""

from __future__ import annotations

import asyncio
import time
from itertools import islice
from pathlib import Path

import pytest

from broadway_py import Flow
from broadway_py.examples.playground import help as helping
from broadway_py.examples.playground.generator import COUNTRIES, START, generate_with_flow, lines, to_file
from broadway_py.examples.playground.parser import Figures, Shipment, parse, shipments
from broadway_py.examples.playground.register import OWNERS, get_owner, get_owner_async

LINE = "Denmark, Kenya, reef, 40, 213, qwerty, 1582284844"


def test_a_line_has_seven_fields_without_the_blanks_around_them() -> None:
    shipment = Shipment("Denmark", "Kenya", "reef", "40", 213, "qwerty", 1_582_284_844)

    assert parse(LINE) == parse(f"  {LINE.replace(',', ' ,  ')}\n") == shipment


def test_a_line_with_fewer_fields_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^expected 7 fields with commas between them, got 2$"):
        parse("Denmark, Kenya")


def test_figures_count_bookings_containers_and_reefers() -> None:
    one = Figures().plus(parse(LINE))

    assert one == (1, 213, 213)
    assert one.plus(parse(LINE.replace("reef", "dry"))).together(one) == (3, 639, 426)


def test_the_register_knows_a_customer_for_each_letter() -> None:
    assert "".join(OWNERS) == "abcdefghijklmnopqrstuvwxyz"
    assert {letter: get_owner(f"{letter}xyz") for letter in "agx"} == {"a": "Armani", "g": "Guy", "x": "Xzavier"}
    with pytest.raises(KeyError):
        get_owner("")


async def test_the_register_waits_as_long_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def waits(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(time, "sleep", waited.append)
    monkeypatch.setattr(asyncio, "sleep", waits)

    assert (get_owner("qwerty", 1_500), await get_owner_async("qwerty", 250)) == ("Queen", "Queen")
    assert waited == [1.5, 0.25]


def test_the_generator_makes_lines_of_the_original_shape() -> None:
    made = [parse(line) for line in islice(lines(), 1_000)]

    assert list(islice(lines(), 20)) == list(islice(lines(1), 20)) != list(islice(lines(2), 20))
    assert all(line.count(", ") == 6 == line.count(",") for line in islice(lines(), 1_000))
    assert {each.container_type for each in made} == {"dry", "reef"}
    assert {each.container_size for each in made} == {"20", "40"}
    assert {each.ts for each in made} == {START}
    assert 1 <= min(each.amount for each in made) < 10
    assert 490 < max(each.amount for each in made) <= 500
    assert len({each.booking_id for each in made}) == 1_000
    assert all(len(set(each.booking_id)) == 6 and each.booking_id.islower() for each in made)
    assert {each.booking_id[0] for each in made} == set(OWNERS)
    assert {each.to for each in made} | {each.from_ for each in made} == set(COUNTRIES)


def test_both_columns_have_denmark_and_not_equally_often() -> None:
    made = [parse(line) for line in islice(lines(), 1_000)]

    assert 0 < sum(each.from_ == "Denmark" for each in made) < sum(each.to == "Denmark" for each in made)


def test_the_times_of_a_stream_go_on() -> None:
    assert [parse(line).ts - START for line in islice(lines(per_second=2), 5)] == [0, 0, 1, 1, 2]


def test_a_flow_makes_the_same_lines(tmp_path: Path) -> None:
    to_file(tmp_path / "one", islice(lines(), 50))
    to_file(tmp_path / "two", generate_with_flow(50, stages=1))

    assert (tmp_path / "one").read_text() == (tmp_path / "two").read_text()
    assert sorted(generate_with_flow(50)) == sorted(islice(lines(), 50))


def test_shipments_are_read_from_a_file(tmp_path: Path) -> None:
    to_file(tmp_path / "file", islice(lines(), 50))

    assert sorted(shipments(tmp_path / "file")) == sorted(parse(line) for line in islice(lines(), 50))


def test_windows_print_themselves() -> None:
    stream = Flow.from_iterable(lines_of(1_000)).map(parse)
    shown: list[str] = []

    assert helping.print_windows(stream, show=shown.append).to_list() == [560, 440]
    assert shown == [
        "stage 0, window from 2020-02-21 11:34:00: 560 shipments",
        "stage 0, window from 2020-02-21 11:35:00: 440 shipments",
    ]


def lines_of(number: int) -> list[str]:
    return list(islice(lines(per_second=10), number))


@pytest.mark.parametrize("calls", [helping.slow_calls, helping.slow_calls_async])
def test_every_slow_call_has_its_answer(calls: type) -> None:
    made = lines_of(40)

    assert sorted(calls(made, latency_ms=0, stages=20)) == sorted(
        (parse(line).booking_id, OWNERS[parse(line).booking_id[0]]) for line in made
    )
