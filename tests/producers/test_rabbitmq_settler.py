"""The acknowledger of one channel, with a ledger of its own and nothing else that is real."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from broadway_py.errors import ProducerError, SettleError
from broadway_py.message import Acknowledgement, Message
from broadway_py.producers.rabbitmq.delivery import Receipt
from broadway_py.producers.rabbitmq.forwarder import Forwarder
from broadway_py.producers.rabbitmq.ledger import Settlement, TagLedger
from broadway_py.producers.rabbitmq.settlements import Settlements
from broadway_py.producers.rabbitmq.settler import Settler

FULL = ProducerError("the queue is full")
GONE = ProducerError("the connection was cut")


class Writer:
    """Settlements that are written at once, for as long as there is a channel."""

    def __init__(self, ledger: TagLedger) -> None:
        self._ledger = ledger
        self.gone: ProducerError | None = None
        self.written: list[Settlement] = []

    async def told(self) -> None:
        if self.gone is not None:
            raise self.gone
        self.written += self._ledger.take()

    def stop(self, reason: ProducerError) -> None:
        self.gone = reason


class Shelf:
    """A forwarder that has room for some tags."""

    leaves_burying_to_the_broker = False

    def __init__(self, *refused: int) -> None:
        self._refused = refused
        self.asked: list[int] = []
        #: What breaks it.
        self.defect: Exception | None = None

    async def bury(self, failed: Sequence[Message[Any]]) -> list[ProducerError | None]:
        if self.defect is not None:
            raise self.defect
        tags = [message.acknowledgement.data.tag for message in failed]
        self.asked += tags
        return [FULL if tag in self._refused else None for tag in tags]


class Desk:
    """A settler, what it works with, and three messages that came through its channel."""

    def __init__(self, *refused: int) -> None:
        ledger = TagLedger()
        ledger.delivered_run(1, 3)
        self.writer, self.shelf = Writer(ledger), Shelf(*refused)
        #: Why no more should be delivered.
        self.unsafe: list[ProducerError] = []
        self.settler = Settler(
            ledger, cast("Settlements", self.writer), cast("Forwarder", self.shelf), unsafe=self.unsafe.append
        )
        self.messages = [
            Message(b"", None, Acknowledgement(self.settler, None, Receipt(tag, False, "ack", "reject")))
            for tag in (1, 2, 3)
        ]


async def test_what_cannot_be_put_away_stays_open_and_stops_the_deliveries() -> None:
    desk = Desk(2)
    with pytest.raises(SettleError) as partial:
        await desk.settler.dead_letter(None, desk.messages)
    assert str(partial.value) == (
        "1 of 3 failed messages were not put away, and stay with the broker: the queue is full"
    )
    assert partial.value.unsettled == [desk.messages[1]]
    assert desk.writer.written == [Settlement("ack", 1), Settlement("ack", 3)]
    assert desk.unsafe == [FULL]


async def test_nothing_is_put_away_once_the_channel_is_gone() -> None:
    desk = Desk()
    desk.settler.stop(GONE)
    desk.settler.stop(ProducerError("the connection was closed"))
    with pytest.raises(SettleError, match=r"^cannot settle 3 messages: the connection was cut$") as lost:
        await desk.settler.dead_letter(None, desk.messages)
    assert lost.value.unsettled == desk.messages
    assert desk.shelf.asked == []


async def test_when_the_channel_goes_meanwhile_nobody_knows_of_any() -> None:
    desk = Desk(2)
    desk.writer.gone = GONE
    with pytest.raises(SettleError) as lost:
        await desk.settler.dead_letter(None, desk.messages)
    assert str(lost.value) == (
        "cannot settle 2 messages: the connection was cut; "
        "1 of 3 failed messages were not put away, and stay with the broker: the queue is full"
    )
    assert lost.value.unsettled == [desk.messages[0], desk.messages[2], desk.messages[1]]
    assert desk.unsafe == [FULL]


@pytest.mark.parametrize("defect", [KeyError("canary"), Exception("canary")])
async def test_when_putting_away_breaks_none_is_settled_and_the_deliveries_stop(defect: Exception) -> None:
    desk = Desk()
    desk.shelf.defect = defect
    with pytest.raises(SettleError) as lost:
        await desk.settler.dead_letter(None, desk.messages)
    sentence = f"putting them away raised {type(defect).__name__}"
    assert str(lost.value) == f"3 of 3 failed messages were not put away, and stay with the broker: {sentence}"
    assert lost.value.unsettled == desk.messages
    assert desk.writer.written == []
    assert [str(reason) for reason in desk.unsafe] == [sentence]
    assert desk.unsafe[0].__cause__ is defect
