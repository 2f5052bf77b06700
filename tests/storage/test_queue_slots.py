"""Slots are dealt fairly, to everybody's agreement, and few of them move."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broadway_py.storage.queue_slots import SLOTS, slot_of, slots_of

readers_of_a_queue = st.lists(st.integers(1, 10_000), min_size=1, max_size=80, unique=True)


@given(readers_of_a_queue)
def test_each_slot_has_one_reader_and_nobody_has_more_than_an_even_share(readers: list[int]) -> None:
    dealt = {reader: slots_of(reader, readers) for reader in readers}

    assert sorted(slot for slots in dealt.values() for slot in slots) == list(range(SLOTS))
    assert max(len(slots) for slots in dealt.values()) <= -(-SLOTS // len(readers))


@given(readers_of_a_queue, st.randoms())
def test_the_order_in_which_readers_are_listed_does_not_matter(readers: list[int], random: object) -> None:
    shuffled = list(readers)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # Hypothesis's Random
    assert slots_of(readers[0], readers) == slots_of(readers[0], shuffled)


def test_when_a_reader_comes_about_twice_its_share_moves_at_most() -> None:
    for count in range(1, 9):
        before = list(range(1, count + 1))
        after = [*before, count + 1]
        stayed = sum(len(set(slots_of(one, before)) & set(slots_of(one, after))) for one in before)
        assert SLOTS - stayed <= 2 * SLOTS / len(after) + 2


def test_who_is_not_among_the_readers_has_nothing() -> None:
    assert slots_of(5, [1, 2]) == []
    assert slots_of(5, []) == []


def test_a_keys_slot_never_changes() -> None:
    # Slots are stored with the messages: another rule would let two readers own one key.
    assert [slot_of(key) for key in ("", "a", "customer-7", "grün")] == [0, 3, 8, 37]
