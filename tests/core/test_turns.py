"""Many at once, or one alone; and nobody waits for ever."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broadway_py._core.turns import ExclusiveTurn

PATIENCE = 60.0
A, B, C = "a", "b", "c"


def is_alone(turns: ExclusiveTurn, who: str | None) -> bool:
    """Asked anew: the type checker takes it for what the last comparison said."""
    return turns.alone is who


def turns_with(*, inside: int = 0) -> ExclusiveTurn:
    turns = ExclusiveTurn(PATIENCE)
    for _ in range(inside):
        assert turns.enter(0.0)
    return turns


def test_many_come_in_at_once() -> None:
    turns = turns_with(inside=3)

    assert turns.enter(0.0)
    assert turns.changes_at is None


def test_one_is_alone_in_an_empty_room() -> None:
    turns = turns_with()

    assert turns.enter_alone(A, 0.0)
    assert is_alone(turns, A)
    assert not turns.enter(0.0)
    assert not turns.enter_alone(B, 0.0)


def test_one_waits_until_the_others_have_left_and_nobody_else_comes_in() -> None:
    turns = turns_with(inside=2)

    assert not turns.enter_alone(A, 0.0)
    assert not turns.enter(0.0)
    turns.leave(B, 1.0)
    assert not turns.enter_alone(A, 1.0)
    turns.leave(C, 2.0)
    assert turns.enter_alone(A, 2.0)
    assert is_alone(turns, A)


def test_who_asked_first_is_alone_first() -> None:
    turns = turns_with(inside=1)
    assert not turns.enter_alone(A, 0.0)
    assert not turns.enter_alone(B, 0.0)
    turns.leave(C, 1.0)

    assert not turns.enter_alone(B, 1.0)
    assert turns.enter_alone(A, 1.0)
    turns.leave(A, 2.0)
    assert turns.enter_alone(B, 2.0)
    turns.leave(B, 3.0)
    assert turns.enter(3.0)


def test_after_the_patience_it_comes_in_all_the_same_and_is_not_alone() -> None:
    turns = turns_with(inside=1)
    assert not turns.enter_alone(A, 10.0)
    assert turns.changes_at == 10.0 + PATIENCE

    assert not turns.enter_alone(A, 10.0 + PATIENCE - 1)
    assert turns.enter_alone(A, 10.0 + PATIENCE)
    assert is_alone(turns, None)
    assert turns.enter(10.0 + PATIENCE), "the door is open again"


def test_until_the_company_has_left_nobody_waits_to_be_alone() -> None:
    turns = turns_with(inside=1)
    assert not turns.enter_alone(A, 0.0)
    assert turns.enter_alone(A, PATIENCE)

    assert turns.enter_alone(B, PATIENCE)
    assert is_alone(turns, None)
    for who in (A, B, C):
        turns.leave(who, PATIENCE)
    assert turns.enter_alone(A, PATIENCE)
    assert is_alone(turns, A)


def test_who_stays_alone_for_too_long_gets_company() -> None:
    turns = turns_with()
    assert turns.enter_alone(A, 0.0)
    assert turns.changes_at == PATIENCE

    assert not turns.enter(PATIENCE - 1)
    assert turns.enter(PATIENCE)
    assert is_alone(turns, None)
    turns.leave(A, PATIENCE)
    turns.leave(B, PATIENCE)
    assert turns.enter_alone(C, PATIENCE)
    assert is_alone(turns, C)


def test_the_patience_of_the_next_begins_when_the_one_before_has_left() -> None:
    turns = turns_with()
    assert turns.enter_alone(A, 0.0)
    assert not turns.enter_alone(B, 1.0)

    turns.leave(A, 50.0)

    assert turns.changes_at == 50.0 + PATIENCE


def test_who_waits_no_more_keeps_nobody_out() -> None:
    turns = turns_with(inside=1)
    assert not turns.enter_alone(A, 0.0)
    assert not turns.enter_alone(B, 0.0)

    turns.withdraw(A, 5.0)
    assert turns.changes_at == 5.0 + PATIENCE, "the next one's patience begins"
    turns.withdraw(B, 6.0)
    turns.withdraw(C, 6.0)

    assert not turns.changes_at
    assert turns.enter(6.0)


def test_who_withdraws_behind_another_changes_nothing_for_that_one() -> None:
    turns = turns_with(inside=1)
    assert not turns.enter_alone(A, 0.0)
    assert not turns.enter_alone(B, 0.0)

    turns.withdraw(B, 5.0)

    assert turns.changes_at == PATIENCE


class Room(RuleBasedStateMachine):
    """Everybody comes and goes; the room is watched."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = ExclusiveTurn(PATIENCE)
        self.now = 0.0
        self.inside: set[int] = set()
        self.waiting: set[int] = set()
        self.alone: int | None = None

    people = st.integers(0, 4)

    @rule(who=people)
    def come_in(self, who: int) -> None:
        if who not in self.inside | self.waiting and self.turns.enter(self.now):
            self.inside.add(who)

    @rule(who=people)
    def come_in_alone(self, who: int) -> None:
        if who in self.inside:
            return
        self.waiting.add(who)
        if self.turns.enter_alone(who, self.now):
            self.waiting.discard(who)
            self.inside.add(who)

    @rule(who=people)
    def leave(self, who: int) -> None:
        if who in self.inside:
            self.inside.discard(who)
            self.turns.leave(who, self.now)

    @rule(who=people)
    def withdraw(self, who: int) -> None:
        self.waiting.discard(who)
        self.turns.withdraw(who, self.now)

    @rule(seconds=st.sampled_from([1.0, PATIENCE]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def who_is_said_to_be_alone_is(self) -> None:
        assert self.turns.alone is None or self.inside == {self.turns.alone}

    @invariant()
    def somebody_can_come_in_after_the_patience(self) -> None:
        changes_at = self.turns.changes_at
        assert (changes_at is None) or changes_at <= self.now + PATIENCE
        if not self.inside and not self.waiting:
            assert changes_at is None
            assert self.turns.enter(self.now)
            self.turns.leave("a stranger", self.now)


TestRoom = Room.TestCase
