"""Which deliveries have come back from a delay queue of ours: those that came the way that only they come."""

from __future__ import annotations

from typing import Any

import pytest

from broadway_py.producers.rabbitmq.deliveries.returned import BY_DEFAULT, came_back


def died_in(*queues: object) -> dict[str, Any]:
    """As the broker notes it, the newest first; anybody can write the same."""
    return {"x-death": [{"queue": queue, "reason": "expired", "count": 1} for queue in queues]}


WAITED = died_in("work.retry.1000.q2")


@pytest.mark.parametrize(
    ("exchange", "routing_key", "headers", "is_back"),
    [
        ("work.retry.back", "work", {}, True),
        ("", "work", WAITED, False),
        ("events", "work", WAITED, False),
        ("other.retry.back", "work", WAITED, False),
    ],
)
def test_only_the_exchange_of_our_own_brings_retries(
    exchange: str, routing_key: str, headers: dict[str, Any], *, is_back: bool
) -> None:
    assert came_back(exchange, routing_key, headers, "work", "work.retry.back") is is_back


@pytest.mark.parametrize(
    ("exchange", "routing_key", "headers", "is_back"),
    [
        ("", "work", WAITED, True),
        ("", "work", died_in("work.retry.1000.q2.3f2a", "other"), True),
        ("", "work", died_in("other", "work.retry.1000.q2"), False),
        ("", "work", died_in("other.retry.1000.q2"), False),
        ("", "work", died_in("work"), False),
        ("", "work", died_in(7), False),
        ("", "work", {"x-death": "junk"}, False),
        ("", "work", {"x-death": ["junk"]}, False),
        ("", "work", {"x-death": []}, False),
        ("", "work", {}, False),
        ("events", "work", WAITED, False),
        ("", "another", WAITED, False),
        ("work.retry.back", "work", WAITED, False),
    ],
)
def test_where_we_may_have_no_exchange_it_takes_the_default_one_and_the_brokers_note(
    exchange: str, routing_key: str, headers: dict[str, Any], *, is_back: bool
) -> None:
    assert came_back(exchange, routing_key, headers, "work", BY_DEFAULT) is is_back
