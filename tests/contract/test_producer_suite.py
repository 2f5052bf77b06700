"""What the contract suite tells the author of a producer that does not pass."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from broadway_py import Acknowledgement, Message
from broadway_py.producers import Producer
from broadway_py.testing.contract import ProducerContract, SourceUnderTest


@dataclass
class Row:
    body: bytes
    deliveries: int = 0
    is_held: bool = False


class Table(SourceUnderTest):
    """Rows in memory. Their reader is written as loosely as the page allows, and in two points more loosely."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    async def publish(self, bodies: Sequence[bytes]) -> None:
        self.rows += map(Row, bodies)

    def producer(self) -> Producer:
        return TableReader(self.rows)

    async def ready_count(self) -> int:
        return sum(not row.is_held for row in self.rows)

    async def held_count(self) -> int:
        return sum(row.is_held for row in self.rows)

    async def rejected_count(self) -> int:
        return 0


class TableReader(Producer):
    """Is its own acknowledger, derived from nothing. It forgets to mark repeats, and settles what it does not hold."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows

    async def handle_demand(self, demand: int) -> list[Message[bytes]]:
        taken = [row for row in self.rows if not row.is_held][:demand]
        messages = []
        for row in taken:
            row.is_held = True
            row.deliveries += 1
            message = Message(row.body, {}, Acknowledgement(self, None, row))
            message.attempt = row.deliveries
            messages.append(message)
        return messages

    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        for message in (*successful, *failed):
            self.rows.remove(message.acknowledgement.data)

    async def release(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        for message in messages:
            message.acknowledgement.data.is_held = False

    async def close(self) -> None:
        for row in self.rows:
            row.is_held = False


class MarkingReader(TableReader):
    """Says that it marks repeats, and has no ``is_repeat``."""

    marks_repeats = True


class MarkingTable(Table):
    def producer(self) -> Producer:
        return MarkingReader(self.rows)


async def test_an_acknowledger_without_is_repeat_passes_where_nobody_asks_it() -> None:
    await ProducerContract().test_a_source_that_marks_repeats_marks_all_that_was_handed_out_before(Table())


async def test_an_acknowledger_without_is_repeat_is_told_where_it_is_asked() -> None:
    with pytest.raises(AssertionError) as error:
        await ProducerContract().test_a_source_that_marks_repeats_marks_all_that_was_handed_out_before(MarkingTable())

    assert str(error.value).splitlines()[0] == (
        "if marks_repeats is True, is_repeat() of the acknowledger returns False for what is new; otherwise it returns "
        "True"
    )


async def test_a_second_delivery_without_its_mark_is_told() -> None:
    with pytest.raises(AssertionError) as error:
        await ProducerContract().test_a_first_delivery_is_attempt_one_and_a_later_one_is_not(Table())

    assert str(error.value).splitlines()[0] == 'what was delivered before has metadata["redelivered"] = True'


async def test_a_reader_that_settles_after_its_end_is_told() -> None:
    with pytest.raises(AssertionError) as error:
        await ProducerContract().test_settling_after_close_raises_and_settles_nothing_elsewhere(Table())

    assert str(error.value) == (
        "an acknowledger raises SettleError after close(): its source may have given these messages to another reader"
    )
