"""Which messages travel together: nothing is lost or sent twice, order is kept, and all bounds hold."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broadway_py._core.outgoing_lists import OutgoingLists

MOST, MOST_BYTES, MOST_IN_LIST, MOST_BYTES_IN_LIST, MOST_LISTS = 12, 100, 4, 40, 2


def lists(**changes: int) -> OutgoingLists[int]:
    bounds = {
        "most": MOST,
        "most_bytes": MOST_BYTES,
        "most_in_list": MOST_IN_LIST,
        "most_bytes_in_list": MOST_BYTES_IN_LIST,
        "most_lists": MOST_LISTS,
    }
    return OutgoingLists(**{**bounds, **changes})


def test_a_lone_message_leaves_at_once() -> None:
    books = lists()
    books.put(1, 10)

    assert books.take() == [1]
    assert (books.waiting, books.held, books.held_bytes) == (0, 1, 10)


def test_messages_gather_only_while_enough_lists_are_being_sent() -> None:
    books = lists(most_lists=1)
    books.put(1, 1)
    assert books.take() == [1]
    for number in (2, 3, 4):
        books.put(number, 1)

    assert books.take() == []
    books.end_list()
    assert books.take() == [2, 3, 4]


@pytest.mark.parametrize(
    ("sizes", "taken"), [([30, 10, 1], [0, 1]), ([41, 1], [0]), ([1, 41], [0]), ([1] * 5, [0, 1, 2, 3])]
)
def test_a_list_has_a_limit_of_messages_and_of_bytes_and_one_message_may_exceed_it(
    sizes: list[int], taken: list[int]
) -> None:
    books = lists()
    for number, size in enumerate(sizes):
        books.put(number, size)

    assert books.take() == taken


def test_a_message_that_is_larger_than_the_room_is_put_when_nothing_else_is_held() -> None:
    books = lists()
    steps = [books.has_room]
    books.put(1, MOST_BYTES + 1)
    steps.append(books.has_room)
    assert books.take() == [1]
    books.release(MOST_BYTES + 1)
    steps.append(books.has_room)
    assert steps == [True, False, True]


def test_what_is_removed_is_not_sent_and_what_is_sent_is_not_removed() -> None:
    books = lists()
    books.put(1, 5)
    books.put(2, 5)
    assert books.remove(1)
    assert not books.remove(1)
    assert books.take() == [2]
    assert not books.remove(2)
    assert (books.held, books.held_bytes) == (1, 5)


class Machine(RuleBasedStateMachine):
    """A model of lists: what waits, in order, and what is being sent."""

    def __init__(self) -> None:
        super().__init__()
        self.books = lists()
        self.number = 0
        self.waiting: dict[int, int] = {}
        self.sending: list[list[int]] = []
        #: Lists that count no longer, but have messages that were not released.
        self.left: list[list[int]] = []
        self.sizes: dict[int, int] = {}
        self.last_taken = -1

    @precondition(lambda self: self.books.has_room)
    @rule(size=st.integers(0, 60))
    def put(self, size: int) -> None:
        self.books.put(self.number, size)
        self.waiting[self.number] = self.sizes[self.number] = size
        self.number += 1

    @rule()
    def take(self) -> None:
        taken = self.books.take()
        if len(self.sending) == MOST_LISTS or not self.waiting:
            assert taken == []
            return
        assert taken == list(self.waiting)[: len(taken)]
        assert len(taken) in range(1, MOST_IN_LIST + 1)
        weight = sum(self.sizes[each] for each in taken)
        assert len(taken) == 1 or weight <= MOST_BYTES_IN_LIST
        rest = list(self.waiting)[len(taken) :]
        if rest and len(taken) < MOST_IN_LIST:
            assert weight + self.sizes[rest[0]] > MOST_BYTES_IN_LIST, "more would have fitted"
        assert taken[0] > self.last_taken
        self.last_taken = taken[-1]
        for each in taken:
            del self.waiting[each]
        self.sending.append(taken)

    @precondition(lambda self: self.sending)
    @rule(data=st.data())
    def end_list(self, data: st.DataObject) -> None:
        ended = self.sending.pop(data.draw(st.integers(0, len(self.sending) - 1)))
        self.books.end_list()
        self.left.append(ended)

    @precondition(lambda self: any(self.left) or any(self.sending))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        part = data.draw(st.sampled_from([each for each in [*self.left, *self.sending] if each]))
        self.books.release(self.sizes[part.pop()])

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(list(self.waiting)))
        assert self.books.remove(chosen)
        del self.waiting[chosen]

    @rule()
    def clear(self) -> None:
        assert self.books.clear() == list(self.waiting)
        self.waiting.clear()

    @invariant()
    def the_books_are_right(self) -> None:
        held = [*self.waiting, *(each for part in [*self.sending, *self.left] for each in part)]
        weight = sum(self.sizes[each] for each in held)
        assert (self.books.waiting, self.books.held, self.books.held_bytes) == (len(self.waiting), len(held), weight)
        assert self.books.has_room == (len(held) < MOST and weight < MOST_BYTES)
        assert self.books.has_much_room == (len(held) <= MOST // 2 and weight <= MOST_BYTES // 2)
        assert len(held) <= MOST
        assert len(self.sending) <= MOST_LISTS


TestMachine = Machine.TestCase
