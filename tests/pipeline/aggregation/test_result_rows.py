"""Results of one checkpoint become rows of the state file: few, of a bounded size, and others run in between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broadway_py._core.aggregation.outcome import Results
from broadway_py.pipeline.aggregation.records import Records
from broadway_py.pipeline.aggregation.result_rows import rows_of
from broadway_py.state.codec import Codec
from broadway_py.state.results import split


def windows(*sizes: int) -> list[Results]:
    """So many results of each window. Their numbers begin with 7, and the value of each is its number."""
    made: list[Results] = []
    number = 7
    for place, size in enumerate(sizes):
        entries: list[Any] = [(key, 1, 1, number + key) for key in range(size)]
        made.append(Results(number, f"{place}_{place + 1}", place, place + 1, "watermark", True, (), entries))
        number += size
    return made


def records(value_type: Any = int) -> Records:
    codec: Codec[Any, Any] = Codec(int, value_type)
    return Records("sums", codec, lambda _, value: value, 1)


@pytest.mark.parametrize(
    ("sizes", "counts"),
    [
        ((), []),
        ((1,), [1]),
        ((200,), [200]),
        ((201,), [200, 1]),
        ((1_000,), [200] * 5),
        # Windows of one key each, such as sessions, lie in rows together.
        ((1,) * 450, [200, 200, 50]),
        # A window ends a row, and does not begin in the middle of its results.
        ((150, 450, 3, 199), [350, 200, 252]),
        ((199, 200, 1), [399, 1]),
    ],
)
@pytest.mark.parametrize("value_type", [int, int | None], ids=["plain", "other"])
async def test_rows_have_some_hundred_results_that_follow_each_other(
    sizes: tuple[int, ...], counts: list[int], value_type: Any
) -> None:
    written = records(value_type)
    due, rows = await rows_of(written, windows(*sizes), is_stored=True)

    assert [count for _, _, count in rows] == counts
    number = 7
    for first, content, count in rows:
        assert first == number
        for one in split(content, count):
            assert one.endswith(b",1,1,%d]]" % number)
            assert written.id_of(one) == due[number - 7].window_id
            number += 1
    assert [one.sequence for one in due] == list(range(7, 7 + sum(sizes)))


async def test_others_run_after_each_full_row() -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    await rows_of(records(), windows(600, 3), is_stored=False)
    counting.cancel()

    assert turns == 3
