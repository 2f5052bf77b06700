"""The class of a user's project has the same results on the broker of the test kit, on RabbitMQ and on SQS."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from broadway_py import Batcher, FailurePolicy, Pipeline
from broadway_py.producer_description import AnyProducer
from broadway_py.producers.rabbitmq import RabbitMQProducer, RabbitMQPublisher
from broadway_py.producers.sqs import SQSProducer, SQSPublisher
from broadway_py.publisher import Sink
from broadway_py.testing import harness
from broadway_py.testing.driving import opened, settle, take
from tests.pipeline.support import outcomes
from tests.support.eventually import eventually
from tests.support.localstack import REGION, SQS
from tests.support.rabbitmq import RabbitMQ

REPOSITORY = Path(__file__).resolve().parents[1] / "user-repository"

#: Three parcels, two invoices, a customer who cannot pay, and nonsense.
SENT = [
    *({"number": number, "customer": "ann", "amount": 5} for number in (1, 2, 3)),
    *({"number": number, "customer": "ann", "amount": 5, "delivery": "download"} for number in (4, 5)),
    {"number": 6, "customer": "bob", "amount": 5},
]
BODIES = [*(json.dumps(one).encode() for one in SENT), b"nonsense"]
#: The first two invoices are tried twice.
EXPECTED = {"acked": 5, "retried": 2, "dead_lettered": 2}
STORED = {("parcels", 1, 2, 3), ("invoices", 4, 5)}
PUBLISHED = [1, 2, 3, 4, 5]
OPTIONS: dict[str, Any] = {
    "batchers": {
        "invoices": Batcher(batch_size=2, batch_timeout=60),
        "parcels": Batcher(batch_size=3, batch_timeout=60),
    },
    "failure": FailurePolicy(attempts=3, backoff=(0.1, 0.1)),
}


class Services:
    """The bank does not know bob. The store does not work the first time that it gets invoices."""

    def __init__(self) -> None:
        self.bank = self.store = self
        self.stored: set[tuple[Any, ...]] = set()
        self.tries: Counter[str] = Counter()

    async def may_buy(self, customer: str, amount: int) -> bool:
        return customer != "bob"

    async def store_batch(self, table: str, orders: Sequence[Any]) -> None:
        self.tries[table] += 1
        if table == "invoices" and self.tries[table] == 1:
            raise OSError("the disk is full")
        self.stored.add((table, *sorted(order.number for order in orders)))


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Pipeline[Any]]:
    """The user's class, imported as in that project."""
    monkeypatch.syspath_prepend(REPOSITORY)
    monkeypatch.chdir(tmp_path)
    from shop.orders import Orders  # noqa: PLC0415  # it can be imported only here

    return Orders


def context(services: Services) -> Any:
    return SimpleNamespace(bank=services, store=SimpleNamespace(store=services.store_batch))


def numbers(payloads: Iterable[bytes]) -> list[int]:
    return sorted(json.loads(payload)["number"] for payload in payloads)


async def check(orders: type[Pipeline[Any]], producer: AnyProducer, publisher: Sink, accepted: AnyProducer) -> None:
    services = Services()
    # A path in the present directory, which is one of the test's own.
    options = {"publishers": {"accepted": publisher}, "context": context(services), "state": "orders.db", **OPTIONS}
    async with orders(producer=producer, **options) as pipeline:
        await eventually(lambda: outcomes(pipeline) == EXPECTED, what=f"the outcomes are {EXPECTED}")
    assert services.stored == STORED
    async with opened(accepted) as copy:
        messages = await take(copy, len(PUBLISHED))
        assert numbers(message.data for message in messages) == PUBLISHED
        await settle(messages)


async def test_on_the_broker_of_the_test_kit(orders: type[Pipeline[Any]]) -> None:
    services = Services()
    async with harness(orders, context=context(services), **OPTIONS) as h:
        await h.send_batch(BODIES)
        await h.advance(1)
        assert outcomes(h.pipeline) == EXPECTED
        assert numbers(one.data for one in h.published["accepted"]) == PUBLISHED
    assert services.stored == STORED


@pytest.mark.integration
async def test_on_rabbitmq(orders: type[Pipeline[Any]], rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare_with_dead_letters()
    await rabbitmq.publish(BODIES)

    await rabbitmq.declare("accepted")
    publisher = RabbitMQPublisher(rabbitmq.url, queue="accepted")
    accepted = RabbitMQProducer("accepted", rabbitmq.url)
    await check(orders, RabbitMQProducer("work", rabbitmq.url), publisher, accepted)


@pytest.mark.integration
async def test_on_sqs(orders: type[Pipeline[Any]], sqs: SQS) -> None:
    work, dead, published = [await sqs.queue(name) for name in ("work", "dead", "accepted")]
    await work.send(BODIES)

    producer = SQSProducer(work.url, REGION, wait_time_seconds=1, dead_letter_queue=dead.url)
    accepted = SQSProducer(published.url, REGION, wait_time_seconds=1)
    await check(orders, producer, SQSPublisher(published.url, REGION), accepted)
