from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from prometheus_client import Counter

from broadway_py import Message, Pipeline, Processors, ProducerError
from broadway_py.daemon.http import serve
from broadway_py.daemon.lag import LagMeter
from broadway_py.daemon.settings import Http
from broadway_py.daemon.view import LocalView
from broadway_py.errors import OptionsError
from broadway_py.producers import DummyProducer, Producer
from tests.support.eventually import eventually

CANARY = "canary-51d0"

USERS_OWN = Counter("test_http_orders", "A metric of the user.")


class Orders(Pipeline[Any]):
    async def handle_message(self, message: Message[Any]) -> None:
        pass


class Away(Producer):
    async def open(self) -> None:
        raise ProducerError(f"amqp://user:{CANARY}@broker refused")


@asynccontextmanager
async def served(
    *producers: Producer, host: str = "127.0.0.1"
) -> AsyncIterator[tuple[aiohttp.ClientSession, Pipeline[Any]]]:
    async with (
        Orders(
            producer=list(producers) or DummyProducer(), name="orders", processors=Processors(concurrency=1)
        ) as pipeline,
        serve(Http(host=host, port=0), LocalView([pipeline], LagMeter())) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        yield client, pipeline


JSON = {"Content-Type": "application/json"}


async def test_ready_and_alive_once_the_pipeline_is_connected() -> None:
    async with served() as (client, pipeline):
        await pipeline.ready(10)
        ready = await client.get("/readyz")
        assert ready.status == 200
        assert await ready.json() == {"ready": True, "pipelines": {"orders": {"ready": True, "reasons": []}}}
        alive = await client.get("/livez")
        assert (alive.status, await alive.json()) == (200, {"alive": True, "problems": []})


async def test_not_ready_says_why_without_the_password() -> None:
    async with served(Away()) as (client, pipeline):
        await eventually(lambda: "refused" in (pipeline.stats().trouble or ""), what="the first connect has failed")
        answer = await client.get("/readyz")
        body = await answer.text()
        assert answer.status == 503
        assert "amqp://***@broker refused" in body
        assert CANARY not in body


async def test_readiness_of_one_pipeline() -> None:
    async with served() as (client, pipeline):
        await pipeline.ready(10)
        assert (await client.get("/readyz?pipeline=orders")).status == 200
        unknown = await client.get("/readyz?pipeline=order")
        assert (unknown.status, await unknown.json()) == (404, {"error": "no pipeline 'order'; known here: orders"})


async def test_metrics_come_as_text_or_as_openmetrics_with_the_users_own() -> None:
    USERS_OWN.inc()
    async with served() as (client, pipeline):
        await pipeline.submit("a", timeout=10)
        text = await (await client.get("/metrics")).text()
        assert 'broadway_messages_received_total{pipeline="orders",producer="push"} 1.0' in text
        assert "test_http_orders_total 1.0" in text
        assert "broadway_build_info{" in text
        answer = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        assert answer.content_type == "application/openmetrics-text"
        assert (await answer.text()).endswith("# EOF\n")


@pytest.mark.parametrize(
    ("path", "kind"), [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")]
)
async def test_the_page_is_served_with_nothing_from_elsewhere(path: str, kind: str) -> None:
    async with served() as (client, _):
        answer = await client.get(path)
        assert (answer.status, answer.content_type) == (200, kind)
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        text = await answer.text()
        for elsewhere in ("//cdn", 'src="http', 'href="http', "@import", "url(http"):
            assert elsewhere not in text


async def test_the_api_tells_stages_and_stats() -> None:
    async with served() as (client, pipeline):
        await pipeline.ready(10)
        (one,) = (await (await client.get("/api/pipelines")).json())["pipelines"]
        assert (one["name"], one["state"], one["reasons"]) == ("orders", "running", [])
        assert one["topology"]["processors"] == [{"name": "orders.processors", "concurrency": 1}]
        same = await (await client.get("/api/pipelines/orders")).json()
        assert same["producers"][0]["name"] == one["producers"][0]["name"]
        assert (await client.get("/api/pipelines/other")).status == 404


async def test_pause_and_resume() -> None:
    async with served() as (client, pipeline):
        await pipeline.ready(10)
        paused = await client.post("/api/pipelines/orders/pause", data="{}", headers=JSON)
        assert paused.status == 200
        assert await paused.json() == {"pipeline": "orders", "done": "pause", "heard": [0], "not_heard": {}}
        assert pipeline.is_paused
        ready = await client.get("/readyz")
        assert (ready.status, (await ready.json())["pipelines"]["orders"]["reasons"]) == (503, ["paused"])
        await client.post("/api/pipelines/orders/resume", data="{}", headers=JSON)
        assert not pipeline.is_paused


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({**JSON, "Host": "evil.example:8080"}, 403),
        ({**JSON, "Host": "127.0.0.1.evil.example"}, 403),
        ({**JSON, "Host": "localhost:8080"}, 200),
        ({**JSON, "Host": "[::1]:8080"}, 200),
    ],
)
async def test_a_page_of_another_site_cannot_pause(headers: dict[str, str], status: int) -> None:
    async with served() as (client, pipeline):
        answer = await client.post("/api/pipelines/orders/pause", data="{}", headers=headers)
        assert answer.status == status
        assert pipeline.is_paused is (status == 200)


async def test_reading_cannot_pause() -> None:
    async with served() as (client, pipeline):
        answer = await client.get("/api/pipelines/orders/pause")
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")
        assert not pipeline.is_paused


async def test_a_port_in_use_is_refused_with_the_setting_to_change() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OptionsError) as refused:
            async with serve(Http(port=port), LocalView([], LagMeter())):
                pass
    assert str(refused.value) == (
        f"http.port: 127.0.0.1:{port} is in use by another program; choose another port, or 0 for a free one"
    )


async def test_a_host_that_is_not_ours_is_refused() -> None:
    with pytest.raises(OptionsError) as refused:
        async with serve(Http(host="192.0.2.1", port=0), LocalView([], LagMeter())):
            pass
    assert str(refused.value) == "http.host: '192.0.2.1' is no address of this machine; use 127.0.0.1 or 0.0.0.0"
