"""Keys that come from two partitions are noticed, each once, with bounded memory."""

from __future__ import annotations

from broadway_py._core.aggregation.key_owners import KeyOwners


def test_a_key_of_two_partitions_is_told_once_with_the_other_partition() -> None:
    owners = KeyOwners()
    assert owners.note(0, ["a", "b", "a"]) == []
    assert owners.note(3, ["c", "a"]) == [0]
    assert owners.note(0, ["a", "b"]) == []
    assert owners.note(3, ["a", "b"]) == [0]
    assert owners.note(1, ["c"]) == [3]


def test_keys_with_the_same_hash_are_not_the_same() -> None:
    owners = KeyOwners()
    assert hash(-1) == hash(-2)
    assert owners.note(0, [-1]) == []
    assert owners.note(1, [-2]) == []


def test_the_last_keys_are_remembered_and_the_oldest_are_not() -> None:
    owners = KeyOwners(most=3)
    owners.note(0, range(7))
    # 0, 1, 2 are forgotten; 3, 4, 5 are the older generation, and 6 the younger.
    assert owners.note(1, [3, 6]) == [0, 0]
    assert owners.note(1, [0]) == []


def test_a_key_that_is_used_is_not_forgotten() -> None:
    owners = KeyOwners(most=2)
    for key in range(20):
        owners.note(0, ["used", key])
    assert owners.note(1, ["used"]) == [0]
