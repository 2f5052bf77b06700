"""An example with orders of a shop: the revenue of each country and minute, and a pipeline that makes up the orders.

The orders arrive out of order, up to eight seconds after their own time. One in five hundred arrives five minutes after
it. Most of these are too late for their window.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby
from typing import Annotated, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from broadway_py import Aggregator, Message, Pipeline, RateLimit, Window, WindowResult
from broadway_py.examples.shipments import Harbour, Ships
from broadway_py.queue import NewMessage

__all__ = ["Order", "Orders", "Revenue", "Sales", "Tills", "orders"]

log = logging.getLogger(__name__)

_COUNTRIES: Final = ("Denmark", "Ghana", "Japan", "Kenya", "Peru")
#: Seconds after its own time at which an order arrives, at most; and one of the few that are very late.
_LATE_S: Final = 8.0
_VERY_LATE_S: Final = 300.0
#: What people read instead of the name of a trigger.
_SAID: Final = {"periodic": "so far", "watermark": "complete", "late": "once more"}


class Order(BaseModel):
    """One order."""

    model_config = ConfigDict(frozen=True)

    #: When it was placed.
    ts: AwareDatetime
    country: Annotated[str, Field(min_length=1)]
    #: In cents.
    amount: Annotated[int, Field(ge=1)]


class Revenue(Aggregator[str, Order, int]):
    """Adds up the cents of each country and minute. Every ten seconds it gives an early result."""

    window = Window.fixed("1m", by=lambda message: message.data.ts, delay="10s").trigger_periodically("10s")

    def key(self, message: Message[Order]) -> str:
        """Returns the country."""
        return message.data.country

    def initial(self) -> int:
        """Returns no revenue."""
        return 0

    def add(self, acc: int, message: Message[Order]) -> int:
        """Returns the revenue with this order."""
        return acc + message.data.amount

    async def emit(self, results: list[WindowResult[str, int]]) -> None:
        """Writes one line for each minute. A later line for the same minute replaces the earlier one."""
        for (start, trigger), of_minute in groupby(results, key=lambda result: (result.start, result.trigger)):
            told = ", ".join(f"{result.key} {result.value / 100:.2f} ({result.count})" for result in of_minute)
            log.info("the minute from %s, %s: %s", f"{start:%H:%M}", _SAID.get(trigger, trigger), told)

    async def late(self, messages: list[Message[Order]]) -> None:
        """Counts orders that are too late. Without this method they would be dead letters."""
        log.info("orders that were too late for their minute: %d", len(messages))


class Sales(Pipeline[Order]):
    """Takes orders from the queue, and adds them up."""

    schema = Order
    aggregators = {"revenue": Revenue}  # noqa: RUF012  # an option of the pipeline
    state = "var/windows.db"

    async def handle_message(self, message: Message[Order]) -> None:
        """Sends each order to the aggregator."""
        message.batcher = "revenue"


def orders(seed: int | None = None, *, now: float | None = None) -> Iterator[str]:
    """Yields orders as JSON without end, the same ones for the same *seed* and *now*.

    Args:
        seed: the seed of the random numbers; None: other orders each time.
        now: the time at which they arrive, in seconds since 1970; None: the time of the clock.
    """
    chance = random.Random(seed)  # made-up data
    while True:
        late_s = _VERY_LATE_S if chance.random() < 0.002 else chance.uniform(0.0, _LATE_S)
        placed = datetime.fromtimestamp((time.time() if now is None else now) - late_s, UTC)
        order = {"ts": placed.isoformat(), "country": chance.choice(_COUNTRIES), "amount": chance.randint(100, 20_000)}
        yield json.dumps(order)


class Orders(Ships):
    """Makes up orders while there is room in the queue that they are meant for."""

    def made_up(self) -> Iterator[str]:
        """Returns the orders to come, without end."""
        return orders(self.seed)


class Tills(Harbour):
    """Puts a hundred orders per second on the queue. ``context`` names it, as for :class:`Harbour`."""

    rate_limit = RateLimit(allowed_messages=100, interval=1.0)
    ships = Orders

    def to_put(self, line: str) -> NewMessage:
        """Returns the order with its country as the key, which decides about the partition of the queue."""
        return NewMessage(data=line, key=json.loads(line)["country"])
