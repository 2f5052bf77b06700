"""Shipments, one line of text each, and the figures that are made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from broadway_py import Flow

__all__ = ["REEF", "Figures", "Shipment", "parse", "shipments"]

#: A container that cools what is in it. The others are ``"dry"``.
REEF: Final = "reef"


class Shipment(NamedTuple):
    """One line of the file, such as ``Denmark, Kenya, reef, 40, 213, qwerty, 1582284844``."""

    #: The first country. Whether a ship goes there, only the writer of the file knows. See the exercise ``denmark``.
    to: str
    #: The second country. Python needs ``from`` for itself.
    from_: str
    #: ``"dry"`` or ``"reef"``.
    container_type: str
    #: ``"20"`` or ``"40"``, in feet.
    container_size: str
    #: How many containers.
    amount: int
    #: Six letters. The first one stands for the customer.
    booking_id: str
    #: Seconds since 1970.
    ts: int


class Figures(NamedTuple):
    """What is counted: of a window, or of a customer. ``Figures()`` has counted nothing."""

    bookings: int = 0
    containers: int = 0
    #: Those of the containers that are cooled.
    reefers: int = 0

    def plus(self, shipment: Shipment) -> Figures:
        """Returns the figures with one more shipment."""
        reefers = shipment.amount if shipment.container_type == REEF else 0
        return Figures(self.bookings + 1, self.containers + shipment.amount, self.reefers + reefers)

    def together(self, other: Figures) -> Figures:
        """Returns the figures of both."""
        return Figures(*(mine + others for mine, others in zip(self, other, strict=True)))


def parse(line: str) -> Shipment:
    """Returns the shipment of a line. Blanks around a field do not count.

    Raises:
        ValueError: it does not have seven fields, or one that should be a number is none.
    """
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != len(Shipment._fields):
        raise ValueError(f"expected {len(Shipment._fields)} fields with commas between them, got {len(fields)}")
    to, from_, container_type, container_size, amount, booking_id, ts = fields
    return Shipment(to, from_, container_type, container_size, int(amount), booking_id, int(ts))


def shipments(path: Path | str, *, stages: int = 2, max_demand: int = 1_000) -> Flow[Shipment]:
    """Returns the flow of the shipments of a file. The options are those of each source of a flow."""
    return Flow.from_files(path, stages=stages, max_demand=max_demand).map(parse)
