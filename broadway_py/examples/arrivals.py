"""An example with containers that arrive: how many there are for each country and minute, from RabbitMQ and from SQS.

The messages are the lines of :mod:`broadway_py.examples.shipments`.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from broadway_py import Aggregator, Message, Pipeline, Window, WindowResult
from broadway_py.examples.shipments import Shipment

__all__ = ["Arrivals", "Containers"]

log = logging.getLogger(__name__)


def _when(message: Message[Shipment]) -> datetime:
    return datetime.fromtimestamp(message.data.ts, UTC)


class Containers(Aggregator[str, Shipment, int]):
    """Adds up the containers for each country and minute. Every ten seconds it gives an early result.

    The ``context`` of the pipeline is a text that its results begin with.
    """

    window = Window.fixed("1m", by=_when, delay="10s").trigger_periodically("10s")

    def key(self, message: Message[Shipment]) -> str:
        """Returns the country that the containers go to."""
        return message.data.to

    def initial(self) -> int:
        """Returns no container."""
        return 0

    def add(self, acc: int, message: Message[Shipment]) -> int:
        """Returns the number of containers with this shipment."""
        return acc + message.data.amount

    def identity(self, message: Message[Shipment]) -> str:
        """Returns what names the shipment. A publisher may give its messages no id, or send a line twice."""
        shipment = message.data
        return f"{shipment.booking_id} {shipment.ts} {shipment.to}"

    async def emit(self, results: list[WindowResult[str, int]]) -> None:
        """Writes one line for each minute. The values are whole, so a later result replaces the earlier one."""
        for (start, trigger), of_minute in groupby(results, key=lambda result: (result.start, result.trigger)):
            told = ", ".join(f"{result.key} {result.value}" for result in of_minute)
            log.info("%s, the minute from %s (%s): %s", self.context or "arrivals", f"{start:%H:%M}", trigger, told)


class Arrivals(Pipeline[Shipment]):
    """Takes shipments from a queue, and adds up their containers."""

    schema = Shipment
    aggregators = {"containers": Containers}  # noqa: RUF012  # an option of the pipeline
    state = "var/arrivals.db"

    def transformer(self, message: Message[Any]) -> None:
        """Splits the line, which the queue gives as bytes, into the fields for the schema."""
        message.data = [field.strip() for field in message.data.decode().split(",")]

    async def handle_message(self, message: Message[Shipment]) -> None:
        """Sends each shipment to the aggregator."""
        message.batcher = "containers"
