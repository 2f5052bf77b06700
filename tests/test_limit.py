"""The first few of each kind in a minute, then a number."""

from __future__ import annotations

from broadway_py.limit import OTHER, PerMinute


def limit(shown: int = 2, most_kinds: int = 3) -> PerMinute[str]:
    return PerMinute(shown, most_kinds, OTHER)


def test_the_first_few_of_a_minute_are_shown_and_the_rest_is_a_number_when_it_is_over() -> None:
    one = limit()
    assert [one.note("a", now) for now in (0.0, 1.0, 2.0, 3.0)] == ["show", "show", "begin_hiding", "hide"]
    assert list(one.over(59.9)) == []
    assert list(one.over(60.0)) == [("a", 2)]
    assert one.note("a", 60.0) == "show"


def test_a_minute_with_nothing_hidden_ends_without_a_word() -> None:
    one = limit()
    one.note("a", 0.0)
    assert list(one.over(60.0)) == []
    assert list(one.close()) == []


def test_kinds_that_come_when_the_table_is_full_share_one_count() -> None:
    one = limit(most_kinds=3)
    assert {one.note(kind, 0.0) for kind in ("a", "b", "c")} == {"show"}
    assert [one.note(f"new {number}", 0.0) for number in range(4)] == ["show", "show", "begin_hiding", "hide"]
    assert list(one.close()) == [(OTHER, 2)]


def test_minutes_end_one_by_one_the_oldest_first() -> None:
    one = limit(shown=1)
    for kind, now in (("a", 0.0), ("b", 30.0), ("a", 31.0), ("b", 31.0)):
        one.note(kind, now)
    assert list(one.over(60.0)) == [("a", 1)]
    assert list(one.over(90.0)) == [("b", 1)]
