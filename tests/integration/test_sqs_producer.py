"""What the SQS producer asks of SQS and makes of its answers; numbers of the contract's section on SQS."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

import pytest

from broadway_py import Processors, telemetry
from broadway_py.errors import ProducerError, SettleError, SourceRefused
from broadway_py.producers import SQSProducer
from broadway_py.producers.sqs.dead_letters.letters import DEATH
from broadway_py.producers.sqs.deliveries.message import SQSReceipt
from broadway_py.testing.driving import ask, bodies, data, give_back, opened, refusal, settle, take
from tests.integration.sqs_support import Handled, faults, through, work
from tests.pipeline.support import logged
from tests.support.conformance import conforms
from tests.support.eventually import eventually
from tests.support.localstack import REGION, SQS, Queue
from tests.support.sqs_proxy import DENIED, THROTTLED, SQSProxy

__all__ = ["faults", "work"]

pytestmark = pytest.mark.integration


# --- what is asked ----------------------------------------------------------------------------------------------------


@conforms("S-006", "S-009", "S-012")
async def test_a_receive_asks_for_ten_messages_of_the_queue_at_the_endpoint(faults: SQSProxy, work: Queue) -> None:
    await work.send(bodies(1))
    async with opened(through(faults, work)) as copy:
        await settle(await take(copy, 1))
        waiting = await ask(copy, 50)
        (_, second, *_) = await faults.until_asked("ReceiveMessage", 2)
    await waiting

    assert second.body == {
        "QueueUrl": work.url,
        "MaxNumberOfMessages": 10,
        "WaitTimeSeconds": 1,
        "MessageSystemAttributeNames": ["ApproximateReceiveCount"],
    }
    assert {one.body["QueueUrl"] for one in faults.requests("DeleteMessageBatch")} == {work.url}


@conforms("S-007", "S-008")
async def test_a_receive_asks_as_the_settings_say(faults: SQSProxy, work: Queue) -> None:
    await work.send(bodies(2))
    producer = through(
        faults,
        work,
        wait_time_seconds=0,
        max_number_of_messages=2,
        visibility_timeout=90,
        attribute_names=["sent_timestamp"],
        message_attribute_names=["a", "b.*"],
    )
    async with opened(producer) as copy:
        await settle(await take(copy, 2))

    assert faults.requests("ReceiveMessage")[0].body == {
        "QueueUrl": work.url,
        "MaxNumberOfMessages": 2,
        "WaitTimeSeconds": 0,
        "VisibilityTimeout": 90,
        "MessageSystemAttributeNames": ["ApproximateReceiveCount", "SentTimestamp"],
        "MessageAttributeNames": ["a", "b.*"],
    }


async def test_the_queue_may_be_named_by_its_name(faults: SQSProxy, work: Queue) -> None:
    await work.send(bodies(1))
    async with opened(SQSProducer(work.name, REGION, faults.endpoint, wait_time_seconds=1)) as copy:
        await settle(await take(copy, 1))

    await work.until(ready=0, held=0)


# --- what comes -------------------------------------------------------------------------------------------------------


@conforms("S-001", "S-002", "S-034")
async def test_a_message_carries_its_body_its_receipt_and_what_names_it(faults: SQSProxy, work: Queue) -> None:
    (sent,) = await work.send(["héllo"])
    async with opened(through(faults, work)) as copy:
        (message,) = await take(copy, 1)
        acknowledger, ref, receipt = message.acknowledgement
        assert (message.data, message.size, message.id) == ("héllo".encode(), 6, sent)
        assert isinstance(receipt, SQSReceipt)
        assert (ref, receipt.message_id, receipt.handle) == (None, sent, message.metadata["receipt_handle"])
        assert message.metadata["md5_of_body"] == "be50e8478cf24ff3595bc7307fb91b50"
        assert receipt.handle not in repr([message, acknowledger, receipt])
        await settle([message])


@conforms("S-003")
async def test_attributes_of_sqs_have_our_names_and_numbers_are_numbers(faults: SQSProxy, work: Queue) -> None:
    await work.send(bodies(1))
    async with opened(through(faults, work, attribute_names="all")) as copy:
        (message,) = await take(copy, 1)
        attributes = message.metadata["attributes"]
        assert set(attributes) == {
            "sender_id",
            "sent_timestamp",
            "approximate_receive_count",
            "approximate_first_receive_timestamp",
        }
        assert attributes["approximate_receive_count"] == 1
        assert isinstance(attributes["sent_timestamp"], int)
        assert isinstance(attributes["sender_id"], str)
        await settle([message])
    await work.send(bodies(1))
    async with opened(through(faults, work)) as copy:
        (message,) = await take(copy, 1)
        # The original gives an empty list, which nobody can look a name up in.
        assert (message.metadata["attributes"], message.metadata["message_attributes"]) == ({}, {})
        await settle([message])


@conforms("S-004")
async def test_senders_attributes_come_whole(faults: SQSProxy, work: Queue) -> None:
    given = {
        "text": {"DataType": "String", "StringValue": "x"},
        "count": {"DataType": "Number", "StringValue": "42"},
        "ratio": {"DataType": "Number.float", "StringValue": "0.5"},
        "blob": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
        "other": {"DataType": "String", "StringValue": "not asked for"},
    }
    await work.send(["body"], MessageAttributes=given)
    producer = through(faults, work, message_attribute_names=["text", "count", "ratio", "blob"])
    async with opened(producer) as copy:
        (message,) = await take(copy, 1)
        found: Mapping[str, Mapping[str, Any]] = message.metadata["message_attributes"]
        assert found["text"] == {
            "name": "text",
            "data_type": "String",
            "string_value": "x",
            "binary_value": None,
            "value": "x",
        }
        assert {name: parts["value"] for name, parts in found.items()} == {
            "text": "x",
            "count": 42,
            "ratio": 0.5,
            "blob": b"\x00\xff",
        }
        await settle([message])


async def test_what_a_sender_writes_is_never_taken_for_what_sqs_says(faults: SQSProxy, sqs: SQS, work: Queue) -> None:
    forged = {
        name: {"DataType": "String", "StringValue": "7"}
        for name in (
            *("ApproximateReceiveCount", "attempt", "redelivered", "message_id", "queue", "MessageGroupId"),
            *("x-broadway-attempt", DEATH),
        )
    }
    (own,) = await work.send(["body"], MessageAttributes=forged)
    dead = await sqs.queue("dead")
    producer = through(faults, work, attribute_names="all", message_attribute_names="all", dead_letter_queue=dead.url)
    async with opened(producer) as copy:
        (message,) = await take(copy, 1)
        assert message.attempt == 1
        assert {name: message.metadata[name] for name in ("message_id", "queue", "redelivered")} == {
            "message_id": own,
            "queue": work.name,
            "redelivered": False,
        }
        assert "message_group_id" not in message.metadata
        assert message.metadata["attributes"]["approximate_receive_count"] == 1
        assert set(message.metadata["message_attributes"]) == set(forged)
        message.raw = b"what a handler makes of it"
        message.fail("no good")
        await message.acknowledgement.acknowledger.dead_letter(None, [message])
    (letter,) = await dead.take(1, MessageAttributeNames=["All"])
    assert letter["Body"] == "body"
    said = json.loads(letter["MessageAttributes"][DEATH]["StringValue"])
    assert (said["queue"], said["message_id"], said["attempts"]) == (work.name, own, 1)


async def test_a_body_that_was_broken_on_its_way_is_left_to_come_again(
    faults: SQSProxy, work: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    await work.send(bodies(3))
    faults.corrupt()
    async with opened(through(faults, work, visibility_timeout=2, max_polls=1)) as copy:
        first = await take(copy, 2)
        again = await take(copy, 1)
        assert sorted(data([*first, *again])) == bodies(3)
        assert (again[0].attempt, again[0].metadata["redelivered"]) == (2, True)
        await settle([*first, *again])
    await work.until(ready=0, held=0)
    assert "the body of a message, or of an earlier one of its group, does not match its MD5" in caplog.text
    assert "message 0000" not in caplog.text


@conforms("S-033")
async def test_fewer_messages_than_wanted_are_all_handled(faults: SQSProxy, work: Queue) -> None:
    await work.send(bodies(5))
    notes: list[bytes] = []
    async with Handled(producer=through(faults, work), context=notes):
        await work.until(ready=0, held=0)

    assert sorted(notes) == bodies(5)


@conforms("S-036")
async def test_an_empty_queue_is_asked_again_and_later_messages_come(faults: SQSProxy, work: Queue) -> None:
    async with opened(through(faults, work, wait_time_seconds=0, receive_interval=0.2)) as copy:
        waiting = await ask(copy, 10)
        await faults.until_asked("ReceiveMessage", 3)
        await work.send(bodies(1))
        messages = await waiting
        assert messages is not None
        assert data(messages) == bodies(1)
        await settle(messages)


async def test_an_empty_queue_is_not_asked_in_a_loop_and_without_demand_not_at_all(
    faults: SQSProxy, work: Queue
) -> None:
    async with opened(through(faults, work, wait_time_seconds=0, receive_interval=0.5)) as copy:
        waiting = await ask(copy, 10)
        begun = asyncio.get_running_loop().time()
        await faults.until_asked("ReceiveMessage", 4)
        assert asyncio.get_running_loop().time() - begun >= 1.4
        waiting.cancel()
        await asyncio.wait([waiting])
        await asyncio.sleep(0)
        before = len(faults.requests("ReceiveMessage"))
        await work.send(bodies(1))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.2):
                await asyncio.Event().wait()
        assert len(faults.requests("ReceiveMessage")) == before


@conforms("S-039", "S-040")
async def test_telemetry_hears_of_each_receive(faults: SQSProxy, work: Queue) -> None:
    await work.send(bodies(3))
    heard: list[tuple[str, Mapping[str, Any], Mapping[str, Any]]] = []
    events = [f"broadway.sqs.receive_messages.{what}" for what in ("start", "stop", "exception")]
    telemetry.attach("test", events, lambda *event: heard.append(event))
    try:
        async with opened(through(faults, work)) as copy:
            await settle(await take(copy, 3))
            faults.fail("ReceiveMessage", THROTTLED, times=1)
            waiting = await ask(copy, 10)
            await eventually(lambda: len(heard) >= 4, what="a receive has failed")
        await waiting
    finally:
        telemetry.detach("test")
    (start, begun, about), (stop, ended, result) = heard[:2]
    assert (start, stop) == tuple(events[:2])
    assert set(begun) == {"system_time", "monotonic_time"}
    assert about == {"pipeline": "contract", "producer": "sqs", "demand": 3}
    assert set(ended) == {"duration", "monotonic_time"}
    assert (result["demand"], data(result["messages"])) == (3, bodies(3))
    assert heard[3][0] == events[2]


# --- settling ---------------------------------------------------------------------------------------------------------


@conforms("S-010")
async def test_two_are_deleted_in_one_batch_each_under_an_id_of_its_own(faults: SQSProxy, work: Queue) -> None:
    await work.send(bodies(2))
    async with opened(through(faults, work)) as copy:
        messages = await take(copy, 2)
        await settle(messages)
        (_, deleted) = faults.requests("DeleteMessageBatch")

    # The original takes the message ids as ids; two deliveries of one message would then break the whole batch.
    assert [(entry["Id"], entry["ReceiptHandle"]) for entry in deleted.entries] == [
        ("0", messages[0].metadata["receipt_handle"]),
        ("1", messages[1].metadata["receipt_handle"]),
    ]
    await work.until(ready=0, held=0)


@conforms("S-011")
async def test_each_message_may_say_for_itself_what_becomes_of_it(faults: SQSProxy, work: Queue) -> None:
    await work.send(bodies(6))
    producer = through(faults, work, on_success="noop", on_failure="ack", max_polls=1)
    async with opened(producer) as copy:
        messages = await take(copy, 6)
        messages[0].configure_ack(on_success="ack")
        messages[3].configure_ack(on_failure="noop")
        messages[4].configure_ack(on_failure=("nack", 600))
        await settle(messages[:3], messages[3:])
        (deleted,) = faults.requests("DeleteMessageBatch")
        assert [entry["ReceiptHandle"] for entry in deleted.entries] == [
            messages[0].metadata["receipt_handle"],
            messages[5].metadata["receipt_handle"],
        ]
        (changed,) = faults.requests("ChangeMessageVisibility")
        assert [(entry["ReceiptHandle"], entry["VisibilityTimeout"]) for entry in changed.entries] == [
            (messages[4].metadata["receipt_handle"], 600)
        ]
    await work.until(ready=0, held=4)


async def test_configure_ack_takes_what_it_knows_and_says_so(faults: SQSProxy, work: Queue) -> None:
    await work.send(bodies(1))
    async with opened(through(faults, work)) as copy:
        (message,) = await take(copy, 1)
        with pytest.raises(
            ValueError, match="configure_ack: unknown option 'on_fail'; SQS takes on_success, on_failure"
        ):
            message.configure_ack(on_fail="ack")
        with pytest.raises(ValueError, match="configure_ack: on_failure: expected ack, noop, nack"):
            message.configure_ack(on_failure="requeue")
        with pytest.raises(ValueError, match="on_failure cannot be dead_letter here: set dead_letter_queue"):
            message.configure_ack(on_failure="dead_letter")
        await settle([message])


@conforms("S-038")
async def test_twenty_are_deleted_as_two_tens_whoever_settles_them(faults: SQSProxy, work: Queue) -> None:
    await work.send(bodies(20))
    async with opened(through(faults, work, max_polls=1)) as copy:
        messages = await take(copy, 20)
        async with asyncio.TaskGroup() as tasks:
            for start in range(0, 20, 4):
                tasks.create_task(settle(messages[start : start + 4]))
        assert [len(one.entries) for one in faults.requests("DeleteMessageBatch")[1:]] == [10, 10]


async def test_visibility_is_changed_in_tens_too(faults: SQSProxy, work: Queue) -> None:
    await work.send(bodies(11))
    async with opened(through(faults, work, on_failure=("nack", 300), max_polls=1)) as copy:
        messages = await take(copy, 11)
        await settle(failed=messages)
        assert [len(one.entries) for one in faults.requests("ChangeMessageVisibility")] == [10, 1]


async def test_a_message_that_comes_twice_in_one_answer_is_deleted_without_breaking_the_batch(
    faults: SQSProxy, work: Queue
) -> None:
    await work.send(bodies(3))
    faults.double()
    async with opened(through(faults, work)) as copy:
        messages = await take(copy, 6)
        assert sorted(data(messages)) == sorted(bodies(3) * 2)
        await settle(messages)
    await work.until(ready=0, held=0)


@conforms("S-013")
async def test_twelve_messages_from_queue_to_delete(faults: SQSProxy, work: Queue) -> None:
    await work.send(bodies(12))
    notes: list[bytes] = []
    pipeline = Handled(producer=through(faults, work), context=notes, processors=Processors(concurrency=2))
    async with pipeline:
        await work.until(ready=0, held=0)

    assert sorted(notes) == bodies(12)
    deletes = faults.requests("DeleteMessageBatch")[1:]
    assert sum(len(one.entries) for one in deletes) == 12


# --- pools, polls and the end -----------------------------------------------------------------------------------------


async def test_open_receives_never_keep_a_delete_waiting(faults: SQSProxy, work: Queue) -> None:
    await work.send(bodies(40))
    async with opened(through(faults, work, max_polls=10, wait_time_seconds=3), capacity=200) as copy:
        messages = await take(copy, 40)
        # On a queue with messages the receives have multiplied; now all of them are open, and none is answered.
        gate = faults.hold("ReceiveMessage")
        waiting = await ask(copy, 200)
        await eventually(lambda: faults.open["ReceiveMessage"] >= 3, what="receives are open side by side")
        async with asyncio.timeout(1.0):
            await settle(messages)
        gate.set()
    await waiting
    await work.until(ready=0, held=0)


async def test_a_receive_is_not_cut_off_with_the_call_that_began_it(faults: SQSProxy, work: Queue) -> None:
    async with opened(through(faults, work, wait_time_seconds=5)) as copy:
        waiting = await ask(copy, 10)
        await faults.until_asked("ReceiveMessage", 1)
        waiting.cancel()
        await asyncio.wait([waiting])
        await work.send(bodies(1))
        # The open receive gets it; a cancelled one would have taken it with it for its visibility time.
        messages = await take(copy, 1)
        assert (data(messages), messages[0].attempt) == (bodies(1), 1)
        await settle(messages)


@conforms("S-037")
async def test_a_drain_waits_for_the_open_receive_gives_back_what_it_brings_and_begins_no_other(
    faults: SQSProxy, work: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    gate = faults.hold("ReceiveMessage")
    async with opened(through(faults, work, wait_time_seconds=20)) as copy:
        waiting = await ask(copy, 10)
        await faults.until_asked("ReceiveMessage", 1)
        await work.send(bodies(3))
        copy.context.begin_draining()
        draining = asyncio.create_task(copy.prepare_for_draining())
        assert await waiting == []
        assert not draining.done()
        (line,) = [line for line in logged(caplog, least=logging.INFO) if line["event"].startswith("the stop")]
        # So many of its 20 seconds are left.
        assert 0 < line.pop("at_most_seconds") <= 20
        assert line == {
            "event": "the stop waits for the open receive, which could still take messages",
            "queue": work.name,
        }
        gate.set()
        await draining
        await work.until(ready=3, held=0)
        assert await copy.handle_demand(10) == []
    assert len(faults.requests("ReceiveMessage")) == 1


async def test_while_messages_are_at_work_a_drain_does_not_wait_for_receives(faults: SQSProxy, work: Queue) -> None:
    await work.send(bodies(1))
    async with opened(through(faults, work, wait_time_seconds=3)) as copy:
        messages = await take(copy, 1)
        waiting = await ask(copy, 10)
        await faults.until_asked("ReceiveMessage", 2)
        copy.context.begin_draining()
        async with asyncio.timeout(0.5):
            await copy.prepare_for_draining()
            await settle(messages)
        assert await waiting == []


async def test_what_was_held_is_shown_to_others_at_the_end(faults: SQSProxy, work: Queue) -> None:
    await work.send(bodies(25))
    async with opened(through(faults, work, visibility_timeout=600), capacity=50) as copy:
        await take(copy, 25)
        await work.until(ready=0, held=25)
    await work.until(ready=25, held=0)


async def test_several_queues_feed_one_pipeline(faults: SQSProxy, sqs: SQS) -> None:
    first, second = await sqs.queue("first"), await sqs.queue("second")
    await first.send(bodies(10))
    await second.send(bodies(10, start=10))
    notes: list[bytes] = []
    producers = [through(faults, first, name="first"), through(faults, second, name="second")]
    async with Handled(producer=producers, context=notes):
        await first.until(ready=0, held=0)
        await second.until(ready=0, held=0)
    assert sorted(notes) == bodies(20)


# --- what keeps it from opening ---------------------------------------------------------------------------------------


async def test_a_queue_that_is_not_there_is_said(faults: SQSProxy, work: Queue) -> None:
    error = await refusal(SQSProducer("nowhere", REGION, faults.endpoint))
    assert str(error) == (
        "SQS queue 'nowhere' does not exist in this region and account; create it, or check queue_url and region"
    )
    assert type(error) is ProducerError
    error = await refusal(SQSProducer(f"{faults.endpoint}/000000000000/nowhere", REGION))
    assert str(error).startswith("SQS queue 'nowhere' does not exist")


async def test_an_endpoint_that_is_away_is_said(faults: SQSProxy, work: Queue) -> None:
    await faults.refuse()
    error = await refusal(through(faults, work))
    assert str(error) == (f"SQS queue {work.name!r}: SQS cannot be reached; check region, endpoint_url and the network")
    assert not isinstance(error, SourceRefused)


@pytest.mark.parametrize(
    ("action", "permission"),
    [("GetQueueAttributes", "GetQueueAttributes"), ("DeleteMessageBatch", "DeleteMessage")],
)
async def test_a_missing_permission_is_said_before_anything_is_received(
    faults: SQSProxy, work: Queue, action: str, permission: str
) -> None:
    faults.fail(action, DENIED)
    error = await refusal(through(faults, work))
    assert isinstance(error, SourceRefused)
    assert str(error) == (
        f"SQS queue {work.name!r}: AWS refused {permission} (AccessDeniedException); "
        f"allow sqs:{permission}, or check the credentials"
    )
    assert faults.requests("ReceiveMessage") == []


async def test_with_a_visibility_of_its_own_the_queue_need_not_be_looked_at(faults: SQSProxy, work: Queue) -> None:
    faults.fail("GetQueueAttributes", DENIED)
    await work.send(bodies(1))
    async with opened(through(faults, work, visibility_timeout=60)) as copy:
        await settle(await take(copy, 1))


async def test_missing_credentials_and_region_are_said(
    faults: SQSProxy, work: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    error = await refusal(SQSProducer(work.url, endpoint_url=faults.endpoint))
    assert str(error) == (
        f"SQS queue {work.name!r}: no AWS region is set; set region, such as eu-central-1, or AWS_REGION"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    error = await refusal(through(faults, work))
    assert isinstance(error, SourceRefused)
    assert str(error) == (
        f"SQS queue {work.name!r}: no usable AWS credentials (NoCredentialsError); "
        "set them in the environment, a profile, or the role of this machine"
    )
    error = await refusal(through(faults, work, profile="nobody"))
    assert str(error) == f"SQS queue {work.name!r}: there is no AWS profile 'nobody'; check the setting profile"


async def test_settling_after_the_end_settles_nothing(faults: SQSProxy, work: Queue) -> None:
    await work.send(bodies(2))
    async with opened(through(faults, work)) as copy:
        messages = await take(copy, 2)
    asked = len(faults.asked)
    with pytest.raises(SettleError) as error:
        await settle(messages)
    assert str(error.value) == (
        f"SQS queue {work.name!r}: 2 of 2 messages could not be settled (2: the producer was closed)"
    )
    assert len(faults.asked) == asked


async def test_a_release_shows_messages_to_others_at_once(faults: SQSProxy, work: Queue) -> None:
    await work.send(bodies(3))
    async with opened(through(faults, work)) as copy:
        await give_back(await take(copy, 3))
        await work.until(ready=3, held=0)
