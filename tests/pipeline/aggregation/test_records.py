"""What a stored result says about itself, without the types of its aggregator."""

from __future__ import annotations

import json
from typing import Any

import pytest

from broadway_py._core.aggregation.changes import Entry, Part
from broadway_py._core.aggregation.outcome import Results
from broadway_py._core.aggregation.pending import DueResult
from broadway_py._core.window.saved import WindowFacts, result_id
from broadway_py.pipeline.aggregation.records import Records
from broadway_py.pipeline.aggregation.result_facts import ResultFacts, facts_of
from broadway_py.pipeline.aggregation.result_rows import rows_of
from broadway_py.state.codec import Codec
from broadway_py.state.results import split


@pytest.mark.parametrize(
    ("key_type", "key"),
    [(str, "de"), (str, 'a,b]"\n[7,8,'), (int, -3), (tuple[str, int], ("x,1", 2)), (float, float("inf")), (bool, True)],
)
@pytest.mark.parametrize("value", [[], ["a,b", "]]", "\n"]])
def test_facts_are_read_whatever_the_key_and_the_value_are(key_type: Any, key: Any, value: list[str]) -> None:
    codec: Codec[Any, Any] = Codec(key_type, list[str])
    records = Records("sums", codec, lambda _, value: value, 1)
    results = Results(4, "60_120", 60, 120, "late", False, ("0_60",), [(key, 17, 3, value)])
    (due,), content = records.due(results, 0, 1, is_stored=True)

    assert facts_of(content) == ResultFacts(due.window_id, 3, "late", 120)


@pytest.mark.parametrize(
    ("value_type", "values"),
    [
        (int, [0, -7, 2**70]),
        (float, [0.1, -0.0, 1e300, float("inf")]),
        (bool, [True, False]),
        (str, ["", "plain", 'a"\\\n', "é", "\x1b"]),
        (list[int], [[], [1]]),
    ],
)
@pytest.mark.parametrize(("key_type", "keys"), [(int, [0, -3, 10**5]), (str, ["de", 'a"b', "é", "k" * 300])])
@pytest.mark.parametrize("replaces", [(), ("0_60", "1.7")])
def test_results_are_the_same_from_memory_and_from_their_bytes(
    key_type: Any, keys: list[Any], value_type: Any, values: list[Any], replaces: tuple[str, ...]
) -> None:
    codec: Codec[Any, Any] = Codec(key_type, value_type)
    records = Records("sums", codec, lambda _, value: value, 1)
    entries = [(key, 17, 3, value) for key in keys for value in values]
    results = Results(4, "60_120", 60, 120, "late", False, replaces, entries)
    stored, content = records.due(results, 0, 50, is_stored=True)
    kept, nothing = records.due(results, 0, 50, is_stored=False)
    contents = split(content, len(stored))
    loaded = [
        DueResult(one.sequence, records.id_of(data), data, one.version)
        for one, data in zip(stored, contents, strict=True)
    ]

    assert nothing == b""
    # Bytes are only kept of what somebody could change.
    is_plain = codec.are_plain([entry[3] for entry in entries])
    assert [one.data for one in stored] == ([b""] * len(stored) if is_plain else contents)

    expected = records.read_results(loaded, shown)
    assert [(one.key, one.value, type(one.value), one.count, one.firing) for one in expected] == [
        (key, value, type(value), 17, 3) for key, value in ((entry[0], entry[3]) for entry in entries)
    ]
    assert expected[0].id == result_id("sums", json.dumps(keys[0], ensure_ascii=False), "60_120")
    assert len(expected[0].replaces) == len(replaces)
    assert records.read_results(stored, shown) == expected
    assert records.read_results(kept, shown) == expected
    mixed = [one if place % 2 else loaded[place] for place, one in enumerate(kept)]
    assert records.read_results(mixed, shown) == expected
    assert [one.sequence for one in stored] == list(range(4, 4 + len(entries)))


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_result_does_not_change_with_its_accumulator(*, is_stored: bool) -> None:
    codec: Codec[Any, Any] = Codec(str, list[int])
    records = Records("sums", codec, lambda _, value: value, 1)
    value = [1, 2]
    due, _ = records.due(Results(1, "1_2", 1, 2, "late", False, (), [("a", 2, 1, value)]), 0, 1, is_stored=is_stored)
    value.append(3)

    for _ in range(2):
        (shown_as,) = records.read_results(due, shown)
        assert shown_as.value == [1, 2]
        shown_as.value.append(4)


@pytest.mark.parametrize("key", ["k" * 183, "k" * 184, "é", 'a"b', "a\\b", "\x7f", ""])
@pytest.mark.parametrize("others", [[], ["de", "fr"]])
def test_the_id_of_a_result_is_the_same_whatever_keys_stand_beside_it(key: str, others: list[str]) -> None:
    codec: Codec[Any, Any] = Codec(str, int)
    records = Records("sums", codec, lambda _, value: value, 1)
    results = Results(1, "1_2", 1, 2, "late", False, (), [(each, 1, 1, 5) for each in [*others, key]])
    due, content = records.due(results, 0, 50, is_stored=True)

    expected = [result_id("sums", codec.key_text(each), "1_2") for each in [*others, key]]
    assert [one.window_id for one in due] == expected
    assert [records.id_of(one) for one in split(content, len(due))] == expected


async def test_results_with_much_in_them_lie_in_rows_of_their_own() -> None:
    """SQLite takes no row of more than 1 GB, and a row of which a result is taken is written anew."""
    codec: Codec[str, str] = Codec(str, str)
    records = Records("sums", codec, lambda _, value: value, 1)
    entries: list[Entry] = [(str(number), 1, 1, "v" * 100_000) for number in range(200)]
    due, rows = await rows_of(records, [Results(4, "0_60", 0, 60, "watermark", True, (), entries)], is_stored=True)

    assert [one.sequence for one in due] == list(range(4, 204))
    assert [(first, count) for first, _, count in rows] == [(first, 2) for first in range(4, 204, 2)]
    assert [facts_of(one).id for _, content, count in rows for one in split(content, count)] == [
        one.window_id for one in due
    ]


def test_the_keys_that_have_fired_come_back() -> None:
    codec: Codec[Any, Any] = Codec(str, int)
    records = Records("sums", codec, lambda _, value: value, 1)
    part = Part(60, [("a", 2, 0, 5)], [WindowFacts(60, 120, None, 7)], [0], fired=["b", 'c"'])

    back = records.read_part(60, records.part(part), 1)

    assert (back.entries, back.facts, back.news, back.fired) == (part.entries, part.facts, [0], ["b", 'c"'])
    assert back.ended == []


def shown(time: int | None) -> float | None:
    return None if time is None else time / 1_000_000
