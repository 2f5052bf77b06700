"""What becomes of messages whose callback returned a list: each way in which a list may differ from what was given."""

from __future__ import annotations

import pytest

from broadway_py.message import Failed, Message
from broadway_py.pipeline.settlement.failures import reconcile


@pytest.fixture
def given() -> list[Message[int]]:
    return [Message(number) for number in range(3)]


def statuses(messages: list[Message[int]]) -> list[Failed | None]:
    return [message.status for message in messages]


def test_a_message_that_is_missing_fails_and_the_others_stay_ok(given: list[Message[int]]) -> None:
    reconcile("handle_batch", given, [given[2], given[0]])

    assert statuses(given) == [None, Failed("not_returned", "handle_batch did not return this message"), None]


def test_a_message_that_failed_before_and_is_missing_keeps_its_own_status(given: list[Message[int]]) -> None:
    given[0].fail("too late")

    reconcile("prepare_messages", given, given[1:])

    assert statuses(given) == [Failed("failed", "too late"), None, None]


def test_all_fail_when_the_value_is_refused_also_those_that_failed_before(given: list[Message[int]]) -> None:
    given[0].fail("too late")

    reconcile("handle_batch", given, 7)

    sentence = "handle_batch returned an int; expected None or a list of the messages it was given"
    assert {(status.cause, status.reason) for status in statuses(given) if status} == {("raised", sentence)}
    assert None not in statuses(given)
