"""The acknowledger of one channel, with a ledger of its own and nothing else that is real."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from broadway_py._core.backoff import Backoff
from broadway_py.errors import ProducerError, SettleError
from broadway_py.message import Acknowledgement, Message
from broadway_py.producers.rabbitmq.deliveries.message import RabbitMQReceipt
from broadway_py.producers.rabbitmq.retries.forwarder import Forwarder
from broadway_py.producers.rabbitmq.settlements.ack_writer import AckWriter
from broadway_py.producers.rabbitmq.settlements.acknowledger import RabbitMQAcknowledger
from broadway_py.producers.rabbitmq.settlements.ledger import Settlement, TagLedger
from broadway_py.testing import FakeClock, settle

FULL = ProducerError("the queue is full")
GONE = ProducerError("the connection was cut")


class FakeAckWriter:
    """Settlements that are written at once, for as long as there is a channel."""

    def __init__(self, ledger: TagLedger) -> None:
        self._ledger = ledger
        self.gone: ProducerError | None = None
        self.written: list[Settlement] = []

    async def told(self) -> None:
        if self.gone is not None:
            raise self.gone
        self.written += self._ledger.take()

    def tell_soon(self) -> None:
        self.written += self._ledger.take()

    def stop(self, reason: ProducerError) -> None:
        self.gone = reason


class FakeForwarder:
    """A forwarder that has room for some tags."""

    leaves_dead_letters_to_the_broker = False

    def __init__(self, *refused: int) -> None:
        self.refused = set(refused)
        self.asked: list[int] = []
        #: What breaks it.
        self.defect: Exception | None = None
        self.clock = FakeClock()

    def waits(self) -> Backoff:
        return Backoff(1.0, 30.0, kind="exp")

    async def dead_letter(self, failed: Sequence[Message[Any]]) -> list[ProducerError | None]:
        if self.defect is not None:
            raise self.defect
        tags = [message.acknowledgement.data.tag for message in failed]
        self.asked += tags
        return [FULL if tag in self.refused else None for tag in tags]


class Setup:
    """An acknowledger, what it works with, and three messages that came through its channel."""

    def __init__(self, *refused: int) -> None:
        ledger = TagLedger()
        ledger.delivered_run(1, 3)
        self.writer, self.forwarder = FakeAckWriter(ledger), FakeForwarder(*refused)
        #: Why no more should be begun, each time that this changed.
        self.waiting: list[str | None] = []
        self.acknowledger = RabbitMQAcknowledger(
            ledger,
            cast("AckWriter", self.writer),
            cast("Forwarder", self.forwarder),
            waiting=lambda reason: self.waiting.append(None if reason is None else str(reason)),
            on_failure_is_given=False,
        )
        self.messages = [
            Message(b"", None, Acknowledgement(self.acknowledger, None, RabbitMQReceipt(tag, False, "ack", "reject")))
            for tag in (1, 2, 3)
        ]

    async def until_waiting(self) -> None:
        """What was begun has been refused, and waits for its next try."""
        await settle()
        assert self.waiting[-1:] != [None]


async def test_what_cannot_be_put_away_is_kept_and_tried_again_until_it_can() -> None:
    setup = Setup(2)
    putting = asyncio.ensure_future(setup.acknowledger.dead_letter(None, setup.messages))
    await setup.until_waiting()
    assert setup.writer.written == [Settlement("ack", 1), Settlement("ack", 3)]
    assert setup.waiting == ["the queue is full"]
    for tries, wait in enumerate((1.0, 2.0, 4.0), start=1):
        await setup.forwarder.clock.advance(wait - 0.01)
        assert setup.forwarder.asked == [1, 2, 3, *[2] * (tries - 1)]
        await setup.forwarder.clock.advance(0.01)
        assert setup.forwarder.asked == [1, 2, 3, *[2] * tries]
    setup.forwarder.refused.clear()
    await setup.forwarder.clock.advance(8.0)
    await putting
    assert setup.writer.written[2:] == [Settlement("ack", 2)]
    assert setup.waiting[-1] is None
    assert set(setup.waiting[:-1]) == {"the queue is full"}


async def test_others_wait_for_as_long_as_any_cannot_be_put_away() -> None:
    setup = Setup(1, 2)
    first = asyncio.ensure_future(setup.acknowledger.dead_letter(None, setup.messages[:1]))
    second = asyncio.ensure_future(setup.acknowledger.dead_letter(None, setup.messages[1:]))
    await setup.until_waiting()
    setup.forwarder.refused = {2}
    await setup.forwarder.clock.advance(1.0)
    await first
    assert setup.waiting[-1] == "the queue is full"
    setup.forwarder.refused.clear()
    await setup.forwarder.clock.advance(2.0)
    await second
    assert setup.waiting[-1] is None


async def test_a_drain_gives_back_what_cannot_be_put_away() -> None:
    setup = Setup(2)
    putting = asyncio.ensure_future(setup.acknowledger.dead_letter(None, setup.messages))
    await setup.until_waiting()
    setup.acknowledger.give_up()
    with pytest.raises(SettleError) as partial:
        await putting
    assert str(partial.value) == "1 of 3 failed messages could not be stored and are given back: the queue is full"
    assert partial.value.unsettled == [setup.messages[1]]
    assert setup.writer.written[2:] == [Settlement("nack", 2, requeue=True)]
    assert setup.waiting == ["the queue is full", None]


async def test_what_fails_during_a_drain_is_tried_once() -> None:
    setup = Setup(2)
    setup.acknowledger.give_up()
    with pytest.raises(SettleError):
        await setup.acknowledger.dead_letter(None, setup.messages)
    assert setup.forwarder.asked == [1, 2, 3]
    assert setup.waiting == []


async def test_nothing_is_put_away_once_the_channel_is_gone() -> None:
    setup = Setup()
    setup.acknowledger.stop(GONE)
    setup.acknowledger.stop(ProducerError("the connection was closed"))
    with pytest.raises(SettleError, match=r"^cannot settle 3 messages: the connection was cut$") as lost:
        await setup.acknowledger.dead_letter(None, setup.messages)
    assert lost.value.unsettled == setup.messages
    assert setup.forwarder.asked == []


async def test_when_the_channel_goes_meanwhile_nobody_knows_of_any() -> None:
    setup = Setup(2)
    setup.writer.gone = GONE
    putting = asyncio.ensure_future(setup.acknowledger.dead_letter(None, setup.messages))
    await setup.until_waiting()
    setup.acknowledger.stop(GONE)
    with pytest.raises(SettleError) as lost:
        await putting
    assert str(lost.value) == (
        "cannot settle 2 messages: the connection was cut; "
        "1 of 3 failed messages could not be stored and stay with the broker: the queue is full"
    )
    assert lost.value.unsettled == [setup.messages[0], setup.messages[2], setup.messages[1]]
    assert setup.waiting == ["the queue is full", None]


async def test_a_cut_leaves_nobody_waiting() -> None:
    setup = Setup(2)
    putting = asyncio.ensure_future(setup.acknowledger.dead_letter(None, setup.messages))
    await setup.until_waiting()
    putting.cancel()
    await asyncio.wait({putting})
    assert putting.cancelled()
    assert setup.waiting == ["the queue is full", None]


async def test_the_end_gives_back_all_that_is_open_and_nothing_is_settled_after_it() -> None:
    setup = Setup()
    await setup.acknowledger.ack(None, setup.messages[:1], [])
    setup.acknowledger.release_all(GONE)
    with pytest.raises(SettleError, match=r"^cannot settle 1 message: the connection was cut$"):
        await setup.acknowledger.ack(None, setup.messages[1:2], [])
    assert setup.writer.written == [
        Settlement("ack", 1),
        Settlement("nack", 2, requeue=True),
        Settlement("nack", 3, requeue=True),
    ]


@pytest.mark.parametrize("defect", [KeyError("canary"), Exception("canary")])
async def test_when_putting_away_breaks_none_is_settled_and_it_is_tried_again(defect: Exception) -> None:
    setup = Setup()
    setup.forwarder.defect = defect
    putting = asyncio.ensure_future(setup.acknowledger.dead_letter(None, setup.messages))
    await setup.until_waiting()
    assert setup.waiting == [f"storing them raised {type(defect).__name__}"]
    assert setup.writer.written == []
    setup.forwarder.defect = None
    await setup.forwarder.clock.advance(1.0)
    await putting
    assert setup.writer.written == [Settlement("ack", 3, multiple=True)]


@pytest.mark.parametrize("redelivered", [False, True])
def test_what_the_broker_has_marked_is_a_repeat(redelivered: bool) -> None:
    receipt = RabbitMQReceipt(1, redelivered, "ack", "reject")

    assert Setup().acknowledger.is_repeat(receipt) is redelivered
