"""What is known of the delivery limits of queues, and how they are lifted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest
from aiormq.exceptions import ChannelPreconditionFailed

from broadway_py.producers.rabbitmq.topology.delivery_limits import (
    count_in,
    declare_lifted,
    default_limit,
    is_near,
    limit_in,
    may_be_lifted,
    times_returned,
)

QUORUM: Final = {"x-queue-type": "quorum"}


@pytest.mark.parametrize(
    ("version", "limit"), [((), None), ((3, 10), None), ((3, 13), None), ((4, 0), 20), ((4, 3), 20)]
)
def test_the_broker_has_a_limit_of_its_own_from_4_on(version: tuple[int, ...], limit: int | None) -> None:
    assert default_limit(version) == limit


@pytest.mark.parametrize(
    ("queue", "arguments", "version", "lifts"),
    [
        ("work", QUORUM, (4, 0), True),
        ("work", QUORUM, (3, 10), False),
        ("work", {}, (4, 0), False),
        ("work", {"x-queue-type": "classic"}, (4, 0), False),
        ("work", {**QUORUM, "x-delivery-limit": 5}, (4, 0), False),
        # Nobody consumes it.
        ("work.retry.1000.quorum", QUORUM, (4, 0), False),
    ],
)
def test_the_limit_is_lifted_where_nobody_asked_for_one(
    queue: str, arguments: dict[str, Any], version: tuple[int, ...], lifts: bool
) -> None:
    assert may_be_lifted(queue, arguments, version) is lifts


class Broker:
    """One queue that is there with *arguments*, or none."""

    def __init__(self, arguments: Mapping[str, Any] | None) -> None:
        self._there = arguments
        self.asked: list[Mapping[str, Any]] = []

    async def declare(self, arguments: Mapping[str, Any]) -> None:
        self.asked.append(arguments)
        for name in ("x-max-length", "x-delivery-limit"):
            if self._there is not None and self._there.get(name) != arguments.get(name):
                raise ChannelPreconditionFailed(self._words(name, arguments.get(name), self._there.get(name)))

    def _words(self, name: str, wanted: object, there: object) -> str:
        """As 3.10, 4.0 and 4.3 say it."""
        received = "none" if wanted is None else f"the value '{wanted}' of type 'byte'"
        current = "none" if there is None else f"the value '{there}' of type 'byte'"
        if wanted is not None and there is not None:
            received, current = f"'{wanted}'", f"'{there}'"
        return (
            f"PRECONDITION_FAILED - inequivalent arg '{name}' for queue 'work' in vhost '/': "
            f"received {received} but current is {current}"
        )


@pytest.mark.parametrize(
    ("there", "limit", "asked"),
    [
        (None, None, [-1]),
        ({"x-delivery-limit": -1}, None, [-1]),
        ({}, 20, [-1, None]),
        ({"x-delivery-limit": 5}, 5, [-1, 5]),
        ({"x-delivery-limit": -7}, None, [-1, -7]),
    ],
)
async def test_a_queue_with_another_limit_is_used_as_it_is(
    there: dict[str, Any] | None, limit: int | None, asked: list[int | None]
) -> None:
    broker = Broker(there)
    assert await declare_lifted("work", QUORUM, (4, 0), broker.declare) == limit
    assert [arguments.get("x-delivery-limit") for arguments in broker.asked] == asked


@pytest.mark.parametrize("there", [{"x-max-length": 5}, {"x-max-length": 5, "x-delivery-limit": 5}])
async def test_a_queue_that_differs_in_more_is_refused(there: dict[str, Any]) -> None:
    with pytest.raises(ChannelPreconditionFailed, match="inequivalent arg 'x-max-length'"):
        await declare_lifted("work", QUORUM, (4, 0), Broker(there).declare)


async def test_a_limit_that_was_asked_for_is_asked_for() -> None:
    arguments = {**QUORUM, "x-delivery-limit": 5}
    broker = Broker(None)
    assert await declare_lifted("work", arguments, (3, 10), broker.declare) == 5
    assert broker.asked == [arguments]


@pytest.mark.parametrize(
    ("arguments", "version", "limit"),
    [
        # It may be a quorum queue all the same: the virtual host decides.
        ({}, (4, 0), 20),
        ({}, (3, 10), None),
        (QUORUM, (4, 0), 20),
        ({"x-queue-type": "classic"}, (4, 0), None),
        ({**QUORUM, "x-delivery-limit": 5}, (3, 10), 5),
        ({**QUORUM, "x-delivery-limit": -1}, (4, 0), None),
        ({**QUORUM, "x-delivery-limit": "odd"}, (4, 0), None),
    ],
)
def test_the_limit_that_arguments_say(arguments: dict[str, Any], version: tuple[int, ...], limit: int | None) -> None:
    assert limit_in(arguments, version) == limit


@pytest.mark.parametrize(
    ("headers", "redelivered", "times"),
    [
        # As seen on 3.10, at the first and the third delivery …
        ({"x-delivery-count": 0}, False, 0),
        ({"x-delivery-count": 2}, True, 2),
        # … on 4.3: given back twice, rejected once …
        ({"x-acquired-count": 2}, True, 0),
        ({"x-acquired-count": 3, "x-delivery-count": 1}, True, 1),
        # … on classic queues …
        ({}, False, None),
        ({}, True, None),
        # … and what a publisher wrote, which the broker has not counted.
        ({"x-delivery-count": 50}, False, 0),
        ({"x-acquired-count": 1, "x-delivery-count": 50}, True, 0),
        ({"x-delivery-count": "50"}, True, None),
    ],
)
def test_how_often_a_message_came_back(headers: dict[str, Any], redelivered: bool, times: int | None) -> None:
    assert times_returned(headers, redelivered=redelivered) == times


@pytest.mark.parametrize(
    ("limit", "first"), [(20, 15), (100, 95), (8, 6), (7, 6), (4, 3), (3, 3), (2, 2), (1, 1), (0, 1)]
)
def test_a_message_is_put_away_while_it_may_still_come_back_some_times(limit: int, first: int) -> None:
    assert not any(is_near(times, limit) for times in (None, *range(first)))
    assert all(is_near(times, limit) for times in range(first, first + 5))


@pytest.mark.parametrize(
    ("value", "count"), [(3, 3), (0, 0), (-1, None), (True, None), ("3", None), (2**63, 2**31 - 1)]
)
def test_what_counts_something(value: object, count: int | None) -> None:
    assert count_in(value) == count
