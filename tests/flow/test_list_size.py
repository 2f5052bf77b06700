"""How long the lists of a source are: long while lists are used up fast."""

from __future__ import annotations

from broadway_py.flow.stages.list_size import ListSize

CREDIT = 4


def size_after(seconds_of_lists: list[float], first: int = 250, most: int = 5_000) -> list[int]:
    """Returns the length of lists at first, and after each round of as many lists as there is credit for."""
    size = ListSize(first, most, CREDIT)
    sizes, now = [size.now], 0.0
    size.note(CREDIT, now)
    for seconds in seconds_of_lists:
        for _ in range(CREDIT):
            now += seconds
            size.note(1, now)
        sizes.append(size.now)
    return sizes


def test_lists_that_are_used_up_fast_become_longer_up_to_the_longest() -> None:
    assert size_after([0.0001] * 6) == [250, 500, 1_000, 2_000, 4_000, 5_000, 5_000]


def test_lists_that_take_long_become_shorter_down_to_the_first() -> None:
    assert size_after([0.0001, 0.0001, 0.005, 5.0, 5.0]) == [250, 500, 1_000, 500, 250, 250]


def test_a_length_that_suits_stays() -> None:
    assert size_after([0.0001, 0.002, 0.0039, 0.0011]) == [250, 500, 500, 500, 500]


def test_the_first_lists_are_taken_before_one_is_used_up_so_their_time_says_nothing() -> None:
    size = ListSize(250, 5_000, CREDIT)
    for _ in range(CREDIT):
        size.note(1, 0.0)

    size.note(CREDIT, 100.0)

    assert size.now == 250


def test_a_length_that_the_user_has_chosen_never_changes() -> None:
    assert ListSize(500, 500, CREDIT).is_fixed
    assert not ListSize(250, 500, CREDIT).is_fixed
    assert size_after([0.0001, 5.0], first=7, most=7) == [7, 7, 7]


def test_the_first_length_is_no_more_than_the_longest() -> None:
    assert size_after([0.0001], first=250, most=100) == [100, 100]
