"""`broadway config show`: every setting that counts, and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from broadway_py import Batcher, Message, Pipeline, Processors, RateLimit
from broadway_py.cli import app
from broadway_py.producer import Producer
from broadway_py.producers import QueueProducer, kinds

ROOT = Path(__file__).parents[2]


class Base(Pipeline[Any]):
    """Sets some options. Other ones are set by its subclass."""

    shutdown_timeout = 7

    async def handle_message(self, message: Message[Any]) -> None:
        pass

    async def handle_batch(self, messages: object, info: object) -> None:
        pass


class Orders(Base):
    processors = Processors(concurrency=3, max_demand=20)
    batch_defaults = Batcher(batch_timeout=9)
    batchers = {"default": Batcher(batch_size=7), "slow": Batcher(batch_timeout=5)}  # noqa: RUF012  # an option
    producer = QueueProducer("var/q.db", "orders", visibility=60)
    rate_limit = RateLimit(allowed_messages=5, interval=1)
    deduplicate_by = "id"
    state = "var/orders.db"


def show(folder: Path, *files: str, options: tuple[str, ...] = (), environ: Mapping[str, str] | None = None) -> Result:
    names = [folder / f"{chr(ord('a') + number)}.yaml" for number in range(len(files))]
    for name, text in zip(names, files, strict=True):
        name.write_text(text)
    return CliRunner().invoke(app, ["config", "show", *map(str, names), *options], env=dict(environ or {}))


def origins(folder: Path, *files: str, options: tuple[str, ...] = (), environ: Mapping[str, str] | None = None) -> Any:
    """The printed values, each with its origin, as JSON."""
    shown = show(folder, *files, options=("--origin", "--format", "json", *options), environ=environ)
    assert (shown.exit_code, shown.stderr) == (0, "")
    return json.loads(shown.stdout.replace(f"{folder}/", ""))


def pair(tree: Any, *path: str | int) -> tuple[Any, str]:
    for part in path:
        tree = tree[part]
    assert tree.keys() == {"value", "origin"}
    return tree["value"], tree["origin"]


ORDERS = "pipelines:\n  orders:\n    class: tests.daemon.test_config_show:Orders\n"


def test_each_value_has_its_origin(tmp_path: Path) -> None:
    tree = origins(
        tmp_path,
        f"{ORDERS}    processors: {{max_demand: 30}}\n    batchers: {{slow: {{concurrency: 2}}}}\n",
        "pipelines: {orders: {max_restarts: 10}}\nhttp: {port: '${PORT}'}\nlog: {level: '${LEVEL:-debug}'}\n",
        options=("--set", "pipelines.orders.processors.timeout=5s", "--set", "workers=2"),
        environ={"BROADWAY_PIPELINES__ORDERS__FAILURE": "{attempts: 8}", "PORT": "99", "BROADWAY_LOG__FORMAT": "json"},
    )
    orders = ("pipelines", "orders")

    assert pair(tree, *orders, "class") == ("tests.daemon.test_config_show:Orders", "a.yaml:3")
    assert pair(tree, *orders, "processors", "max_demand") == (30, "a.yaml:4")
    assert pair(tree, *orders, "processors", "concurrency") == (3, "class Orders")
    assert pair(tree, *orders, "processors", "timeout") == (5.0, "--set pipelines.orders.processors.timeout")
    assert pair(tree, *orders, "processors", "executor") == ("auto", "default")
    assert pair(tree, *orders, "batchers", "default", "batch_size") == (7, "class Orders")
    assert pair(tree, *orders, "batchers", "default", "batch_timeout") == (9.0, "class Orders, batch_defaults")
    assert pair(tree, *orders, "batchers", "slow", "batch_timeout") == (5.0, "class Orders")
    assert pair(tree, *orders, "batchers", "slow", "concurrency") == (2, "a.yaml:5")
    assert pair(tree, *orders, "producer", "kind") == ("queue", "class Orders")
    assert pair(tree, *orders, "producer", "visibility") == (60.0, "class Orders")
    assert pair(tree, *orders, "producer", "partitions") == (None, "default")
    assert pair(tree, *orders, "max_restarts") == (10, "b.yaml:1")
    assert pair(tree, *orders, "shutdown_timeout") == (7.0, "class Orders")
    assert pair(tree, *orders, "max_seconds") == (5.0, "default")
    assert pair(tree, *orders, "deduplicate_by") == ("id", "class Orders")
    assert pair(tree, *orders, "state", "path") == ("var/orders.db", "class Orders")
    assert pair(tree, *orders, "state", "dedup") == (600.0, "default")
    assert pair(tree, *orders, "rate_limit", "allowed_messages") == (5, "class Orders")
    assert pair(tree, *orders, "failure", "attempts") == (
        8,
        "environment variable BROADWAY_PIPELINES__ORDERS__FAILURE",
    )
    assert pair(tree, *orders, "failure", "breaker", "ratio") == (0.5, "default")
    assert pair(tree, "workers") == (2, "--set workers")
    assert pair(tree, "http", "port") == (99, "b.yaml:2, environment variable PORT")
    assert pair(tree, "http", "host") == ("127.0.0.1", "default")
    assert pair(tree, "log", "level") == ("debug", "b.yaml:3")
    assert pair(tree, "log", "format") == ("json", "environment variable BROADWAY_LOG__FORMAT")


def test_sections_that_a_file_removes_are_null(tmp_path: Path) -> None:
    tree = origins(
        tmp_path,
        f"{ORDERS}    rate_limit: null\n    failure: null\n    state: null\n    deduplicate_by: null\nhttp: null\n",
    )

    assert pair(tree, "pipelines", "orders", "rate_limit") == (None, "a.yaml:4")
    assert pair(tree, "pipelines", "orders", "failure") == (None, "a.yaml:5")
    assert pair(tree, "pipelines", "orders", "state") == (None, "a.yaml:6")
    assert pair(tree, "pipelines", "orders", "deduplicate_by") == (None, "a.yaml:7")
    assert pair(tree, "http") == (None, "a.yaml:8")


def test_a_batcher_takes_the_batch_defaults_of_a_file(tmp_path: Path) -> None:
    tree = origins(tmp_path, f"{ORDERS}    batch_defaults: {{max_batch_bytes: 1000}}\n    state: other.db\n")

    assert pair(tree, "pipelines", "orders", "batchers", "slow", "max_batch_bytes") == (
        1000,
        "a.yaml:4, batch_defaults",
    )
    assert pair(tree, "pipelines", "orders", "batchers", "default", "batch_timeout") == (
        9.0,
        "class Orders, batch_defaults",
    )
    assert pair(tree, "pipelines", "orders", "state", "path") == ("other.db", "a.yaml:5")


RABBITMQ = """\
pipelines:
  orders:
    class: tests.daemon.pipelines:Plain
    producer:
      - {kind: rabbitmq, queue: a, url: "amqp://app:canary@mq.example/%2F?heartbeat=9"}
      - {kind: rabbitmq, queue: b, name: second, host: mq.example, username: canary, password: "${PW}"}
      - {kind: rabbitmq, queue: c, name: third, url_file: url.txt}
    publishers:
      out: {kind: rabbitmq, queue: out, url: ["amqp://app:canary@one/", "amqp://canary@two/"]}
    context:
      api: {token: canary, password: canary, address: "https://app:canary@api.example/v1", retries: 3}
      keys: [canary, 7]
"""


def test_secrets_are_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("url.txt").write_text("amqp://app:canary@mq.example/")
    for options in ((), ("--origin",), ("--format", "json"), ("--format", "json", "--origin")):
        shown = show(tmp_path, RABBITMQ, options=options, environ={"PW": "canary"})
        assert shown.exit_code == 0
        assert "canary" not in shown.output

    tree = origins(tmp_path, RABBITMQ, environ={"PW": "canary"})["pipelines"]["orders"]
    assert pair(tree, "producer", 0, "url") == ("amqp://***@mq.example/%2F?heartbeat=9", "a.yaml:5")
    assert pair(tree, "producer", 1, "username") == ("***", "a.yaml:6")
    assert pair(tree, "producer", 1, "password") == ("***", "a.yaml:6, environment variable PW")
    assert pair(tree, "producer", 2, "url_file") == ("url.txt", "a.yaml:7")
    assert "url" not in tree["producer"][2]
    assert pair(tree, "publishers", "out", "url") == (["amqp://***@one/", "amqp://***@two/"], "a.yaml:9")
    assert pair(tree, "context", "api", "token") == ("***", "a.yaml:11")
    assert pair(tree, "context", "api", "address") == ("https://***@api.example/v1", "a.yaml:11")
    assert pair(tree, "context", "api", "retries") == (3, "a.yaml:11")
    assert pair(tree, "context", "keys") == (["***", "***"], "a.yaml:12")


def test_an_aggregator_has_the_settings_of_its_window(tmp_path: Path) -> None:
    queue = "{kind: queue, path: q.db, queue: q}"
    tree = origins(
        tmp_path,
        f"""
pipelines:
  sales:
    class: broadway_py.examples.revenue:Sales
    producer: {queue}
    state: {{path: s.db, dedup: 1h}}
    failure: {{attempts: 2}}
    aggregators:
      revenue:
        lateness: 30s
        emit_to: {queue}
""",
    )["pipelines"]["sales"]

    assert pair(tree, "aggregators", "revenue", "delay") == (10.0, "class Revenue")
    assert pair(tree, "aggregators", "revenue", "lateness") == (30.0, "a.yaml:10")
    assert pair(tree, "aggregators", "revenue", "max_ahead") == (60.0, "default")
    assert pair(tree, "aggregators", "revenue", "emit_batch") == (100, "default")
    assert pair(tree, "aggregators", "revenue", "emit_to", "queue") == ("q", "a.yaml:11")
    assert pair(tree, "aggregators", "revenue", "emit_to", "dedup_window") == (86400.0, "default")
    assert pair(tree, "state", "dedup") == (3600.0, "a.yaml:6")


def test_yaml_has_the_origins_as_comments_in_one_column(tmp_path: Path) -> None:
    shown = show(tmp_path, f"{ORDERS}    name: shop\n", options=("--origin",))

    lines = shown.stdout.replace(f"{tmp_path}/", "").splitlines()
    assert lines[:9] == [
        "pipelines:",
        "  orders:",
        "    class: tests.daemon.test_config_show:Orders  # a.yaml:3",
        "    name: shop                                   # a.yaml:4",
        "    producer:",
        "      kind: queue                                # class Orders",
        "      path: var/q.db                             # class Orders",
        "      queue: orders                              # class Orders",
        "      visibility: 60.0                           # class Orders",
    ]


def test_what_is_shown_is_a_settings_file_that_means_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("var").mkdir()
    context = r"""{text: "$${HOME} # 'no'", lines: "a\nb", on: "on", deep: {list: [{a: 1}, null]}, empty: {}}"""
    first = show(tmp_path, f"{ORDERS}    context: {context}\n    producer: [{{kind: queue, path: q.db, queue: q}}]\n")
    assert first.exit_code == 0
    again = show(tmp_path, first.stdout)

    assert again.stdout == first.stdout
    assert CliRunner().invoke(app, ["check", str(tmp_path / "a.yaml")]).stdout == "ok: 1 pipeline: orders\n"
    section = json.loads(show(tmp_path, first.stdout, options=("--format", "json")).stdout)["pipelines"]["orders"]
    assert section["context"] == {
        "text": "${HOME} # 'no'",
        "lines": "a\nb",
        "on": "on",
        "deep": {"list": [{"a": 1}, None]},
        "empty": {},
    }


class Kafka(Producer):
    """The producer of a plug-in."""

    def __init__(self, topic: str, secret: str = "") -> None:
        self.topic, self.secret = topic, secret


class _EntryPoint:
    value = "kafka:Kafka"

    def load(self) -> object:
        return Kafka


def test_the_section_of_a_plug_in_is_shown_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "_plug_ins", lambda: {"kafka": _EntryPoint()})
    tree = origins(
        tmp_path,
        "pipelines: {a: {class: 'tests.daemon.pipelines:Plain', producer: {kind: kafka, topic: t, secret: canary}}}\n",
    )

    assert tree["pipelines"]["a"]["producer"] == {
        "kind": {"value": "kafka", "origin": "a.yaml:1"},
        "topic": {"value": "t", "origin": "a.yaml:1"},
        "secret": {"value": "***", "origin": "a.yaml:1"},
    }


def test_code_is_shown_by_its_name(tmp_path: Path) -> None:
    classify = "{KeyError: drop, 'asyncio:QueueEmpty': drop}"
    tree = origins(
        tmp_path,
        f"pipelines: {{a: {{class: 'tests.daemon.pipelines:Finite', failure: {{classify: {classify}}}}}}}\n",
    )["pipelines"]["a"]

    assert pair(tree, "producer") == ("(broadway_py.producers.memory:MemoryProducer)", "class Finite")
    assert pair(tree, "failure", "classify") == (
        {"KeyError": "drop", "asyncio.queues:QueueEmpty": "drop"},
        "a.yaml:1",
    )


@pytest.mark.parametrize("name", ["quickstart", "windows", "partitions", "rabbitmq", "sqs", "arrivals", "reference"])
def test_the_settings_that_ship_are_shown(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(app, ["config", "show", str(ROOT / "config" / f"{name}.yaml"), "--origin"])
    assert (shown.exit_code, shown.stderr) == (0, "")


def test_wrong_settings_are_told_in_one_sentence(tmp_path: Path) -> None:
    shown = show(tmp_path, f"{ORDERS}    max_restarts: often\n")
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert shown.stderr == (
        f"broadway: {tmp_path}/a.yaml:4: pipelines.orders.max_restarts: expected a valid integer, got 'often'\n"
    )
