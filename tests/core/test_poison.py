"""Suspicion at the first death, conviction at the second, alone."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broadway_py._core.poison import FROM_OUTSIDE, Suspects

A, B, C = b"a", b"b", b"c"


def test_the_first_death_makes_suspects_of_all_that_were_at_work() -> None:
    suspects = Suspects(10)

    findings = suspects.died({A, B}, alone=False, by_itself=True)

    assert sorted(findings.suspects) == [A, B]
    assert findings.convicted is None
    assert set(suspects.suspected) == {A, B}


def test_a_death_while_nothing_was_at_work_accuses_nobody() -> None:
    suspects = Suspects(10)
    suspects.died({A}, alone=False, by_itself=True)

    findings = suspects.died((), alone=False, by_itself=True)

    assert findings.suspects == []
    assert set(suspects.suspected) == {A}


def test_the_second_death_alone_convicts() -> None:
    suspects = Suspects(10)
    suspects.died({A, B}, alone=False, by_itself=True)

    findings = suspects.died({A}, alone=True, by_itself=True)

    assert (findings.convicted, findings.deaths) == (A, 2)
    assert findings.suspects == []
    assert set(suspects.convicted) == {A}
    assert set(suspects.suspected) == {B}


def test_the_second_death_in_company_does_not() -> None:
    suspects = Suspects(10)
    suspects.died({A, B}, alone=False, by_itself=True)

    findings = suspects.died({A, C}, alone=False, by_itself=True)

    assert findings.convicted is None
    assert set(suspects.suspected) == {A, B, C}


def test_the_first_death_does_not_convict_even_alone() -> None:
    suspects = Suspects(10)

    assert suspects.died({A}, alone=True, by_itself=True).convicted is None
    assert suspects.died({A}, alone=True, by_itself=True).convicted == A


def test_one_that_was_cleared_starts_anew() -> None:
    suspects = Suspects(10)
    suspects.died({A}, alone=False, by_itself=True)

    suspects.clear(A)

    assert not suspects.suspected
    assert suspects.died({A}, alone=True, by_itself=True).convicted is None


def test_deaths_that_may_come_from_outside_convict_at_the_third_alone() -> None:
    suspects = Suspects(10)
    suspects.died({A, B}, alone=False, by_itself=False)

    found = [suspects.died({A}, alone=True, by_itself=False).convicted for _ in range(FROM_OUTSIDE)]

    assert found == [None, None, A]


def test_a_death_by_itself_convicts_whatever_came_before() -> None:
    suspects = Suspects(10)
    suspects.died({A, B}, alone=False, by_itself=False)

    assert suspects.died({A}, alone=True, by_itself=True).convicted == A


def test_a_convicted_one_at_work_in_a_further_death_is_told_of() -> None:
    suspects = Suspects(10)
    for _ in range(2):
        suspects.died({A}, alone=True, by_itself=True)

    findings = suspects.died({A}, alone=True, by_itself=True)

    assert (findings.repeated, findings.deaths) == ([A], 3)
    assert findings.suspects == []
    assert findings.convicted is None


def test_clearing_does_not_pardon() -> None:
    suspects = Suspects(10)
    for _ in range(2):
        suspects.died({A}, alone=True, by_itself=True)

    suspects.clear(A)

    assert set(suspects.convicted) == {A}


def test_the_oldest_suspects_make_room() -> None:
    suspects = Suspects(2)
    suspects.died([A], alone=False, by_itself=True)
    suspects.died([B], alone=False, by_itself=True)
    suspects.died([A], alone=False, by_itself=True)

    findings = suspects.died([C], alone=False, by_itself=True)

    assert findings.forgotten == [B], "the one accused longest ago"
    assert set(suspects.suspected) == {A, C}


def test_a_crowd_that_is_too_large_is_suspected_in_part() -> None:
    suspects = Suspects(2)

    findings = suspects.died([A, B, C], alone=False, by_itself=True)

    assert findings.forgotten == [A]
    assert findings.suspects == [B, C]


def test_the_oldest_convicted_make_room() -> None:
    suspects = Suspects(2)
    forgotten: list[bytes] = []
    for one in (A, B, C):
        for _ in range(2):
            forgotten += suspects.died([one], alone=True, by_itself=True).forgotten

    assert forgotten == [A]
    assert set(suspects.convicted) == {B, C}


class Workers(RuleBasedStateMachine):
    """Two workers that obey the rules of probation, messages of which some end their process, kills from outside."""

    MESSAGES = tuple(bytes([65 + place]) for place in range(6))
    POISON = MESSAGES[:2]
    INDEXES = (0, 1)

    def __init__(self) -> None:
        super().__init__()
        self.suspects = Suspects(100)
        self.at_work: dict[int, set[bytes]] = {index: set() for index in self.INDEXES}
        self.is_alone = dict.fromkeys(self.INDEXES, False)
        # Since each message was last cleared: the deaths that it was at work in, in order, as (alone, by itself).
        self.deaths: dict[bytes, list[tuple[bool, bool]]] = {message: [] for message in self.MESSAGES}
        self.ended_by: Counter[bytes] = Counter()

    def waiting(self) -> list[bytes]:
        busy = set().union(*self.at_work.values())
        return [one for one in self.MESSAGES if one not in busy and one not in self.suspects.convicted]

    @rule(index=st.sampled_from(INDEXES), message=st.sampled_from(MESSAGES))
    def take(self, index: int, message: bytes) -> None:
        if message not in self.waiting() or self.is_alone[index]:
            return
        if message in self.suspects.suspected:
            if self.at_work[index]:
                return  # it waits until nothing else is at work
            self.is_alone[index] = True
        self.at_work[index].add(message)

    @rule(index=st.sampled_from(INDEXES), message=st.sampled_from(MESSAGES))
    def finish(self, index: int, message: bytes) -> None:
        if message not in self.at_work[index] or message in self.POISON:
            return
        self.at_work[index].discard(message)
        if self.is_alone[index]:
            self.is_alone[index] = False
            self.suspects.clear(message)
            self.deaths[message].clear()

    @rule(index=st.sampled_from(INDEXES))
    def poison_acts(self, index: int) -> None:
        culprits = [one for one in self.POISON if one in self.at_work[index]]
        if culprits:
            self.ended_by[culprits[0]] += 1
            self.die(index, by_itself=True)

    @rule(index=st.sampled_from(INDEXES))
    @precondition(lambda self: self.may_be_killed)
    def kill(self, index: int) -> None:
        self.die(index, by_itself=False)

    may_be_killed = True

    def die(self, index: int, *, by_itself: bool) -> None:
        at_work, alone = self.at_work[index], self.is_alone[index]
        for one in at_work:
            self.deaths[one].append((alone, by_itself))
        findings = self.suspects.died(sorted(at_work), alone=alone, by_itself=by_itself)
        assert findings.convicted is None or {findings.convicted} == at_work
        self.at_work[index], self.is_alone[index] = set(), False

    @invariant()
    def whoever_is_convicted_was_at_work_in_two_deaths_and_alone_in_the_last(self) -> None:
        for one in self.suspects.convicted:
            deaths = self.deaths[one]
            assert len(deaths) >= 2
            assert deaths[-1][0]
            assert deaths[-1][1] or sum(alone for alone, _ in deaths) >= FROM_OUTSIDE

    @invariant()
    def an_innocent_one_is_convicted_by_three_kills_alone_only(self) -> None:
        for one in set(self.suspects.convicted) - set(self.POISON):
            assert sum(alone for alone, _ in self.deaths[one]) >= FROM_OUTSIDE

    @invariant()
    def nobody_is_both(self) -> None:
        assert set(self.suspects.suspected).isdisjoint(self.suspects.convicted)

    @invariant()
    def a_poisonous_one_ends_two_processes_at_most(self) -> None:
        assert all(times <= 2 for times in self.ended_by.values()), self.ended_by


class UndisturbedWorkers(Workers):
    """The same without kills from outside: the innocent are safe, whatever happens."""

    may_be_killed = False

    @invariant()
    def no_innocent_one_is_convicted(self) -> None:
        assert set(self.suspects.convicted) <= set(self.POISON)


TestWorkers = Workers.TestCase
TestUndisturbedWorkers = UndisturbedWorkers.TestCase
