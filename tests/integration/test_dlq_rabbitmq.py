"""``broadway dlq`` on a real RabbitMQ."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from broadway_py import FailurePolicy
from broadway_py.cli import app
from tests.integration.failing_pipelines import Failing, dead_letters, raising, source
from tests.integration.gated_pipelines import at_work
from tests.integration.test_rabbitmq_malformed import LATIN_HEADER, LATIN_ID, publish
from tests.support.rabbitmq import RabbitMQ
from tests.support.rabbitmq_node import PASSWORD

pytestmark = [pytest.mark.integration, pytest.mark.any_broker]


async def dlq(*words: str) -> Result:
    """Run the command in a thread, for it has an event loop of its own."""
    result = await asyncio.to_thread(CliRunner().invoke, app, ["dlq", *words])
    logins = [word.rpartition("@")[0] for word in words if "@" in word]
    assert not any(secret in result.output for secret in (PASSWORD, *logins))
    return result


@pytest.fixture
async def broker(rabbitmq: RabbitMQ) -> RabbitMQ:
    """Three dead letters of the queue ``work``."""
    await rabbitmq.declare()
    pipeline = Failing(
        producer=source(rabbitmq, prefetch_count=1),
        context=raising(ValueError()),
        failure=FailurePolicy(attempts=1, breaker=None),
        processors=Failing.processors.model_copy(update={"concurrency": 1}),
    )
    async with at_work(pipeline, rabbitmq):
        await pipeline.ready(10)
        for number in (1, 2, 3):
            await rabbitmq.publish([b"payload %d" % number], message_id=f"m{number}", headers={"n": number})
            await rabbitmq.until_ready(number, "work.dead")
    return rabbitmq


def settings_file(folder: Path, broker: RabbitMQ, **producer: object) -> Path:
    """Of one pipeline, ``orders``."""
    section = {
        "class": "tests.integration.failing_pipelines:Failing",
        "producer": {"kind": "rabbitmq", "queue": "work", "url": broker.url, **producer},
    }
    path = folder / "settings.json"
    path.write_text(json.dumps({"pipelines": {"orders": section}}))
    return path


async def ids(broker: RabbitMQ) -> list[str]:
    listed = await dlq("ls", "--url", broker.url, "--queue", "work")
    assert listed.exit_code == 0, listed.output
    return [line.split()[0] for line in listed.stdout.splitlines()[1:]]


async def test_ls_lists_them_in_order_and_leaves_them_where_they_are(broker: RabbitMQ) -> None:
    listed = await dlq("ls", "--url", broker.url, "--queue", "work")

    head, *lines = listed.stdout.splitlines()
    assert head.split() == ["id", "died", "attempts", "cause", "exception", "size"]
    assert [line.split()[2:] for line in lines] == [["1", "raised", "ValueError", "9", "B"]] * 3
    assert "payload" not in listed.stdout
    await broker.until_ready(3, "work.dead")
    assert await ids(broker) == [line.split()[0] for line in lines]
    assert [letter.body for letter in await dead_letters(broker)] == [b"payload 1", b"payload 2", b"payload 3"]


async def test_show_tells_where_it_came_from_and_the_payload_only_when_asked(broker: RabbitMQ) -> None:
    number = (await ids(broker))[1]
    shown = await dlq("show", number, "--url", broker.url, "--queue", "work")
    facts = dict(line.split(":", 1) for line in shown.stdout.splitlines())
    assert {name: facts[name].strip() for name in ("cause", "queue", "routing-key", "message-id", "pipeline")} == {
        "cause": "raised",
        "queue": "work",
        "routing-key": "work",
        "message-id": "m2",
        "pipeline": "Failing",
    }
    assert "payload" not in shown.stdout
    assert (await dlq("show", number, "--url", broker.url, "--queue", "work", "--payload")).stdout == "payload 2"


async def test_replay_puts_the_chosen_ones_back_as_if_new(broker: RabbitMQ) -> None:
    number = (await ids(broker))[1]
    would = await dlq("replay", "--url", broker.url, "--queue", "work", "--dry-run")
    assert would.stdout == "3 dead letters would be put back into the queue\n"
    assert await broker.ready("work.dead") == 3

    done = await dlq("replay", number, "--url", broker.url, "--queue", "work", "--rate", "100/s")

    assert (done.exit_code, done.stdout) == (0, "1 dead letter put back into the queue\n")
    await broker.until_ready(2, "work.dead")
    await broker.until_ready(1)
    (message,) = await dead_letters(broker, "work")
    assert (message.body, message.message_id, dict(message.headers)) == (b"payload 2", "m2", {"n": 2})


async def test_a_replay_to_a_queue_that_is_gone_leaves_them_where_they_are(broker: RabbitMQ) -> None:
    await broker.delete_queue()
    done = await dlq("replay", "--url", broker.url, "--queue", "work")
    assert done.exit_code == 1
    assert "there is no queue 'work' on" in done.stderr
    await broker.until_ready(3, "work.dead")


async def test_purge_removes_the_chosen_ones(broker: RabbitMQ) -> None:
    number = (await ids(broker))[0]
    done = await dlq("purge", number, "--url", broker.url, "--queue", "work", "--yes")
    assert done.stdout == "1 dead letter removed\n"
    await broker.until_ready(2, "work.dead")


async def test_the_settings_of_a_pipeline_say_where_its_dead_letters_are(broker: RabbitMQ, tmp_path: Path) -> None:
    listed = await dlq("ls", "--config", str(settings_file(tmp_path, broker)))
    assert len(listed.stdout.splitlines()) == 4


async def test_what_the_broker_itself_has_dead_lettered_is_listed_and_replayed_too(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare_with_dead_letters()
    await rabbitmq.publish([b"one", b"two"], message_id="same")
    queue = await rabbitmq.channel.get_queue("work")
    for _ in range(2):
        await (await queue.get()).reject()
    await rabbitmq.until_ready(2, "work.dead")
    assert await ids(rabbitmq) == ["same", "same~2"]
    done = await dlq("replay", "--url", rabbitmq.url, "--queue", "work")
    assert done.stdout == "2 dead letters put back into the queue\n"
    await rabbitmq.until_ready(2)


async def test_wrong_places_are_told_in_a_sentence(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare("alive")
    for command in (("ls",), ("purge", "--yes")):
        missing = await dlq(*command, "--url", rabbitmq.url, "--queue", "alive")
        assert missing.exit_code == 1
        assert missing.stderr == (
            f"broadway: there is no queue 'alive.dead' on {rabbitmq.where}: either no message has become a dead letter "
            "yet, or the dead letters are in another queue; name that queue with --dead NAME\n"
        )
    wrong = await dlq("ls", "--url", "ftp://h/", "--queue", "q")
    assert (wrong.exit_code, wrong.stderr) == (
        2,
        "broadway: --url: expected amqp://user:password@host:port/vhost, or the same with amqps://\n",
    )
    assert (await dlq("ls")).stderr == (
        "broadway: dlq: name the queue with --queue FILE:NAME, or a pipeline with --config FILE\n"
    )


async def test_a_letter_with_a_header_that_is_no_text_is_replayed_with_the_others_and_once(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await rabbitmq.declare("work.dead")
    await rabbitmq.publish([b"good 1", b"good 2"], queue="work.dead")
    await publish(rabbitmq, b"latin", LATIN_HEADER, "work.dead")
    await rabbitmq.publish([b"good 3"], queue="work.dead")

    done = await dlq("replay", "--url", rabbitmq.url, "--queue", "work")

    assert (done.exit_code, done.stdout) == (0, "4 dead letters put back into the queue\n")
    await rabbitmq.until_ready(0, "work.dead")
    back = {message.body: message.headers for message in await dead_letters(rabbitmq, "work")}
    assert back == {b"good 1": {}, b"good 2": {}, b"latin": {"a": b"caf\xe9"}, b"good 3": {}}


async def test_what_was_put_back_is_counted_when_others_were_not(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    await rabbitmq.declare()
    await rabbitmq.declare("graveyard")
    await rabbitmq.publish([b"one", b"two"], queue="graveyard", headers={"x-broadway-queue": "work"})
    await rabbitmq.publish([b"lost"], queue="graveyard", headers={"x-broadway-queue": "gone"})

    path = settings_file(tmp_path, rabbitmq, queue=["work", "gone"])
    done = await dlq("replay", "--config", str(path), "--dead", "graveyard")

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == (
        f"broadway: 1 dead letter was not put back: there is no queue 'gone' on {rabbitmq.where}; "
        "2 dead letters were put back before that\n"
    )
    await rabbitmq.until_ready(1, "graveyard")
    await rabbitmq.until_ready(2)


@pytest.fixture
async def with_an_odd_one(rabbitmq: RabbitMQ) -> RabbitMQ:
    """Three dead letters, one of them with an id in Latin-1."""
    await rabbitmq.declare()
    await rabbitmq.declare("work.dead")
    await rabbitmq.publish([b"one"], queue="work.dead", message_id="m1")
    await publish(rabbitmq, b"odd", LATIN_ID, "work.dead")
    await rabbitmq.publish([b"three"], queue="work.dead", message_id="m3")
    return rabbitmq


async def test_a_letter_whose_properties_do_not_decode_is_looked_after_like_any_other(
    with_an_odd_one: RabbitMQ,
) -> None:
    at = ("--url", with_an_odd_one.url, "--queue", "work")
    assert await ids(with_an_odd_one) == ["m1", "letter", "m3"]
    shown = await dlq("show", "letter", *at)
    facts = dict(line.split(":", 1) for line in shown.stdout.splitlines())
    assert (facts["message-id"].strip(), facts["size"].strip()) == ("-", "3 B")
    assert (await dlq("show", "letter", "--payload", *at)).stdout == "odd"

    done = await dlq("replay", "letter", *at)

    assert (done.exit_code, done.stdout) == (0, "1 dead letter put back into the queue\n")
    (message,) = await dead_letters(with_an_odd_one, "work")
    # What decodes of its properties is still there.
    assert (message.body, message.type) == (b"odd", "order")
    assert (await dlq("purge", "m3", "--yes", *at)).stdout == "1 dead letter removed\n"
    assert await ids(with_an_odd_one) == ["m1"]


async def test_where_it_cannot_be_read_it_is_said_which_one_and_what_to_do(
    with_an_odd_one: RabbitMQ, tmp_path: Path
) -> None:
    path = settings_file(tmp_path, with_an_odd_one, delivery_path="plain")
    listed = await dlq("ls", "--config", str(path))
    assert (listed.exit_code, listed.stdout) == (1, "")
    assert listed.stderr.splitlines()[-1] == (
        "broadway: the properties of dead letter 2 of 3 in queue 'work.dead' cannot be decoded, and delivery_path: "
        "plain cannot skip it; set delivery_path: auto, or remove all dead letters unread with broadway dlq purge --yes"
    )
    await with_an_odd_one.until_ready(3, "work.dead")
    done = await dlq("purge", "--yes", "--config", str(path))
    assert (done.exit_code, done.stdout) == (0, "3 dead letters removed\n")
    await with_an_odd_one.until_ready(0, "work.dead")


async def test_what_publishers_wrote_does_nothing_to_the_terminal(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare()
    await rabbitmq.declare("work.dead")
    headers = {"x-broadway-cause": "\x1b[2Jzap", "x-broadway-exception": "E\u202e", "x-broadway-x\ry": "a\nid: 7"}
    await rabbitmq.publish([b"1"], queue="work.dead", message_id="m\x1b]0;title\x07\nrow", headers=headers)
    at = ("--url", rabbitmq.url, "--queue", "work")

    listed = await dlq("ls", *at)

    assert listed.stdout.splitlines()[1].split() == [
        *(r"m\x1b]0;title\x07\nrow", "-", "-", r"\x1b[2Jzap", r"E\u202e", "1", "B")
    ]
    assert len(listed.stdout.splitlines()) == 2
    # It is typed as it is shown.
    shown = await dlq("show", r"m\x1b]0;title\x07\nrow", *at)
    facts = [tuple(line.split(":", 1)) for line in shown.stdout.splitlines()]
    assert {name: value.strip() for name, value in facts} == {
        "id": r"m\x1b]0;title\x07\nrow",
        "cause": r"\x1b[2Jzap",
        "exception": r"E\u202e",
        "attempts": "-",
        "died": "-",
        r"x\ry": r"a\nid: 7",
        "message-id": r"m\x1b]0;title\x07\nrow",
        "size": "1 B",
    }


async def test_what_the_broker_keeps_after_retries_goes_back_to_the_queue_it_failed_in(rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare_with_dead_letters()
    pipeline = Failing(
        producer=source(rabbitmq),
        context=raising(ValueError()),
        failure=FailurePolicy(attempts=2, backoff=(0.1, 0.2), breaker=None, dead_letter="broker"),
    )
    async with at_work(pipeline, rabbitmq):
        await pipeline.ready(10)
        await rabbitmq.publish([b"one"], message_id="m1", headers={"n": 1})
        await rabbitmq.until_ready(1, "work.dead")
    at = ("--url", rabbitmq.url, "--queue", "work")

    listed = await dlq("ls", *at)
    assert [line.split() for line in listed.stdout.splitlines()[1:]] == [["m1", "-", "2", "rejected", "-", "3", "B"]]
    # As an operator does when nobody uses them any more.
    for waiting in ("work.retry.125.q2", "work.retry.250.q2"):
        await rabbitmq.delete_queue(waiting)
    done = await dlq("replay", *at)

    assert (done.exit_code, done.stdout) == (0, "1 dead letter put back into the queue\n")
    (message,) = await dead_letters(rabbitmq, "work")
    assert (message.body, message.message_id, dict(message.headers)) == (b"one", "m1", {"n": 1})


async def test_a_server_named_queue_has_its_dead_letters_by_the_name_of_the_pipeline(
    rabbitmq: RabbitMQ, tmp_path: Path
) -> None:
    await rabbitmq.declare("orders.dead")
    await rabbitmq.publish([b"one"], queue="orders.dead", message_id="m1")
    path = settings_file(tmp_path, rabbitmq, queue="", declare="active")
    listed = await dlq("ls", "--config", str(path))
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["id", "m1"]
    done = await dlq("replay", "--config", str(path))
    assert done.stderr == (
        "broadway: 1 dead letter was not put back: letter m1 does not say which queue it failed in; name "
        "the queue to put "
        "it into with --to NAME; 0 dead letters were put back before that\n"
    )


async def test_any_queue_can_be_named_as_the_one_that_keeps_them(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    await rabbitmq.declare()
    await rabbitmq.declare("graveyard")
    await rabbitmq.publish([b"one"], queue="graveyard", message_id="m1")
    await rabbitmq.publish([b"two"], queue="graveyard", message_id="m2", headers={"x-broadway-queue": "work"})
    for words in (
        ("--url", rabbitmq.url),
        ("--url", rabbitmq.url, "--queue", "work"),
        ("--config", str(settings_file(tmp_path, rabbitmq))),
    ):
        listed = await dlq("ls", "--dead", "graveyard", *words)
        assert [line.split()[0] for line in listed.stdout.splitlines()] == ["id", "m1", "m2"]

    # Nobody but the letters says where they failed.
    done = await dlq("replay", "--dead", "graveyard", "--url", rabbitmq.url)
    assert done.stderr == (
        "broadway: 2 dead letters were not put back: letter m1 does not say which queue it failed in; "
        "name the queue to "
        "put it into with --to NAME; 0 dead letters were put back before that\n"
    )
    done = await dlq("replay", "--dead", "graveyard", "--url", rabbitmq.url, "--queue", "work")
    assert done.stdout == "2 dead letters put back into the queue\n"
    assert [message.body for message in await dead_letters(rabbitmq, "work")] == [b"one", b"two"]


@pytest.mark.parametrize("said", [{"x-broadway-queue": "payroll"}, {"x-first-death-queue": "payroll"}])
async def test_a_letter_goes_to_no_queue_that_only_its_headers_name(
    rabbitmq: RabbitMQ, tmp_path: Path, said: dict[str, Any]
) -> None:
    await rabbitmq.declare()
    for queue in ("payroll", "graveyard", "work.dead"):
        await rabbitmq.declare(queue)
    forged = {**said, "x-broadway-exchange": "amq.fanout", "x-broadway-routing-key": "payroll"}
    for kept_in in ("graveyard", "work.dead"):
        await rabbitmq.publish([b"x"], queue=kept_in, message_id="m1", headers=forged)
    refused = (
        "broadway: 1 dead letter was not put back: letter m1 says that it failed in queue 'payroll', but a publisher "
        "can forge that, and it is neither a queue of the pipeline nor that of --queue; name the queue to put it into "
        "with --to NAME; 0 dead letters were put back before that\n"
    )
    url, config = ("--url", rabbitmq.url), ("--config", str(settings_file(tmp_path, rabbitmq)))
    for words in (url, (*url, "--queue", "work"), config, (*config, "--queue", "work")):
        done = await dlq("replay", "--dead", "graveyard", *words)
        assert (done.exit_code, done.stderr) == (1, refused), words
    # What is kept in the queue's own place belongs to it, whatever it says.
    done = await dlq("replay", *url, "--queue", "work")
    assert done.stdout == "1 dead letter put back into the queue\n"
    # Somebody else knows better.
    done = await dlq("replay", *url, "--dead", "graveyard", "--to", "work")
    assert done.stdout == "1 dead letter put back into the queue\n"
    assert [message.body for message in await dead_letters(rabbitmq, "work")] == [b"x", b"x"]
    assert await rabbitmq.ready("payroll") == 0


async def test_a_letter_of_another_queue_of_the_pipeline_goes_back_to_that(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    for queue in ("orders", "o2", "graveyard"):
        await rabbitmq.declare(queue)
    await rabbitmq.publish([b"x"], queue="graveyard", headers={"x-broadway-queue": "o2"})
    path = settings_file(tmp_path, rabbitmq, queue=["orders", "o2"])
    done = await dlq("replay", "--config", str(path), "--dead", "graveyard")
    assert done.stdout == "1 dead letter put back into the queue\n"
    assert [await rabbitmq.ready(queue) for queue in ("orders", "o2")] == [0, 1]


@pytest.mark.parametrize("to", ["", "work.dead"])
async def test_a_letter_does_not_go_back_to_where_it_is_kept(rabbitmq: RabbitMQ, to: str) -> None:
    done = await dlq("replay", "--url", rabbitmq.url, "--queue", "work", "--to", to)
    assert done.stderr.endswith(f"--to {to}: expected a queue other than the one that holds the dead letters\n")


async def test_to_is_for_rabbitmq(tmp_path: Path) -> None:
    done = await dlq("replay", "--queue", f"{tmp_path}/q.db:orders", "--to", "o2")
    assert done.stderr.endswith(
        "--to names a queue of RabbitMQ, but dead letters of an embedded queue go back into that queue; "
        "leave --to out\n"
    )


async def test_of_several_queues_the_one_is_named(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    await rabbitmq.declare("o2.dead")
    await rabbitmq.publish([b"one"], queue="o2.dead", message_id="m1")
    bindings = [{"exchange": "events", "queue": "orders"}]
    path = settings_file(tmp_path, rabbitmq, queue=["orders", "o2"], bindings=bindings)
    listed = await dlq("ls", "--config", str(path), "--queue", "o2")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["id", "m1"]
    # All of them may have the same place.
    await rabbitmq.declare("graveyard")
    listed = await dlq("ls", "--config", str(path), "--dead", "graveyard")
    assert listed.stdout == "no dead letters\n"
