"""The settings that the HTTP port shows: all of them, and no secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from broadway_py import Message, Pipeline
from broadway_py.daemon.pipelines.loader import build_pipelines
from broadway_py.daemon.pipelines.shown_settings import HIDDEN, shown_settings
from broadway_py.daemon.settings.settings import read_settings
from broadway_py.producers import Producer

CANARY = "canary-93bd"

FILE = f"""
pipelines:
  orders:
    class: tests.daemon.test_shown_settings:Orders
    producer: {{kind: rabbitmq, queue: orders, url: "amqp://app:{CANARY}@broker/", password: {CANARY}}}
    publishers: {{out: {{kind: rabbitmq, queue: done, url: "amqp://app:{CANARY}@broker/"}}}}
    processors: {{concurrency: 7}}
    context: {{api_key: {CANARY}}}
workers: 3
http: {{port: 0}}
"""


class Orders(Pipeline[Any]):
    async def handle_message(self, message: Message[Any]) -> None:
        """Does nothing."""


def test_all_settings_are_shown_with_their_defaults_and_without_secrets(tmp_path: Path) -> None:
    file = tmp_path / "orders.yaml"
    file.write_text(FILE, encoding="utf-8")
    settings = read_settings([file], environ={})
    shown = json.loads(json.dumps(shown_settings(build_pipelines(settings, share=(0, 3)), settings)))
    assert CANARY not in json.dumps(shown)
    orders = shown["pipelines"]["orders"]
    assert (shown["workers"], shown["http"]["port"], shown["log"]["level"]) == (3, 0, "info")
    assert orders["class"] == "tests.daemon.test_shown_settings:Orders"
    assert orders["processors"]["concurrency"] == 7
    assert orders["processors"]["partition_by"] == "as the pipeline says"
    assert orders["failure"]["breaker"] == {"ratio": 0.5, "over": 100}
    assert orders["context"] == "(dict)"
    producer = orders["producers"]["rabbitmq"]
    assert (producer["queue"], producer["url"], producer["password"], producer["username"]) == (
        "orders",
        HIDDEN,
        HIDDEN,
        None,
    )
    assert producer["class"] == "broadway_py.producers.rabbitmq.producer:RabbitMQProducer"
    assert orders["publishers"]["out"]["queue"] == "done"
    assert orders["publishers"]["out"]["url"] == HIDDEN


class Options(BaseModel):
    api_key: str


class Theirs(Producer):
    """A producer of a user, whose options do not say which of them are secrets."""

    options = Options(api_key=CANARY)


def test_of_a_producer_of_the_user_only_the_class_is_shown() -> None:
    shown = shown_settings([Orders(producer=Theirs(), name="orders")], None)
    assert list(shown) == ["pipelines"]
    assert shown["pipelines"]["orders"]["producers"] == {"theirs": {"class": "tests.daemon.test_shown_settings:Theirs"}}
