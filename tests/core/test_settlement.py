"""Who settles what together, once; and what a callback's return value says about the messages it was given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_py._core.ledger import Ledger, LedgerEntry
from broadway_py._core.settlement import claim, not_returned, record, returned_list_problem, returned_one_problem
from broadway_py.message import NOOP, Acknowledgement, Failed, Message

SHOP, BANK = object(), object()


def message(data: Any = None, acknowledgement: Acknowledgement = NOOP) -> Message[Any]:
    return Message(data, acknowledgement=acknowledgement)


def of(acknowledger: object, ref: Any = None, count: int = 1) -> list[Message[Any]]:
    return [message(acknowledgement=Acknowledgement(acknowledger, ref, data)) for data in range(count)]


# --- the claim ------------------------------------------------------------------------------------------------------


def test_messages_of_one_acknowledger_and_ref_are_one_round() -> None:
    good, bad = of(SHOP, "till", 3), of(SHOP, "till", 2)

    (one,) = claim(good, bad)

    assert (one.acknowledger, one.ref, one.successful, one.failed) == (SHOP, "till", good, bad)


def test_another_acknowledger_or_ref_is_another_round_in_the_order_they_appear() -> None:
    a, b, c = of(SHOP, 1)[0], of(SHOP, 2)[0], of(BANK, 1)[0]
    d, e = of(SHOP, 1)[0], of(BANK, 2)[0]

    rounds = claim([a, b, d], [c, e])

    assert [(r.acknowledger, r.ref, r.successful, r.failed) for r in rounds] == [
        (SHOP, 1, [a, d], []),
        (SHOP, 2, [b], []),
        (BANK, 1, [], [c]),
        (BANK, 2, [], [e]),
    ]


def test_equal_refs_group_and_equal_acknowledgers_do_not() -> None:
    class Equal:
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Equal)

        __hash__ = None  # type: ignore[assignment]  # an acknowledger needs no hash

    first, second = Equal(), Equal()

    assert len(claim(of(SHOP, ("a", 1)) + of(SHOP, ("a", 1)), [])) == 1
    assert len(claim(of(first, 1) + of(second, 1), [])) == 2


def test_a_ref_that_cannot_be_hashed_groups_with_itself() -> None:
    ref, other = ["a"], ["b"]

    rounds = claim(of(SHOP, ref, 2) + of(SHOP, other), of(SHOP, ref))

    assert [(r.ref, len(r.successful), len(r.failed)) for r in rounds] == [(["a"], 2, 1), (["b"], 1, 0)]


def test_a_message_that_nobody_settles_is_claimed_as_well() -> None:
    (one,) = claim([message()], [])

    assert one.acknowledger is None


def test_a_message_given_twice_or_as_both_is_in_one_round_once() -> None:
    (twice,) = of(SHOP)

    (one,) = claim([twice, twice], [twice])

    assert (one.successful, one.failed) == ([twice], [])


def test_a_claimed_message_is_claimed_no_more() -> None:
    held, free = of(SHOP, count=2)
    claim([held], [])

    (one,) = claim([], [held, free])

    assert not held.settled
    assert one.failed == [free]


def test_a_settled_message_is_claimed_no_more() -> None:
    messages = of(SHOP)
    claim(messages, [])
    record(messages, "acked", 0.0)

    assert messages[0].settled
    assert claim(messages, messages) == []


@given(
    st.lists(st.tuples(st.sampled_from([SHOP, BANK, None]), st.integers(0, 2)), min_size=1, max_size=12),
    st.data(),
)
def test_no_message_is_ever_in_two_rounds(kinds: list[tuple[object, int]], data: st.DataObject) -> None:
    pool = [message(place, Acknowledgement(*kind)) for place, kind in enumerate(kinds)]
    some = st.lists(st.sampled_from(pool), max_size=10)
    claimed: list[int] = []
    given_in: set[int] = set()

    for _ in range(3):
        good, bad = data.draw(some), data.draw(some)
        rounds = claim(good, bad)

        assert len({(id(r.acknowledger), r.ref) for r in rounds}) == len(rounds)
        for r in rounds:
            assert r.successful or r.failed
            for one in [*r.successful, *r.failed]:
                assert (one.acknowledgement.acknowledger, one.acknowledgement.ref) == (r.acknowledger, r.ref)
                claimed.append(one.data)
        given_in.update(one.data for one in [*good, *bad])

    assert sorted(claimed) == sorted(given_in)


# --- the books ------------------------------------------------------------------------------------------------------


def test_an_outcome_is_written_into_the_books_of_each_messages_own_producer() -> None:
    books = [Ledger("a"), Ledger("b")]
    messages = [Message(b"x" * size) for size in (1, 2, 3, 4)]
    for one, ledger in zip(messages, [books[0], books[1], books[0], books[0]], strict=True):
        one._ledger_entry = LedgerEntry(ledger, 10.0)
        ledger.receive(one._ledger_entry, [one], one.size)
    orphan = Message(b"of no producer")

    record([messages[0], orphan, messages[1], messages[2]], "rejected", 10.5)

    assert [(ledger.outcomes["rejected"], ledger.in_flight, ledger.bytes_in_flight) for ledger in books] == [
        (2, 1, 4),
        (1, 0, 0),
    ]
    assert orphan.settled
    assert not messages[3].settled


def test_recording_nothing_changes_nothing() -> None:
    record([], "acked", 0.0)


# --- what handle_message returned -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        (
            Message(1),
            (
                "handle_message returned another Message; expected None or the message it was given: "
                "change the message in place (message.data = …) and return nothing"
            ),
        ),
        (
            {"total": 1},
            (
                "handle_message returned a dict; expected None or the message it was given: "
                "change the message in place (message.data = …) and return nothing"
            ),
        ),
        (
            1,
            (
                "handle_message returned an int; expected None or the message it was given: "
                "change the message in place (message.data = …) and return nothing"
            ),
        ),
    ],
)
def test_anything_but_the_message_itself_is_refused_with_what_to_do(returned: object, sentence: str) -> None:
    assert returned_one_problem("handle_message", returned) == sentence


# --- what prepare_messages and handle_batch returned ----------------------------------------------------------------

GIVEN = [Message(data) for data in "abc"]
A, B, C = GIVEN


def each_in_turn(messages: Sequence[Message[str]]) -> Iterator[Message[str]]:
    yield from messages


@pytest.mark.parametrize(
    ("returned", "missing"),
    [
        ([A, B, C], []),
        ((C, B, A), []),
        ([A, A, C, B, A], []),
        ([A, C], [B]),
        ([], [A, B, C]),
        ({A: 1, B: 2}.keys(), [C]),
    ],
)
def test_what_is_not_among_the_returned_is_missing_and_a_duplicate_counts_once(
    returned: object, missing: list[Message[str]]
) -> None:
    problem, left = returned_list_problem("handle_batch", GIVEN, returned)

    assert problem is None
    assert len(left) == len(missing)
    assert all(one is other for one, other in zip(left, missing, strict=True))


def test_a_generator_is_as_good_as_a_list() -> None:
    assert returned_list_problem("handle_batch", GIVEN, each_in_turn([B])) == (None, [A, C])


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        (5, "handle_batch returned an int; expected None or a list of the messages it was given"),
        (A, "handle_batch returned a Message; expected None or a list of the messages it was given"),
        ("abc", "handle_batch returned a str; expected None or a list of the messages it was given"),
        (b"abc", "handle_batch returned a bytes; expected None or a list of the messages it was given"),
        (
            [A, Message("a")],
            (
                "handle_batch returned a Message it was not given; expected None or the messages it was given, "
                "changed in place (message.data = …)"
            ),
        ),
        (
            [A, None],
            (
                "handle_batch returned a list holding a NoneType; expected None or the messages it was given, "
                "changed in place (message.data = …)"
            ),
        ),
        (
            {"a": A},
            (
                "handle_batch returned a list holding a str; expected None or the messages it was given, "
                "changed in place (message.data = …)"
            ),
        ),
        (
            [1],
            (
                "handle_batch returned a list holding an int; expected None or the messages it was given, "
                "changed in place (message.data = …)"
            ),
        ),
    ],
)
def test_a_wrong_value_is_refused_as_a_whole_with_what_to_do(returned: object, sentence: str) -> None:
    assert returned_list_problem("handle_batch", GIVEN, returned) == (sentence, [])


def test_identity_decides_and_not_equality() -> None:
    class Same(Message[str]):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Same)

        __hash__ = Message.__hash__

    given_one, look_alike = Same("a"), Same("a")

    problem, _ = returned_list_problem("prepare_messages", [given_one], [look_alike])

    assert problem == (
        "prepare_messages returned a Message it was not given; expected None or the messages it was given, "
        "changed in place (message.data = …)"
    )


def test_a_message_that_was_kept_has_a_status_that_says_by_whom() -> None:
    assert not_returned("handle_batch") == Failed("not_returned", "handle_batch did not return this message")


@given(st.lists(st.integers(0, 5), max_size=12), st.integers(0, 5), st.sampled_from([list, tuple, each_in_turn]))
def test_returned_and_missing_are_together_what_was_given(
    places: list[int], size: int, form: Callable[[Any], Any]
) -> None:
    given_ones = [Message(place) for place in range(size)]
    back = [given_ones[place] for place in places if place < size]

    problem, missing = returned_list_problem("handle_batch", given_ones, form(back))

    assert problem is None
    assert {m.data for m in missing} | {m.data for m in back} == set(range(size))
    assert not {m.data for m in missing} & {m.data for m in back}
    assert [m.data for m in missing] == sorted(m.data for m in missing)
