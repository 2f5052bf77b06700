"""The pipeline, tested with the kit alone: no broker, no waiting."""

from __future__ import annotations

import pytest
from fakes import Fakes, order
from shop.orders import Order, Orders

from broadway_py import Batcher, RateLimit
from broadway_py.producers import MemoryPublisher
from broadway_py.testing import Harnesses


async def test_a_parcel_waits_for_two_others(broadway: Harnesses) -> None:
    services = Fakes()
    async with broadway(Orders, context=services) as h:
        await h.send(order(1), id="a")
        assert "a" not in h.outcomes
        await h.send_batch([order(2), order(3)])
        assert services.store.batches == [("parcels", [1, 2, 3])]
        assert h.outcomes.counts == {"acked": 3}


async def test_a_parcel_waits_for_a_minute(broadway: Harnesses) -> None:
    services = Fakes()
    async with broadway(Orders, context=services) as h:
        await h.send(order(1))
        await h.advance(59)
        assert services.store.batches == []
        await h.advance(1)
        assert services.store.batches == [("parcels", [1])]


async def test_invoices_wait_for_a_second(broadway: Harnesses) -> None:
    services = Fakes()
    async with broadway(Orders, context=services) as h:
        await h.send_batch([order(number, delivery="download") for number in range(1, 6)])
        await h.advance(1)
        assert services.store.batches == [("invoices", [1, 2, 3, 4, 5])]


async def test_a_hundred_invoices_do_not_wait(broadway: Harnesses) -> None:
    services = Fakes()
    async with broadway(Orders, context=services) as h:
        await h.send_batch([order(number, delivery="download") for number in range(1, 101)])
        assert [len(numbers) for _, numbers in services.store.batches] == [100]


async def test_each_kind_has_its_own_batch(broadway: Harnesses) -> None:
    services = Fakes()
    async with broadway(Orders, context=services) as h:
        await h.send_batch([order(1), order(2, delivery="download")])
        await h.advance(60)
        assert sorted(services.store.batches) == [("invoices", [2]), ("parcels", [1])]


async def test_a_model_may_be_sent(broadway: Harnesses) -> None:
    async with broadway(Orders, context=Fakes()) as h:
        await h.send(Order(number=1, customer="ann", amount=1), id="a")
        await h.advance(60)
        assert h.outcomes["a"] == "acked"


@pytest.mark.parametrize("bad", ["", "[]", '{"number": 0, "customer": "ann", "amount": 1}', '{"number": 1}'])
async def test_what_is_no_order_is_a_dead_letter_at_once(broadway: Harnesses, bad: str) -> None:
    async with broadway(Orders, context=Fakes()) as h:
        await h.send(bad, id="a")
        assert (h.outcomes["a"], h.outcomes["a"].cause) == ("dead_lettered", "invalid")


async def test_a_customer_who_cannot_pay_is_not_asked_again(broadway: Harnesses) -> None:
    services = Fakes()
    services.bank.poor = {"bob"}
    async with broadway(Orders, context=services) as h:
        await h.send(order(1, "bob"), id="a")
        (letter,) = h.dead_letters
        assert (letter.exception, letter.attempts) == ("Reject", 1)
        assert services.bank.asked == ["bob"]


async def test_a_store_that_fails_is_tried_again_a_second_later(broadway: Harnesses) -> None:
    services = Fakes()
    services.store.broken = 1
    async with broadway(Orders, context=services) as h:
        await h.send(order(1, delivery="download"), id="a")
        await h.advance(1)
        assert (h.outcomes["a"], h.outcomes["a"].delay) == ("retried", 1)
        await h.advance(1 + 1)
        assert h.outcomes.history("a") == ["retried", "acked"]


async def test_after_four_attempts_an_order_is_a_dead_letter(broadway: Harnesses) -> None:
    services = Fakes()
    services.store.broken = 99
    async with broadway(Orders, context=services, batchers={"parcels": Batcher(batch_size=1)}) as h:
        await h.send(order(1), id="a")
        await h.advance(1 + 2 + 4)
        assert [(letter.id, letter.attempts) for letter in h.dead_letters] == [("a", 4)]
        assert Order.model_validate_json(h.dead_letters[0].data).number == 1


async def test_orders_wait_while_the_bank_is_away(broadway: Harnesses) -> None:
    services = Fakes()
    services.bank.is_away = True
    async with broadway(Orders, context=services) as h:
        await h.send_batch([order(1), order(2), order(3)])
        await h.advance(600)
        assert h.dead_letters == []
        services.bank.is_away = False
        await h.advance(600)
        assert h.outcomes.counts == {"acked": 3}


async def test_a_bank_that_is_slow_is_given_up_after_ten_seconds(broadway: Harnesses) -> None:
    services = Fakes()
    async with broadway(Orders, context=services) as h:
        services.bank.clock, services.bank.seconds = h.clock, 60
        await h.send(order(1, delivery="download"), id="a")
        await h.advance(10)
        assert (h.outcomes["a"], h.outcomes["a"].cause) == ("retried", "timeout")
        services.bank.seconds = 1
        await h.advance(1 + 1 + 1)
        assert h.outcomes["a"] == "acked"


async def test_nothing_is_lost_in_a_crash(broadway: Harnesses) -> None:
    services = Fakes()
    async with broadway(Orders, context=services) as h:
        await h.send_batch([order(1), order(2)])
        await h.crash()
        await h.send(order(3))
        assert services.store.batches == [("parcels", [1, 2, 3])]
        assert h.outcomes.history("1") == ["unknown", "acked"]


async def test_an_order_that_comes_twice_is_stored_once(broadway: Harnesses) -> None:
    services = Fakes()
    async with broadway(Orders, context=services) as h:
        await h.send(order(1, delivery="download"), id="a")
        await h.advance(1)
        await h.redeliver("a")
        assert h.outcomes.history("a") == ["acked", "acked"]
        await h.crash()
        await h.redeliver("a")
        await h.advance(1)
        assert services.store.batches == [("invoices", [1])]
        assert len(h.published["accepted"]) == 1


async def test_a_stop_stores_what_waits(broadway: Harnesses) -> None:
    services = Fakes()
    async with broadway(Orders, context=services) as h:
        await h.send(order(1))
        ended = await h.stop()
        assert (ended.in_time, ended.left) == (True, ())
    assert services.store.batches == [("parcels", [1])]


async def test_a_rate_limit_holds_orders_back(broadway: Harnesses) -> None:
    services = Fakes()
    async with broadway(Orders, context=services, rate_limit=RateLimit(allowed_messages=1, interval=60)) as h:
        await h.send_batch([order(1), order(2)])
        assert len(services.bank.asked) == 1
        await h.advance(60)
        assert len(services.bank.asked) == 2


async def test_orders_that_are_stored_are_published(broadway: Harnesses) -> None:
    async with broadway(Orders, context=Fakes()) as h:
        await h.send_batch([order(1), order(2, "bob"), order(3)])
        accepted = h.published["accepted"]
        assert [(one.message_id, one.key) for one in accepted] == [
            ("accepted-1", "ann"),
            ("accepted-2", "bob"),
            ("accepted-3", "ann"),
        ]
        assert Order.model_validate_json(accepted[0].data) == Order(number=1, customer="ann", amount=10)


async def test_nothing_is_acked_before_it_is_published(broadway: Harnesses) -> None:
    accepted = MemoryPublisher()
    async with broadway(Orders, context=Fakes(), publishers={"accepted": accepted}) as h:
        accepted.go_away()
        await h.send_batch([order(1), order(2), order(3)])
        assert h.outcomes == {}
        accepted.come_back()
        await h.advance(60)
        assert h.outcomes.counts == {"acked": 3}
