"""Thousands of odd requests and slow clients at once: no fault of the server, no control, and probes are answered."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from broadway_py import Message, Pipeline, RateLimit
from broadway_py.daemon.http import listener
from broadway_py.daemon.http.server import serve
from broadway_py.daemon.http.view import LocalView, Told
from broadway_py.daemon.pipelines.changes import Change
from broadway_py.daemon.process.loop_lag import LagMeter
from broadway_py.daemon.reload.outcome import Reloaded
from broadway_py.daemon.settings.settings import Http
from broadway_py.producers import DummyProducer
from tests.daemon.http_fuzz import request

SEED = 20261201
REQUESTS = 2500
SENDERS = 24
#: With the senders and the probe they are fewer than the port holds, so each may be as slow as the port lets it.
SLOW_OF_A_KIND = 15
#: Seconds until a client that hears nothing more ends its side of the connection.
QUIET_S = 0.2
#: Seconds in which each probe is answered. The machine of a test may be very busy.
DEADLINE_S = 20.0

TOKEN = "canary-71e9-open-sesame"
#: What the senders know. The token is not among them.
WRONG = (
    b"Bearer", b"Bearer ", b"Bearer x", b"Bearer canary-71e9-open-sesam", b"Bearer canary-71e9-open-sesamee",
    b"Basic x", b"Bearer \xff\xfe", b"Bearer canary-71e9-open\x00sesame", b"bearer CANARY-71E9-OPEN-SESAME", b"\x80",
    b"", b"canary-71e9-open-sesame", b"Basic canary-71e9-open-sesame", b"Bearer " + b"y" * 7000,
)  # fmt: skip


class Orders(Pipeline[Any]):
    rate_limit = RateLimit(allowed_messages=1000, interval=1.0)

    async def handle_message(self, message: Message[Any]) -> None:
        pass


class Watched(LocalView):
    """Notes each command that it is given."""

    def __init__(self, pipeline: Pipeline[Any]) -> None:
        super().__init__([pipeline], LagMeter())
        self.carried_out: list[str] = []

    async def pause(self, pipeline: str) -> Told:
        self.carried_out.append("pause")
        return await super().pause(pipeline)

    async def resume(self, pipeline: str) -> Told:
        self.carried_out.append("resume")
        return await super().resume(pipeline)

    async def change(self, pipeline: str, change: Change) -> Told:
        self.carried_out.append("change")
        return await super().change(pipeline, change)

    async def reload_and_wait(self) -> Reloaded:
        self.carried_out.append("reload")
        return await super().reload_and_wait()

    async def replay(self, _pipeline: str, _producer: str | None, _most: int) -> tuple[int, str | None]:
        self.carried_out.append("replay")
        return 0, None


@asynccontextmanager
async def served(http: Http) -> AsyncIterator[tuple[int, Watched]]:
    async with Orders(producer=DummyProducer(), name="orders") as pipeline:
        await pipeline.ready(10)
        view = Watched(pipeline)
        async with serve(http, view, view) as port:
            yield port, view


async def exchange(port: int, *said: bytes) -> bytes:
    """Send *said*, each part after the one before was not answered. Return everything that comes back."""
    heard = b""
    with contextlib.suppress(ConnectionError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for part in said:
                writer.write(part)
                with contextlib.suppress(TimeoutError):
                    while answer := await asyncio.wait_for(reader.read(65536), QUIET_S):
                        heard += answer
            with contextlib.suppress(OSError):  # the other side has closed
                writer.write_eof()
            heard += await asyncio.wait_for(reader.read(), DEADLINE_S)
        finally:
            writer.transport.abort()
    return heard


async def send_odd_requests(port: int, tokens: tuple[bytes, ...], count: int) -> Counter[int]:
    """Send *count* of them, several at a time. Returns how often each status came."""
    chosen = random.Random(SEED)
    left = [request(chosen, tokens) for _ in range(count)]
    statuses: Counter[int] = Counter()

    async def send() -> None:
        while left:
            heard = await exchange(port, left.pop())
            statuses.update(int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", heard))

    async with asyncio.TaskGroup() as senders:
        for _ in range(SENDERS):
            senders.create_task(send())
    return statuses


HEAD = b"Host: 127.0.0.1\r\n"
JSON = b"Content-Type: application/json\r\n"
SLOW = {
    "head": b"GET /livez HTTP/1.1\r\n" + HEAD + b"X: ",
    "nothing": b"",
    "body": (
        b"POST /api/pipelines/orders/pause HTTP/1.1\r\n"
        + HEAD
        + JSON
        + b"Authorization: Bearer "
        + TOKEN.encode()
        + b"\r\nContent-Length: 20\r\n\r\n{"
    ),
    "answers": (b"GET /page.js HTTP/1.1\r\n" + HEAD + b"\r\n") * 500,
}


async def be_slow(port: int, said: bytes) -> None:
    """Send *said*, and come again when the connection is closed. If it is answered, send more, and read nothing."""
    while True:
        with contextlib.suppress(ConnectionError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
            try:
                writer.write(said)
                # A reader with this limit takes a few bytes, and then no more until it is asked.
                await reader.readexactly(1)
                while True:
                    writer.write(said)
                    await writer.drain()
            except asyncio.IncompleteReadError:
                pass
            finally:
                writer.transport.abort()


@asynccontextmanager
async def meanwhile(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run *works*, which do not end by themselves, until the end of the block. A failure of one ends the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in works]
        yield
        for task in tasks:
            task.cancel()


async def probe(port: int, path: str) -> int:
    url = f"http://127.0.0.1:{port}{path}"
    async with asyncio.timeout(DEADLINE_S), aiohttp.ClientSession() as client, client.get(url) as answer:
        await answer.read()
        return answer.status


async def test_no_fault_no_control_and_each_probe_is_answered(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "token").write_text(TOKEN)
    probes: Counter[int] = Counter()

    async with served(Http(port=0, token_file=str(tmp_path / "token"))) as (port, view):

        async def ask() -> None:
            while True:
                for path in ("/livez", "/readyz", "/metrics"):
                    probes[await probe(port, path)] += 1

        slow = [be_slow(port, said) for said in SLOW.values() for _ in range(SLOW_OF_A_KIND)]
        async with meanwhile(ask(), *slow):
            statuses = await send_odd_requests(port, WRONG, REQUESTS)
        assert view.carried_out == []
        assert statuses.total() > REQUESTS / 2  # the others were not even the beginning of a request
        assert {status for status in statuses if status >= 500} == set()
        assert statuses[401] > REQUESTS / 50
        assert set(probes) == {200}
    assert [record.getMessage() for record in caplog.records if record.levelname not in ("INFO", "WARNING")] == []


@pytest.mark.parametrize(
    ("encoding", "sent"),
    [
        (b"Transfer-Encoding: chunked", b"2\r\n{}\r\nzz\r\n"),
        (b"Content-Encoding: gzip\r\nContent-Length: 5", b"\x1f\x8b\x08xx"),
    ],
)
async def test_a_body_that_breaks_on_its_way_is_not_carried_out(
    encoding: bytes, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "BODY_S", QUIET_S)
    head = b"POST /api/pipelines/orders/pause HTTP/1.1\r\n" + HEAD + JSON + encoding + b"\r\n\r\n"
    async with served(Http(port=0)) as (port, view):
        assert b" 400 " in (await exchange(port, head + sent)).partition(b"\r\n")[0]
        for length in range(len(sent)):
            # The rest comes when the handler waits for it, or never.
            heard = await exchange(port, head + sent[:length], sent[length:])
            assert not heard or b" 400 " in heard.partition(b"\r\n")[0]
        assert view.carried_out == []


async def test_where_control_is_open_odd_requests_are_no_fault_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    async with served(Http(port=0)) as (port, view):
        statuses = await send_odd_requests(port, WRONG, 1000)
        # A pipeline may be paused at the end of this, and then it is not ready.
        assert {status for status in statuses if status >= 500} <= {503}
        assert {"pause", "resume", "change", "replay"} <= set(view.carried_out)
        assert await probe(port, "/livez") == 200
    assert [record.getMessage() for record in caplog.records if record.levelname not in ("INFO", "WARNING")] == []
