"""Helps to see what a flow does: windows that print themselves, and many slow calls side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import cast

from broadway_py import Flow, Window
from broadway_py.examples.playground.parser import Shipment, parse
from broadway_py.examples.playground.register import get_owner, get_owner_async
from broadway_py.flow import Firing

__all__ = ["print_windows", "slow_calls", "slow_calls_async"]


def print_windows(
    shipments: Flow[Shipment],
    size: float | timedelta | str = "1m",
    *,
    stages: int = 1,
    show: Callable[[str], object] = print,
) -> Flow[int]:
    """Returns the flow of the numbers of shipments in windows of event time. It prints each when it is complete.

    Args:
        shipments: what is counted.
        size: of the windows: seconds, or text such as ``"1m"``.
        stages: each has windows of its own.
        show: what takes the lines in place of ``print``.
    """

    def complete(number: int, stage: int, firing: Firing) -> tuple[list[int], int]:
        start = datetime.fromtimestamp(cast("float", firing.start), UTC)  # a number, as by returns
        show(f"stage {stage}, window from {start:%Y-%m-%d %H:%M:%S}: {number} shipments")
        return [number], number

    window = Window.fixed(size, by=lambda shipment: shipment.ts)
    return shipments.partition(stages=stages, window=window).reduce(lambda: 0, _one_more).on_trigger(complete)


def _one_more(number: int, _: Shipment) -> int:
    return number + 1


def slow_calls(lines: Iterable[str], *, latency_ms: float = 1_000, stages: int = 500) -> Flow[tuple[str, str]]:
    """Returns the flow of pairs (booking, owner). Each stage waits for the register in a thread of its own.

    With ``max_demand=1`` a stage takes one line at a time, so that all stages get some.
    """

    def with_owner(shipment: Shipment) -> tuple[str, str]:
        return shipment.booking_id, get_owner(shipment.booking_id, latency_ms)

    return Flow.from_iterable(lines, stages=stages, max_demand=1).map(parse).map(with_owner).using("threads")


def slow_calls_async(lines: Iterable[str], *, latency_ms: float = 1_000, stages: int = 500) -> Flow[tuple[str, str]]:
    """Does the same as :func:`slow_calls` without threads: a stage that waits lets the others go on."""

    async def with_owner(shipment: Shipment) -> tuple[str, str]:
        return shipment.booking_id, await get_owner_async(shipment.booking_id, latency_ms)

    return Flow.from_iterable(lines, stages=stages, max_demand=1).map(parse).map(with_owner)
