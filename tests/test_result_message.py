"""What a sink of an aggregator publishes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from broadway_py.aggregator import WindowResult
from broadway_py.result_message import result_json, result_message

RESULT: WindowResult[Any, Any] = WindowResult(
    aggregator="revenue",
    key="DE",
    start=60.0,
    end=120.5,
    value=12,
    count=3,
    id='revenue/60/"DE"',
    firing=2,
    trigger="late",
    is_last=False,
    replaces=("a", "b"),
    partition=1,
)


def test_a_result_is_a_json_object_with_all_its_fields() -> None:
    assert json.loads(result_json(RESULT, '"DE"', "12")) == {
        "id": 'revenue/60/"DE"',
        "firing": 2,
        "aggregator": "revenue",
        "key": "DE",
        "start": 60.0,
        "end": 120.5,
        "value": 12,
        "count": 3,
        "trigger": "late",
        "is_last": False,
        "replaces": ["a", "b"],
        "partition": 1,
    }


def test_every_field_of_a_result_is_published() -> None:
    published = json.loads(result_json(RESULT, '"DE"', "12"))

    assert set(published) == set(WindowResult.__dataclass_fields__)


@pytest.mark.parametrize(
    ("start", "shown"),
    [
        (datetime(2026, 3, 1, 12, tzinfo=UTC), "2026-03-01T12:00:00+00:00"),
        (datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=timezone(timedelta(hours=1))), "2026-03-01T12:00:00.000005+01:00"),
        (1.5, 1.5),
        (None, None),
    ],
)
def test_times_are_published_as_they_came(start: datetime | float | None, shown: object) -> None:
    published = json.loads(result_json(replace(RESULT, start=start, end=start, partition=None), '"DE"', "12"))

    assert (published["start"], published["end"], published["partition"]) == (shown, shown, None)


def test_the_id_of_the_message_names_the_result_for_ever() -> None:
    message = result_message(RESULT, '"DE"', "12")

    assert message.message_id == 'revenue/60/"DE"#2'
    assert message.data == result_json(RESULT, '"DE"', "12")
    assert message.content_type == "application/json"


@pytest.mark.parametrize(("key", "key_json", "expected"), [("DE", '"DE"', "DE"), (("DE", 1), '["DE",1]', '["DE",1]')])
def test_the_key_of_the_message_is_the_key_of_the_result(key: object, key_json: str, expected: str) -> None:
    assert result_message(replace(RESULT, key=key), key_json, "12").key == expected
