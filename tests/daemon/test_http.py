from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import Counter

from broadway_py import Message, Pipeline, Processors, ProducerError
from broadway_py.daemon.http.page_files import PAGE_FILES
from broadway_py.daemon.http.server import serve
from broadway_py.daemon.http.view import LocalView
from broadway_py.daemon.process.loop_lag import LagMeter
from broadway_py.daemon.settings.settings import Http
from broadway_py.errors import OptionsError
from broadway_py.producers import DummyProducer, Producer, QueueProducer
from broadway_py.queue import NewMessage, Queue
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


@pytest.mark.parametrize(("path", "kind"), [(path, kind) for path, (_, kind) in PAGE_FILES.items()])
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


async def test_the_api_tells_the_same_of_a_producer_that_counts_its_requests() -> None:
    class Charged(DummyProducer):
        async def open(self) -> None:
            self.context.requests.requests["receive", "ok"] += 1

    async with served(Charged(), DummyProducer()) as (client, pipeline):
        await pipeline.ready(10)
        (one,) = (await (await client.get("/api/pipelines")).json())["pipelines"]
        charged, other = one["producers"][:2]
        assert pipeline.stats().producers[0].requests is not None
        assert charged == {**other, "name": "charged"}


async def test_the_api_tells_how_many_messages_a_source_holds(tmp_path: Path) -> None:
    class Counted(Orders):
        _counts_sources = True

    async with Queue(tmp_path / "q.db", "orders") as queue:
        await queue.put_many([NewMessage(data=b"later", delay=3600)] * 2)
        reads = [QueueProducer(tmp_path / "q.db", "orders"), DummyProducer()]
        async with (
            Counted(producer=reads, name="orders") as pipeline,
            serve(Http(port=0), LocalView([pipeline], LagMeter())) as port,
            aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
        ):
            await eventually(lambda: pipeline.stats().producers[0].source is not None, what="the queue has answered")
            (one,) = (await (await client.get("/api/pipelines")).json())["pipelines"]
            told, other = [producer["source"] for producer in one["producers"][:2]]
            assert 0.0 <= told.pop("age_seconds") < 60.0
            assert told == {"ready": 0, "delayed": 2, "dead": 0, "trouble": None}
            assert other is None


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


@pytest.mark.parametrize(
    "path", ["/", "/metrics", "/livez", "/readyz", "/api/pipelines", "/api/settings", "/page/main.js", "/none"]
)
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "", "192.0.2.1", "[2001:db8::1]:8080"])
async def test_a_site_that_points_its_name_at_this_machine_cannot_read(path: str, host: str) -> None:
    async with served() as (client, _):
        answer = await client.get(path, headers={"Host": host})
        assert answer.status == 403
        assert await answer.json() == {"error": "send this to an address of this machine, such as 127.0.0.1"}


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.8.9.10:1", "LOCALHOST:80", "localhost.", "LocalHost.:80", "[::1]", "[::1]:80", "[0:0::1]"],
)
async def test_this_machine_is_known_by_its_names(host: str) -> None:
    async with served() as (client, _):
        assert (await client.get("/livez", headers={"Host": host})).status == 200


async def test_the_name_in_the_settings_is_served_too(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo

    def as_loopback(host: Any, *arguments: Any, **options: Any) -> Any:
        return resolve("127.0.0.1" if host == "monitor.example" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", as_loopback)
    async with served(host="Monitor.example") as (client, _):
        assert (await client.get("/livez", headers={"Host": "monitor.example:8080"})).status == 200
        assert (await client.get("/livez", headers={"Host": "MONITOR.example."})).status == 200
        assert (await client.get("/livez", headers={"Host": "evil.example"})).status == 403


async def test_an_address_for_all_is_served_under_any_name_and_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "broadway_py.daemon"):
        async with served(host="0.0.0.0") as (client, _):  # what is tested
            assert (await client.get("/livez", headers={"Host": "orders.internal"})).status == 200
    (line,) = caplog.records
    assert isinstance(line.msg, dict)
    assert line.msg["event"] == (
        "everybody who can reach the HTTP port can see the pipelines, and nobody can control them, because "
        "http.token_file is not set; allow only a trusted network, or set http.host to 127.0.0.1"
    )
    assert (line.msg["host"], line.msg["port"] > 0) == ("0.0.0.0", True)  # what is tested


async def test_loopback_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "broadway_py.daemon"):
        async with served(host="127.0.0.1"):
            pass
    assert not caplog.records


async def test_a_pipeline_that_cannot_be_paused_says_why() -> None:
    async with served() as (client, pipeline):
        await pipeline.ready(10)
        await pipeline.stop()
        answer = await client.post("/api/pipelines/orders/pause", data="{}", headers=JSON)
        why = "pause(): pipeline 'orders' is stopped"
        assert (answer.status, await answer.json()) == (
            503,
            {
                "pipeline": "orders",
                "error": f"not every worker has carried out pause of 'orders': worker 0: {why}",
                "heard": [],
                "not_heard": {"0": why},
            },
        )


# --- odd requests

HOST = b"Host: 127.0.0.1\r\n"
ODD_HEADERS = [
    b"Accept: application/openmetrics-text; version=abc",
    b"Accept: application/openmetrics-text; version=999.0.0",
    b"Accept: application/openmetrics-text; version=1.0.0; escaping=nonsense",
    b"Accept: text/plain; version=1.x; escaping",
    b"Accept: text/plain; version=1.0.0; escaping=\xff",
    b"Accept: " + b",;" * 3000,
    b"Accept: \xff\xfe",
    b"Accept-Encoding: \xff, gzip;q=nan",
    b"Range: bytes=5-2",
    b"Range: x",
    b"If-None-Match: \xff",
    b"If-Modified-Since: yesterday",
    b"Cookie: \xff=\x01",
    b"Expect: a miracle",
    b"Content-Length: -1",
    b"Content-Length: many",
    b"Content-Length: 99999999999999999999999",
    b"Transfer-Encoding: nonsense",
    b"Content-Type: \xff/\xfe; charset=\x80",
    b"Content-Encoding: br",
    b"Connection: upgrade\r\nUpgrade: websocket",
    b"X: " + b"y" * 9000,
    b"X-\xff: y",
    b": y",
    b"X y",
    b"Host: evil.example",
    b"".join(b"X%d: y\r\n" % number for number in range(500)) + b"X: y",
]
ODD_REQUESTS = [
    *(
        line + HOST + header + b"\r\n\r\n"
        for header in ODD_HEADERS
        for line in (
            b"GET /metrics HTTP/1.1\r\n",
            b"GET / HTTP/1.1\r\n",
            b"POST /api/pipelines/orders/pause HTTP/1.1\r\n",
        )
    ),
    *(
        line + b"\r\n" + HOST + b"\r\n"
        for line in (
            b"GET http://evil.example/metrics HTTP/1.1",
            b"GET http://[::1/ HTTP/1.1",
            b"GET //evil.example/ HTTP/1.1",
            b"CONNECT evil.example:80 HTTP/1.1",
            b"OPTIONS * HTTP/1.1",
            b"TRACE / HTTP/1.1",
            b"FOO / HTTP/1.1",
            b"GET /livez?\xff HTTP/1.1",
            b"GET /readyz?pipeline=%ff%00 HTTP/1.1",
            b"GET /api/pipelines/%ff%00 HTTP/1.1",
            b"GET /" + b"a" * 9000 + b" HTTP/1.1",
            b"GET / HTTP/9",
        )
    ),
    *(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n" for host in (b"", b":", b"[", b"a b", b"\xff", b"a" * 8000)),
    b"GET /metrics HTTP/1.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
]


@pytest.mark.parametrize("request_", ODD_REQUESTS, ids=range(len(ODD_REQUESTS)))
async def test_whatever_is_sent_the_answer_is_safe_and_no_crash(request_: bytes) -> None:
    async with served() as (client, _):
        assert client._base_url is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", client._base_url.port)
        writer.write(request_)
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode()
        writer.close()
        status = int(head.split()[1])
        assert status in {200, 400, 403, 404, 405, 415, 417}
        for header in ("Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy", "Cache-Control"):
            assert head.count(f"\r\n{header}: ") == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE", "PUT"])
@pytest.mark.parametrize("path", ["/", "/page.css", "/metrics", "/livez", "/readyz", "/api/pipelines", "/none"])
async def test_every_answer_has_the_safety_headers(method: str, path: str) -> None:
    async with served() as (client, _):
        answer = await client.request(method, path)
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_what_is_no_http_is_answered_with_a_sentence() -> None:
    async with served() as (client, _):
        assert client._base_url is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", client._base_url.port)
        writer.write(b"GET /livez HTTP/1.1\r\nX y\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        body = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert body["error"].startswith("expected a request in HTTP/1.1: ")


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
    assert str(refused.value) == "http.host: '192.0.2.1' is not an address of this machine; use 127.0.0.1 or 0.0.0.0"
