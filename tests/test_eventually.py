"""The one function that looks again and again."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.eventually import eventually, eventually_sync


async def test_the_first_true_value_is_returned() -> None:
    values = iter([0, "", 7])

    assert await eventually(lambda: next(values), what="there is a value") == 7


async def test_an_async_predicate_is_awaited() -> None:
    async def found() -> str:
        return "found"

    assert await eventually(found, what="it is found") == "found"


async def test_the_failure_names_what_was_expected_and_what_was_seen_last() -> None:
    with pytest.raises(AssertionError) as failed:
        await eventually(lambda: 0, timeout=0.05, what="the queue is empty")

    assert str(failed.value) == "expected that the queue is empty, within 0.05 s; the last look gave 0"


async def test_a_predicate_that_hangs_fails_at_the_deadline() -> None:
    async def hanging() -> bool:
        await asyncio.Event().wait()
        return True

    with pytest.raises(AssertionError) as failed:
        await eventually(hanging, timeout=0.05, what="it answers")

    assert str(failed.value) == "expected that it answers, within 0.05 s; the last look gave None"


async def test_an_ignored_error_means_not_yet_and_is_named_at_the_end() -> None:
    def refused() -> bool:
        raise ConnectionRefusedError("nobody listens")

    with pytest.raises(AssertionError) as failed:
        await eventually(refused, timeout=0.05, what="it listens", ignoring=OSError)

    assert str(failed.value) == (
        "expected that it listens, within 0.05 s; the last look gave ConnectionRefusedError('nobody listens')"
    )


async def test_any_other_error_of_the_predicate_is_raised_also_a_time_out_of_its_own() -> None:
    def too_late() -> bool:
        raise TimeoutError("the predicate's own")

    with pytest.raises(TimeoutError, match=r"^the predicate's own$"):
        await eventually(too_late, what="it is in time")


def test_the_plain_form_returns_the_first_true_value() -> None:
    values = iter([ConnectionRefusedError(), None, 7])

    def look() -> int | None:
        value = next(values)
        if isinstance(value, Exception):
            raise value
        return value

    assert eventually_sync(look, what="there is a value", ignoring=OSError) == 7


def test_the_plain_form_fails_with_the_same_sentence() -> None:
    with pytest.raises(AssertionError) as failed:
        eventually_sync(lambda: 0, timeout=0.05, what="the queue is empty")

    assert str(failed.value) == "expected that the queue is empty, within 0.05 s; the last look gave 0"
