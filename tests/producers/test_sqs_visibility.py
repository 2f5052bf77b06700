from __future__ import annotations

from broadway_py.producers.sqs.deliveries.message import SQSReceipt
from broadway_py.producers.sqs.settings.options import SQSOptions
from broadway_py.producers.sqs.visibility.extensions import Guard

OPTIONS = SQSOptions(queue_url="orders")


def receipts(count: int, at: float = 0.0, life: float = 30.0) -> list[SQSReceipt]:
    return [
        SQSReceipt(
            {"ReceiptHandle": f"h{n}", "MessageId": f"m{n}", "Attributes": {}, "Body": ""}, OPTIONS, at, life, at
        )
        for n in range(count)
    ]


def test_what_is_held_is_extended_when_half_its_time_has_passed_counted_from_receipt() -> None:
    guard = Guard(30.0)
    held = receipts(3, at=100.0)
    guard.hold(held)

    assert guard.next_due() == 115.0
    assert guard.due(114.9) == ([], [])
    assert guard.due(115.0) == ([(receipt, 30) for receipt in held], [])


def test_after_an_extension_the_time_counts_from_the_request() -> None:
    guard = Guard(30.0)
    held = receipts(2)
    guard.hold(held)
    extend, _ = guard.due(15.0)
    guard.extended(extend, 15.0)

    assert [receipt.visible_until for receipt in held] == [45.0, 45.0]
    assert guard.next_due() == 30.0


def test_what_is_settled_or_given_up_is_not_extended() -> None:
    guard = Guard(30.0)
    held = receipts(3)
    guard.hold(held)
    held[0].guarded = held[2].guarded = False

    assert guard.due(15.0) == ([(held[1], 30)], [])


def test_those_that_are_due_soon_go_along() -> None:
    guard = Guard(40.0)
    first, second, third = (
        receipts(1, at=0.0, life=40.0),
        receipts(1, at=5.0, life=40.0),
        receipts(1, at=6.0, life=40.0),
    )
    for lot in (first, second, third):
        guard.hold(lot)

    assert [receipt for receipt, _ in guard.due(20.0)[0]] == [*first, *second]
    assert guard.next_due() == 26.0


def test_after_12_hours_sqs_takes_it_back_and_nothing_is_asked() -> None:
    guard = Guard(30_000.0)
    (held,) = receipts(1, life=30_000.0)
    guard.hold([held])
    extend, _ = guard.due(15_000.0)
    assert extend == [(held, 28_200)]
    guard.extended(extend, 15_000.0)
    assert held.visible_until == 43_200.0

    assert guard.due(28_200.0) == ([], [held])
    assert not held.guarded
    assert guard.next_due() is None


def test_an_extension_that_failed_is_tried_again_while_it_makes_sense() -> None:
    guard = Guard(30.0)
    (held,) = receipts(1)
    guard.hold([held])
    guard.due(15.0)
    guard.again([held], 16.0)
    assert guard.due(16.0) == ([(held, 30)], [])

    assert guard.again([held], 30.0) == [held]

    assert (held.guarded, guard.next_due()) == (False, None)


def test_what_a_long_poll_brought_late_is_not_given_up_before_it_can_be_visible() -> None:
    guard = Guard(10.0)
    held = SQSReceipt(
        {"ReceiptHandle": "h", "MessageId": "m", "Attributes": {}, "Body": ""},
        OPTIONS,
        received_at=0.0,
        visibility_s=10.0,
        came_at=15.0,
    )
    guard.hold([held])
    assert guard.due(15.0) == ([(held, 10)], [])

    assert guard.again([held], 16.0) == []

    assert guard.due(16.0) == ([(held, 10)], [])
    assert guard.again([held], 25.0) == [held]


def test_a_visibility_of_zero_guards_nothing() -> None:
    guard = Guard(0.0)
    guard.hold(receipts(1, life=0.0))

    assert guard.next_due() is None
