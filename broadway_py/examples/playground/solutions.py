"""One answer to each exercise. Read it when you have your own."""

from __future__ import annotations

import operator
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from typing import cast

from broadway_py import Flow, Window
from broadway_py.examples.playground.parser import REEF, Figures, Shipment, parse
from broadway_py.examples.playground.register import get_owner as owner_of
from broadway_py.flow import Firing
from broadway_py.stage import ProducerStage


def total(shipments: Flow[Shipment]) -> Flow[int]:
    """Each stage adds up what it has; ``combine`` adds up the totals of the stages."""
    return shipments.map(_amount).reduce(int, operator.add, combine=operator.add).emit("state")


def reefers(shipments: Flow[Shipment]) -> Flow[int]:
    """The same, behind a filter."""
    return total(shipments.filter(lambda shipment: shipment.container_type == REEF))


def by_size(shipments: Flow[Shipment]) -> Flow[tuple[str, int]]:
    """``sum_by`` needs no ``partition``."""
    return shipments.sum_by(lambda shipment: shipment.container_size, _amount)


def by_type_and_size(shipments: Flow[Shipment]) -> Flow[tuple[tuple[str, str], int]]:
    """A key may be a tuple."""
    return shipments.count_by(lambda shipment: (shipment.container_type, shipment.container_size))


def denmark(shipments: Flow[Shipment]) -> Flow[tuple[str, int]]:
    """A shipment has no, one or two columns with Denmark."""

    def columns(shipment: Shipment) -> list[str]:
        countries = {"to": shipment.to, "from_": shipment.from_}
        return [column for column, country in countries.items() if country == "Denmark"]

    return shipments.flat_map(columns).count_by()


def same_country(shipments: Flow[Shipment]) -> Flow[Shipment]:
    """Nothing is counted, so nothing has to be partitioned."""
    return shipments.filter(lambda shipment: shipment.to == shipment.from_)


def per_customer(shipments: Flow[Shipment]) -> Flow[tuple[str, Figures]]:
    """An accumulator for each key; ``combine`` saves most of the way between stages."""
    return shipments.reduce_by(
        lambda shipment: owner_of(shipment.booking_id), Figures, Figures.plus, combine=Figures.together
    )


def count_windows(shipments: Flow[Shipment], size: int) -> Flow[Figures]:
    """Windows count for each stage, so there is one. Figures are a tuple, so ``emit`` must say that they stay one."""
    windows = shipments.partition(stages=1, window=Window.count(size))
    return windows.reduce(Figures, Figures.plus).emit("state")


def fixed_windows(shipments: Flow[Shipment], size: str) -> Flow[tuple[float, Figures]]:
    """Both times are in seconds. ``on_trigger`` is told which window it is."""

    def with_start(figures: Figures, _: int, firing: Firing) -> tuple[list[tuple[float, Figures]], Figures]:
        return [(cast("float", firing.start), figures)], figures  # a number, as by returns

    windows = shipments.partition(stages=1, window=Window.fixed(size, by=lambda shipment: shipment.ts))
    return windows.reduce(Figures, Figures.plus).on_trigger(with_start)


def periodic_windows(shipments: Flow[Shipment], interval: str) -> Flow[Figures]:
    """As count windows."""
    windows = shipments.partition(stages=1, window=Window.periodic(interval))
    return windows.reduce(Figures, Figures.plus).emit("state")


def owners(lines: list[str], get_owner: Callable[[str], str]) -> Flow[tuple[str, str]]:
    """Many stages, each in a thread. With ``max_demand=1`` each stage gets one line at a time."""

    def with_owner(shipment: Shipment) -> tuple[str, str]:
        return shipment.booking_id, get_owner(shipment.booking_id)

    return Flow.from_iterable(lines, stages=100, max_demand=1).map(parse).map(with_owner).using("threads")


def owners_async(lines: list[str], get_owner: Callable[[str], Awaitable[str]]) -> Flow[tuple[str, str]]:
    """The same with an ``async`` function, in one thread."""

    async def with_owner(shipment: Shipment) -> tuple[str, str]:
        return shipment.booking_id, await get_owner(shipment.booking_id)

    return Flow.from_iterable(lines, stages=100, max_demand=1).map(parse).map(with_owner)


def stream_stage(lines: Iterator[str]) -> ProducerStage[str]:
    """As many lines as are asked for."""

    class Lines(ProducerStage[str]):
        def handle_demand(self, demand: int) -> list[str]:
            return list(islice(lines, demand))

    return Lines()


def _amount(shipment: Shipment) -> int:
    return shipment.amount
