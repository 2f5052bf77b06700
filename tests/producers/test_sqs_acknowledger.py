"""The acknowledger with a client that only remembers: what is asked of SQS, when, and what is said of the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from broadway_py.errors import SettleError
from broadway_py.message import Message
from broadway_py.producers.sqs.deliveries.message import SQSReceipt, to_message
from broadway_py.producers.sqs.requests.client import QueueInfo
from broadway_py.producers.sqs.requests.errors import Kind, Trouble
from broadway_py.producers.sqs.settings.options import SQSOptions
from broadway_py.producers.sqs.settlements.acknowledger import SQSAcknowledger, SQSAcknowledgerWithDeadLetters
from broadway_py.producers.sqs.visibility.guardian import Guardian
from broadway_py.testing import FakeClock, settle


class Memory:
    """Stands for the client: remembers each request with its moment, and answers what the test laid out."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.asked: list[tuple[float, str, list[Any]]] = []
        #: By request, what it fails with: a whole trouble, or the trouble of each position.
        self.answers: list[Trouble | dict[int, Kind]] = []
        self.gate: asyncio.Event | None = None

    async def _answer(self, what: str, entries: Sequence[Any]) -> dict[int, Kind]:
        self.asked.append((self.clock.monotonic(), what, list(entries)))
        if self.gate is not None:
            await self.gate.wait()
        answer = self.answers.pop(0) if self.answers else {}
        if isinstance(answer, Trouble):
            raise answer
        return answer

    async def delete(self, url: str, handles: Sequence[str]) -> dict[int, Kind]:
        return await self._answer("delete", handles)

    async def change_visibility(self, url: str, changes: Sequence[tuple[str, int]]) -> dict[int, Kind]:
        return await self._answer("change", changes)

    async def send(self, url: str, messages: Sequence[Mapping[str, Any]]) -> dict[int, Kind]:
        return await self._answer("send", [message["MessageBody"] for message in messages])

    def kinds(self) -> list[tuple[str, int]]:
        return [(what, len(entries)) for _, what, entries in self.asked]


class Office:
    """An acknowledger, its client, and messages to settle there."""

    def __init__(self, *, visibility: float = 30.0, dead: bool = False, **settings: Any) -> None:
        self.clock = FakeClock(monotonic=0.0)
        self.client = Memory(self.clock)
        self.refused: list[Trouble] = []
        self.freed: list[Message[Any]] = []
        self.options = SQSOptions(queue_url="orders", **settings)
        queue_info = QueueInfo("orders", "url", visibility, None, "dead" if dead else None)
        made = SQSAcknowledgerWithDeadLetters if dead else SQSAcknowledger
        self.acknowledger = made(
            self.client,  # type: ignore[arg-type]  # it has the three requests that an acknowledger makes
            queue_info,
            self.options,
            self.clock,
            "pipeline",
            freed=self.freed.extend,
            refused=self.refused.append,
        )
        self._visibility = visibility
        self._count = 0

    def receive(self, count: int, *, handed_over: bool = True) -> list[Message[Any]]:
        messages = []
        receipts = []
        for _ in range(count):
            self._count += 1
            raw = {
                "MessageId": f"m{self._count}",
                "ReceiptHandle": f"h{self._count}",
                "Body": f"b{self._count}",
                "Attributes": {"ApproximateReceiveCount": "1"},
            }
            receipt = SQSReceipt(raw, self.options, self.clock.monotonic(), self._visibility, self.clock.monotonic())
            receipts.append(receipt)
            messages.append(to_message(raw, receipt, self.acknowledger, self.options))
        self.acknowledger.hold(receipts)
        if handed_over:
            self.acknowledger.handed_over(count)
        return messages

    def begin(self, good: Sequence[Message[Any]] = (), bad: Sequence[Message[Any]] = ()) -> asyncio.Task[None]:
        return asyncio.create_task(self.acknowledger.ack(None, good, bad))


async def test_the_deletes_of_several_callers_leave_together_within_50_ms() -> None:
    office = Office()
    messages = office.receive(12)
    first = office.begin(messages[:2])
    await office.clock.advance(0.02)
    second = office.begin(messages[2:5])
    await office.clock.advance(0.019)
    assert office.client.asked == []
    await office.clock.advance(0.002)
    assert office.client.kinds() == [("delete", 5)]
    assert office.client.asked[0][0] <= 0.05
    await asyncio.gather(first, second)


async def test_ten_do_not_wait() -> None:
    office = Office()
    messages = office.receive(15)
    callers = [office.begin(messages[:6]), office.begin(messages[6:12])]
    await settle()
    assert (office.clock.monotonic(), office.client.kinds()) == (0.0, [("delete", 10)])
    await office.clock.advance(0.05)
    await asyncio.gather(*callers)


async def test_when_nothing_else_is_at_work_nobody_waits() -> None:
    office = Office()
    messages = office.receive(3)
    office.receive(4, handed_over=False)
    await office.begin(messages)
    assert (office.clock.monotonic(), office.client.kinds()) == (0.0, [("delete", 3)])


async def test_a_lone_caller_waits_once_and_not_again_until_it_has_company() -> None:
    office = Office()
    messages = office.receive(20)
    alone = office.begin(messages[:2])
    await office.clock.advance(0.05)
    await alone
    await office.begin(messages[2:4])
    assert [moment for moment, _, _ in office.client.asked] == [0.04, 0.05]
    office.client.gate = asyncio.Event()
    slow = office.begin(messages[4:6])
    other = office.begin(messages[6:8])
    await settle()
    assert office.client.kinds()[2:] == [("delete", 2)]  # the second one waits for company again
    await office.clock.advance(0.05)
    office.client.gate.set()
    await asyncio.gather(slow, other)


async def test_what_sqs_names_as_failed_is_tried_again_and_the_rest_is_not() -> None:
    office = Office()
    messages = office.receive(10)
    office.client.answers = [{2: "away", 5: "busy"}, {0: "away"}]
    caller = office.begin(messages)
    await settle()
    assert not caller.done()
    await office.clock.advance(1.0)
    await caller
    assert [entries for _, _, entries in office.client.asked[1:]] == [["h3", "h6"], ["h3"]]


async def test_a_request_that_fails_as_a_whole_is_tried_again_until_others_may_have_the_messages() -> None:
    office = Office(visibility=10.0)
    messages = office.receive(2)
    office.client.answers = [Trouble("away", "no answer") for _ in range(100)]
    caller = office.begin(messages)
    await office.clock.advance(30.0)
    with pytest.raises(SettleError) as error:
        await caller
    assert str(error.value) == (
        "SQS queue 'orders': 2 of 2 messages could not be settled (2: SQS did not confirm it in time)"
    )
    deletes = [moment for moment, what, _ in office.client.asked if what == "delete"]
    assert deletes[0] == 0.0
    assert 5.0 < deletes[-1] < 10.0
    assert len(deletes) < 12


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("stale", "the receipt had expired, and another consumer may have the message"),
        ("gone", "the queue does not exist any more"),
        ("wrong", "SQS did not accept it"),
    ],
)
async def test_what_cannot_work_out_is_tried_once(kind: Kind, why: str) -> None:
    office = Office()
    messages = office.receive(2)
    office.client.answers = [{1: kind}]
    with pytest.raises(SettleError) as error:
        await office.begin(messages)
    assert error.value.unsettled == [messages[1]]
    assert str(error.value) == f"SQS queue 'orders': 1 of 2 messages could not be settled (1: {why})"
    assert len(office.client.asked) == 1


async def test_a_refusal_is_told_once_and_nothing_is_tried_again() -> None:
    office = Office()
    first, second = office.receive(1), office.receive(1)
    refusal = Trouble("refused", "AWS refused DeleteMessage")
    office.client.answers = [refusal, refusal]
    callers = [office.begin(first), office.begin(second)]
    await office.clock.advance(10.0)
    for caller in callers:
        with pytest.raises(SettleError):
            await caller
    assert office.refused == [refusal]


async def test_a_cancelled_caller_leaves_its_settlement_to_the_desk() -> None:
    office = Office()
    messages = office.receive(3)
    caller = office.begin(messages[:2])
    await settle()
    caller.cancel()
    await asyncio.wait([caller])
    await office.clock.advance(0.05)
    assert office.client.kinds() == [("delete", 2)]


async def test_what_is_held_is_extended_and_what_is_settled_is_not() -> None:
    office = Office(visibility=30.0)
    messages = office.receive(12)
    await office.clock.advance(1.0)
    caller = office.begin(messages[:2])
    await office.clock.advance(13.9)
    await caller
    office.client.asked.clear()
    await office.clock.advance(0.2)
    (when, what, entries) = office.client.asked[0]
    assert (round(when, 3), what) == (15.0, "change")
    assert entries == [(message.acknowledgement.data.handle, 30) for message in messages[2:]]
    await office.clock.advance(15.0)
    assert office.client.kinds() == [("change", 10), ("change", 10)]
    closing = asyncio.create_task(office.acknowledger.close(1.0))
    await settle()
    await closing


@pytest.mark.parametrize("delay", [0, 7])
async def test_what_is_given_back_or_put_off_does_not_overtake_an_extension_of_the_same_message(delay: int) -> None:
    office = Office(visibility=30.0)
    messages = office.receive(3)
    office.client.gate = asyncio.Event()
    await office.clock.advance(15.1)
    extension = [("h1", 30), ("h2", 30), ("h3", 30)]
    assert [entries for _, _, entries in office.client.asked] == [extension]
    settling = asyncio.create_task(office.acknowledger.retry(None, [(messages[0], delay), (messages[1], delay)]))
    await office.clock.advance(0.1)
    assert [entries for _, _, entries in office.client.asked] == [extension]
    office.client.gate.set()
    await settling
    assert [entries for _, _, entries in office.client.asked] == [extension, [("h1", delay), ("h2", delay)]]
    await office.clock.advance(15.0)
    assert office.client.asked[-1][2] == [("h3", 30)]
    await office.acknowledger.close(1.0)


async def test_deletes_and_what_is_not_being_extended_do_not_wait_for_an_extension() -> None:
    office = Office(visibility=30.0)
    messages = office.receive(2)
    await office.clock.advance(10.0)
    later = office.receive(1)
    office.client.gate = asyncio.Event()
    await office.clock.advance(5.1)
    settling = [office.begin(messages), asyncio.create_task(office.acknowledger.release(None, later))]
    await office.clock.advance(0.1)
    assert office.client.kinds() == [("change", 2), ("delete", 2), ("change", 1)]
    office.client.gate.set()
    await asyncio.gather(*settling)


async def test_what_was_settled_between_falling_due_and_the_request_is_not_extended() -> None:
    office = Office(visibility=30.0)
    guardian = Guardian(
        office.client,  # type: ignore[arg-type]  # it has the one request that a guardian makes
        QueueInfo("orders", "url", 30.0, None, None),
        office.clock,
        is_held=lambda _: True,
        refused=office.refused.append,
    )
    first, second = (message.acknowledgement.data for message in office.receive(2))
    guardian.hold([first, second])
    (extension,) = guardian.due(15.0)
    first.guarded = False
    await guardian.extend(extension)
    assert [entries for _, _, entries in office.client.asked] == [[("h2", 30)]]
    second.guarded = False
    await guardian.extend(extension)
    assert len(office.client.asked) == 1


async def test_an_extension_that_is_not_answered_keeps_a_close_no_longer_than_anything_else() -> None:
    office = Office(visibility=30.0)
    office.receive(1)
    office.client.gate = asyncio.Event()
    await office.clock.advance(15.1)
    closing = asyncio.create_task(office.acknowledger.close(1.5))
    await office.clock.advance(1.6)
    await closing
    assert office.client.kinds() == [("change", 1)]


async def test_closing_gives_back_what_is_held_finishes_what_was_said_and_settles_nothing_after() -> None:
    office = Office()
    messages = office.receive(5)
    caller = office.begin(messages[:1])
    await settle()
    assert office.client.asked == []
    await office.acknowledger.close(1.0)
    await caller
    assert sorted(what for _, what, _ in office.client.asked) == ["change", "delete"]
    with pytest.raises(SettleError, match=r"\(2: the producer was closed\)"):
        await office.acknowledger.ack(None, messages[1:2], messages[2:3])
    await office.clock.advance(60.0)
    assert len(office.client.asked) == 2


async def test_closing_does_not_wait_for_an_endpoint_that_is_silent() -> None:
    office = Office()
    messages = office.receive(2)
    office.client.gate = asyncio.Event()
    caller = office.begin(messages[:1])
    await office.clock.advance(0.05)
    closing = asyncio.create_task(office.acknowledger.close(1.5))
    await office.clock.advance(1.4)
    assert not closing.done()
    await office.clock.advance(0.2)
    await closing
    with pytest.raises(SettleError, match="the producer was closed"):
        await caller


async def test_a_desk_is_idle_when_nothing_is_held_or_under_way() -> None:
    office = Office()
    messages = office.receive(2)
    waiting = asyncio.create_task(office.acknowledger.until_idle())
    caller = office.begin(messages[:1])
    await office.clock.advance(0.05)
    await caller
    assert not waiting.done()
    office.acknowledger.leave([messages[1].acknowledgement.data])
    await settle()
    await waiting


async def test_dead_letters_are_sent_in_tens_and_deleted_then() -> None:
    office = Office(dead=True, dead_letter_queue="dead")
    messages = office.receive(12)
    acknowledger = office.acknowledger
    assert isinstance(acknowledger, SQSAcknowledgerWithDeadLetters)
    office.client.answers = [{1: "away"}]
    sending = asyncio.create_task(acknowledger.dead_letter(None, messages))
    await office.clock.advance(2.0)
    await sending
    sent = [entries for _, what, entries in office.client.asked if what == "send"]
    assert [len(entries) for entries in sent] == [10, 2, 1]
    deleted = [handle for _, what, entries in office.client.asked if what == "delete" for handle in entries]
    assert sorted(deleted) == sorted(f"h{number}" for number in range(1, 13))
    first_of = [what for _, what, _ in office.client.asked]
    assert first_of[:2] == ["send", "send"]


async def test_what_we_add_to_a_dead_letter_gives_way_until_its_queue_takes_it() -> None:
    office = Office(dead=True, dead_letter_queue="dead")
    messages = office.receive(3)
    acknowledger = office.acknowledger
    assert isinstance(acknowledger, SQSAcknowledgerWithDeadLetters)
    # Together; then alone as it is, with less, with nothing of ours.
    office.client.answers = [{1: "wrong"}, {0: "wrong"}, {0: "wrong"}]
    sending = asyncio.create_task(acknowledger.dead_letter(None, messages))
    await office.clock.advance(0.1)
    await sending
    assert [entries for _, what, entries in office.client.asked if what == "send"] == [
        ["b1", "b2", "b3"],
        ["b2"],
        ["b2"],
        ["b2"],
    ]
    deleted = [handle for _, what, entries in office.client.asked if what == "delete" for handle in entries]
    assert sorted(deleted) == ["h1", "h2", "h3"]


async def test_a_dead_letter_that_its_queue_takes_in_no_form_is_left_where_it_is() -> None:
    office = Office(dead=True, dead_letter_queue="dead")
    messages = office.receive(1)
    acknowledger = office.acknowledger
    assert isinstance(acknowledger, SQSAcknowledgerWithDeadLetters)
    office.client.answers = [Trouble("wrong", "BatchRequestTooLong")] * 3
    with pytest.raises(SettleError) as left:
        await acknowledger.dead_letter(None, messages)
    assert str(left.value) == (
        "SQS queue 'orders': 1 of 1 messages could not be settled (1: the dead letter queue does not accept it, and "
        "it stays where it is)"
    )
    assert office.client.kinds() == [("send", 1)] * 3


async def test_a_retry_is_shown_again_after_its_delay_rounded_up_and_never_past_12_hours() -> None:
    office = Office()
    messages = office.receive(2)
    await office.acknowledger.retry(None, [(messages[0], 2.3), (messages[1], 99_999.0)])
    ((_, _, changes),) = office.client.asked
    assert changes == [("h1", 3), ("h2", 43_200)]


async def test_closing_does_not_show_to_others_what_is_being_buried() -> None:
    office = Office(dead=True, dead_letter_queue="dead")
    (message,) = office.receive(1)
    acknowledger = office.acknowledger
    assert isinstance(acknowledger, SQSAcknowledgerWithDeadLetters)
    office.client.gate = asyncio.Event()
    sending = asyncio.create_task(acknowledger.dead_letter(None, [message]))
    await settle()
    sending.cancel()  # the deadline of a stop
    await asyncio.wait([sending])
    closing = asyncio.create_task(acknowledger.close(1.5))
    await settle()
    office.client.gate.set()
    await settle()
    await office.clock.advance(0.1)
    await closing
    assert office.client.kinds() == [("send", 1), ("delete", 1)]


async def test_a_message_that_cannot_be_kept_from_others_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    office = Office(visibility=10.0)
    office.receive(1)
    office.client.answers = [{0: "busy"} for _ in range(20)]
    await office.clock.advance(30.0)
    assert office.client.kinds() == [("change", 1)] * 5  # each second, from half of its visibility on
    (line,) = (record.msg for record in caplog.records)
    assert isinstance(line, dict)
    assert line["event"] == "the visibility of a message could not be extended; the message may be handled twice"
    assert (line["message_id"], line["trouble"]) == ("m1", "busy")
