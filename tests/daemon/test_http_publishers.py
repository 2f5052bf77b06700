"""What the HTTP port tells about publishers: figures, what is wrong, no payloads."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from importlib.resources import files

import aiohttp
import pytest

from broadway_py import MemoryPublisher, PublishError
from broadway_py.daemon.http.server import serve
from broadway_py.daemon.http.view import LocalView
from broadway_py.daemon.process.loop_lag import LagMeter
from broadway_py.daemon.settings.settings import Http
from broadway_py.pipeline.stats import PublisherStats
from broadway_py.producers import DummyProducer
from tests.daemon.test_http import Orders
from tests.support.eventually import eventually


async def test_a_place_that_is_away_is_told_until_it_is_back() -> None:
    out = MemoryPublisher()
    async with (
        Orders(producer=DummyProducer(), name="orders", publishers={"out": out}) as orders,
        serve(Http(port=0), LocalView([orders], LagMeter())) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        await orders.ready(10)
        await eventually(lambda: orders.stats().publishers[0].connected == 1, what="the publisher is connected")
        assert (await client.get("/readyz")).status == 200
        out.go_away("amqp://user:canary@mq/ cannot be reached")
        with pytest.raises(PublishError):
            await orders.publishers["out"].publish("canary", timeout=0.1)
        answer = await client.get("/readyz")
        assert answer.status == 503
        assert (await answer.json())["pipelines"]["orders"]["reasons"] == [
            "degraded: publisher 'out': amqp://***@mq/ cannot be reached"
        ]

        out.come_back()
        await orders.publishers["out"].publish("canary")
        await eventually(lambda: orders.stats().trouble is None, what="the pipeline is ready again")
        assert (await client.get("/readyz")).status == 200
        metrics = await (await client.get("/metrics")).text()
        assert 'broadway_published_messages_total{outcome="confirmed",pipeline="orders",publisher="out"} 1.0' in metrics
        told = await (await client.get("/api/pipelines")).text()
        (pipeline,) = json.loads(told)["pipelines"]
        assert pipeline["publishers"][0]["published"] == {"confirmed": 1, "refused": 0, "unconfirmed": 1}
        assert "canary" not in told + metrics


def test_the_page_shows_what_the_api_tells() -> None:
    script = files("broadway_py.daemon.http").joinpath("page", "stages.js").read_text(encoding="utf-8")
    start, end = script.index("function publisherCard"), script.index("const KINDS")
    used = set(re.findall(r"\bone\.(\w+)", script[start:end]))

    assert used == {field.name for field in fields(PublisherStats)}
