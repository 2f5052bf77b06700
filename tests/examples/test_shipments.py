from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from broadway_py import BatchInfo, Message
from broadway_py.examples.shipments import CUSTOMERS, Harbour, Shipment, Shipments, Ships, lines
from broadway_py.producers import MemoryProducer
from broadway_py.queue import Queue
from broadway_py.testing.driving import copy_of

LINE = "Kenya, Denmark, dry, 40, 213, qwerty, 1582284844"


def test_a_line_is_a_shipment() -> None:
    shipment = TypeAdapter(Shipment).validate_python(LINE.split(", "))
    assert (shipment.to, shipment.origin, shipment.container_type, shipment.container_size) == (
        "Kenya",
        "Denmark",
        "dry",
        "40",
    )
    assert (shipment.amount, shipment.booking_id, shipment.ts, shipment.customer) == (
        213,
        "qwerty",
        1582284844,
        "Quay",
    )


@pytest.mark.parametrize("line", ["", "Kenya, Denmark", LINE.replace("213", "many"), LINE.replace("dry", "wet")])
def test_a_broken_line_is_not(line: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Shipment).validate_python(line.split(", "))


def test_one_seed_makes_the_same_lines() -> None:
    assert list(islice(lines(5, now=0), 50)) == list(islice(lines(5, now=0), 50))
    assert list(islice(lines(5, now=0), 50)) != list(islice(lines(6, now=0), 50))


def test_about_one_line_in_a_hundred_is_broken() -> None:
    broken = sum(", many, " in line for line in islice(lines(1, now=0), 10_000))
    assert 60 < broken < 140


def test_every_letter_has_a_customer() -> None:
    assert sorted(CUSTOMERS) == list("abcdefghijklmnopqrstuvwxyz")


async def test_good_lines_are_added_up_by_customer_and_broken_ones_fail() -> None:
    made = [line.encode() for line in islice(lines(3, broken=0.1, now=0), 300)]
    expected: Counter[str] = Counter()
    for line in made:
        fields = line.decode().split(", ")
        if fields[4] != "many":
            expected[CUSTOMERS[fields[5][0]]] += int(fields[4])
    async with Shipments(producer=MemoryProducer(made)) as pipeline:
        await pipeline.wait()
        assert pipeline.totals == expected
    broken = sum(b", many, " in line for line in made)
    source = pipeline.stats().producers[0]
    assert (source.outcomes["acked"], source.outcomes["dead_lettered"]) == (len(made) - broken, broken)
    assert pipeline.stats().stages[0].failed == {"invalid": broken}


class Counted(Shipments):
    seen: set[tuple[str, str]]

    async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:  # type: ignore[override]  # narrower
        self.seen |= {(str(info.batch_key), message.data.customer) for message in messages}


async def test_a_batch_holds_shipments_of_one_customer() -> None:
    pipeline = Counted(producer=MemoryProducer([line.encode() for line in islice(lines(3, broken=0), 100)]))
    pipeline.seen = set()
    async with pipeline:
        await pipeline.wait()
    assert pipeline.seen
    assert all(key == customer for key, customer in pipeline.seen)


async def test_the_harbour_puts_lines_on_a_queue_in_a_folder_that_it_makes(tmp_path: Path) -> None:
    place = {"path": str(tmp_path / "new" / "q.db"), "queue": "shipments"}
    harbour = Harbour(context=place, producer=MemoryProducer([LINE] * 30))
    async with harbour:
        await harbour.wait()
    async with Queue(place["path"], "shipments") as queue:
        assert await queue.size() == 30


async def test_ships_wait_while_the_queue_is_full(tmp_path: Path) -> None:
    path = str(tmp_path / "q.db")
    ships = copy_of(Ships(path, "shipments", most_waiting=20, seed=1), capacity=10, pipeline="harbour")
    await ships.open()
    try:
        assert len(await ships.handle_demand(10)) == 10
        async with Queue(path, "shipments") as queue:
            await queue.put_many([LINE] * 20)
        ships.context.begin_draining()  # or it would go on waiting
        assert await ships.handle_demand(10) == []
    finally:
        await ships.close()
