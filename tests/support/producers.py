"""Running copies of a producer, as a pipeline makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.errors import ProducerError
from broadway_py.producer import FailurePlan, ProducerContext
from broadway_py.producer_description import AnyProducer, ProducerDescription, described
from broadway_py.request_counts import RequestCounts


def context_of(
    description: ProducerDescription,
    *,
    index: int = 0,
    capacity: int = 50,
    pipeline: str = "ours",
    lost: Callable[[ProducerError], None] = lambda _: None,
    clock: Clock = SYSTEM_CLOCK,
    failure: FailurePlan | None = None,
) -> ProducerContext:
    """What a pipeline tells a copy of *description*."""
    return ProducerContext(
        pipeline=pipeline,
        producer=description.called,
        index=index,
        capacity=capacity,
        clock=clock,
        failure=failure,
        requests=RequestCounts(),
        on_lost=lost,
    )


def copy_of(producer: AnyProducer, **known: Any) -> Any:
    """A copy of *producer* that is bound and not yet opened. It is Any, for tests that look inside.

    Args:
        producer: what a user gives.
        known: as for :func:`context_of`.
    """
    description = described(producer).renewed()
    copy = description.create()
    copy.bind(context_of(description, **known))
    return copy
