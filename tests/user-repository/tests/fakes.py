"""The services as tests have them."""

from __future__ import annotations

from collections.abc import Sequence

from shop.orders import Order, Services

from broadway_py.testing import FakeClock


class FakeBank:
    """Lets everybody buy but those in ``poor``."""

    def __init__(self) -> None:
        self.poor: set[str] = set()
        self.is_away = False
        self.asked: list[str] = []
        #: Set to make it slow.
        self.clock: FakeClock | None = None
        self.seconds = 0.0

    async def may_buy(self, customer: str, amount: int) -> bool:
        self.asked.append(customer)
        if self.clock is not None:
            await self.clock.sleep(self.seconds)
        if self.is_away:
            raise ConnectionError
        return customer not in self.poor


class FakeStore:
    """Keeps the number of each order, in batches."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.broken = 0

    async def store(self, table: str, orders: Sequence[Order]) -> None:
        if self.broken:
            self.broken -= 1
            raise OSError("the disk is full")
        self.batches.append((table, [order.number for order in orders]))


class Fakes(Services):
    """Both, with their types."""

    bank: FakeBank
    store: FakeStore

    def __init__(self) -> None:
        super().__init__(FakeBank(), FakeStore())


def order(number: int, customer: str = "ann", **fields: object) -> dict[str, object]:
    """An order as the web shop sends it."""
    return {"number": number, "customer": customer, "amount": 10, **fields}
