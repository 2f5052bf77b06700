from __future__ import annotations

from contextlib import closing

import pytest

from broadway_py.storage.queue_rows import NewRow, insert, queue_id
from broadway_py.storage.queue_schema import QUEUE_SCHEMA
from broadway_py.storage.row_parts import row_parts
from tests.support.noted_statements import noting


def test_the_parts_are_the_rows_and_have_few_lengths() -> None:
    lengths = set()
    for count in range(700):
        parts = list(row_parts(range(count)))
        assert [row for part in parts for row in part] == list(range(count))
        assert len(parts) <= 7
        lengths |= {len(part) for part in parts}
    assert lengths == {500, 200, 100, 50, *range(1, 21)}


@pytest.mark.parametrize(
    ("count", "lengths"),
    [(1, [1]), (19, [19]), (20, [20]), (100, [100]), (500, [500]), (1_234, [500, 500, 200, 20, 14])],
)
def test_common_lengths_are_not_divided(count: int, lengths: list[int]) -> None:
    assert [len(part) for part in row_parts(range(count))] == lengths


def test_lists_of_all_lengths_that_are_put_into_a_queue_need_few_statements() -> None:
    with closing(noting(QUEUE_SCHEMA)) as connection:
        queue = queue_id(connection, "q")
        ids = [one for count in range(1, 700, 7) for one in insert(connection, queue, [NewRow(b"")] * count, 0.0)]
        assert ids == list(range(1, len(ids) + 1))
        assert len(connection.statements) < 50
