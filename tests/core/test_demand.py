"""A consumer's credit: the chunks it handles and what it asks back, as GenStage was observed to do it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_py._core.demand import Credit
from tests.support.conformance import conforms


def handled(credit: Credit[int], push: int) -> list[tuple[int, int]]:
    """(events, asked for afterwards) of each chunk that one push of so many events becomes."""
    return [(len(chunk), ask) for chunk, ask in credit.arrived(range(push))]


@pytest.mark.parametrize(
    ("most", "least", "pushes", "chunks"),
    [
        (1000, 500, [1000], [(500, 500), (500, 500)]),
        (1, 0, [1, 1], [(1, 1), (1, 1)]),
        (10, 9, [10], [(1, 1)] * 10),
        (10, 3, [4, 4, 2], [(4, 0), (4, 8), (2, 0)]),
        (1000, 750, [100, 100, 100], [(100, 0), (100, 0), (100, 300)]),
        (100, 20, [100], [(80, 80), (20, 0)]),
        (6, 3, [6], [(3, 3), (3, 3)]),
        (10, 5, [0], [(0, 0)]),
    ],
)
def test_pushes_are_cut_into_chunks_and_answered_with_demand(
    most: int, least: int, pushes: list[int], chunks: list[tuple[int, int]]
) -> None:
    credit = Credit[int](most, least)

    assert [chunk for push in pushes for chunk in handled(credit, push)] == chunks


@conforms("G-002", "G-003", "G-004")
@pytest.mark.parametrize(
    ("most", "least", "sizes"),
    [(1000, 500, [500] * 6), (100, 80, [20] * 60), (100, 20, [80, 20, 80, 80, 20])],
)
def test_a_source_that_answers_each_ask_at_once_is_handled_in_the_observed_chunks(
    most: int, least: int, sizes: list[int]
) -> None:
    assert counted_chunks(most, least, len(sizes)) == numbered(sizes)


@conforms("G-005")
def test_a_demand_of_one_is_handled_one_by_one() -> None:
    assert counted_chunks(1, 0, 3) == [[0], [1], [2]]


def counted_chunks(most: int, least: int, wanted: int) -> list[list[int]]:
    """What a consumer handles of a source that counts up from 0 and sends each ask as one push."""
    credit = Credit[int](most, least)
    asks, chunks, following = [most], list[list[int]](), 0
    while len(chunks) < wanted:
        push = range(following, following := following + asks.pop(0))
        for chunk, ask in credit.arrived(push):
            chunks.append(list(chunk))
            if ask:
                asks.append(ask)
    return chunks[:wanted]


def numbered(sizes: list[int]) -> list[list[int]]:
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    return [list(range(start, start + size)) for start, size in zip(starts, sizes, strict=True)]


@st.composite
def demands(draw: st.DrawFn) -> tuple[int, int]:
    most = draw(st.integers(1, 50))
    return most, draw(st.integers(0, most - 1))


@given(demands(), st.lists(st.integers(0, 100), max_size=30))
def test_what_is_outstanding_is_what_was_asked_for_less_what_came(demand: tuple[int, int], pushes: list[int]) -> None:
    most, least = demand
    credit = Credit[int](most, least)
    asked, came, following = most, 0, 0

    for push in pushes:
        events = list(range(following, following + min(push, credit.outstanding)))
        following += len(events)
        chunks = credit.arrived(events)

        assert [event for chunk, _ in chunks for event in chunk] == events
        assert all(len(chunk) <= most - least for chunk, _ in chunks)
        asked += sum(ask for _, ask in chunks)
        came += len(events)
        # More than `least` is always to come: a consumer that holds nothing is never left without demand.
        assert credit.outstanding == asked - came
        assert least < credit.outstanding <= most


@given(demands(), st.lists(st.integers(0, 200), max_size=20))
def test_more_than_was_asked_for_is_delivered_all_the_same(demand: tuple[int, int], pushes: list[int]) -> None:
    most, least = demand
    credit = Credit[int](most, least)

    for push in pushes:
        chunks = credit.arrived(range(push))

        assert [event for chunk, _ in chunks for event in chunk] == list(range(push))
        assert all(len(chunk) <= most - least and ask <= most for chunk, ask in chunks)
        assert least < credit.outstanding <= most


def test_only_what_was_outstanding_counts_towards_the_next_ask() -> None:
    credit = Credit[int](4, 2)

    assert [(len(chunk), ask) for chunk, ask in credit.arrived(range(7))] == [(2, 2), (2, 2), (2, 0), (1, 0)]
