"""What the page about publishing shows is run as it stands."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from broadway_py.daemon.pipelines.loader import build_pipelines
from broadway_py.daemon.settings.settings import read_settings
from broadway_py.events import EVENTS
from broadway_py.producers import DummyProducer
from broadway_py.queue import Queue

PAGE = Path(__file__).resolve().parents[1] / "docs" / "publish.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the page's Python defines. The last block has run its test."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "shown"}
    for block in blocks("python"):
        exec(block, names)  # noqa: S102  # our own page
    return names


def test_the_pipelines_of_the_page_publish(shown: dict[str, Any]) -> None:
    async def shipped() -> None:
        async with shown["Shipping"](producer=DummyProducer()) as shipping:
            await shipping.submit_batch([{"country": "DE"}], metadata={"message_id": "order-1"})
        for name, data in (("labels", "order-1:label"), ("audit", "order-1")):
            async with Queue("shop.db", name) as queue:
                assert await queue.size() == 1, data

    asyncio.run(shipped())


def test_the_settings_are_taken_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (section,) = blocks("yaml")
    secret = tmp_path / "amqp-url"
    secret.write_text("amqp://guest:guest@mq/")
    section = section.replace("/run/secrets/amqp-url", str(secret))
    file = tmp_path / "a.yaml"
    indented = "".join(f"    {line}\n" for line in section.splitlines())
    producer = "    producer: {kind: queue, path: a.db, queue: a}\n"
    file.write_text(f"pipelines:\n  billing:\n    class: tests.daemon.pipelines:Publishing\n{indented}{producer}")
    settings = read_settings([file], environ={"BROADWAY_PIPELINES__BILLING__PUBLISHERS__OUT__QUEUE": "other"})
    (pipeline,) = build_pipelines(settings)

    assert {name: repr(sink) for name, sink in pipeline.publishers.items()} == {
        "out": "<RabbitMQPublisher queue 'other' on amqp://***@mq:5672/>",
        "audit": "<SQSPublisher SQS queue 'audit'>",
    }


def test_the_metrics_and_events_that_the_page_names_exist() -> None:
    text = PAGE.read_text()
    metrics = PAGE.with_name("metrics.md").read_text()
    named = set(re.findall(r"`(broadway_\w+)`", text))
    assert len(named) == 5
    assert {name for name in named if f"| `{name}` |" not in metrics} == set()
    assert "broadway.publisher.publish.start" in EVENTS
