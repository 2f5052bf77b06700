"""``broadway dlq`` on a real SQS."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from broadway_py.cli import app
from broadway_py.daemon.dead_letters import sqs as sqs_letters
from broadway_py.daemon.dead_letters.letters import Choice, PartlyReplayed, replay, select
from broadway_py.errors import ProducerError
from broadway_py.producers.sqs.dead_letters.letters import DEATH
from broadway_py.producers.sqs.settings.options import SQSOptions
from tests.support.daemon import ROOT
from tests.support.localstack import REGION, SQS, Queue
from tests.support.sqs_proxy import DENIED, THROTTLED, SQSProxy

pytestmark = pytest.mark.integration

CANARY = "canary-3a9e"


async def dlq(*words: str) -> Result:
    """Run the command in a thread, for it has an event loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, app, ["dlq", *words])


def death(queue: Queue, number: int, cause: str = "raised") -> dict[str, Any]:
    """What our producer writes beside a dead letter."""
    said = {
        "queue": queue.name,
        "message_id": f"m{number}",
        "attempts": number + 1,
        "cause": cause,
        "exception": "ValueError",
        "died_at": 1_764_547_200.0 + number,
        "pipeline": "shop",
    }
    return {DEATH: {"DataType": "String", "StringValue": json.dumps(said)}}


async def put(
    dead: Queue, bodies: list[str], home: Queue, cause: str = "raised", group: str | None = None
) -> list[str]:
    """Put letters as our producer does."""
    ids = []
    for number, body in enumerate(bodies):
        more: dict[str, Any] = {}
        if group is not None:
            more = {"MessageGroupId": group, "MessageDeduplicationId": f"{body}-{number}"}
        answer = await dead.client.send_message(
            QueueUrl=dead.url,
            MessageBody=body,
            MessageAttributes={
                "kind": {"DataType": "String", "StringValue": f"k{number}"},
                "raw": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
                **death(home, number, cause),
            },
            **more,
        )
        ids.append(str(answer["MessageId"]))
    return ids


async def queues(sqs: SQS, *, fifo: bool = False) -> tuple[Queue, Queue]:
    """A queue whose redrive policy names the other one."""
    dead = await sqs.queue("dead", fifo=fifo)
    found = await dead.client.get_queue_attributes(QueueUrl=dead.url, AttributeNames=["QueueArn"])
    policy = {"deadLetterTargetArn": found["Attributes"]["QueueArn"], "maxReceiveCount": 1}
    home = await sqs.queue("home", fifo=fifo, RedrivePolicy=json.dumps(policy), VisibilityTimeout="0")
    return home, dead


def settings(folder: Path, home: Queue, **producer: str) -> str:
    section = {
        "class": "tests.daemon.pipelines:Recorder",
        "producer": {"kind": "sqs", "queue_url": home.url, "region": REGION, **producer},
    }
    (folder / "a.json").write_text(json.dumps({"pipelines": {"orders": section}}))
    return str(folder / "a.json")


async def test_ls_and_show_find_the_queue_by_its_policy_and_give_everything_back(sqs: SQS) -> None:
    home, dead = await queues(sqs)
    ids = await put(dead, [f"{CANARY}-{n}" for n in range(12)], home)
    shown = await dlq("ls", "--url", home.url)
    rows = {line.split()[0]: line.split()[1:] for line in shown.stdout.splitlines()[1:]}
    assert rows == {
        one: [f"2025-12-01T00:00:{n:02}Z", str(n + 1), "raised", "ValueError", str(len(f"{CANARY}-{n}")), "B"]
        for n, one in enumerate(ids)
    }
    assert (shown.exit_code, shown.stderr) == (0, "SQS counts about 12 dead letters that nobody else looks at\n")
    await dead.until(ready=12, held=0)

    shown = await dlq("show", ids[3], "--url", home.url)
    fields = dict(re.split(r":\s+", line, maxsplit=1) for line in shown.stdout.splitlines())
    assert fields.pop("sent")
    assert int(fields.pop("received")) >= 2
    assert fields == {
        "id": ids[3],
        "cause": "raised",
        "exception": "ValueError",
        "attempts": "4",
        "died": "2025-12-01T00:00:03Z",
        "queue": home.name,
        "pipeline": "shop",
        "group": "-",
        "size": f"{len(CANARY) + 2} B",
        "attributes": '{"kind": "k3", "raw": "(2 bytes)"}',
    }
    assert CANARY not in shown.output
    bare = await dlq("show", ids[3], "--url", home.url, "--payload")
    assert (bare.exit_code, bare.stdout) == (0, f"{CANARY}-3")
    await dead.until(ready=12, held=0)


async def test_ls_of_nothing_and_with_a_limit(sqs: SQS) -> None:
    home, dead = await queues(sqs)
    shown = await dlq("ls", "--url", home.url)
    assert (shown.exit_code, shown.stdout, shown.stderr) == (
        0,
        "no dead letters\n",
        "SQS counts about 0 dead letters that nobody else looks at\n",
    )
    await put(dead, [str(n) for n in range(12)], home)
    shown = await dlq("ls", "--url", home.url, "--limit", "5", "--json")
    assert len({json.loads(line)["id"] for line in shown.stdout.splitlines()}) == 5
    await dead.until(ready=12, held=0)


async def test_letters_that_sqs_itself_has_moved_are_known_by_their_queue(sqs: SQS) -> None:
    home, dead = await queues(sqs)
    await home.send([CANARY])
    for _ in range(3):
        await home.take()
    await dead.until(ready=1, held=0)
    (letter,) = [json.loads(line) for line in (await dlq("ls", "--url", home.url, "--json")).stdout.splitlines()]
    assert (letter["cause"], letter["attempts"], letter["died"]) == (None, None, None)
    assert letter["facts"]["queue"] == home.name
    await home.set(RedrivePolicy="")
    shown = await dlq("replay", "--url", home.url, "--dead", dead.url)
    assert (shown.exit_code, shown.stdout) == (0, "1 dead letter put back into the queue\n")
    assert [one["Body"] for one in await home.take()] == [CANARY]
    await dead.until(ready=0, held=0)


async def test_replay_sends_everything_back_with_its_attributes(sqs: SQS, tmp_path: Path) -> None:
    home, dead = await queues(sqs)
    bodies = [f"body {n}" for n in range(25)]
    await put(dead, bodies, home)
    await home.set(RedrivePolicy="", VisibilityTimeout="30")
    file = settings(tmp_path, home, dead_letter_queue=dead.name, endpoint_url=sqs.endpoint)
    dry = await dlq("replay", "--config", file, "--dry-run")
    assert (dry.exit_code, dry.stdout) == (0, "25 dead letters would be put back into the queue\n")
    await dead.until(ready=25, held=0)
    shown = await dlq("replay", "--config", file)
    assert (shown.exit_code, shown.stdout) == (0, "25 dead letters put back into the queue\n")
    await dead.until(ready=0, held=0)
    found = [one for _ in range(10) for one in await home.take()]
    assert Counter(one["Body"] for one in found) == Counter(bodies)
    for one in found:
        number = one["Body"].removeprefix("body ")
        attributes = {
            name: value.get("StringValue", value.get("BinaryValue")) for name, value in one["MessageAttributes"].items()
        }
        assert attributes == {"kind": f"k{number}", "raw": b"\x00\xff"}


async def test_replay_takes_those_that_are_meant_and_shows_the_others_again(sqs: SQS) -> None:
    home, dead = await queues(sqs)
    timeouts = await put(dead, ["t0", "t1"], home, "timeout")
    raised = await put(dead, [f"r{n}" for n in range(13)], home)
    await home.set(RedrivePolicy="", VisibilityTimeout="30")
    shown = await dlq("replay", "--url", home.url, "--dead", dead.name, "--cause", "timeout")
    assert (shown.exit_code, shown.stdout) == (0, "2 dead letters put back into the queue\n")
    await dead.until(ready=13, held=0)
    shown = await dlq("replay", raised[7], raised[2], "--url", home.url, "--dead", dead.name)
    assert (shown.exit_code, shown.stdout) == (0, "2 dead letters put back into the queue\n")
    await dead.until(ready=11, held=0)
    assert sorted([one["Body"] for _ in range(4) for one in await home.take()]) == ["r2", "r7", "t0", "t1"]
    shown = await dlq("replay", raised[1], timeouts[0], "--url", home.url, "--dead", dead.name)
    assert (shown.exit_code, shown.stderr) == (
        1,
        (
            f"broadway: there is no dead letter {timeouts[0]} in queue {dead.name!r}; broadway dlq ls shows the ids; "
            "0 dead letters were put back before that\n"
        ),
    )
    await dead.until(ready=11, held=0)


async def test_fifo_letters_keep_their_group_and_order(sqs: SQS) -> None:
    home, dead = await queues(sqs, fifo=True)
    bodies = [f"b{n:02}" for n in range(23)]
    await put(dead, bodies, home, group="customer-7")
    await home.set(VisibilityTimeout="30")
    shown = await dlq("ls", "--url", home.url)
    assert shown.stderr == (
        "SQS counts about 23 dead letters that nobody else looks at; "
        "of each group of a FIFO queue it hands out at most ten at a time\n"
    )
    await dead.until(ready=23, held=0)
    shown = await dlq("replay", "--url", home.url)
    assert (shown.exit_code, shown.stdout) == (0, "23 dead letters put back into the queue\n")
    found: list[dict[str, Any]] = []
    while some := await home.take():
        found += some
        for one in some:
            await home.client.delete_message(QueueUrl=home.url, ReceiptHandle=one["ReceiptHandle"])
    assert [one["Body"] for one in found] == bodies
    assert {one["Attributes"]["MessageGroupId"] for one in found} == {"customer-7"}


async def test_a_letter_of_another_queue_goes_back_only_where_somebody_says(sqs: SQS) -> None:
    home, dead = await queues(sqs)
    other = await sqs.queue("other")
    (strange,) = await put(dead, ["x"], other)
    shown = await dlq("replay", "--url", home.url)
    assert (shown.exit_code, shown.stderr) == (
        1,
        (
            f"broadway: 1 dead letter was not put back: letter {strange} says that it failed in queue {other.name!r}, "
            "and not in that of --url or of the pipeline; name the queue to put it into with --to NAME; "
            "0 dead letters were put back before that\n"
        ),
    )
    await dead.until(ready=1, held=0)
    shown = await dlq("replay", "--url", home.url, "--to", other.url)
    assert (shown.exit_code, shown.stdout) == (0, "1 dead letter put back into the queue\n")
    await other.until(ready=1, held=0)


async def test_purge_removes_those_that_are_meant_or_all(sqs: SQS) -> None:
    home, dead = await queues(sqs)
    ids = await put(dead, [str(n) for n in range(14)], home)
    shown = await dlq("purge", ids[5], "--url", home.url, "--yes")
    assert (shown.exit_code, shown.stdout) == (0, "1 dead letter removed\n")
    await dead.until(ready=13, held=0)
    shown = await dlq("purge", "--url", home.url, "--dry-run")
    assert (shown.exit_code, shown.stdout) == (0, "about 13 dead letters would be removed\n")
    shown = await dlq("purge", "--url", home.url, "--yes")
    assert (shown.exit_code, shown.stdout) == (0, "about 13 dead letters removed\n")
    await dead.until(ready=0, held=0)


async def test_a_queue_that_names_no_other_is_told(sqs: SQS) -> None:
    home = await sqs.queue("home")
    shown = await dlq("ls", "--url", home.url)
    assert (shown.exit_code, shown.stderr) == (
        1,
        (
            f"broadway: SQS queue {home.name!r} has no redrive policy, so it does not say where its dead letters are: "
            "name the queue that holds them with --dead NAME, or dead_letter_queue in the settings\n"
        ),
    )
    await home.delete()
    shown = await dlq("ls", "--url", home.url)
    assert (shown.exit_code, shown.stderr) == (
        1,
        (
            f"broadway: SQS queue {home.name!r} does not exist in this region and account; "
            "create it, or check queue_url and region\n"
        ),
    )


# --- what breaks on the way ------------------------------------------------------------------------------------------


@pytest.fixture
async def faults(sqs: SQS) -> Any:
    async with SQSProxy(sqs.endpoint) as proxy:
        yield proxy


def options(proxy: SQSProxy, queue: Queue) -> SQSOptions:
    return SQSOptions(queue_url=queue.url, region=REGION, endpoint_url=proxy.endpoint)


async def test_a_throttled_replay_goes_on_and_repeats_nothing(sqs: SQS, faults: SQSProxy) -> None:
    home, dead = await queues(sqs)
    await put(dead, [str(n) for n in range(10)], home)
    await home.set(RedrivePolicy="", VisibilityTimeout="30")
    near = options(faults, home)
    counts: list[int] = []
    async with sqs_letters.opened(near, sqs_letters.to_look(near, dead.url), None) as letters:
        faults.fail("SendMessageBatch", THROTTLED, times=2)
        faults.fail("DeleteMessageBatch", THROTTLED, times=1)
        assert await replay(letters, Choice(), None, counts.append) == 10
    assert counts == [10]
    await home.until(ready=10, held=0)
    await dead.until(ready=0, held=0)


async def test_letters_that_are_refused_stay_and_the_others_are_counted(sqs: SQS, faults: SQSProxy) -> None:
    home, dead = await queues(sqs)
    await put(dead, [str(n) for n in range(10)], home)
    await home.set(RedrivePolicy="", VisibilityTimeout="30")
    near = options(faults, home)
    counts: list[int] = []
    faults.fail_entries("SendMessageBatch", "InvalidMessageContents", entries=3, sender_fault=True)
    with pytest.raises(PartlyReplayed) as failed:
        async with sqs_letters.opened(near, sqs_letters.to_look(near, dead.url), None) as letters:
            await replay(letters, Choice(), None, counts.append)
    assert counts == [7]
    assert re.fullmatch(
        rf"3 dead letters were not put back: SQS queue '{home.name}' did not take letter [0-9a-f-]+ \(wrong\)",
        str(failed.value),
    )
    await home.until(ready=7, held=0)
    await dead.until(ready=3, held=0)


async def test_letters_that_were_sent_and_could_not_be_removed_are_named(sqs: SQS, faults: SQSProxy) -> None:
    home, dead = await queues(sqs)
    (letter,) = await put(dead, ["x"], home)
    await home.set(RedrivePolicy="", VisibilityTimeout="30")
    near = options(faults, home)
    counts: list[int] = []
    faults.fail("DeleteMessageBatch", DENIED)
    with pytest.raises(sqs_letters.NotRemoved) as failed:
        async with sqs_letters.opened(near, sqs_letters.to_look(near, dead.url), None) as letters:
            await replay(letters, Choice(), None, counts.append)
    assert (counts, str(failed.value)) == (
        [1],
        (
            f"1 dead letter is in queue {home.name!r} now, and could not be removed from queue {dead.name!r}: SQS "
            f"queue {dead.name!r}: AWS refused DeleteMessage (AccessDeniedException); allow sqs:DeleteMessage, or "
            f"check the credentials; remove it there with broadway dlq purge {letter}"
        ),
    )
    await home.until(ready=1, held=0)
    await dead.until(ready=1, held=0)


async def test_a_cancelled_look_gives_back_what_it_has(sqs: SQS, faults: SQSProxy) -> None:
    home, dead = await queues(sqs)
    await put(dead, [str(n) for n in range(15)], home)
    near = options(faults, home)

    async def look() -> None:
        async with sqs_letters.opened(near, sqs_letters.to_look(near, dead.url), None) as letters:
            await select(letters, Choice())

    looking = asyncio.create_task(look())
    await faults.until_asked("ReceiveMessage", 2)
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    await dead.until(ready=15, held=0)


async def test_letters_that_cannot_be_given_back_are_told(sqs: SQS, faults: SQSProxy) -> None:
    home, dead = await queues(sqs)
    await put(dead, ["x"], home)
    near = options(faults, home)
    faults.fail("ChangeMessageVisibilityBatch", DENIED)
    with pytest.raises(ProducerError) as failed:
        async with sqs_letters.opened(near, sqs_letters.to_look(near, dead.url), None) as letters:
            assert len(await select(letters, Choice())) == 1
    assert str(failed.value) == (
        f"1 dead letter in queue {dead.name!r} could not be given back (SQS queue {dead.name!r}: AWS refused "
        "ChangeMessageVisibility (AccessDeniedException); allow sqs:ChangeMessageVisibility, or check the "
        "credentials); nobody sees them for up to 120 s, and then they come back by themselves"
    )


async def test_ctrl_c_in_the_middle_loses_nothing(sqs: SQS, faults: SQSProxy, tmp_path: Path) -> None:
    home, dead = await queues(sqs)
    await put(dead, [str(n) for n in range(40)], home)
    await home.set(RedrivePolicy="", VisibilityTimeout="30")
    file = settings(tmp_path, home, dead_letter_queue=dead.url, endpoint_url=faults.endpoint)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "broadway_py", "dlq", "replay", "--config", file,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    await faults.until_asked("SendMessageBatch", 2, timeout=30)
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), 40)
    assert (process.returncode, out) == (130, b"")
    told = re.fullmatch(r"broadway: interrupted; (\d+) dead letters were put back before that\n", err.decode())
    assert told is not None
    count = int(told[1])
    await home.until(ready=count, held=0)
    assert count in {10, 20, 30, 40}
