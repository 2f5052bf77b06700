"""Your answers. Write a flow in place of each ``raise``, then run ``python -m broadway_py.examples.playground check``.

``shipments`` is the flow of all lines of the file. Return a flow; what runs it is the check. ``Figures`` counts
bookings, containers and reefers: ``Figures()`` has none, ``figures.plus(shipment)`` has one more shipment, and
``figures.together(others)`` has those of both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

from broadway_py import Flow
from broadway_py.examples.playground.parser import Figures, Shipment
from broadway_py.stage import ProducerStage


def total(shipments: Flow[Shipment]) -> Flow[int]:
    """Adds up the containers of all shipments. The flow has one element: the total."""
    raise NotImplementedError


def reefers(shipments: Flow[Shipment]) -> Flow[int]:
    """Adds up the containers whose type is "reef". The flow has one element."""
    raise NotImplementedError


def by_size(shipments: Flow[Shipment]) -> Flow[tuple[str, int]]:
    """Adds up the containers of each size: pairs (size, containers)."""
    raise NotImplementedError


def by_type_and_size(shipments: Flow[Shipment]) -> Flow[tuple[tuple[str, str], int]]:
    """Counts the shipments of each type and size: pairs ((type, size), shipments)."""
    raise NotImplementedError


def denmark(shipments: Flow[Shipment]) -> Flow[tuple[str, int]]:
    """Counts the shipments that go out of Denmark. But which column is that?

    The parser calls the columns ``to`` and ``from_``. Look into generator.py: which country does it write first? Count
    the shipments that have Denmark in each column: pairs ("to", shipments) and ("from_", shipments).
    """
    raise NotImplementedError


def same_country(shipments: Flow[Shipment]) -> Flow[Shipment]:
    """Finds the shipments whose two countries are equal."""
    raise NotImplementedError


def per_customer(shipments: Flow[Shipment]) -> Flow[tuple[str, Figures]]:
    """Counts for each customer: pairs (name, figures). ``register.get_owner(booking_id)`` knows the names."""
    raise NotImplementedError


def count_windows(shipments: Flow[Shipment], size: int) -> Flow[Figures]:
    """Counts each *size* shipments, in the order of the file: figures, one for each window."""
    raise NotImplementedError


def fixed_windows(shipments: Flow[Shipment], size: str) -> Flow[tuple[float, Figures]]:
    """Counts in windows of event time: pairs (start of the window, figures). *size* is such as "1m".

    The time of a shipment is its ``ts``. In which unit is it, and which unit does ``by`` want?
    """
    raise NotImplementedError


def periodic_windows(shipments: Flow[Shipment], interval: str) -> Flow[Figures]:
    """Counts what arrives in each *interval* of the clock: figures, one for each window, however many these are."""
    raise NotImplementedError


def owners(lines: list[str], get_owner: Callable[[str], str]) -> Flow[tuple[str, str]]:
    """Asks a slow register for the owner of each line's booking: pairs (booking, owner). ``parse(line)`` parses a line.

    ``get_owner(booking_id)`` blocks. At least 100 calls shall wait at the same time.
    """
    raise NotImplementedError


def owners_async(lines: list[str], get_owner: Callable[[str], Awaitable[str]]) -> Flow[tuple[str, str]]:
    """Does the same with a register whose calls are awaited: ``await get_owner(booking_id)``. It needs no threads."""
    raise NotImplementedError


def stream_stage(lines: Iterator[str]) -> ProducerStage[str]:
    """Makes a producer stage of a stream of lines that does not end. It takes no line before it is asked for it."""
    raise NotImplementedError
