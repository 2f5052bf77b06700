"""An example with containers that ships carry: a pipeline that counts shipments, and one that makes up test data.

A shipment is one line of text with seven fields, with a comma and a blank between them::

    Kenya, Denmark, dry, 40, 213, qwerty, 1582284844

The fields are: to, from, container type, container size in feet, number of containers, booking, and time in seconds
since 1970. The first letter of the booking stands for the customer. About one line in a hundred is broken; these lines
become dead letters.
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
from broadway_py.queue import NewMessage, Queue, StorageError

__all__ = ["CUSTOMERS", "Harbour", "Shipment", "Shipments", "Ships", "lines"]

log = logging.getLogger(__name__)

_NAMES: Final = (
    "Alder Brisk Coral Dune Ember Fjord Gale Harbor Isle Jetty Keel Lagoon Mast "
    "Nautic Oar Pier Quay Reef Sail Tide Union Vessel Wharf Xebec Yacht Zephyr"
)

#: The customers, by the first letter of a booking.
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
    """One parsed line."""

    model_config = ConfigDict(frozen=True)

    to: Annotated[str, Field(min_length=1)]
    #: Not called ``from``, because that is a keyword of Python.
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
        """The customer who owns the containers."""
        return CUSTOMERS[self.booking_id[0]]


class Shipments(Pipeline[Shipment]):
    """Adds up the containers of each customer, in one batch per customer."""

    schema = Shipment
    batchers = {"default": Batcher(batch_size=100, batch_timeout=1.0)}  # noqa: RUF012  # an option of the pipeline

    async def setup(self) -> None:
        """Sets the totals to zero."""
        #: The number of containers by customer, in this process.
        self.totals: Counter[str] = Counter()

    def transformer(self, message: Message[Any]) -> None:
        """Splits the line, which the queue gives as bytes, into the fields for the schema."""
        message.data = [field.strip() for field in message.data.decode().split(",")]

    async def handle_message(self, message: Message[Shipment]) -> None:
        """Chooses the batch of the customer."""
        message.batch_key = message.data.customer

    async def handle_batch(self, messages: Sequence[Message[Shipment]], info: BatchInfo) -> None:
        """Adds the batch of one customer to the totals."""
        for message in messages:
            shipment = message.data
            self.totals[shipment.customer] += shipment.amount
            CONTAINERS.labels(shipment.customer, shipment.container_type).inc(shipment.amount)
        log.debug(
            "%s: %d more shipments, %d containers so far", info.batch_key, info.size, self.totals[str(info.batch_key)]
        )


def lines(seed: int | None = None, *, broken: float = 0.01, now: int | None = None) -> Iterator[str]:
    """Yields lines without end, the same ones for the same *seed* and *now*.

    Args:
        seed: the seed of the random numbers; None: other lines each time.
        broken: the part of the lines that are not valid shipments.
        now: the time of the shipments in seconds since 1970; None: the time of the clock.
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
    """Makes up shipments while fewer than *most_waiting* messages are in the queue that they are meant for."""

    def __init__(self, path: str, queue: str, most_waiting: int, seed: int | None = None) -> None:
        self.path = path
        self.queue = queue
        self.most_waiting = most_waiting
        self.seed = seed

    async def open(self) -> None:
        """Opens the queue, to read how full it is."""
        self._lines = self.made_up()
        self._target = Queue(self.path, self.queue)
        try:
            await self._target.open()
        except StorageError as away:
            raise ProducerError(str(away)) from away

    def made_up(self) -> Iterator[str]:
        """Returns the messages to come, without end."""
        return lines(self.seed)

    async def handle_demand(self, demand: int) -> Sequence[Message[str]]:
        """Returns as many messages as are asked for, once there is room in the queue."""
        while not await self._has_room():
            # Other processes empty the queue, so this process is not told when there is room.
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
        """Closes the queue."""
        await self._target.close()


class Harbour(Pipeline[str]):
    """Puts five hundred lines per second on the queue of the example.

    ``context`` names the queue with ``path`` and ``queue``. Its ``most_waiting`` is the backlog at which Harbour waits.
    """

    rate_limit = RateLimit(allowed_messages=500, interval=1.0)
    batchers = {"default": Batcher(batch_size=100, batch_timeout=0.2)}  # noqa: RUF012  # an option of the pipeline
    #: What makes the messages up.
    ships: type[Ships] = Ships

    def __init__(self, **options: Any) -> None:
        place = {
            "path": "var/quickstart.db",
            "queue": "shipments",
            "most_waiting": 20_000,
            **(options.get("context") or {}),
        }
        # The first process to start makes the folder, because the queue does not make it.
        Path(place["path"]).parent.mkdir(parents=True, exist_ok=True)
        self._target = Queue(place["path"], place["queue"])
        super().__init__(**{"producer": self.ships(**place), **options})

    async def setup(self) -> None:
        """Opens the queue."""
        await self._target.open()

    async def teardown(self) -> None:
        """Closes the queue."""
        await self._target.close()

    async def handle_message(self, message: Message[str]) -> None:
        """Does nothing: every line goes to the queue as it is."""

    async def handle_batch(self, messages: Sequence[Message[str]], info: BatchInfo) -> None:  # a callback
        """Puts the lines on the queue in one transaction. They are on the disk when it returns."""
        await self._target.put_many([self.to_put(message.data) for message in messages])

    def to_put(self, line: str) -> NewMessage:
        """Returns what is put on the queue for a line."""
        return NewMessage(data=line)
