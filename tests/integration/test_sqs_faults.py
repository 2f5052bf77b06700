"""The SQS producer when SQS, the network or AWS's permissions fail: it goes on by itself, and says what is wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from broadway_py import FailurePolicy, Message, Processors
from broadway_py.errors import ProducerError, SettleError, SourceRefused
from broadway_py.producers import SQSProducer
from broadway_py.producers.sqs import session
from broadway_py.testing.driving import ask, bodies, copy_of, data, give_back, opened, settle, take
from tests.integration.sqs_support import Handled, Losses, faults, through, work
from tests.pipeline.support import check_books, logged, outcomes
from tests.support.conformance import conforms
from tests.support.eventually import eventually
from tests.support.localstack import REGION, SQS, Queue
from tests.support.sqs_proxy import DENIED, EXPIRED, INTERNAL, OVER_LIMIT, THROTTLED, Answer, SQSProxy

__all__ = ["faults", "work"]

pytestmark = [pytest.mark.integration, pytest.mark.faults]

HURRIED = FailurePolicy(attempts=2, backoff=(0.01, 0.01))


# --- receives ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [THROTTLED, OVER_LIMIT, INTERNAL], ids=["throttled", "over limit", "internal"])
async def test_a_few_failing_receives_are_tried_again_and_nothing_is_lost(
    faults: SQSProxy, work: Queue, answer: Answer
) -> None:
    losses = Losses()
    async with opened(through(faults, work), losses=losses) as copy:
        faults.fail("ReceiveMessage", answer, times=3)
        waiting = await ask(copy, 10)
        await work.send(bodies(1))
        messages = await waiting
        assert messages is not None
        await settle(messages)
        # Once per try: the client library does not try by itself, which would hide it and could block the loop.
        assert 4 <= len(faults.requests("ReceiveMessage")) <= 5
    assert losses == []


@conforms("S-005")
async def test_when_receives_go_on_failing_the_source_is_away_and_the_reason_is_said(
    faults: SQSProxy, work: Queue
) -> None:
    losses = Losses()
    async with opened(through(faults, work), losses=losses) as copy:
        faults.fail("ReceiveMessage", THROTTLED)
        with pytest.raises(ProducerError) as error:
            await take(copy, 1)
        assert str(error.value) == (
            f"SQS queue {work.name!r}: ReceiveMessage is throttled (AWS.SimpleQueueService.RequestThrottled)"
        ) or "ReceiveMessage is throttled (RequestThrottled)" in str(error.value)
        assert [str(loss) for loss in losses] == [str(error.value)]
        assert not isinstance(error.value, SourceRefused)
        assert len(faults.requests("ReceiveMessage")) == 4


async def test_a_pipeline_waits_for_an_endpoint_that_is_away_says_so_and_goes_on(faults: SQSProxy, work: Queue) -> None:
    await faults.refuse()
    await work.send(bodies(5))
    notes: list[bytes] = []
    # What an open receive takes while its connection breaks comes again when its visibility ends.
    async with Handled(producer=through(faults, work, visibility_timeout=2), context=notes) as pipeline:
        await eventually(lambda: "SQS cannot be reached" in (pipeline.stats().trouble or ""), what="it is not ready")
        await faults.accept()
        await work.until(ready=0, held=0, timeout=20)
        assert pipeline.stats().trouble is None
        await faults.refuse()
        await eventually(lambda: pipeline.stats().trouble is not None, timeout=20, what="it is not ready again")
        await work.send(bodies(5, start=5))
        await faults.accept()
        await work.until(ready=0, held=0, timeout=30)
        check_books(pipeline)
    assert sorted(notes) == bodies(10)


async def test_connections_that_break_before_sqs_hears_cost_nothing(faults: SQSProxy, work: Queue) -> None:
    await work.send(bodies(20))
    faults.cut("ReceiveMessage", times=2)
    faults.cut("DeleteMessageBatch", times=2)
    notes: list[bytes] = []
    async with Handled(producer=through(faults, work), context=notes) as pipeline:
        await work.until(ready=0, held=0, timeout=20)
        assert pipeline.stats().producers[0].connections_lost <= 1
    assert sorted(notes) == bodies(20)
    assert outcomes(pipeline) == {"acked": 20}


async def test_messages_whose_answer_was_lost_come_again_when_their_visibility_ends(
    faults: SQSProxy, work: Queue
) -> None:
    await work.send(bodies(5))
    faults.lose_receives()
    async with opened(through(faults, work, visibility_timeout=2)) as copy:
        messages = await take(copy, 5)
        assert sorted(data(messages)) == bodies(5)
        assert {message.attempt for message in messages} == {2}
        await settle(messages)
    await work.until(ready=0, held=0)


async def test_an_answer_that_comes_later_than_the_wait_is_waited_for(faults: SQSProxy, work: Queue) -> None:
    await work.send(bodies(3))
    faults.delay_receives(2.5)
    losses = Losses()
    async with opened(through(faults, work, wait_time_seconds=1), losses=losses) as copy:
        messages = await take(copy, 3)
        assert data(messages) == bodies(3)
        assert messages[0].attempt == 1
        await settle(messages)
    assert losses == []


async def test_receives_of_one_to_three_messages_empty_a_queue_all_the_same(faults: SQSProxy, work: Queue) -> None:
    await work.send(bodies(60))
    faults.receive_at_most(2)
    notes: list[bytes] = []
    async with Handled(producer=through(faults, work), context=notes):
        await work.until(ready=0, held=0, timeout=20)
    assert sorted(notes) == bodies(60)


async def test_a_queue_that_is_deleted_and_made_again_is_read_again(faults: SQSProxy, sqs: SQS, work: Queue) -> None:
    notes: list[bytes] = []
    async with Handled(producer=through(faults, work), context=notes) as pipeline:
        await work.send(bodies(1))
        await work.until(ready=0, held=0)
        await work.delete()
        await eventually(lambda: pipeline.stats().trouble is not None, what="it is not ready")
        assert pipeline.stats().trouble == (
            f"sqs: SQS queue {work.name!r} does not exist in this region and account; "
            "create it, or check queue_url and region"
        )
        # AWS lets a minute pass before a name may be used again; the proxy makes another queue stand for it.
        faults.heal()
        again = await sqs.queue("again")
        await again.send(bodies(1, start=1))
        faults.redirect(work.url, again.url)
        await again.until(ready=0, held=0, timeout=30)
        assert pipeline.stats().trouble is None
    assert sorted(notes) == bodies(2)


# --- settlements ------------------------------------------------------------------------------------------------------


async def test_entries_that_failed_are_tried_again_by_themselves(faults: SQSProxy, work: Queue) -> None:
    await work.send(bodies(10))
    async with opened(through(faults, work)) as copy:
        messages = await take(copy, 10)
        faults.fail_entries("DeleteMessageBatch", "InternalError", entries=3, times=2)
        await settle(messages)
        first, *again = [len(one.entries) for one in faults.requests("DeleteMessageBatch")[1:]]
        # Of the second request up to three fail once more. On a busy machine the entries come back one by one.
        assert (first, sum(again)) == (10, 3 + again[0])
    await work.until(ready=0, held=0)


async def test_a_receipt_that_has_expired_is_told_apart_and_not_tried_again(faults: SQSProxy, work: Queue) -> None:
    await work.send(bodies(4))
    async with opened(through(faults, work)) as copy:
        messages = await take(copy, 4)
        faults.fail_entries("DeleteMessageBatch", "ReceiptHandleIsInvalid", entries=1, sender_fault=True)
        with pytest.raises(SettleError) as error:
            await settle(messages)
        assert str(error.value) == (
            f"SQS queue {work.name!r}: 1 of 4 messages could not be settled "
            "(1: the receipt had expired, and another consumer may have the message)"
        )
        assert error.value.unsettled == [messages[0]]
        assert len(faults.requests("DeleteMessageBatch")) == 2
        await work.until(ready=0, held=1)


async def test_a_delete_that_sqs_never_takes_ends_as_unknown_and_the_others_do_not_wait_for_it(
    faults: SQSProxy, work: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    await work.send(bodies(5))
    faults.fail_entries("DeleteMessageBatch", "ServiceUnavailable", entries=1, times=None)
    notes: list[bytes] = []
    # Half of this visibility is what is left for tries; the guardian does not extend it, since the proxy refuses.
    faults.fail("ChangeMessageVisibility", THROTTLED)
    producer = through(faults, work, visibility_timeout=3)
    pipeline = Handled(producer=producer, context=notes)
    async with pipeline:
        await eventually(lambda: outcomes(pipeline).get("unknown"), timeout=15, what="one is given up")
        faults.heal()
        await work.until(ready=0, held=0, timeout=15)
        check_books(pipeline)
    assert len(notes) >= 6  # it came again, and was settled then
    reasons = [line["reason"] for line in logged(caplog) if "an acknowledger failed" in line["event"]]
    assert "(1: SQS did not confirm it in time)" in reasons[0]


async def test_a_delete_that_is_refused_stops_the_fetching_says_so_and_does_not_loop(
    faults: SQSProxy, work: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    notes: list[bytes] = []
    async with Handled(producer=through(faults, work, visibility_timeout=600), context=notes) as pipeline:
        await eventually(lambda: pipeline.stats().trouble is None, what="it is ready")
        faults.fail("DeleteMessage", DENIED)
        await work.send(bodies(1))
        await eventually(lambda: pipeline.stats().trouble is not None, what="it is not ready")
        assert pipeline.stats().trouble == (
            f"sqs: SQS queue {work.name!r}: AWS refused DeleteMessage (AccessDeniedException); "
            "allow sqs:DeleteMessage, or check the credentials"
        )
        assert outcomes(pipeline) == {"unknown": 1}
        deletes = len(faults.requests("DeleteMessage"))
        assert deletes == 2  # the question at the start, and this one
        await work.send(bodies(3, start=1))
        await work.until(ready=3, held=1)
    assert notes == bodies(1)
    (line,) = [line for line in logged(caplog) if line["event"].startswith("AWS refuses")]
    assert line["event"] == "AWS refuses to settle handled messages; fetching stops"


async def test_what_was_handed_over_before_a_loss_is_settled_after_it(faults: SQSProxy, work: Queue) -> None:
    await work.send(bodies(3))
    losses = Losses()
    copy = copy_of(through(faults, work, visibility_timeout=600), capacity=50, pipeline="contract", lost=losses.append)
    await copy.open()
    messages = await take(copy, 3)
    faults.fail("ReceiveMessage", Answer("com.amazonaws.sqs#InternalError", 500), times=4)
    with pytest.raises(ProducerError):
        await take(copy, 1)
    await copy.close()
    await work.until(ready=0, held=3)
    await settle(messages)
    await work.until(ready=0, held=0)
    async with asyncio.timeout(5):
        while copy._lost_copies._retiring:
            await asyncio.wait(copy._lost_copies._retiring)


# --- credentials ------------------------------------------------------------------------------------------------------


async def test_credentials_that_were_renewed_in_their_file_are_used_without_a_loss(
    faults: SQSProxy, work: Queue, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id=AKIAFIRST\naws_secret_access_key=one\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    await work.send(bodies(2))
    losses = Losses()
    async with opened(through(faults, work), losses=losses) as copy:
        messages = await take(copy, 2)
        assert {one.key for one in faults.asked} == {"AKIAFIRST"}
        file.write_text("[default]\naws_access_key_id=AKIASECOND\naws_secret_access_key=two\n")
        faults.take_only("AKIASECOND")
        await settle(messages)
        await work.send(bodies(1))
        await settle(await take(copy, 1))
    assert losses == []
    await work.until(ready=0, held=0)


async def test_credentials_that_stay_expired_are_said_and_waited_for(faults: SQSProxy, work: Queue) -> None:
    losses = Losses()
    async with opened(through(faults, work), losses=losses) as copy:
        faults.fail("ReceiveMessage", EXPIRED)
        with pytest.raises(SourceRefused) as error:
            await take(copy, 1)
    assert str(error.value) == (
        f"SQS queue {work.name!r}: the AWS credentials have expired (ExpiredTokenException); renew them"
    )


# --- failures of handlers ---------------------------------------------------------------------------------------------


async def test_a_failed_message_comes_again_by_visibility_and_ends_in_the_dead_letter_queue(
    faults: SQSProxy, sqs: SQS, work: Queue
) -> None:
    dead = await sqs.queue("dead")
    attributes = {f"a{number}": {"DataType": "String", "StringValue": "x"} for number in range(9)}
    await work.send(["bad apple"], MessageAttributes=attributes)
    await work.send(["good"])
    notes: list[bytes] = []
    pipeline = Handled(
        producer=through(faults, work, dead_letter_queue=dead.url), context=notes, failure=HURRIED, name="orders"
    )
    async with pipeline:
        await work.until(ready=0, held=0, timeout=20)
    assert sorted(notes) == [b"bad apple", b"bad apple", b"good"]
    assert outcomes(pipeline) == {"acked": 1, "retried": 1, "dead_lettered": 1}
    (letter,) = await dead.take()
    assert letter["Body"] == "bad apple"
    assert set(letter["MessageAttributes"]) == {*attributes, "x-broadway-death"}
    said = letter["MessageAttributes"]["x-broadway-death"]["StringValue"]
    assert f'"queue": "{work.name}"' in said
    assert '"attempts": 2, "cause": "failed", "exception": null' in said
    assert '"pipeline": "orders"' in said
    assert "it is bad" not in said  # a reason may quote the payload
    # Sent first, deleted then.
    actions = [one.action for one in faults.asked]
    assert actions.index("SendMessageBatch") < len(actions) - 1 - actions[::-1].index("DeleteMessageBatch")


async def test_a_dead_letter_that_cannot_be_sent_is_not_deleted(faults: SQSProxy, sqs: SQS, work: Queue) -> None:
    dead = await sqs.queue("dead")
    await work.send(["bad apple"])
    faults.fail("SendMessageBatch", DENIED)
    notes: list[bytes] = []
    producer = through(faults, work, dead_letter_queue=dead.url, visibility_timeout=600)
    policy = FailurePolicy(attempts=1, backoff=(0.01, 0.01))
    async with Handled(producer=producer, context=notes, failure=policy) as pipeline:
        await eventually(lambda: outcomes(pipeline) == {"unknown": 1}, what="its outcome is unknown")
        await work.until(ready=0, held=1)
    assert await dead.take() == []


async def test_a_letter_of_which_the_answer_was_lost_is_sent_again_rather_than_forgotten(
    faults: SQSProxy, sqs: SQS, work: Queue
) -> None:
    dead = await sqs.queue("dead")
    await work.send(["bad apple"])
    faults.cut("SendMessageBatch", after=True)
    notes: list[bytes] = []
    policy = FailurePolicy(attempts=1, backoff=(0.01, 0.01))
    async with Handled(producer=through(faults, work, dead_letter_queue=dead.url), context=notes, failure=policy):
        await work.until(ready=0, held=0)
        await dead.until(ready=2, held=0)


async def test_a_message_as_long_as_its_queue_allows_becomes_a_dead_letter_and_so_do_its_neighbours(
    faults: SQSProxy, sqs: SQS, work: Queue
) -> None:
    dead = await sqs.queue("dead")
    for queue in (work, dead):
        await queue.set(MaximumMessageSize="2048")
    full, nearly = "bad" + "a" * 2045, "bad" + "b" * 1945  # without room for what we add; with room for a part of it
    short = [f"bad {number}" for number in range(8)]
    await work.send([full, nearly, *short])
    policy = FailurePolicy(attempts=1)
    async with Handled(
        producer=through(faults, work, dead_letter_queue=dead.url), context=[], failure=policy
    ) as pipeline:
        await eventually(lambda: outcomes(pipeline) == {"dead_lettered": 10}, what="all are put away")
        await work.until(ready=0, held=0)
    letters: dict[str, Any] = {}
    while len(letters) < 10:
        letters |= {letter["Body"]: letter.get("MessageAttributes", {}) for letter in await dead.take()}
    assert sorted(letters) == sorted([full, nearly, *short])
    assert letters[full] == {}
    assert letters[nearly]["x-broadway-death"]["StringValue"] == '{"cause": "failed", "attempts": 1}'
    assert all('"queue": ' in letters[one]["x-broadway-death"]["StringValue"] for one in short)


async def test_a_message_that_is_longer_than_dead_letters_may_be_stays_and_the_log_says_why(
    faults: SQSProxy, sqs: SQS, work: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    dead = await sqs.queue("dead")
    await dead.set(MaximumMessageSize="1024")
    await work.send(["bad" + "a" * 2045, "bad apple"])
    producer = through(faults, work, dead_letter_queue=dead.url, visibility_timeout=600)
    async with Handled(producer=producer, context=[], failure=FailurePolicy(attempts=1)) as pipeline:
        await eventually(
            lambda: outcomes(pipeline) == {"dead_lettered": 1, "unknown": 1}, what="one is put away, one stays"
        )
        await work.until(ready=0, held=1)
    (said,) = [record.msg for record in caplog.records if "does not accept failed messages" in str(record.msg)]
    assert isinstance(said, dict)
    assert said["event"] == (
        "the dead letter queue does not accept failed messages; they stay in their queue, and come again"
    )
    assert (said["messages"], said["bytes_of_one"], said["dead_letter_queue"]) == (1, 2048, dead.name)
    assert said["what_to_do"] == "raise its MaximumMessageSize to that of the queue"
    assert (
        f"SQS queue {work.name!r}: 1 of 1 messages could not be settled (1: the dead letter queue does not accept it, "
        in (caplog.text)
    )


async def test_the_group_and_the_trace_that_a_sender_gave_travel_on_from_a_standard_queue(
    faults: SQSProxy, sqs: SQS, work: Queue
) -> None:
    dead = await sqs.queue("dead")
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793"
    await work.send(
        ["bad apple"],
        MessageGroupId="tenant-7",
        MessageSystemAttributes={"AWSTraceHeader": {"DataType": "String", "StringValue": trace}},
    )
    policy = FailurePolicy(attempts=1)
    async with Handled(producer=through(faults, work, dead_letter_queue=dead.url), context=[], failure=policy):
        await dead.until(ready=1, held=0)
    (letter,) = await dead.take()
    assert letter["Attributes"]["MessageGroupId"] == "tenant-7"
    assert letter["Attributes"]["AWSTraceHeader"] == trace


async def test_without_a_dead_letter_queue_the_redrive_policy_moves_what_fails(
    faults: SQSProxy, sqs: SQS, work: Queue
) -> None:
    dead = await sqs.queue("dead")
    arn = (await sqs.client.get_queue_attributes(QueueUrl=dead.url, AttributeNames=["QueueArn"]))["Attributes"]
    await work.set(RedrivePolicy=f'{{"deadLetterTargetArn": "{arn["QueueArn"]}", "maxReceiveCount": "2"}}')
    await work.send(["bad apple"])
    notes: list[bytes] = []
    policy = FailurePolicy(attempts=1, backoff=(0.01, 0.01))
    producer = through(faults, work, on_failure="nack")
    async with Handled(producer=producer, context=notes, failure=policy) as pipeline:
        await dead.until(ready=1, held=0)
        await work.until(ready=0, held=0)
    assert notes == [b"bad apple"] * 2
    assert outcomes(pipeline) == {"retried": 2}


# --- visibility -------------------------------------------------------------------------------------------------------


async def test_what_is_held_stays_hidden_for_longer_than_its_visibility_also_in_our_own_queues(
    faults: SQSProxy, work: Queue
) -> None:
    await work.send(bodies(15))
    async with opened(through(faults, work, visibility_timeout=2, max_polls=1)) as copy:
        # Five of the second receive are in nobody's hands yet.
        messages = await take(copy, 15)
        changes = await faults.until_asked("ChangeMessageVisibility", 8, timeout=20)
        assert (await work.counts()).ready == 0
        # In tens, and for the whole visibility.
        assert {len(one.entries) for one in changes} <= {5, 10}
        assert {entry["VisibilityTimeout"] for one in changes for entry in one.entries} == {2}
        await settle(messages)
        extended = len(faults.requests("ChangeMessageVisibility"))
    await work.until(ready=0, held=0)
    assert len(faults.requests("ChangeMessageVisibility")) == extended


async def test_an_extension_that_fails_is_tried_again_in_time(faults: SQSProxy, work: Queue) -> None:
    await work.send(bodies(2))
    faults.fail("ChangeMessageVisibility", THROTTLED, times=1)
    faults.cut("ChangeMessageVisibility", times=1)
    async with opened(through(faults, work, visibility_timeout=6)) as copy:
        messages = await take(copy, 2)
        await faults.until_asked("ChangeMessageVisibility", 3, timeout=20)
        await eventually(
            lambda: min(m.acknowledgement.data.visible_until for m in messages) > asyncio.get_running_loop().time() + 4,
            what="both are hidden for longer",
        )
        await settle(messages)
    await work.until(ready=0, held=0)


async def test_what_is_given_back_while_an_extension_is_under_way_is_shown_at_once(
    faults: SQSProxy, work: Queue
) -> None:
    await work.send(bodies(2))
    async with opened(through(faults, work, visibility_timeout=4)) as copy:
        messages = await take(copy, 2)
        gate = faults.hold("ChangeMessageVisibility", times=1)
        await faults.until_asked("ChangeMessageVisibility", 1)
        giving_back = asyncio.create_task(give_back(messages[:1]))
        # The way there and back of a delete: what wanted to overtake the extension has done so by then.
        await settle(messages[1:])
        assert not giving_back.done()
        gate.set()
        await giving_back
        asked = [[entry["VisibilityTimeout"] for entry in one.entries] for one in faults.requests("ChangeMessage")]
        assert asked == [[4, 4], [0]]
        await work.until(ready=1, held=0, timeout=2)


async def test_what_others_have_got_meanwhile_is_extended_no_more(
    faults: SQSProxy, work: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    await work.send(bodies(1))
    faults.fail_entries("ChangeMessageVisibility", "ReceiptHandleIsInvalid", sender_fault=True, times=None)
    async with opened(through(faults, work, visibility_timeout=2)) as copy:
        messages = await take(copy, 1)
        await faults.until_asked("ChangeMessageVisibility", 1)
        await eventually(lambda: not messages[0].acknowledgement.data.guarded, what="it is given up")
        assert "the visibility of a message could not be extended; the message may be handled twice" in caplog.text
        assert len(faults.requests("ChangeMessageVisibility")) == 1
        faults.heal()
        await settle(messages)


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_a_receive_that_never_ends_is_cut_off_at_the_end_and_said(
    faults: SQSProxy, work: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    gate = faults.hold("ReceiveMessage")
    copy = copy_of(through(faults, work), capacity=50, pipeline="contract")
    await copy.open()
    waiting = await ask(copy, 10)
    await faults.until_asked("ReceiveMessage", 1)
    copy.context.begin_draining()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):  # as the deadline of a stop does
            await copy.prepare_for_draining()
    assert await waiting == []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await copy.close()
    gate.set()
    assert "receives were cancelled at the end of the stop" in caplog.text


async def test_after_a_loss_a_stop_does_not_wait_for_a_receive_that_nobody_answers(
    faults: SQSProxy, work: Queue, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LAST_POLLS_S", 0.2)
    await work.send(bodies(1))
    copy = copy_of(through(faults, work), capacity=50, pipeline="contract")
    await copy.open()
    messages = await take(copy, 1)
    gate = faults.hold("ReceiveMessage")
    waiting = await ask(copy, 10)
    await faults.until_asked("ReceiveMessage", 2)
    faults.fail("DeleteMessageBatch", DENIED)
    with pytest.raises(SettleError):
        await settle(messages)
    with pytest.raises(ProducerError):
        await waiting
    copy.context.begin_draining()
    async with asyncio.timeout(3):
        await copy.close()
    gate.set()
    assert "receives were cancelled at the end of the stop" in caplog.text


async def test_a_stop_with_work_in_hand_waits_for_the_open_receive_when_the_work_is_done(
    faults: SQSProxy, work: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    begun, done = asyncio.Event(), asyncio.Event()

    class Slow(Handled):
        async def handle_message(self, message: Message[bytes]) -> None:
            begun.set()
            await done.wait()

    await work.send(["first"])
    pipeline = Slow(producer=through(faults, work), context=[], processors=Processors(concurrency=2, max_demand=10))
    async with pipeline:
        await begun.wait()
        gate = faults.hold("ReceiveMessage")
        asked = len(faults.requests("ReceiveMessage"))
        await faults.until_asked("ReceiveMessage", asked + 1)
        stopping = asyncio.create_task(pipeline.stop())
        await eventually(lambda: pipeline.phase == "draining", what="the stop has begun")
        done.set()
        await eventually(lambda: "the stop waits for the open receive" in caplog.text, what="it waits")
        assert outcomes(pipeline) == {"acked": 1}
        await work.send(["second"])
        gate.set()
        await stopping
    assert "cancelled at the end of the stop" not in caplog.text
    # What the open receive brought was shown to others at once.
    await work.until(ready=1, held=0)


async def test_no_request_shows_a_secret_in_logs_even_at_debug(
    faults: SQSProxy, work: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    await work.send(["canary-payload"])
    async with opened(SQSProducer(work.url, REGION, faults.endpoint, wait_time_seconds=1)) as copy:
        messages = await take(copy, 1)
        faults.fail("DeleteMessage", THROTTLED, times=1)
        await settle(messages)
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name != "botocore.hooks")
    assert "canary" not in ours
    assert messages[0].metadata["receipt_handle"] not in ours


async def test_many_processors_share_their_deletes(faults: SQSProxy, work: Queue) -> None:
    await work.send(bodies(200))
    notes: list[bytes] = []
    processors = Processors(concurrency=20, max_demand=10)
    async with Handled(producer=through(faults, work), context=notes, processors=processors):
        await work.until(ready=0, held=0, timeout=20)
    deletes = [len(one.entries) for one in faults.requests("DeleteMessageBatch")[1:]]
    assert sum(deletes) == 200
    # How full they are under load is the benchmark's to say; here a crowded machine must not matter.
    assert 20 <= len(deletes) <= 40
