"""What ``broadway top`` makes of the answers of a daemon: figures, lines, and what keys do."""

from __future__ import annotations

import math
from typing import Any

import pytest
from rich.text import Text

from broadway_py.cli.top import formats
from broadway_py.cli.top.details import details
from broadway_py.cli.top.figures import Answer, Figures, History, answer_of, as_json, quantile
from broadway_py.cli.top.page import Shown, page, plain
from broadway_py.cli.top.screen import Act, Key, Keys, Quit, Screen

CSI = "\x1b"


def pipeline(name: str = "orders", *, acked: int = 0, failed: int = 0, **more: Any) -> dict[str, Any]:
    producer = {
        "name": "queue",
        "received": acked + 5,
        "redelivered": 2,
        "outcomes": {"acked": acked, "dead_lettered": 3},
        "in_flight": 2,
        "oldest_in_flight_seconds": 0.25,
        "latency": {"bounds": [0.1, 1.0], "counts": [acked, 3, 0], "total": 1.0},
        "connected": 1,
        "copies": 1,
        "connections_lost": 0,
        "trouble": None,
        "ended": False,
        **more.pop("producer", {}),
    }
    stage = {
        "name": "processors",
        "concurrency": 4,
        "busy_seconds": acked / 100,
        "backpressure_seconds": 0.0,
        "queued": 1,
        "failed": {"raised": failed},
        "duration": {"bounds": [0.1], "counts": [acked, 0], "total": acked / 1000},
    }
    return {"name": name, "state": "running", "reasons": [], "producers": [producer], "stages": [stage], **more}


def answer(at_s: float, *pipelines: dict[str, Any]) -> Answer:
    found = answer_of({"version": "1.2", "pipelines": list(pipelines)}, at_s)
    assert found is not None
    return found


def figures_of(*answers: Answer) -> list[Figures]:
    history = History()
    for one in answers:
        history.add(one)
    return history.figures()


def texts(lines: list[Text]) -> list[str]:
    return [line.plain.rstrip() for line in lines]


@pytest.mark.parametrize(
    "said",
    [None, [], {}, {"pipelines": {}}, {"pipelines": [1]}, {"pipelines": [{"name": 1, "producers": []}]}],
)
def test_what_no_daemon_says_is_no_answer(said: object) -> None:
    assert answer_of(said, 0.0) is None


def test_rates_are_over_the_last_three_seconds() -> None:
    answers = [answer(at, pipeline(acked=acked, failed=acked // 10)) for at, acked in ((0, 0), (7, 100), (10, 400))]
    (one,) = figures_of(*answers)
    assert (one.settled_per_s, one.failed_per_s) == (100.0, 10.0)
    assert (one.settled, one.failed, one.lost, one.in_flight) == (403, 40, 3, 2)


def test_after_one_answer_no_rate_is_known() -> None:
    (one,) = figures_of(answer(0, pipeline(acked=50)))
    assert (one.settled_per_s, one.failed_per_s) == (None, None)


def test_rates_are_those_of_slow_answers_too() -> None:
    (one,) = figures_of(answer(0, pipeline(acked=0)), answer(20, pipeline(acked=100)))
    assert one.settled_per_s == 5.0


def test_a_daemon_that_has_started_anew_has_no_rate_below_zero() -> None:
    (one,) = figures_of(answer(0, pipeline(acked=1000)), answer(1, pipeline(acked=3)))
    assert one.settled_per_s is None


@pytest.mark.parametrize(
    ("counts", "part", "value"),
    [
        ([0, 0, 0], 0.5, None),
        ([10, 0, 0], 0.5, 0.5),
        ([5, 5, 0], 0.5, 1.0),
        ([0, 10, 0], 0.99, 2.98),
        ([0, 1, 99], 0.5, math.inf),
    ],
)
def test_percentiles_are_interpolated(counts: list[int], part: float, value: float | None) -> None:
    found = quantile([1.0, 3.0], counts, part)
    assert found == (value if value is None else pytest.approx(value))


def test_percentiles_are_of_what_came_in_the_last_seconds() -> None:
    slow = pipeline(acked=100, producer={"latency": {"bounds": [0.1, 1.0], "counts": [100, 50, 0], "total": 1.0}})
    (one,) = figures_of(answer(0, pipeline(acked=100)), answer(5, slow))
    assert one.p50_s == pytest.approx(0.55)


def test_json_has_plain_numbers_also_for_what_is_above_all_bounds() -> None:
    slow = pipeline(producer={"latency": {"bounds": [0.1, 1.0], "counts": [0, 0, 9], "total": 90.0}})
    (one,) = figures_of(answer(0, slow))
    told = as_json(one)
    assert (told["latency_p50_seconds"], told["settled_per_second"], told["source"]) == (1.0, None, None)


def test_sources_are_added_up() -> None:
    source = {"ready": 7, "delayed": None, "dead": 2, "age_seconds": 1.0, "trouble": None}
    first = pipeline(producer={"source": source})
    first["producers"].append({**first["producers"][0], "name": "other"})
    (one,) = figures_of(answer(0, first))
    assert as_json(one)["source"] == {"ready": 14, "delayed": None, "dead": 4}


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (9_999, "9,999"), (12_345, "12.3k"), (999_999, "1.0M"), (4.5e9, "4.5G"), (2e19, "2e+19")],
)
def test_counts_take_six_characters(value: float | None, text: str) -> None:
    assert formats.count(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0 s"),
        (0.00002, "20 us"),
        (0.0042, "4.2 ms"),
        (0.25, "250 ms"),
        (2.5, "2.5 s"),
        (90.0, "90 s"),
        (600.0, "10 min"),
        (36_000.0, "10 h"),
        (math.inf, "-"),
    ],
)
def test_seconds_have_a_unit_that_suits_them(value: float | None, text: str) -> None:
    assert formats.seconds(value) == text


def test_what_does_not_fit_is_cut_with_a_mark() -> None:
    assert [formats.cut("shipments", width) for width in (9, 4, 1, 0)] == ["shipments", "shi~", "~", ""]
    assert [formats.cut_inside(f"shipments-{n}", 7) for n in (1, 2)] == ["shi~s-1", "shi~s-2"]
    assert formats.cut_inside("東京東京東京", 7) == "東京~京"


def test_the_page_has_a_line_for_each_pipeline_and_its_troubles() -> None:
    away = pipeline("away", reasons=["queue: cannot reach it"])
    paused = pipeline("paused-one", state="paused", reasons=["paused"])
    pipelines = figures_of(answer(0, pipeline(), away, paused), answer(2, pipeline(acked=400, failed=3), away, paused))
    shown = Shown("http://h:1", pipelines, version="1.2", age_s=0.0)
    assert texts(page(shown, Screen(), 80, 12)) == [
        "broadway 1.2  http://h:1  3 pipelines, 2 not ready  200 msg/s",
        "",
        "  pipeline   state      msg/s fail/s in flight    p50    p99  ready   dead",
        "> orders     running      200    1.5         2  50 ms  99 ms      -      -",
        "  away       not ready      0      0         2      -      -      -      -",
        "    queue: cannot reach it",
        "  paused-one paused         0      0         2      -      -      -      -",
        "",
        "",
        "",
        "",
        "j k choose   enter open   p pause or resume   q quit",
    ]
    assert plain(shown)[2:4] == [
        "  pipeline   state      msg/s fail/s in flight    p50    p99  ready   dead",
        "  orders     running      200    1.5         2  50 ms  99 ms      -      -",
    ]


@pytest.mark.parametrize("width", [1, 20, 40, 80, 200])
@pytest.mark.parametrize("height", [1, 3, 5, 24])
def test_the_page_fits_every_terminal(width: int, height: int) -> None:
    pipelines = figures_of(answer(0, *(pipeline(f"東京-{n}", reasons=["away " * 40]) for n in range(20))))
    screen = Screen(chosen="東京-19")
    for is_open in (False, True):
        screen.is_open = is_open
        shown = Shown("http://h:1", pipelines, [{"index": 0, "pid": 7}], "1.2", trouble="gone " * 50, age_s=3.0)
        lines = page(shown, screen, width, height)
        assert len(lines) == height
        assert max(line.cell_len for line in lines) <= width


def test_the_chosen_one_of_many_is_on_the_page() -> None:
    pipelines = figures_of(answer(0, *(pipeline(f"p{n}", reasons=["away"] if n % 2 else []) for n in range(20))))
    shown = Shown("http://h:1", pipelines, age_s=0.0)
    for n in range(20):
        lines = texts(page(shown, Screen(chosen=f"p{n}"), 80, 10))
        assert sum(line.startswith(f"> p{n} ") for line in lines) == 1


def test_an_old_page_says_how_old_it_is() -> None:
    shown = Shown("http://h:1", figures_of(answer(0, pipeline())), trouble="no daemon answers", age_s=90.0)
    assert texts(page(shown, Screen(), 80, 24))[1:3] == [
        "no daemon answers",
        "the figures are 90 s old; the daemon is asked again every second",
    ]


def test_texts_of_the_daemon_do_not_control_the_terminal() -> None:
    evil = pipeline(f"a{CSI}]0;x\x07", reasons=[f"{CSI}[31m\nred"], breaker_open=True, breaker_opened_by=f"{CSI}c")
    pipelines = figures_of(answer(0, evil))
    shown = Shown("http://h:1", pipelines, age_s=0.0)
    for screen in (Screen(), Screen(chosen=pipelines[0].name, is_open=True)):
        drawn = "".join(texts(page(shown, screen, 120, 40)))
        assert drawn.isprintable()
        assert "\\x1b[31m\\nred" in drawn


def test_everything_about_one_pipeline() -> None:
    now = pipeline(
        acked=400,
        failed=5,
        reasons=["degraded: too many messages failed"],
        breaker_open=True,
        breaker={"open": True, "reason": "TimeoutError in processors", "next_try_seconds": 12.0},
        processors_busy=[0.5, 1.0],
        restarts=1,
        failures=[
            {
                "type": "ValueError",
                "stage": "processors",
                "place": "shop.py:7 price",
                "cause": "raised",
                "count": 5,
                "next": "retry in 2 s",
            }
        ],
        owners={"0": [0, 2]},
        publishers=[
            {
                "name": "out",
                "published": {"confirmed": 200, "refused": 1},
                "waiting": 3,
                "in_flight": 4,
                "connected": 0,
                "copies": 1,
                "trouble": "the place is away",
            }
        ],
        aggregators=[
            {
                "name": "revenue",
                "partition": 2,
                "windows_open": 9,
                "watermark_lag_seconds": -3.0,
                "watermark_held_seconds": {"retry": 4.0, "source": 0.0},
                "late": {"event_time": 1},
                "results_pending": 6,
                "results_failing": 0,
                "checkpoint_age_seconds": 0.5,
                "state_bytes": 2048,
            }
        ],
        producer={
            "source": {"ready": 70_000, "delayed": 0, "dead": 4, "age_seconds": 1.0, "trouble": "old figures"},
            "trouble": "queue is slow",
        },
    )
    (one,) = figures_of(answer(0, pipeline(publishers=now["publishers"])), answer(2, now))
    workers = [{"index": 0, "pid": 77, "state": "running", "since": 1.0, "restarts": 2, "reason": "exit code 1"}]
    assert texts(details(one, workers)) == [
        "orders  degraded",
        "  degraded: too many messages failed",
        "  200 msg/s   in flight 2   p50 50 ms   p99 99 ms   settled 403",
        "  acked 400   dead lettered 3   restarts 1",
        "  breaker open: TimeoutError in processors; next try in 12 s",
        "",
        "sources",
        "  source        msg/s in flight oldest redelivered lost ready delayed dead",
        "  queue  1/1 up   200         2 250 ms           2    0 70.0k       0    4",
        "  queue: queue is slow",
        "  queue: old figures",
        "",
        "stages",
        "  stage         busy held back queued  takes failed",
        "  processors x4  50%        0%      1 1.0 ms      5",
        "  load of each processor: 50% 100%",
        "",
        "publishers",
        "  publisher        msg/s waiting in flight refused unconfirmed",
        "  out       0/1 up     0       3         4       1           0",
        "  out: the place is away",
        "",
        "windows",
        "  aggregator open behind held by     late results due failing checkpoint   state",
        "  revenue 2     9 -3.0 s retry 4.0 s    1           6       0     500 ms 2.0 KiB",
        "",
        "failures",
        "  type       stage      place           cause  count next",
        "  ValueError processors shop.py:7 price raised     5 retry in 2 s",
        "",
        "workers",
        "  worker pid state   restarts partitions",
        "  0       77 running        2 0 2        exit code 1",
    ]


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        (b"jkq", [Key.DOWN, Key.UP, Key.QUIT]),
        (b"\x1b[A\x1bOB\r", [Key.UP, Key.DOWN, Key.ENTER]),
        (b"\x1b[5~\x1b[6~", [Key.PAGE_UP, Key.PAGE_DOWN]),
        (b"\x1b[1;5Aj", [Key.OTHER, Key.DOWN]),
        (b"\xc3\xa9y", [Key.OTHER, Key.OTHER, Key.YES]),
        (b"\x1bj", [Key.BACK, Key.DOWN]),
        (b"\x7f", [Key.BACK]),
    ],
)
def test_keys_are_found_also_in_parts(sent: bytes, keys: list[Key]) -> None:
    assert Keys().feed(sent) == keys
    parts = Keys()
    assert [key for at in range(len(sent)) for key in parts.feed(sent[at : at + 1])] == keys
    assert not parts.is_waiting


def test_escape_alone_is_known_when_nothing_follows() -> None:
    keys = Keys()
    assert (keys.feed(b"\x1b"), keys.is_waiting) == ([], True)
    assert (keys.flush(), keys.is_waiting) == ([Key.BACK], False)
    assert (keys.feed(b"\x1b["), keys.flush(), keys.flush()) == ([], [Key.OTHER], [])


def test_keys_choose_and_stop_at_the_ends() -> None:
    pipelines = figures_of(answer(0, *(pipeline(f"p{n}") for n in range(9))))
    screen = Screen()
    chosen = []
    for key in (Key.UP, Key.DOWN, Key.DOWN, Key.PAGE_DOWN, Key.PAGE_DOWN, Key.DOWN, Key.PAGE_UP):
        assert screen.press(key, pipelines, 6) is None
        chosen.append(screen.chosen)
    assert chosen == ["p0", "p1", "p2", "p7", "p8", "p8", "p3"]
    assert screen.press(Key.QUIT, pipelines, 6) == Quit()


def test_only_yes_sends_a_command() -> None:
    pipelines = figures_of(answer(0, pipeline(), pipeline("resting", state="paused", reasons=["paused"])))
    screen = Screen()
    for no in (Key.OTHER, Key.BACK, Key.ENTER, Key.PAUSE, Key.QUIT):
        assert screen.press(Key.PAUSE, pipelines, 9) is None
        assert screen.question == "pause orders in all workers? y: yes, any other key: no"
        assert screen.press(no, pipelines, 9) is None
        assert (screen.asked, screen.notice, screen.is_open) == (None, "nothing was changed", False)
    screen.press(Key.PAUSE, pipelines, 9)
    assert screen.press(Key.YES, pipelines, 9) == Act("orders", "pause")
    screen.press(Key.DOWN, pipelines, 9)
    screen.press(Key.PAUSE, pipelines, 9)
    assert screen.press(Key.YES, pipelines, 9) == Act("resting", "resume")


def test_a_pipeline_that_does_not_run_is_not_paused() -> None:
    pipelines = figures_of(answer(0, pipeline(state="draining", reasons=["draining"])))
    screen = Screen()
    assert screen.press(Key.PAUSE, pipelines, 9) is None
    assert (screen.question, screen.notice) == (None, "orders is draining: only a pipeline that runs can be paused")


def test_a_pipeline_that_goes_away_takes_its_question_with_it() -> None:
    screen = Screen()
    screen.press(Key.PAUSE, figures_of(answer(0, pipeline())), 9)
    others = figures_of(answer(1, pipeline("other")))
    assert screen.press(Key.YES, others, 9) is None
    assert screen.chosen == "other"
    assert screen.press(Key.PAUSE, [], 9) is None
