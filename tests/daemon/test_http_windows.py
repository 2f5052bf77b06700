"""What the HTTP port tells about aggregators: figures, what holds the watermark, no keys and no values."""

from __future__ import annotations

import re
from dataclasses import fields
from importlib.resources import files
from typing import Any

import aiohttp

from broadway_py import Aggregator, Message, Pipeline, Window, WindowResult
from broadway_py.daemon.http.server import serve
from broadway_py.daemon.http.view import LocalView
from broadway_py.daemon.process.loop_lag import LagMeter
from broadway_py.daemon.settings.settings import Http
from broadway_py.pipeline.stats import AggregatorStats
from broadway_py.producers import DummyProducer
from tests.support.eventually import eventually

#: A key, a part of a value, and what is in the id of a result.
CANARY = "canary-8c11"


class Lists(Aggregator[str, str, list[str]]):
    """Keeps payloads by minute. Its results are not taken while nobody is there."""

    is_away = True

    window = Window.fixed("1m", by=lambda _: 1_700_000_000.0, delay="10s").trigger_every(2)

    def key(self, message: Message[str]) -> str:
        return message.data

    def initial(self) -> list[str]:
        return []

    def add(self, acc: list[str], message: Message[str]) -> list[str]:
        return [*acc, message.data]

    async def emit(self, results: list[WindowResult[str, list[str]]]) -> None:
        if self.is_away:
            raise OSError("nobody takes them")


class Shop(Pipeline[str]):
    aggregators = {"lists": Lists}  # noqa: RUF012  # an option
    state = "memory"

    async def handle_message(self, message: Message[str]) -> None:
        """Everything goes to the only aggregator."""


async def test_the_api_tells_of_each_aggregator_without_keys_and_values() -> None:
    async with Shop(producer=DummyProducer(), name="shop") as shop:
        for _ in range(3):
            await shop.submit(CANARY, timeout=10)
        await eventually(lambda: shop.stats().aggregators[0].results_failing == 1, what="emit has failed")
        async with (
            serve(Http(port=0), LocalView([shop], LagMeter())) as port,
            aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
        ):
            text = await (await client.get("/api/pipelines/shop")).text()
            told: dict[str, Any] = await (await client.get("/api/pipelines/shop")).json()
        lists = shop.aggregators["lists"]
        assert isinstance(lists, Lists)
        lists.is_away = False
    assert CANARY not in text
    (one,) = told["aggregators"]
    assert set(one) == {field.name for field in fields(AggregatorStats)}
    assert set(one["watermark_held_seconds"]) == {"in_work", "retry", "reconnect", "source"}
    assert (one["name"], one["windows_open"], one["results_pending"], one["results_failing"]) == ("lists", 1, 1, 1)
    assert one["late"] == {"event_time": 0, "held": 0}
    assert one["results"]["every"] == 1
    assert one["checkpoints"] == sum(one["checkpoint_duration"]["counts"]) > 0
    assert one["checkpoint_age_seconds"] >= 0.0
    assert [one["name"] for one in told["stages"]] == ["processors", "aggregator:lists", "emitter:lists"]


def test_the_page_shows_what_the_api_tells() -> None:
    script = files("broadway_py.daemon.http").joinpath("page", "aggregators.js").read_text(encoding="utf-8")
    start, end = script.index("function aggregatorCard"), len(script)
    used = set(re.findall(r"\bone\.(\w+)", script[start:end])) - {"partitions"}
    added = script[script.index("const ADDED") : script.index("function behind")]

    assert used | set(re.findall(r'"(\w+)"', added)) <= {field.name for field in fields(AggregatorStats)}
    assert used >= {
        *("watermark_lag_seconds", "watermark_held_seconds", "windows_open", "results_pending", "late"),
        *("checkpoints", "checkpoint_age_seconds", "checkpoint_duration", "checkpoint_failures"),
    }
