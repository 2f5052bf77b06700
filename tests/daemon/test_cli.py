from __future__ import annotations

import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

from broadway_py.cli import app
from broadway_py.daemon.reference import reference_text
from broadway_py.daemon.settings.settings import read_settings
from broadway_py.storage.queue_slots import slot_of

ROOT = Path(__file__).parents[2]


def broadway(*arguments: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


def settings_file(folder: Path, text: str) -> Path:
    path = folder / "a.yaml"
    path.write_text(text)
    return path


def waiting(path: Path) -> list[bytes]:
    """The payloads in a queue file, in order, read without our own code."""
    with closing(sqlite3.connect(path)) as database:
        return [payload for (payload,) in database.execute("SELECT payload FROM messages ORDER BY id")]


def commands(command: Any, *names: str) -> Iterator[tuple[str, ...]]:
    """The words of each command, and of each group of commands."""
    yield names
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, *names, name)


@pytest.mark.parametrize("words", list(commands(get_command(app))), ids=" ".join)
def test_every_command_teaches_with_examples(words: tuple[str, ...]) -> None:
    shown = broadway(*words, "--help")
    assert shown.exit_code == 0
    _, found, examples = shown.stdout.partition("Examples")
    assert found
    assert " ".join(("broadway", *words)) in examples


@pytest.mark.parametrize(
    "name", ["arrivals.yaml", "partitions.yaml", "quickstart.yaml", "rabbitmq.yaml", "reference.yaml", "windows.yaml"]
)
def test_the_settings_that_ship_are_right(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("var").mkdir()
    shown = broadway("check", ROOT / "config" / name)
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout.startswith("ok: ")


def test_the_reference_is_made_from_the_code() -> None:
    assert (ROOT / "config" / "reference.yaml").read_text() == reference_text(), (
        "run: python -m broadway_py.daemon.reference config/reference.yaml"
    )


def test_the_reference_shows_defaults() -> None:
    settings = read_settings([ROOT / "config" / "reference.yaml"], environ={})
    assert settings.http is not None
    assert (settings.http.port, settings.workers, settings.log.level) == (8080, 1, "info")


def test_check_says_every_wrong_pipeline_and_exits_with_2(tmp_path: Path) -> None:
    path = settings_file(
        tmp_path, "pipelines:\n  a: {class: 'x'}\n  b:\n    class: tests.daemon.pipelines:Plain\n    producer: {}\n"
    )
    shown = broadway("check", path)
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert shown.stderr.splitlines() == [
        f"broadway: {path}:2: pipelines.a.class: expected 'module:Class', such as 'orders:Orders', got 'x'",
        (
            f"broadway: {path}:5: pipelines.b.producer.kind: required: the kind of source; "
            "known here: queue, rabbitmq, sqs"
        ),
    ]


def test_a_missing_file_is_a_usage_error() -> None:
    shown = broadway("run", "no.yaml")
    assert (shown.exit_code, shown.stderr) == (2, "broadway: no.yaml: cannot be read: No such file or directory\n")


def test_run_refuses_wrong_settings_in_one_sentence(tmp_path: Path) -> None:
    path = settings_file(tmp_path, "pipelines: {a: {class: 'tests.daemon.pipelines:Finite', shutdown_timeout: soon}}\n")
    shown = broadway("run", path)
    assert (shown.exit_code, shown.stderr) == (
        2,
        (
            f"broadway: {path}:1: pipelines.a.shutdown_timeout: expected a duration in seconds, or text such as "
            "'500ms', '2s', '1m', got 'soon'\n"
        ),
    )


def test_run_says_which_setting_names_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path = settings_file(tmp_path, "pipelines: {a: {class: 'tests.daemon.pipelines:Finite'}}\n")
        shown = broadway("run", path, "--set", f"http.port={port}", "--set", "log.level=error")
    assert (shown.exit_code, shown.stderr) == (
        2,
        (
            f"broadway: --set http.port: http.port: 127.0.0.1:{port} is in use by another program; "
            "choose another port, or 0 for a free one\n"
        ),
    )


def test_topology_draws_the_stages(tmp_path: Path) -> None:
    path = settings_file(
        tmp_path,
        "pipelines:\n  orders:\n    class: tests.daemon.pipelines:Plain\n    processors: {concurrency: 3}\n"
        "    producer: {kind: queue, path: q.db, queue: orders}\n"
        "    publishers: {out: {kind: queue, path: q.db, queue: invoices}}\n",
    )
    assert broadway("topology", path).stdout.splitlines() == [
        "orders",
        "  producer queue  x1",
        "  └─ processors  x3",
        "       └─ batcher default  →  batch processors  x1",
        "       └─ batcher slow  →  batch processors  x1",
        "  publisher out",
    ]
    assert '"concurrency": 3' in broadway("topology", "--json", path).stdout


def test_send_puts_the_lines_of_a_file_on_an_embedded_queue(tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_bytes(b"one\r\ntwo\n\nthree")
    shown = broadway("send", "--queue", f"{tmp_path}/q.db:orders", lines)
    assert (shown.exit_code, shown.stdout) == (0, "3 lines were put on the queue\n")
    assert waiting(tmp_path / "q.db") == [b"one", b"two", b"three"]


def test_send_reads_standard_input_and_finds_the_queue_of_a_pipeline(tmp_path: Path) -> None:
    path = settings_file(
        tmp_path,
        "pipelines:\n  a: {class: 'x:Y', producer: {kind: queue, path: " + f"{tmp_path}/q.db" + ", queue: a}}\n"
        "  b: {class: 'x:Y'}\n",
    )
    shown = broadway("send", path, "--pipeline", "a", stdin=b"one\n")
    assert (shown.exit_code, shown.stdout) == (0, "1 line was put on the queue\n")
    assert waiting(tmp_path / "q.db") == [b"one"]


def test_send_puts_lines_with_the_key_that_a_field_of_theirs_has(tmp_path: Path) -> None:
    lines = b'{"id": 1, "customer": "ann"}\n\n{"id": 2, "customer": 7}\n'
    shown = broadway("send", "--queue", f"{tmp_path}/q.db:orders", "--key", "customer", "-", stdin=lines)
    assert (shown.exit_code, shown.stdout) == (0, "2 lines were put on the queue\n")
    with closing(sqlite3.connect(tmp_path / "q.db")) as database:
        found = database.execute("SELECT slot, metadata FROM messages ORDER BY id").fetchall()
    assert found == [(slot_of("ann"), '{"key": "ann"}'), (slot_of("7"), '{"key": "7"}')]


@pytest.mark.parametrize(
    "line",
    [
        b"ann",
        b'["customer"]',
        b"{}",
        b'{"customer": ""}',
        b'{"customer": true}',
        b'{"customer": "\\ud800"}',
        pytest.param(b"[" * 100_000, id="deep"),
    ],
)
def test_send_names_the_line_that_has_no_key(tmp_path: Path, line: bytes) -> None:
    lines = b'{"customer": "ann"}\n' + line + b"\n"
    shown = broadway("send", "--queue", f"{tmp_path}/q.db:orders", "--key", "customer", "-", stdin=lines)
    assert (shown.exit_code, shown.stderr) == (
        1,
        (
            "broadway: line 2: expected a JSON object whose field 'customer', the key, is text or a whole number; "
            "0 lines were put on the queue before that\n"
        ),
    )


def test_send_to_partitions_of_a_broker_needs_keys(tmp_path: Path) -> None:
    path = settings_file(
        tmp_path,
        "pipelines:\n  a: {class: 'x:Y', producer: {kind: rabbitmq, queue: a, partitions: 4}}\n",
    )
    shown = broadway("send", path, stdin=b"one\n")
    assert (shown.exit_code, shown.stderr) == (
        2,
        (
            f"broadway: {path}:2: pipelines.a.producer.partitions: a line needs a key, which chooses its partition: "
            "name the field of each line that is its key with --key\n"
        ),
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "send: name a settings file, or a queue with --queue FILE:NAME"),
        (("--queue", "q.db"), "--queue q.db: expected FILE:NAME, such as var/queue.db:orders"),
        (("--queue", "q.db:x", "no.txt"), "no.txt: cannot be read: No such file or directory"),
        (("--queue", "q.db:x", "a", "b"), "send: expected one input, got a, b"),
        (("{path}",), "--pipeline is needed, because the settings have several pipelines: aa, b"),
        (("{path}", "--pipeline", "a"), "--pipeline a: no such pipeline; known here: aa, b"),
        (
            ("{path}", "--pipeline", "b"),
            (
                "{path}:3: pipelines.b.producer: expected one producer section in the settings to send to; "
                "or use --queue FILE:NAME"
            ),
        ),
        (("{path}", "--pipeline", "aa"), "{path}:2: pipelines.aa.producer.path: required, but missing"),
    ],
)
def test_send_says_what_is_wrong(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    path = settings_file(
        tmp_path,
        "pipelines:\n  aa: {class: 'x:Y', producer: {kind: queue, queue: a}}\n  b: {class: 'x:Y', producer: []}\n",
    )
    shown = broadway("send", *(argument.format(path=path) for argument in arguments))
    assert (shown.exit_code, shown.stderr) == (2, f"broadway: {sentence.format(path=path)}\n")


def test_send_to_a_broker_that_is_away_says_how_many_were_put(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = settings_file(
        tmp_path,
        "pipelines: {a: {class: 'x:Y', producer: {kind: rabbitmq, queue: a, "
        f"url: 'amqp://guest:canary@127.0.0.1:{port}/'}}}}}}\n",
    )
    shown = broadway("send", path, stdin=b"one\n")
    assert shown.exit_code == 1
    assert shown.stderr.startswith(f"broadway: cannot reach amqp://***@127.0.0.1:{port}/: connection refused; ")
    assert shown.stderr.endswith("; 0 lines were put on the queue before that\n")
    assert "canary" not in shown.stderr


@pytest.mark.parametrize("stdin", [b"", b"\n\n"])
def test_send_of_nothing_puts_nothing(tmp_path: Path, stdin: bytes) -> None:
    shown = broadway("send", "--queue", f"{tmp_path}/q.db:orders", "-", stdin=stdin)
    assert (shown.exit_code, shown.stdout) == (0, "0 lines were put on the queue\n")
