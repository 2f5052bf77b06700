"""Lines of the library: bounded in length and in number, readable without a formatter."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from broadway_py.log import ALL, MOST_LINE, Fields, LineLimit, bounded, logger, show_error_texts

CANARY = "canary-4711"


class Broken:
    """Cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError(CANARY)


def test_a_line_reads_well_where_no_formatter_of_ours_is_installed(caplog: pytest.LogCaptureFixture) -> None:
    logger("broadway_py.x").warning("it began", pipeline="orders", reason="no room", count=5)
    assert caplog.records[0].getMessage() == "it began pipeline=orders reason='no room' count=5"


def test_the_fields_of_a_logger_are_in_each_of_its_lines_and_only_there(caplog: pytest.LogCaptureFixture) -> None:
    log = logger("broadway_py.x").bind(pipeline="orders")
    log.bind(stage="source").error("it failed", count=1)
    log.warning("it began", count=2)
    log.debug("nobody reads this")
    try:
        raise ValueError(CANARY)
    except ValueError:
        log.exception("it raised")

    assert [record.getMessage().split(" exception=")[0] for record in caplog.records] == [
        "it failed pipeline=orders stage=source count=1",
        "it began pipeline=orders count=2",
        "it raised pipeline=orders",
    ]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING", "ERROR"]
    assert caplog.records[2].exc_info is not None


def test_control_characters_of_others_do_not_reach_a_terminal() -> None:
    assert str(Fields(event="failed", message_id="\x1b[2J\n2026 ERROR")) == r"failed message_id='\x1b[2J\n2026 ERROR'"


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10_000_000,
        b"x" * 10_000_000,
        ["x" * 1000] * 100_000,
        {f"key {number}": "x" * 1000 for number in range(100_000)},
        [[[[["x" * 1000] * 100] * 100] * 100]],
        10**100_000,
        Broken(),
        {"a": Broken()},
    ],
    ids=["text", "bytes", "list", "dict", "nested", "number", "broken", "broken inside"],
)
def test_a_value_of_any_kind_becomes_small(value: Any) -> None:
    event = bounded({"event": "it failed", **{f"field {number}": value for number in range(1000)}})
    assert len(str(event)) < 2 * MOST_LINE
    assert CANARY not in str(event)
    assert event["event"] == "it failed"


def test_small_values_stay_as_they_are() -> None:
    event = {"event": "e", "n": 5, "f": 0.5, "b": True, "none": None, "list": [1, "a"], "dict": {"a": {"b": 1}}}
    assert bounded(dict(event)) == event


def test_an_error_is_told_without_its_text_unless_that_was_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    logger("broadway_py.x").error("it failed", exc_info=ValueError(CANARY))
    assert CANARY not in caplog.text
    assert "exception=ValueError" in caplog.text

    show_error_texts()
    logger("broadway_py.x").error("it failed", exc_info=ValueError(CANARY))
    assert f"exception='ValueError: {CANARY}'" in caplog.text


def sentences(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.msg["event"] for record in caplog.records if isinstance(record.msg, dict)]


def test_of_one_kind_twenty_lines_are_written_in_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    log = logger("broadway_py.x").bind(pipeline="orders")
    for number in range(1_000):
        log.warning("it raised", number=number)
        log.warning("asked for all", **{ALL: True})
    assert sentences(caplog).count("it raised") == 20
    assert sentences(caplog).count("asked for all") == 1_000
    assert "_all" not in caplog.text


def test_lines_about_other_places_are_counted_on_their_own_and_a_flood_of_kinds_is_bounded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for number in range(5_000):
        logger("broadway_py.x").warning("it raised", pipeline=f"p{number}")
    assert 500 <= len(sentences(caplog)) <= 520


def test_debug_lines_are_not_limited_whoever_wants_them_wants_them_all(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for _ in range(100):
        logger("broadway_py.x").debug("in detail")
    assert len(caplog.records) == 100


def test_what_was_left_out_is_said_when_the_minute_is_over(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    limit = LineLimit(lambda: now)
    for _ in range(25):
        limit.lets_through("broadway_py.x", "it raised", ("orders",))
    limit.sum_up()
    assert caplog.records == []
    now = 60.0
    limit.sum_up()
    assert caplog.records[0].name == "broadway_py.x"
    assert caplog.records[0].getMessage() == (
        "more lines of this kind were left out line='it raised' not_shown=5 about=orders"
    )
    limit.lets_through("broadway_py.x", "it raised", ())
    limit.sum_up(at_the_end=True)
    assert len(caplog.records) == 1
