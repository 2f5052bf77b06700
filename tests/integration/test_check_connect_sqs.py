"""``broadway check --connect`` on a real SQS: each planted trouble has its sentence, and no message is touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.sqs_support import faults
from tests.support.connect_check import Said, connect_check, settings_file
from tests.support.localstack import CREDENTIALS, REGION, SQS, Counts, Queue
from tests.support.ports import free_port
from tests.support.sqs_proxy import DENIED, TOO_OLD, UNKNOWN_KEY, SQSProxy

pytestmark = pytest.mark.integration

__all__ = ["faults"]

PLACE = "pipelines.orders.producer"
SECRET = CREDENTIALS["AWS_SECRET_ACCESS_KEY"]


@pytest.fixture
async def work(sqs: SQS) -> Queue:
    """The queue of the test, from which SQS moves what fails to another one."""
    graveyard = await sqs.queue("graveyard")
    policy = {"deadLetterTargetArn": f"arn:aws:sqs:{REGION}:000000000000:{graveyard.name}", "maxReceiveCount": 9}
    return await sqs.queue("work", RedrivePolicy=json.dumps(policy))


async def said(
    folder: Path,
    queue: Queue,
    *options: str,
    endpoint: str | None = None,
    more: dict[str, Any] | None = None,
    **source: Any,
) -> Said:
    """What the command says of a pipeline that reads *queue*, by way of *endpoint*."""
    where = {} if endpoint is None else {"endpoint_url": endpoint}
    producer = {"kind": "sqs", "queue_url": queue.url, "region": REGION, **where, **source}
    return await connect_check(settings_file(folder, producer, **(more or {})), *options)


def assert_alone(found: Said, sentence: str, *, code: int = 2) -> None:
    """This is the only thing that is not right."""
    assert found.wrong == [f"broadway: {sentence}"]
    assert found.code == code
    assert not any(SECRET in line for line in [*found.right, *found.wrong])


async def test_what_is_right_has_a_line_each_and_no_message_is_touched(
    sqs: SQS, work: Queue, faults: SQSProxy, tmp_path: Path
) -> None:
    dead = await sqs.queue("dead")
    out = await sqs.queue("out", fifo=True)
    await work.send([b"1", b"2"])

    found = await said(
        tmp_path,
        work,
        endpoint=faults.endpoint,
        dead_letter_queue=dead.name,
        more={"publishers": {"out": {"kind": "sqs", "queue_url": out.url, "region": REGION}}},
    )

    empty = "0 messages ready, 0 in flight, visibility timeout 30 s"
    assert (found.code, found.wrong) == (0, [])
    assert [line for line in found.right if "graveyard" not in line] == [
        f"{PLACE}: SQS queue {work.name!r} is there: 2 messages ready, 0 in flight, visibility timeout 30 s",
        f"{PLACE}: SQS queue {work.name!r}: these credentials may receive, delete and hide messages",
        f"{PLACE}: SQS queue {dead.name!r} is there: {empty}",
        f"{PLACE}: SQS queue {dead.name!r}: these credentials may send messages",
        f"pipelines.orders.publishers.out: SQS queue {out.name!r} is there: {empty}",
        f"pipelines.orders.publishers.out: SQS queue {out.name!r}: these credentials may send messages",
        "ok: 1 pipeline: orders",
    ]
    assert faults.requests("SendMessage")
    assert faults.requests("ReceiveMessage")
    assert [await one.counts() for one in (work, dead, out)] == [Counts(2, 0), Counts(0, 0), Counts(0, 0)]
    assert [one["Attributes"]["ApproximateReceiveCount"] for one in await work.take()] == ["1", "1"]


async def test_a_queue_that_is_missing(sqs: SQS, work: Queue, tmp_path: Path) -> None:
    await work.delete()
    assert_alone(
        await said(tmp_path, work),
        f"a.yaml:6: {PLACE}.queue_url: SQS queue {work.name!r} does not exist in this region and account; create it, "
        "or check queue_url and region",
    )


async def test_a_wrong_region(sqs: SQS, work: Queue, tmp_path: Path) -> None:
    producer = {"kind": "sqs", "queue_url": work.name, "region": "us-west-2", "endpoint_url": sqs.endpoint}
    assert_alone(
        await connect_check(settings_file(tmp_path, producer)),
        f"a.yaml:6: {PLACE}.queue_url: SQS queue {work.name!r} does not exist in this region and account; create it, "
        "or check queue_url and region",
    )


async def test_no_region(sqs: SQS, work: Queue, tmp_path: Path) -> None:
    producer = {"kind": "sqs", "queue_url": work.name, "endpoint_url": sqs.endpoint}
    found = await connect_check(
        settings_file(tmp_path, producer), environ={"AWS_REGION": None, "AWS_DEFAULT_REGION": None}
    )
    assert_alone(
        found,
        f"a.yaml:4: {PLACE}: SQS queue {work.name!r}: no AWS region is set; set region, such as eu-central-1, or "
        "AWS_REGION",
    )


async def test_an_endpoint_where_nobody_listens(work: Queue, tmp_path: Path) -> None:
    assert_alone(
        await said(tmp_path, work, endpoint=f"http://127.0.0.1:{free_port()}"),
        f"a.yaml:8: {PLACE}.endpoint_url: SQS queue {work.name!r}: SQS cannot be reached; check region, endpoint_url "
        "and the network",
        code=1,
    )


async def test_an_endpoint_that_does_not_answer(work: Queue, faults: SQSProxy, tmp_path: Path) -> None:
    gate = faults.hold("GetQueueAttributes")
    found = await said(tmp_path, work, "--timeout", "0.5", endpoint=faults.endpoint)
    gate.set()
    assert_alone(
        found,
        f"a.yaml:8: {PLACE}.endpoint_url: SQS queue {work.name!r}: no answer to GetQueueAttributes in time; check the "
        "network",
        code=1,
    )


# --- credentials and permissions --------------------------------------------------------------------------------------


async def test_credentials_that_are_missing(work: Queue, tmp_path: Path) -> None:
    producer = {"kind": "sqs", "queue_url": work.url, "region": REGION}
    found = await connect_check(
        settings_file(tmp_path, producer), environ={"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}
    )
    assert_alone(
        found,
        f"a.yaml:4: {PLACE}: SQS queue {work.name!r}: no usable AWS credentials (NoCredentialsError); set them in the "
        "environment, a profile, or the role of this machine",
    )


async def test_credentials_that_aws_does_not_know(work: Queue, faults: SQSProxy, tmp_path: Path) -> None:
    faults.fail("", UNKNOWN_KEY)
    assert_alone(
        await said(tmp_path, work, endpoint=faults.endpoint),
        f"a.yaml:4: {PLACE}: SQS queue {work.name!r}: AWS refused GetQueueAttributes (UnrecognizedClientException); "
        "allow sqs:GetQueueAttributes, or check the credentials",
    )


@pytest.mark.parametrize("request_name", ["ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility"])
async def test_no_permission_to_read(work: Queue, faults: SQSProxy, tmp_path: Path, request_name: str) -> None:
    faults.fail(request_name, DENIED)
    assert_alone(
        await said(tmp_path, work, endpoint=faults.endpoint),
        f"a.yaml:4: {PLACE}: SQS queue {work.name!r}: AWS refused {request_name} (AccessDeniedException); allow "
        f"sqs:{request_name}, or check the credentials",
    )


async def test_no_permission_for_the_entries_of_a_batch(work: Queue, faults: SQSProxy, tmp_path: Path) -> None:
    faults.fail_entries("DeleteMessage", "AccessDenied", sender_fault=True)
    assert_alone(
        await said(tmp_path, work, endpoint=faults.endpoint),
        f"a.yaml:4: {PLACE}: SQS queue {work.name!r}: AWS refused DeleteMessage; allow sqs:DeleteMessage, or check the "
        "credentials",
    )


async def test_no_permission_to_send_dead_letters_and_to_a_sink(
    sqs: SQS, work: Queue, faults: SQSProxy, tmp_path: Path
) -> None:
    dead, out = await sqs.queue("dead"), await sqs.queue("out")
    faults.fail("SendMessage", DENIED)
    sink = {"kind": "sqs", "queue_url": out.url, "region": REGION, "endpoint_url": faults.endpoint}
    found = await said(
        tmp_path, work, endpoint=faults.endpoint, dead_letter_queue=dead.name, more={"publishers": {"out": sink}}
    )
    refusal = "AWS refused SendMessage (AccessDeniedException); allow sqs:SendMessage, or check the credentials"
    assert found.code == 2
    assert found.wrong == [
        f"broadway: a.yaml:4: {PLACE}: SQS queue {dead.name!r}: {refusal}",
        f"broadway: a.yaml:11: pipelines.orders.publishers.out: SQS queue {out.name!r}: {refusal}",
    ]


# --- dead letters and the clock ---------------------------------------------------------------------------------------


async def test_a_queue_for_dead_letters_that_is_missing(work: Queue, tmp_path: Path) -> None:
    assert_alone(
        await said(tmp_path, work, dead_letter_queue="no-such-queue"),
        f"a.yaml:8: {PLACE}.dead_letter_queue: SQS queue 'no-such-queue' does not exist in this region and account; "
        "create it, or check queue_url and region",
    )


async def test_the_target_of_the_redrive_policy(sqs: SQS, work: Queue, tmp_path: Path) -> None:
    dead = await sqs.queue("dead")
    policy = {"deadLetterTargetArn": f"arn:aws:sqs:{REGION}:000000000000:{dead.name}", "maxReceiveCount": 5}
    await work.set(RedrivePolicy=json.dumps(policy))
    found = await said(tmp_path, work)
    moved = f"SQS queue {work.name!r}: after 5 receives SQS moves a message to {dead.name!r}"
    assert (found.code, found.wrong) == (0, [])
    assert f"{PLACE}: {moved}, which is there" in found.right

    await dead.delete()
    assert_alone(
        await said(tmp_path, work),
        f"a.yaml:6: {PLACE}.queue_url: {moved}, but there is no such queue; create it, or correct the redrive policy",
    )


async def test_dead_letters_without_a_place(sqs: SQS, tmp_path: Path) -> None:
    work = await sqs.queue("alone")
    assert_alone(
        await said(tmp_path, work, more={"failure": {"attempts": 3}}),
        f"a.yaml:4: {PLACE}: SQS queue {work.name!r} has no redrive policy and dead_letter_queue is not set: a failed "
        "message comes again until its retention period ends",
        code=0,
    )


@pytest.mark.parametrize(("off_s", "side"), [(600.0, "behind"), (-600.0, "ahead of")])
async def test_a_clock_that_is_off_by_ten_minutes(
    work: Queue, faults: SQSProxy, tmp_path: Path, *, off_s: float, side: str
) -> None:
    faults.set_clock(off_s=off_s)
    sentence = (
        f"broadway: a.yaml:4: {PLACE}: SQS queue {work.name!r}: the clock of this machine is 0:10:00 {side} that of "
        "SQS, and AWS refuses requests when they differ by some minutes; set the clock of this machine"
    )
    near = {sentence, sentence.replace("0:10:00", "0:10:01"), sentence.replace("0:10:00", "0:09:59")}
    found = await said(tmp_path, work, endpoint=faults.endpoint)
    assert (found.code, len(found.wrong)) == (2, 1)
    assert found.wrong[0] in near

    # AWS refuses the signature then. The credentials are not blamed for it.
    faults.fail("", TOO_OLD)
    found = await said(tmp_path, work, endpoint=faults.endpoint)
    assert (found.code, len(found.wrong)) == (2, 1)
    assert found.wrong[0] in near
