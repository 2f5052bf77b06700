"""Identities in memory: bounded, the oldest go first, and never many in one call."""

from __future__ import annotations

from collections.abc import Iterable

from broadway_py._core.aggregation.remembered import Remembered


def names(numbers: Iterable[int]) -> list[bytes]:
    return [number.to_bytes(16, "little") for number in numbers]


def known(remembered: Remembered, most: int) -> list[int]:
    """Which of the names of the numbers below *most* are kept."""
    found = [number for number, name in enumerate(names(range(most))) if name in remembered]
    assert len(found) == len(remembered)
    return found


def test_the_oldest_are_forgotten_when_there_is_no_room() -> None:
    remembered = Remembered(5)
    remembered.add(1, b"".join(names(range(3))))
    remembered.add(2, b"".join(names(range(3, 5))))
    assert (known(remembered, 20), remembered.dropped, remembered.oldest) == ([0, 1, 2, 3, 4], 0, 1)

    remembered.add(4, b"".join(names(range(5, 9))))

    assert (known(remembered, 20), remembered.dropped, remembered.oldest) == ([4, 5, 6, 7, 8], 2, 2)


def test_identities_of_old_checkpoints_are_forgotten_a_part_at_a_time() -> None:
    remembered = Remembered(1_000_000)
    remembered.add(1, b"".join(names(range(6_000))))
    remembered.add(2, b"".join(names(range(6_000, 9_000))))
    remembered.add(3, b"".join(names(range(9_000, 9_100))))

    remembered.forget_before(3)
    assert len(remembered) == 5_100

    remembered.forget_before(3)
    assert len(remembered) == 1_100

    remembered.forget_before(3)
    assert (known(remembered, 10_000), remembered.oldest) == (list(range(9_000, 9_100)), 3)
    assert remembered.dropped == 0


def test_forgetting_keeps_up_with_large_checkpoints() -> None:
    remembered = Remembered(10_000_000)
    for number in range(1, 6):
        remembered.add(number, b"".join(names(range(number * 50_000, number * 50_000 + 50_000))))

    remembered.forget_before(3)

    assert (len(remembered), remembered.oldest) == (150_000, 3)


def test_an_identity_that_came_again_lives_as_long_as_its_newest_checkpoint() -> None:
    remembered = Remembered(100)
    remembered.add(1, b"".join(names([1, 2])))
    remembered.add(2, b"".join(names([2, 3])))

    remembered.forget_before(2)

    assert known(remembered, 20) == [2, 3]


def test_an_empty_checkpoint_leaves_nothing() -> None:
    remembered = Remembered(100)
    remembered.add(1, b"")

    assert (len(remembered), remembered.oldest) == (0, 0)
