"""The check says right or wrong, and why, and never what would be right."""

from __future__ import annotations

import operator
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from broadway_py import Flow, Window
from broadway_py.examples.playground import exercises, solutions
from broadway_py.examples.playground.checking import EXERCISES, complaint_about
from broadway_py.examples.playground.generator import lines, to_file
from broadway_py.examples.playground.parser import Figures, Shipment, parse
from broadway_py.stage import ProducerStage


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    path = tmp_path / "sample.data"
    to_file(path, islice(lines(), 1_000))
    return path


def complaint(name: str, answer: Callable[..., Any], path: Path) -> str | None:
    module = ModuleType("answers")
    setattr(module, name, answer)
    return complaint_about(name, module, path, seconds=0.01)


def amount(shipment: Shipment) -> int:
    return shipment.amount


def size(shipment: Shipment) -> str:
    return shipment.container_size


def add_size(sums: dict[str, int], shipment: Shipment) -> dict[str, int]:
    return sums | {shipment.container_size: sums.get(shipment.container_size, 0) + shipment.amount}


def misspelt(shipments: Any) -> Any:
    return shipments.mpa(amount)


class Nothing(ProducerStage[str]):
    def handle_demand(self, demand: int) -> list[str] | None:
        return None


def greedy(stream: Any) -> ProducerStage[str]:
    class Greedy(ProducerStage[str]):
        def handle_demand(self, demand: int) -> list[str]:
            return list(stream)

    return Greedy()


@pytest.mark.parametrize("name", EXERCISES)
def test_our_own_answers_are_right(name: str, made_up: Path) -> None:
    assert complaint_about(name, solutions, made_up) is None


async def test_answers_are_checked_in_a_notebook_where_a_loop_is_running(made_up: Path) -> None:
    assert [name for name in EXERCISES if complaint_about(name, solutions, made_up)] == []


def test_each_exercise_has_a_task_and_no_answer(made_up: Path) -> None:
    for name in EXERCISES:
        assert len(getattr(exercises, name).__doc__) > 40
        assert complaint_about(name, exercises, made_up) == "not written yet"


@pytest.mark.parametrize(
    ("name", "answer", "said"),
    [
        ("total", lambda _: None, "expected a flow, got None; is a return missing?"),
        (
            "total",
            lambda all_: all_.map(amount).reduce(int, operator.add).emit("nothing"),
            "the flow gives nothing; a reduction with emit('state') gives its accumulator",
        ),
        (
            "total",
            lambda all_: all_.map(amount).reduce(int, operator.add).emit("state"),
            "2 numbers, which are right together: each stage has a total of its own, see combine=",
        ),
        ("total", lambda all_: sum(map(amount, all_)), "expected a flow, got 252863"),
        (
            "total",
            misspelt,
            f"AttributeError in line {misspelt.__code__.co_firstlineno + 1}: 'Flow' object has no attribute 'mpa'",
        ),
        ("reefers", lambda all_: all_.map(amount), "the flow gives 1000 elements; one number is wanted"),
        (
            "reefers",
            lambda all_: all_.map(amount).reduce(int, operator.add, operator.add).emit("state"),
            "252,863 is too large",
        ),
        (
            "total",
            lambda all_: all_.map(lambda each: each.amout),
            "the flow says: map 2: <lambda> failed with AttributeError",
        ),
        ("by_size", lambda all_: all_.count_by(size), "'20': 481 is too small"),
        (
            "by_size",
            lambda all_: all_.partition(stages=2, key=lambda each: each.to).reduce(dict, add_size),
            "comes 2 times: each stage counts for itself; equal keys must meet",
        ),
        (
            "by_size",
            lambda all_: all_.filter(lambda each: size(each) == "40").sum_by(size, amount),
            "1 of 2 keys is missing",
        ),
        ("by_size", lambda all_: all_.sum_by(lambda each: each.to, amount), "is none of the keys"),
        ("by_size", lambda all_: all_.map(size), "'20', which has the wrong form"),
        (
            "denmark",
            lambda all_: all_.map(lambda _: ("to", 6)),
            "'to' comes 1000 times: each stage counts for itself; equal keys must meet",
        ),
        ("same_country", lambda all_: all_.filter(lambda _: False), "the flow gives nothing"),
        (
            "per_customer",
            lambda all_: all_.map(lambda _: "x" * 200),
            f"an element is '{'x' * 149}…, which has the wrong form",
        ),
        ("same_country", lambda all_: all_, "995 of 1000 elements do not belong there, such as Shipment("),
        (
            "same_country",
            lambda all_: all_.filter(lambda each: each.to == each.from_ != "Chile"),
            "1 of 5 elements is missing",
        ),
        (
            "count_windows",
            lambda all_, size: all_.partition(stages=1, window=Window.count(size)).reduce(Figures, Figures.plus),
            "windows of 100: an element is 100, which has the wrong form; emit('state') keeps an accumulator whole",
        ),
        (
            "count_windows",
            lambda all_, size: (
                all_.partition(stages=4, window=Window.count(size)).reduce(Figures, Figures.plus).emit("state")
            ),
            "windows of 100: 12 windows are too many: each stage has windows of its own",
        ),
        (
            "count_windows",
            lambda all_, size: (
                all_.partition(stages=2, window=Window.count(size)).reduce(Figures, Figures.plus).emit("state")
            ),
            ("is too small; all windows together are right: how many stages are there, and who gets which shipment?"),
        ),
        (
            "count_windows",
            lambda all_, size: solutions.count_windows(all_, size).filter(lambda figures: figures.bookings == size),
            "windows of 100: 10 are too few: the window that is still open at the end gives a result, too",
        ),
        (
            "count_windows",
            lambda all_, size: solutions.count_windows(all_, size).map(lambda figures: figures._replace(reefers=0)),
            "windows of 100: window 1: reefers: 0 is too small",
        ),
        (
            "fixed_windows",
            lambda all_, size: solutions.fixed_windows(all_.map(lambda each: each._replace(ts=each.ts // 1_000)), size),
            "the file, windows of 1 s: window 1: the first: 1,582,284.0 is too small",
        ),
        (
            "fixed_windows",
            lambda all_, size: solutions.fixed_windows(all_.map(lambda each: each._replace(ts=each.ts * 1_000)), size),
            "EventTimeError",
        ),
        (
            "periodic_windows",
            lambda all_, interval: solutions.periodic_windows(all_.filter(lambda each: each.amount > 10), interval),
            "all windows together: bookings: 98",
        ),
        (
            "owners",
            lambda of, get_owner: (
                Flow.from_iterable(of, stages=1)
                .map(parse)
                .map(lambda each: (each.booking_id, get_owner(each.booking_id)))
            ),
            "the most calls that have waited at the same time are 1, 100 are wanted: think of stages=, of max_demand=",
        ),
        (
            "owners_async",
            lambda of, _: Flow.from_iterable(of).map(parse).map(lambda each: (each.booking_id, "Guy")),
            "no owner was asked for; if get_owner is called, an await is missing",
        ),
        ("stream_stage", Flow.from_iterable, "expected a producer stage, got <Flow"),
        ("stream_stage", lambda _: Nothing(), "0 elements came, 100 are wanted"),
        (
            "stream_stage",
            lambda stream: solutions.stream_stage(islice(stream, 1, None)),
            "element 0 is wrong, or stands in the wrong place: Shipment(",
        ),
        ("stream_stage", greedy, "the stage has taken 2,000 lines, though it was asked for fewer"),
    ],
)
def test_a_wrong_answer_is_told_why(name: str, answer: Callable[..., Any], said: str, made_up: Path) -> None:
    assert said in str(complaint(name, answer, made_up))


def test_a_function_that_is_missing_is_named(made_up: Path) -> None:
    assert complaint_about("total", ModuleType("empty"), made_up) == "there is no function total"
