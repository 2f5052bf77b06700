"""Containers on their way over the sea: a pipeline for the shipments, and a harbour that makes them up.

A shipment is one line of text, seven fields with a comma and a blank between them::

    Kenya, Denmark, dry, 40, 213, qwerty, 1582284844

to, from, container type, container size in feet, how many containers, booking, time in seconds since 1970. The first
letter of the booking names the customer. About one line in a hundred is broken; those end among the dead letters.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import string
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from prometheus_client import Counter as Metric
from pydantic import BaseModel, ConfigDict, Field, model_validator

from broadway_py import Batcher, BatchInfo, Message, Pipeline, ProducerError, RateLimit
from broadway_py.producers import Producer
from broadway_py.queue import Queue, StorageError

__all__ = ["CUSTOMERS", "Harbour", "Shipment", "Shipments", "Ships", "lines"]

log = logging.getLogger(__name__)

_NAMES: Final = (
    "Alder Brisk Coral Dune Ember Fjord Gale Harbor Isle Jetty Keel Lagoon Mast "
    "Nautic Oar Pier Quay Reef Sail Tide Union Vessel Wharf Xebec Yacht Zephyr"
)

#: By the first letter of a booking.
CUSTOMERS: Final = {name[0].lower(): name for name in _NAMES.split()}

_COUNTRIES: Final = (
    "Argentina",
    "Australia",
    "Brazil",
    "Canada",
    "Chile",
    "Denmark",
    "Egypt",
    "Finland",
    "Ghana",
    "Greece",
    "India",
    "Indonesia",
    "Japan",
    "Kenya",
    "Malaysia",
    "Mexico",
    "Morocco",
    "Netherlands",
    "New Zealand",
    "Norway",
    "Peru",
    "Portugal",
    "South Africa",
    "South Korea",
    "Uruguay",
    "Vietnam",
)

CONTAINERS: Final = Metric("shipments_containers", "Containers shipped.", ["customer", "container_type"])


class Shipment(BaseModel):
    """One line, parsed."""

    model_config = ConfigDict(frozen=True)

    to: Annotated[str, Field(min_length=1)]
    #: ``from`` is a word of the language.
    origin: Annotated[str, Field(min_length=1)]
    container_type: Literal["dry", "reef"]
    container_size: Literal["20", "40"]
    amount: Annotated[int, Field(ge=1, le=500)]
    booking_id: Annotated[str, Field(pattern=r"^[a-z]{6}$")]
    #: Seconds since 1970.
    ts: Annotated[int, Field(ge=0)]

    @model_validator(mode="before")
    @classmethod
    def _by_place(cls, fields: Any) -> Any:
        if not isinstance(fields, list):
            return fields
        if len(fields) != len(cls.model_fields):
            raise ValueError(f"expected {len(cls.model_fields)} fields, got {len(fields)}")
        return dict(zip(cls.model_fields, fields, strict=True))

    @property
    def customer(self) -> str:
        """Whose containers they are."""
        return CUSTOMERS[self.booking_id[0]]


class Shipments(Pipeline[Shipment]):
    """Adds up containers, one batch per customer."""

    schema = Shipment
    batchers = {"default": Batcher(batch_size=100, batch_timeout=1.0)}  # noqa: RUF012  # an option of the pipeline

    async def setup(self) -> None:
        """Start at zero."""
        #: Containers by customer, in this process.
        self.totals: Counter[str] = Counter()

    def transformer(self, message: Message[Any]) -> None:
        """The queue gives the line as bytes; the schema takes its fields."""
        message.data = [field.strip() for field in message.data.decode().split(",")]

    async def handle_message(self, message: Message[Shipment]) -> None:
        """One batch per customer."""
        message.batch_key = message.data.customer

    async def handle_batch(self, messages: Sequence[Message[Shipment]], info: BatchInfo) -> None:
        """Add up the batch of one customer."""
        for message in messages:
            shipment = message.data
            self.totals[shipment.customer] += shipment.amount
            CONTAINERS.labels(shipment.customer, shipment.container_type).inc(shipment.amount)
        log.debug(
            "%s: %d more shipments, %d containers so far", info.batch_key, info.size, self.totals[str(info.batch_key)]
        )


def lines(seed: int | None = None, *, broken: float = 0.01, now: int | None = None) -> Iterator[str]:
    """Shipments without end; the same ones for the same *seed* and *now* (seconds since 1970, default: the clock).

    A part *broken* of them is no shipment.
    """
    chance = random.Random(seed)  # made-up data
    while True:
        to, origin = chance.sample(_COUNTRIES, 2)
        amount = "many" if chance.random() < broken else str(chance.randint(1, 500))
        booking = "".join(chance.choices(string.ascii_lowercase, k=6))
        ts = int(time.time()) if now is None else now
        yield ", ".join(
            (to, origin, chance.choice(("dry", "reef")), chance.choice(("20", "40")), amount, booking, str(ts))
        )


class Ships(Producer):
    """Makes up shipments, as long as fewer than *most_waiting* lie in the queue that they are for."""

    def __init__(self, path: str, queue: str, most_waiting: int, seed: int | None = None) -> None:
        self.path = path
        self.queue = queue
        self.most_waiting = most_waiting
        self.seed = seed

    async def open(self) -> None:
        """Open the queue, to see how full it is."""
        self._lines = lines(self.seed)
        self._target = Queue(self.path, self.queue)
        try:
            await self._target.open()
        except StorageError as away:
            raise ProducerError(str(away)) from away

    async def handle_demand(self, demand: int) -> Sequence[Message[str]]:
        """As many as are asked for, once there is room."""
        while not await self._has_room():
            # Other processes empty the queue, so nothing here can say when.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self.draining.wait()
                return []
        return [Message(next(self._lines)) for _ in range(demand)]

    async def _has_room(self) -> bool:
        try:
            return await self._target.size() < self.most_waiting
        except StorageError as away:
            raise ProducerError(str(away)) from away

    async def close(self) -> None:
        """Close the queue."""
        await self._target.close()


class Harbour(Pipeline[str]):
    """Feeds the queue of an example: what ``context`` says, five hundred lines a second.

    ``context``: ``path`` and ``queue`` of the embedded queue, and ``most_waiting``, the backlog at which it waits.
    """

    rate_limit = RateLimit(allowed_messages=500, interval=1.0)
    batchers = {"default": Batcher(batch_size=100, batch_timeout=0.2)}  # noqa: RUF012  # an option of the pipeline

    def __init__(self, **options: Any) -> None:
        place = {
            "path": "var/quickstart.db",
            "queue": "shipments",
            "most_waiting": 20_000,
            **(options.get("context") or {}),
        }
        # The first to start makes the folder: the queue wants to find it.
        Path(place["path"]).parent.mkdir(parents=True, exist_ok=True)
        self._target = Queue(place["path"], place["queue"])
        super().__init__(**{"producer": Ships(**place), **options})

    async def setup(self) -> None:
        """Open the queue."""
        await self._target.open()

    async def teardown(self) -> None:
        """Close the queue."""
        await self._target.close()

    async def handle_message(self, message: Message[str]) -> None:
        """Every line goes to the queue as it is."""

    async def handle_batch(self, messages: Sequence[Message[str]], info: BatchInfo) -> None:  # a callback
        """Put the lines on the queue: in one transaction, on the disk when it returns."""
        await self._target.put_many([message.data for message in messages])
