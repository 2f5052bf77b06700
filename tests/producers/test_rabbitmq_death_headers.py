"""Where and why a dead letter died, as its headers tell."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_py.producers.rabbitmq.retries.death_headers import Death, death_of
from broadway_py.producers.rabbitmq.topology.delay_queues import delay_queue, former_delay_queues, is_delay_queue


def first(queue: str, reason: str) -> dict[str, Any]:
    return {"x-first-death-queue": queue, "x-first-death-reason": reason}


def deaths(*those: tuple[str, str]) -> dict[str, Any]:
    """As the broker lists them, the newest first; the oldest one it says besides."""
    return {"x-death": [{"queue": queue, "reason": reason, "count": 1} for queue, reason in those], **first(*those[-1])}


REJECTED = ("work", "rejected")
DELAYED = ("work.retry.125", "expired")


@pytest.mark.parametrize(
    ("headers", "death"),
    [
        ({}, Death(None, None, None)),
        # Put away by us: whatever the broker has noted before.
        (
            {"x-broadway-queue": "work", "x-broadway-cause": "raised", "x-broadway-attempts": 5, **deaths(("a", "b"))},
            Death("work", "raised", 5),
        ),
        # By the broker, at the first attempt.
        (deaths(REJECTED), Death("work", "rejected", None)),
        # By the broker, after retries of ours.
        ({"x-broadway-attempt": 2, **deaths(REJECTED, DELAYED)}, Death("work", "rejected", 2)),
        ({"x-broadway-attempt": 2, **deaths(("work", "maxlen"), DELAYED)}, Death("work", "maxlen", 2)),
        # And then it went on from queue to queue.
        ({"x-broadway-attempt": 2, **deaths(("parked", "expired"), REJECTED, DELAYED)}, Death("work", "rejected", 2)),
        (deaths(("parked", "expired"), REJECTED), Death("work", "rejected", None)),
        # A queue of somebody else's that is called like ours.
        (deaths(REJECTED, DELAYED), Death("work.retry.125", "expired", None)),
        # Nothing but our own delay.
        ({"x-broadway-attempt": 2, **deaths(DELAYED)}, Death(None, None, 2)),
        # What others may have written.
        (
            {
                "x-broadway-queue": 5,
                "x-broadway-cause": 7,
                "x-broadway-attempts": "many",
                "x-death": ["junk", {"queue": b"caf\xe9"}],
                "x-first-death-queue": b"caf\xe9",
            },
            Death(None, "7", None),
        ),
        ({"x-death": "junk", "x-broadway-attempt": True}, Death(None, None, None)),
    ],
)
def test_a_letter_died_where_it_failed_not_where_it_waited(headers: dict[str, Any], death: Death) -> None:
    assert death_of(headers) == death


@given(st.floats(0.0, 2_000_000.0))
def test_every_queue_in_which_retries_wait_is_known_by_its_name(delay_s: float) -> None:
    for arguments in ({}, {"x-queue-type": "classic"}, {"x-quorum-initial-group-size": 3}):
        assert is_delay_queue(delay_queue("work", delay_s, arguments).name)


def test_every_queue_in_which_retries_of_the_former_version_wait_is_known_by_its_name() -> None:
    names = dict(former_delay_queues("work"))
    assert (names["work.retry.125"], names["work.retry.12000.quorum"]) == (125, 12_000)
    assert len(names) == 92
    assert all(map(is_delay_queue, names))


@pytest.mark.parametrize(
    "name",
    [
        "work",
        "work.retry",
        "work.retry.",
        ".retry.125",
        "work.retry.126",
        "work.retry.625",
        "work.retry.0125",
        "a.retry.0",
        "work.retry.125.q3",
        "work.retry.125.q2.FFFF",
        "work.retry.back",
    ],
)
def test_other_names_are_not(name: str) -> None:
    assert not is_delay_queue(name)
