"""The waits between two connects never come to nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest

from broadway_py.producers.rabbitmq import RabbitMQOptions


def waits(count: int, **settings: Any) -> list[float]:
    backoff = RabbitMQOptions(queue="q", **settings).make_backoff()
    assert backoff is not None
    return [backoff.failed() for _ in range(count)]


@pytest.mark.parametrize("kind", ["jitter", "exp", "rand", "rand_exp"])
def test_an_absent_broker_is_asked_twenty_times_a_second_at_most(kind: str) -> None:
    assert waits(50, backoff_type=kind, backoff_min=0, backoff_max=0) == [0.05] * 50
    assert min(waits(50, backoff_type=kind, backoff_min=0)) >= 0.05


@pytest.mark.parametrize("kind", ["jitter", "rand", "rand_exp"])
def test_waits_that_begin_at_nothing_grow_all_the_same(kind: str) -> None:
    assert max(waits(300, backoff_type=kind, backoff_min=0, backoff_max=30)) > 10.0


def test_doubling_begins_at_the_shortest_wait() -> None:
    assert waits(5, backoff_type="exp", backoff_min=0, backoff_max=0.5) == [0.05, 0.1, 0.2, 0.4, 0.5]


def test_other_waits_are_as_they_were_asked_for() -> None:
    assert waits(4, backoff_type="exp", backoff_min=0.1, backoff_max=0.3) == [0.1, 0.2, 0.3, 0.3]
    assert waits(1, backoff_type="stop", backoff_min=0) == [math.inf]
    assert RabbitMQOptions(queue="q").make_backoff() is None


def test_the_settings_keep_what_they_were_given() -> None:
    assert RabbitMQOptions(queue="q", backoff_min=0).backoff == (0.0, 30.0)
