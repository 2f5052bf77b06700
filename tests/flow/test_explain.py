"""The drawing of a flow, and what it says may surprise."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from broadway_py.flow import Flow, Window
from broadway_py.flow.description.chain import complete
from broadway_py.flow.description.explain import Cluster, Processes
from broadway_py.flow.description.explain import drawing as drawn
from broadway_py.flow.plan import plan_of
from broadway_py.flow.running import runnable
from broadway_py.machine import UsableProcessors
from broadway_py.stage import ProducerConsumerStage

NUMBERS = Flow.from_iterable(range(10)).using(workers=2)


def count(counts: dict[Any, int], element: Any) -> dict[Any, int]:
    return {**counts, element: counts.get(element, 0) + 1}


def country(element: Any) -> Any:
    return element


def double(number: int) -> int:
    return number * 2


async def look_up(number: int) -> int:
    return number


def merge(one: dict[Any, int], other: dict[Any, int]) -> dict[Any, int]:
    return one | other


def running(total: int, number: int) -> tuple[list[int], int]:
    return [number], total + number


def late(element: Any, info: Any) -> list[Any]:
    return [element]


def moving(events: list[Any], state: int) -> tuple[Any, ...]:
    return "cont", state


def choose(element: Any) -> tuple[Any, int]:
    return element, 0


def drawing(flow: Flow[Any]) -> str:
    return flow.explain().partition("\n\nWhat may surprise:\n")[0]


def surprises(flow: Flow[Any]) -> list[str]:
    _, _, told = flow.explain().partition("\n\nWhat may surprise:\n- ")
    return told.split("\n- ") if told else []


def test_a_drawing_has_sources_layers_ways_and_state() -> None:
    flow = (
        Flow.from_files("pyproject.toml")
        .flat_map(str.split)
        .partition(stages=4, window=Window.count(10))
        .uniq()
        .reduce(dict, count)
        .emit("state")
        .map(len)
        .using(workers=2)
    )

    assert flow.explain() == (
        "○  the lines of pyproject.toml, read as elements are asked for\n"
        "│  each list, of at most 500 elements, goes to a stage that has room for it\n"
        "□  from_files · 2 stages, one for each worker\n"
        "│    flat_map 1: split\n"
        "│  each element goes to the stage that owns its key: the element itself\n"
        "□  partition 2 · 4 stages\n"
        "│    window: count, 10 elements\n"
        "│    uniq 3 · state: what it has seen\n"
        "│    reduce 4: count · state: an accumulator for each window, in each stage\n"
        "│    emit 5: state\n"
        "│    map 6: len\n"
        "▼  the result\n"
        "\n"
        "What may surprise:\n"
        "- partition 2: count windows count per stage: 4 here."
    )


def test_the_sides_of_a_join_stand_above_each_other() -> None:
    windows = Window.fixed("1m", by=float)
    left, right = NUMBERS.map(double), Flow.from_iterables([[1], (2,)])

    flow = Flow.window_join("inner", left, right, windows, country, double, operator.add, stages=3).on_late(late)

    assert flow.explain() == (
        "╭  ○  a range, read as elements are asked for\n"
        "│  │  each list, of at most 500 elements, goes to a stage that has room for it\n"
        "│  □  from_iterable · 2 stages, one for each worker\n"
        "│  │    map 1: double\n"
        "├  ╭  ○  a list, read as elements are asked for\n"
        "│  ├  ○  a tuple, read as elements are asked for\n"
        "│  ╰  together\n"
        "╰  together\n"
        "│  each element goes to the stage that owns its key: country on the left, double on the right\n"
        "□  window_join 2 · 3 stages\n"
        "│    join 2: add · state: the elements of both sides, until their window ends\n"
        "│    window: fixed, 60 s\n"
        "│    on_late: late\n"
        "▼  the result"
    )


def test_a_join_without_windows_keeps_its_elements_until_the_end() -> None:
    flow = Flow.bounded_join("inner", NUMBERS, NUMBERS, country, country, operator.add)

    assert "│    join 1: add · state: the elements of both sides, until both end" in drawing(flow).splitlines()


def test_what_is_combined_says_where() -> None:
    by_key = NUMBERS.count_by().on_trigger(lambda state: (state, state)).partition(stages=1)

    assert drawing(NUMBERS.reduce(dict, count, merge)).splitlines()[3:5] == [
        "│    reduce 1: count · state: an accumulator, in each stage; then combined by one stage",
        "│    emits the elements of the accumulator",
    ]
    assert drawing(by_key).splitlines()[3:5] == [
        (
            "│    count_by 1 · state: an accumulator for each key, in each stage; "
            "then combined by the stage that owns the key"
        ),
        "│    on_trigger 2: <lambda>",
    ]


def test_one_stage_that_gathers_is_drawn() -> None:
    flow = NUMBERS.reduce(dict, count, merge).departition(dict, merge, len)

    assert drawing(flow).splitlines()[5:] == [
        "│  what windows emit goes to one stage",
        "□  departition 2 · 1 stage",
        "│    departition 2: len · state: what is merged of each window that is not complete",
        "▼  the result",
    ]


def test_layers_without_work_are_not_drawn() -> None:
    assert drawing(NUMBERS) == "○  a range, read as elements are asked for\n▼  the result"
    assert drawing(NUMBERS.shuffle().shuffle()) == drawing(NUMBERS)
    for with_work in (
        NUMBERS.partition(on_init=print),
        NUMBERS.partition(hash=choose),
        Flow.merge(NUMBERS, to_all=True),
    ):
        assert "□" in drawing(with_work)


class Doubled(ProducerConsumerStage[int, int]):
    async def handle_events(self, events: Iterable[int]) -> list[int]:
        return [2 * event for event in events]


async def test_running_stages_are_drawn_behind_what_feeds_them() -> None:
    flow = NUMBERS.map(double).through_stages([Doubled(), Doubled()])

    assert drawing(flow) == (
        "○  a range, read as elements are asked for\n"
        "│  each list, of at most 500 elements, goes to a stage that has room for it\n"
        "□  from_iterable · 2 stages, one for each worker\n"
        "│    map 1: double\n"
        "│  these stages share the elements\n"
        "○  the events of a running stage, Doubled\n"
        "○  the events of a running stage, Doubled\n"
        "▼  the result"
    )
    assert drawing(Flow.from_stages([Doubled()])) == "○  the events of a running stage, Doubled\n▼  the result"


@pytest.mark.parametrize(
    ("flow", "way"),
    [
        (NUMBERS.partition(key=country), "each element goes to the stage that owns its key: country"),
        (NUMBERS.partition(hash=choose), "each element goes to the stage that choose says"),
        (NUMBERS.partition(stages=1), "each list goes to the only stage"),
        (NUMBERS.partition(stages=1, hash=choose), "each element goes to the stage that choose says"),
        (NUMBERS.shuffle(max_demand=1), "each list, of at most 1 element, goes to a stage that has room for it"),
        (Flow.merge(NUMBERS, to_all=True), "each list goes to all stages"),
    ],
)
def test_a_drawing_says_how_elements_reach_their_stage(flow: Flow[int], way: str) -> None:
    assert drawing(flow.map(double)).splitlines()[1] == f"│  {way}"


@pytest.mark.parametrize(
    ("window", "text"),
    [
        (Window.global_().trigger_every(12), "global, until the end; fires every 12 elements"),
        (Window.global_().trigger(int, moving), "global, until the end; fires when moving says so"),
        (Window.count(1_000).trigger_periodically("1m"), "count, 1,000 elements; fires every 60 s"),
        (Window.sliding(10, 5, by=float), "sliding, 10 s every 5 s"),
        (Window.session(5, by=float), "session, gap 5 s"),
        (Window.calendar("day", tz="Europe/Berlin", by=float), "calendar, day in Europe/Berlin"),
        (Window.periodic(0.5), "periodic, 0.5 s"),
        (Window.fixed(60, by=float, delay=5, lateness="1m"), "fixed, 60 s; delay 5 s; lateness 60 s"),
        (
            Window.fixed(60, by=float, lateness=9).trigger_on_time(),
            "fixed, 60 s; lateness 9 s; fires when the watermark passes its end",
        ),
    ],
)
def test_a_drawing_describes_the_window(window: Window, text: str) -> None:
    flow = NUMBERS.partition(stages=1, key=country, window=window).reduce(dict, count)

    assert drawing(flow).splitlines()[3] == f"│    window: {text}"


BY_KEY = NUMBERS.partition(key=country)
FIXED = Window.fixed(1, by=float)


@pytest.mark.parametrize(
    ("flow", "told"),
    [
        (
            NUMBERS.reduce(dict, count),
            (
                "reduce 1: count: each of the 2 stages has an accumulator of its own, and emits it; "
                "for one of the whole flow, write combine=, or stages=1."
            ),
        ),
        (
            NUMBERS.uniq(),
            "uniq 1: what is not repeated in one stage may come from each of the 2; write .partition(key=…) before it.",
        ),
        (
            NUMBERS.group_by(country),
            (
                "group_by 1: country: the same key may come from each of the 2 stages, "
                "unless .partition(key=…) before it has the same key."
            ),
        ),
        (
            BY_KEY.reduce(dict, count).emit("state").partition(window=Window.count(3)).map(len).count_by(),
            (
                "count_by 6: the same key may come from each of the 2 stages, "
                "unless .partition(key=…) before it has the same key."
            ),
        ),
        (
            NUMBERS.partition(key=country, hash=choose).group_by(country),
            (
                "group_by 2: country: the same key may come from each of the 2 stages, "
                "unless .partition(key=…) before it has the same key."
            ),
        ),
        (
            NUMBERS.partition(window=Window.global_().trigger_every(12)).reduce(dict, count),
            "partition 1: trigger_every(12) counts per stage: 2 here.",
        ),
        (
            NUMBERS.shuffle(stages=500).map(double),
            (
                "shuffle 1: 500 stages, but up to 500 elements go to one of them at a time; "
                "for slow work, write max_demand=1."
            ),
        ),
        (
            Flow.merge(NUMBERS, to_all=True),
            "merge: each element is worked on 2 times, once in each stage.",
        ),
        (
            NUMBERS.partition(window=FIXED).reduce(dict, count),
            "partition 1: elements that come after their window has closed are left out; .on_late(fn) gets them.",
        ),
        (
            NUMBERS.partition(window=Window.periodic(1)).reduce(dict, count),
            "partition 1: its windows fire by the clock, so results differ from run to run.",
        ),
        (
            NUMBERS.partition(stages=1).emit_and_reduce(int, running),
            (
                "emit_and_reduce 2: running: the elements of the accumulator come out as well, "
                'at the end of the window; to leave them out, write .emit("nothing").'
            ),
        ),
        (
            NUMBERS.map(look_up),
            (
                "map 1: look_up: each stage awaits one call after the other, so 2 calls wait at a time; "
                "for more, write stages=…, max_demand=1 before it."
            ),
        ),
        (
            NUMBERS.shuffle(stages=1).reduce(dict, count).emit("state").map(len).map(look_up),
            (
                "map 5: look_up: each stage awaits one call after the other, so 1 call waits at a time; "
                "for more, write stages=…, max_demand=1 before it."
            ),
        ),
        (
            Flow.from_iterables([[1], iter([2])]).map(double),
            "from_iterables: a list_iterator gives its elements once; a second run gets none of them.",
        ),
    ],
)
def test_a_drawing_says_what_may_surprise(flow: Flow[Any], told: str) -> None:
    assert told in surprises(flow)


@pytest.mark.parametrize(
    "flow",
    [
        NUMBERS.map(double),
        NUMBERS.shuffle(stages=1).uniq().reduce(dict, count),
        NUMBERS.reduce(dict, count, merge),
        NUMBERS.count_by(country),
        BY_KEY.uniq().reduce(dict, count),
        BY_KEY.group_by(country),
        NUMBERS.partition(stages=1, window=Window.count(3)).reduce(dict, count),
        NUMBERS.partition(window=FIXED).reduce(dict, count).on_late(late),
        NUMBERS.shuffle(stages=500, max_demand=1).map(double).map(look_up),
        NUMBERS.shuffle(stages=500),
        NUMBERS.shuffle(stages=1).emit_and_reduce(int, running).emit("nothing"),
        Flow.merge(NUMBERS, NUMBERS),
    ],
)
def test_what_is_as_expected_is_not_told(flow: Flow[Any]) -> None:
    assert surprises(flow) == []


def test_each_layer_is_told_once() -> None:
    counted = NUMBERS.partition(window=Window.count(3)).reduce(dict, count)

    assert surprises(Flow.merge(counted, counted)) == ["partition 1: count windows count per stage: 2 here."]


def test_without_a_number_of_workers_there_is_a_stage_for_each_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runnable, "usable_processors", lambda: UsableProcessors(2.5, "processors of the cgroup"))

    assert "□  from_iterable · 3 stages, one for each worker" in Flow.from_iterable([1]).map(double).explain()
    assert "□  from_iterable · 7 stages, one for each worker" in NUMBERS.map(double).using(workers=7).explain()


def test_a_drawing_says_what_is_different_in_worker_processes() -> None:
    flow = NUMBERS.map(double).partition(stages=1).map(double).using("processes", workers=2)

    assert surprises(flow) == [
        "The stages are in 2 worker processes: what a function changes outside of them stays there.",
        "partition 2: 1 stage is in 1 of 2 worker processes.",
    ]
    assert surprises(NUMBERS.map(double).using("processes", workers=1)) == [
        "The stages are in 1 worker process: what a function changes outside of them stays there.",
    ]


def test_a_drawing_says_what_is_different_on_ray() -> None:
    flow = Flow.from_files("pyproject.toml").map(len).partition(stages=1).map(double)
    nodes = ["10.0.0.2 (6d2c81) with CPU 4, GPU 1", "10.0.0.3 (37916a) with CPU 4, GPU 1"]
    cluster = Cluster("the cluster at 10.0.0.1:6379", "CPU 1, GPU 1", nodes)
    layer = complete(flow._layer)
    *_, source = (each.source for each in plan_of(layer, 2).sources)

    told = drawn(layer, 2, Processes([source], cluster))

    assert [line.removeprefix("- ") for line in told.partition("What may surprise:\n")[2].splitlines()] == [
        "Each worker needs CPU 1, GPU 1 of the cluster at 10.0.0.1:6379, which spreads them over its nodes.",
        "Its nodes now: 10.0.0.2 (6d2c81) with CPU 4, GPU 1; 10.0.0.3 (37916a) with CPU 4, GPU 1.",
        "from_files: each node must see the same files under the same paths; this is checked at the start.",
        "The stages are in 2 Ray workers: what a function changes outside of them stays there.",
        "partition 2: 1 stage is in 1 of 2 Ray workers.",
    ]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("one.gz", "two.gz", "plain.txt"):
        (tmp_path / name).touch()
    return tmp_path


def in_processes(flow: Flow[Any]) -> Flow[Any]:
    return flow.using("processes", workers=2)


def test_a_drawing_says_who_reads(files: Path) -> None:
    assert drawing(in_processes(Flow.from_files(files / "plain.txt").map(len))).splitlines()[:2] == [
        "○  the lines of plain.txt, read by the workers in ranges of at most 1,048,576 bytes",
        "│  each worker keeps the lines that it reads",
    ]
    assert drawing(in_processes(Flow.from_files(f"{files}/*").partition().map(len))).splitlines()[:2] == [
        "○  the lines of 3 files, read by the workers in ranges of at most 1,048,576 bytes",
        "│  each element goes to the stage that owns its key: the element itself",
    ]
    assert drawing(in_processes(Flow.from_files("/dev/null").map(len))).splitlines()[:2] == [
        "○  the lines of null, read by the program as elements are asked for",
        "│  each list, of at most 5,000 elements, goes to a stage that has room for it",
    ]
    assert drawing(in_processes(NUMBERS)).startswith("○  a range, read by the program as elements are asked for")


def test_a_drawing_says_which_files_one_worker_reads(files: Path) -> None:
    one, *_ = surprises(in_processes(Flow.from_files(files / "one.gz").map(len)))
    assert one == "from_files: one.gz is packed, so one worker reads all of it."
    several, *_ = surprises(in_processes(Flow.from_files(f"{files}/*").map(len)))
    assert several == "from_files: 2 files are packed, so each is read by one worker."
    assert surprises(Flow.from_files(f"{files}/*").map(len).using(workers=2)) == []
