"""``broadway dlq``: looking after dead letters."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from broadway_py.cli import app
from broadway_py.clock import SYSTEM_CLOCK
from broadway_py.daemon.dead_letters.embedded_queue import EmbeddedLetters
from broadway_py.daemon.dead_letters.letters import Choice, Head, drawn, rate_of, replay, shown
from broadway_py.errors import OptionsError
from broadway_py.queue import Queue
from broadway_py.storage.queue_consumer import QueueConsumer
from broadway_py.storage.queue_dead import NewDeadLetter
from broadway_py.storage.queue_file import QueueFile
from broadway_py.storage.queue_rows import Held
from broadway_py.testing import FakeClock
from tests.support.terminal import on_terminal

#: What each of the letters says: cause, exception.
LETTERS = [("raised", "ValueError"), ("invalid", None), ("raised", "OSError")]


def dlq(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["dlq", *map(str, arguments)])


async def put_dead_letters(path: Path, letters: Sequence[tuple[str, str | None]]) -> None:
    """Put, take, and let fail for good."""
    async with Queue(path, "orders") as queue:
        await queue.put_many([(f"canary-{n}", {"source": f"shop-{n}"}) for n in range(len(letters))])
        file = await QueueFile.open(path, "orders", SYSTEM_CLOCK)
        consumer = await QueueConsumer.open(file, 30.0)
        taken = await consumer.take(len(letters))
        dead = [
            NewDeadLetter(Held(row.id, row.lease), *letter) for row, letter in zip(taken.rows, letters, strict=True)
        ]
        assert await consumer.settle((), dead, "shop") == set()
        await consumer.close()
        await file.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    asyncio.run(put_dead_letters(tmp_path / "q.db", LETTERS))
    return tmp_path / "q.db"


def left(path: Path) -> tuple[list[int], list[int]]:
    """The ids that wait and that are dead, read without our own code."""
    with closing(sqlite3.connect(path)) as database:
        waiting = [row for (row,) in database.execute("SELECT id FROM messages ORDER BY id")]
        return waiting, [row for (row,) in database.execute("SELECT id FROM dead_letters ORDER BY id")]


@pytest.mark.parametrize("command", ["ls", "show", "replay", "purge"])
def test_every_command_teaches_with_examples(command: str) -> None:
    shown = dlq(command, "--help")
    assert shown.exit_code == 0
    assert f"broadway dlq {command} " in shown.stdout


@pytest.mark.parametrize(
    "command", [("ls",), ("show", "17"), ("replay",), ("purge", "--yes")], ids=lambda words: words[0]
)
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "dlq: name the queue with --queue FILE:NAME, or a pipeline with --config FILE"),
        (("--url", "amqp://h/", "--config", "a.yaml"), "dlq: give --url or --config, not both"),
        (
            ("--config", "no.yaml", "--pipeline", "a", "--dead", "b"),
            "no.yaml: cannot be read: No such file or directory",
        ),
    ],
)
def test_every_command_has_the_options_that_say_which_dead_letters(
    command: tuple[str, ...], options: tuple[str, ...], sentence: str
) -> None:
    shown = dlq(*command, *options)
    assert (shown.exit_code, shown.stderr) == (2, f"broadway: {sentence}\n")


def test_ls_lists_the_letters_without_their_payloads(path: Path) -> None:
    shown = dlq("ls", "--queue", f"{path}:orders")
    assert shown.exit_code == 0
    lines = [re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", line) for line in shown.stdout.splitlines()]
    assert [line.split() for line in lines] == [
        ["id", "died", "attempts", "cause", "exception", "size"],
        ["1", "TIME", "1", "raised", "ValueError", "8", "B"],
        ["2", "TIME", "1", "invalid", "-", "8", "B"],
        ["3", "TIME", "1", "raised", "OSError", "8", "B"],
    ]
    assert "canary" not in shown.output


def test_ls_shows_one_cause_or_that_there_are_none(path: Path) -> None:
    shown = dlq("ls", "--queue", f"{path}:orders", "--cause", "invalid")
    assert [line.split()[0] for line in shown.stdout.splitlines()] == ["id", "2"]
    shown = dlq("ls", "--queue", f"{path}:orders", "--cause", "timeout")
    assert (shown.exit_code, shown.stdout) == (0, "no dead letters\n")


def test_show_tells_everything_but_the_payload(path: Path) -> None:
    shown = dlq("show", 3, "--queue", f"{path}:orders")
    assert shown.exit_code == 0
    fields = dict(re.split(r":\s+", line, maxsplit=1) for line in shown.stdout.splitlines())
    assert fields.pop("put")
    assert fields.pop("died")
    assert fields == {
        "id": "3",
        "cause": "raised",
        "exception": "OSError",
        "attempts": "1",
        "pipeline": "shop",
        "size": "8 B",
        "metadata": json.dumps({"source": "shop-2"}),
    }
    assert "canary" not in shown.output


def test_show_prints_the_bare_payload_when_asked_to(path: Path) -> None:
    shown = dlq("show", 3, "--queue", f"{path}:orders", "--payload")
    assert (shown.exit_code, shown.stdout_bytes) == (0, b"canary-2")


def test_limit_takes_the_oldest_ones(path: Path) -> None:
    shown = dlq("ls", "--queue", f"{path}:orders", "--cause", "raised", "--limit", 1)
    assert [line.split()[0] for line in shown.stdout.splitlines()] == ["id", "1"]
    shown = dlq("show", "--queue", f"{path}:orders", "--limit", 2)
    assert [line for line in shown.stdout.splitlines() if line.startswith("id:")] == ["id:        1", "id:        2"]
    shown = dlq("replay", "--queue", f"{path}:orders", "--limit", 2)
    assert (shown.exit_code, shown.stdout) == (0, "2 dead letters put back into the queue\n")
    assert left(path) == ([1, 2], [3])


@pytest.mark.parametrize("words", [("ls", "--cause", "invalid"), ("show", "2")])
def test_json_is_one_object_in_a_line_for_each(path: Path, words: tuple[str, ...]) -> None:
    shown = dlq(*words, "--queue", f"{path}:orders", "--json")
    (line,) = shown.stdout.splitlines()
    found = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found.pop("died"))
    assert found.pop("facts").keys() >= {"put", "metadata", "pipeline"}
    assert found == {"id": "2", "attempts": 1, "cause": "invalid", "exception": None, "size": 8}
    assert "canary" not in shown.output


def test_json_of_nothing_is_nothing(path: Path) -> None:
    shown = dlq("ls", "--queue", f"{path}:orders", "--cause", "timeout", "--json")
    assert (shown.exit_code, shown.output) == (0, "")


def test_on_a_terminal_a_replay_shows_how_far_it_is(path: Path) -> None:
    with on_terminal("dlq", "replay", "--queue", f"{path}:orders") as shown:
        assert shown.exit_code() == 0
        assert "0 dead letters put back" in shown.written
        assert shown.written.endswith("3 dead letters put back into the queue\r\n")
    assert left(path) == ([1, 2, 3], [])


async def test_an_interrupted_replay_ends_its_portion_and_counts_it(tmp_path: Path) -> None:
    await put_dead_letters(tmp_path / "q.db", [("raised", None)] * 3)
    file = await QueueFile.open(tmp_path / "q.db", "orders", SYSTEM_CLOCK)
    began, may_end = asyncio.Event(), asyncio.Event()

    class Slow(EmbeddedLetters):
        async def replay(self, letters: Sequence[str]) -> int:
            began.set()
            await may_end.wait()
            return await super().replay(letters)

    counts: list[int] = []
    replaying = asyncio.ensure_future(replay(Slow(file), Choice(), None, counts.append))
    await began.wait()
    replaying.cancel()
    await asyncio.sleep(0)
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await replaying
    await file.close()
    assert counts == [3]
    assert left(tmp_path / "q.db") == ([1, 2, 3], [])


@pytest.mark.parametrize(
    ("chosen", "count", "waiting"),
    [
        ((), "3 dead letters", [1, 2, 3]),
        ((2,), "1 dead letter", [2]),
        ((1, 3), "2 dead letters", [1, 3]),
        (("--cause", "raised"), "2 dead letters", [1, 3]),
        ((1, 2, "--cause", "invalid"), "1 dead letter", [2]),
        ((1, "--cause", "invalid"), "0 dead letters", []),
        (("--rate", "1000/s"), "3 dead letters", [1, 2, 3]),
    ],
)
def test_replay_puts_back_those_that_are_meant(
    path: Path, chosen: tuple[object, ...], count: str, waiting: list[int]
) -> None:
    dry = dlq("replay", *chosen, "--queue", f"{path}:orders", "--dry-run")
    assert (dry.exit_code, dry.stdout) == (0, f"{count} would be put back into the queue\n")
    assert left(path) == ([], [1, 2, 3])

    shown = dlq("replay", *chosen, "--queue", f"{path}:orders")
    assert (shown.exit_code, shown.stdout) == (0, f"{count} put back into the queue\n")
    assert left(path) == (waiting, [n for n in (1, 2, 3) if n not in waiting])


async def test_replay_keeps_to_its_rate(tmp_path: Path) -> None:
    await put_dead_letters(tmp_path / "q.db", [("raised", None)] * 50)
    clock, counts = FakeClock(), [0]
    file = await QueueFile.open(tmp_path / "q.db", "orders", SYSTEM_CLOCK)
    moved = asyncio.Event()

    def progress(count: int) -> None:
        counts.append(count)
        moved.set()

    replaying = asyncio.ensure_future(replay(EmbeddedLetters(file), Choice(), 100.0, progress, clock))
    for _ in range(5):
        async with asyncio.timeout(10):
            await moved.wait()
        moved.clear()
        await clock.advance(0.099)
        assert not moved.is_set()
        await clock.advance(0.001)
    async with asyncio.timeout(10):
        assert await replaying == 50
    await file.close()

    assert counts == [0, 10, 20, 30, 40, 50]


def test_purge_says_what_it_would_do(path: Path) -> None:
    dry = dlq("purge", "--queue", f"{path}:orders", "--dry-run")
    assert (dry.exit_code, dry.stdout) == (0, "3 dead letters would be removed\n")
    assert left(path) == ([], [1, 2, 3])


def test_purge_removes_those_that_are_meant(path: Path) -> None:
    shown = dlq("purge", 2, "--queue", f"{path}:orders", "--yes")
    assert (shown.exit_code, shown.stdout) == (0, "1 dead letter removed\n")
    assert left(path) == ([], [1, 3])


def test_purge_asks_first_when_there_is_somebody_to_ask(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broadway_py.cli.dlq._is_terminal", lambda: True)
    arguments = ["dlq", "purge", "--queue", f"{path}:orders", "--cause", "raised"]
    refused = CliRunner().invoke(app, arguments, input="n\n")
    assert refused.exit_code == 0
    assert refused.stdout == "Remove 2 dead letters for good? [y/N]: n\n0 dead letters removed\n"
    assert left(path) == ([], [1, 2, 3])

    agreed = CliRunner().invoke(app, arguments, input="y\n")
    assert agreed.exit_code == 0
    assert agreed.stdout.endswith("2 dead letters removed\n")
    assert left(path) == ([], [2])


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (
            ("purge", "--queue", "{path}:orders"),
            2,
            "dlq purge: standard input is not a terminal, so the command cannot ask; add --yes, or --dry-run",
        ),
        (("ls", "--queue", "q.db"), 2, "--queue q.db: expected FILE:NAME, such as var/queue.db:orders"),
        (("ls", "--queue", "{path}-not:orders"), 2, "--queue: {path}-not: no such file"),
        (
            ("ls", "--queue", "{path}:order"),
            2,
            "--queue: {path}: there is no queue 'order' in this file; known here: orders; did you mean 'orders'?",
        ),
        (
            ("ls", "--queue", "amqp://guest:canary@host/orders"),
            2,
            (
                "--queue: expected the name of a queue, got a URL; give the URL of the broker, or of the SQS queue, "
                "with --url"
            ),
        ),
        (
            ("ls", "--queue", "https://sqs.eu-west-1.amazonaws.com/123456789012/orders-dead"),
            2,
            (
                "--queue: expected the name of a queue, got a URL; give the URL of the broker, or of the SQS queue, "
                "with --url"
            ),
        ),
        (
            ("ls", "--url", "https://sqs.eu-west-1.amazonaws.com/123456789012/orders", "--queue", "orders"),
            2,
            ("--queue is for RabbitMQ and embedded queues: the URL of an SQS queue names it; leave --queue out"),
        ),
        (
            ("ls", "--url", "https://me:canary@sqs.eu-west-1.amazonaws.com/123456789012/orders"),
            2,
            (
                "--url: expected the URL of a queue, such as "
                "https://sqs.eu-central-1.amazonaws.com/123456789012/orders, or its name"
            ),
        ),
        (
            ("ls", "--url", "https://sqs.eu-west-1.amazonaws.com/1/orders", "--dead", "a b"),
            2,
            (
                "--dead: expected the URL of a queue, such as "
                "https://sqs.eu-central-1.amazonaws.com/123456789012/orders, or its name"
            ),
        ),
        (
            ("replay", "--url", "https://sqs.eu-west-1.amazonaws.com/1/orders", "--dead", "dead", "--to", "dead"),
            2,
            "--to dead: expected a queue other than the one that holds the dead letters",
        ),
        (
            ("show", "--queue", "{path}:orders"),
            2,
            "dlq show: name the dead letter with ID, or say with --limit how many are shown",
        ),
        (
            ("show", "1", "--queue", "{path}:orders", "--json", "--payload"),
            2,
            "dlq show: give --payload or --json, not both: a payload may be no text",
        ),
        (
            ("show", "--queue", "{path}:orders", "--limit", "2", "--payload"),
            2,
            "dlq show: --payload shows one payload; name the dead letter with ID",
        ),
        (
            ("show", "9", "--queue", "{path}:orders"),
            1,
            "there is no dead letter 9 in queue 'orders'; broadway dlq ls shows the ids",
        ),
        (
            ("replay", "1", "8", "9", "--queue", "{path}:orders"),
            1,
            (
                "there is no dead letter 8, 9 in queue 'orders'; broadway dlq ls shows the ids; 0 dead letters "
                "were put back before that"
            ),
        ),
        (
            ("replay", "--queue", "{path}:orders", "--rate", "fast"),
            2,
            "--rate fast: expected messages per second, minute or hour, such as 50/s or 100/m",
        ),
        (
            ("ls", "--queue", "{path}:orders", "--cause", "timeot"),
            2,
            (
                "--cause timeot: no such cause; known: raised, failed, timeout, invalid, not_returned, "
                "unknown_batcher, cancelled, late, future_event_time, crashed, stopped, worker_died; "
                "did you mean 'timeout'?"
            ),
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_and_nothing_is_changed(
    path: Path, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    shown = dlq(*(argument.format(path=path) for argument in arguments))
    assert (shown.exit_code, shown.stderr) == (code, f"broadway: {sentence.format(path=path)}\n")
    assert left(path) == ([], [1, 2, 3])
    assert not Path(f"{path}-not").exists()


@pytest.mark.parametrize(
    ("text", "rate"), [("50/s", 50.0), ("50", 50.0), ("120/m", 2.0), ("3600 / h", 1.0), ("0.5/s", 0.5)]
)
def test_a_rate_is_per_second_minute_or_hour(text: str, rate: float) -> None:
    assert rate_of(text) == rate


@pytest.mark.parametrize("text", ["", "0/s", "-1/s", "1/d", "a", "1/"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(OptionsError) as refused:
        rate_of(text)
    assert str(refused.value) == (f"--rate {text}: expected messages per second, minute or hour, such as 50/s or 100/m")


def test_what_is_drawn_is_fit_for_a_terminal() -> None:
    head = Head(
        "1\x1b[31m", None, None, "in\nvalid", "E\x9b", 3, [("id", "1\x1b[31m"), ("a\rb", "Ünïcode ☃\x00\u2066")]
    )
    assert [line.split() for line in drawn([head])][1:] == [[r"1\x1b[31m", "-", "-", r"in\nvalid", r"E\x9b", "3", "B"]]
    assert list(shown(head)) == [r"id:   1\x1b[31m", r"a\rb: Ünïcode ☃\x00\u2066"]


PRODUCERS = {
    "one": "kind: rabbitmq, queue: orders",
    "several": "kind: rabbitmq, queue: [orders, o2]",
    "nameless": "kind: rabbitmq, queue: '', declare: active",
    "embedded": "kind: queue, path: q.db, queue: orders",
}


@pytest.mark.parametrize(
    ("kind", "policy", "words", "sentence"),
    [
        ("several", "{}", (), "--queue is needed, because the pipeline reads several queues: orders, o2"),
        (
            "several",
            "{}",
            ("--queue", "o3"),
            "--queue o3: pipeline shop does not read it; it reads orders, o2",
        ),
        ("one", "{}", ("--queue", "bills"), "--queue bills: pipeline shop does not read it; it reads orders"),
        (
            "nameless",
            "{}",
            ("--queue", "bills"),
            "--queue bills: pipeline shop does not read it; it reads one that the broker names",
        ),
        ("embedded", "{}", ("--queue", "bills"), "--queue bills: pipeline shop does not read it; it reads orders"),
        (
            "embedded",
            "{}",
            ("--dead", "x"),
            "--dead names a queue of RabbitMQ, but an embedded queue holds its own dead letters; leave --dead out",
        ),
        (
            "one",
            "{dead_letter: broker}",
            (),
            "the queue's own dead-letter exchange decides where its dead letters are; name that queue with --dead NAME",
        ),
    ],
)
def test_which_dead_letters_of_a_pipeline_are_meant_is_asked_in_a_sentence(
    tmp_path: Path, kind: str, policy: str, words: tuple[str, ...], sentence: str
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "pipelines:\n"
        "  shop:\n"
        "    class: tests.daemon.pipelines:Recorder\n"
        f"    producer: {{{PRODUCERS[kind]}}}\n"
        f"    failure: {policy}\n"
    )
    result = dlq("ls", "--config", str(file), *words)
    assert (result.exit_code, result.stderr) == (2, f"broadway: {sentence}\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("--url", "amqp://broker/"),
            "dlq: name the queue with --queue NAME, or the queue that holds its dead letters with --dead NAME",
        ),
        (
            ("--url", "amqp://broker/", "--queue", "amq.gen-x"),
            "--queue amq.gen-x: the broker chose this name, so its dead letters are in PIPELINE.dead; use --dead NAME",
        ),
        (
            ("--queue", "q.db:orders", "--dead", "x"),
            "--dead names a queue of RabbitMQ, but an embedded queue holds its own dead letters; leave --dead out",
        ),
    ],
)
def test_which_dead_letters_of_a_broker_are_meant_is_asked_in_a_sentence(words: tuple[str, ...], sentence: str) -> None:
    result = dlq("ls", *words)
    assert (result.exit_code, result.stderr) == (2, f"broadway: {sentence}\n")
