"""How many connections the HTTP port holds, and for how long."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from broadway_py import Message, Pipeline
from broadway_py.daemon.http import listener, server
from broadway_py.daemon.http.server import serve
from broadway_py.daemon.http.view import LocalView
from broadway_py.daemon.process.loop_lag import LagMeter
from broadway_py.daemon.settings.settings import Http
from broadway_py.producers import DummyProducer
from tests.support.eventually import eventually

HEAD = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n"
PART = HEAD + b"X-Slow: "


@asynccontextmanager
async def listening(view: Any = None) -> AsyncIterator[int]:
    async with serve(Http(port=0), view or LocalView([], LagMeter())) as number:
        yield number


class Client:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, number: int, said: bytes = b"") -> Client:
        client = cls(*await asyncio.open_connection("127.0.0.1", number))
        client.say(said)
        return client

    def say(self, data: bytes) -> None:
        self._writer.write(data)

    async def status(self) -> int:
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 20)
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        await self._reader.readexactly(length)
        return int(head.split()[1])

    async def is_cut(self) -> bool:
        """Wait until the other side has closed; True if it had nothing to say."""
        try:
            return await asyncio.wait_for(self._reader.read(), 8) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        self._writer.transport.abort()


@pytest.mark.parametrize("said", [b"", b"GET", PART, b"\r\n\r\n"])
async def test_a_request_whose_head_does_not_come_is_cut_off(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "HEAD_S", 0.05)
    async with listening() as number:
        client = await Client.to(number, said)
        assert await client.is_cut()
        client.close()


@pytest.mark.parametrize("said", [b"", PART])
async def test_a_connection_that_is_idle_after_a_request_is_cut_off(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "IDLE_S", 0.05)
    async with listening() as number:
        client = await Client.to(number, HEAD + b"\r\n")
        assert await client.status() == 200
        client.say(said)
        assert await client.is_cut()
        client.close()


async def test_requests_in_time_keep_their_connection() -> None:
    async with listening() as number:
        client = await Client.to(number)
        for _ in range(20):
            client.say(HEAD + b"\r\n")
            assert await client.status() == 200
        client.close()


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "IDLE_S", 0.05)
    async with listening() as number:
        client = await Client.to(number, b"POST /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 50000\r\n\r\n{")
        assert await client.status() == 415
        assert await client.is_cut()
        client.close()


class _Orders(Pipeline[Any]):
    async def handle_message(self, message: Message[Any]) -> None:
        pass


#: A command whose body is announced, and never sent as a whole.
PART_OF_BODY = (
    b"POST /api/pipelines/orders/pause HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Content-Length: 20\r\n\r\n{"
)


@asynccontextmanager
async def orders() -> AsyncIterator[LocalView]:
    async with _Orders(producer=DummyProducer(), name="orders") as pipeline:
        yield LocalView([pipeline], LagMeter())


async def test_a_body_that_a_handler_waits_for_in_vain_is_cut_off_and_nothing_is_carried_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener, "BODY_S", 0.05)
    async with orders() as view, listening(view) as number:
        client = await Client.to(number, PART_OF_BODY)
        assert await client.is_cut()
        client.close()
        assert not any(one.state == "paused" for one in view.stats())
    assert not caplog.records


async def test_clients_that_owe_a_body_make_room_for_a_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "most_connections", lambda: 8)
    monkeypatch.setattr(listener, "BODY_S", 1000.0)
    begun: list[listener.Visit] = []
    begin = listener.Visit.begin

    def note(self: listener.Visit) -> None:
        begin(self)
        begun.append(self)

    monkeypatch.setattr(listener.Visit, "begin", note)
    async with orders() as view, listening(view) as number:
        slow = [await Client.to(number, PART_OF_BODY) for _ in range(8)]
        await eventually(lambda: len(begun) == 8, what="a handler waits for each body")
        for _ in range(4):
            probe = await Client.to(number, HEAD + b"\r\n")
            assert await probe.status() == 200
            probe.close()
        for client in slow:
            client.close()


async def test_a_body_in_time_is_carried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async with orders() as view, listening(view) as number:
        client = await Client.to(number, PART_OF_BODY)
        client.say(b" " * 18 + b"}")
        assert await client.status() == 200
        assert [one.state for one in view.stats()] == ["paused"]
        client.close()


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"GET /" + b"a" * 8000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 404),
        (b"GET /" + b"a" * 8200 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400),
        (HEAD + b"X: " + b"y" * 8000 + b"\r\n\r\n", 200),
        (HEAD + b"X: " + b"y" * 8200 + b"\r\n\r\n", 400),
        (HEAD + b"x" * 8200 + b": y\r\n\r\n", 400),
        (HEAD + b"X: y\r\n" * 60 + b"\r\n", 200),
        (HEAD + b"X: y\r\n" * 70 + b"\r\n", 400),
    ],
)
async def test_the_headers_of_a_request_have_a_limit(said: bytes, status: int) -> None:
    async with listening() as number:
        client = await Client.to(number, said)
        assert await client.status() == status
        client.close()


async def test_headers_without_an_end_are_refused_at_the_limit() -> None:
    async with listening() as number:
        client = await Client.to(number, HEAD + b"X: ")
        for _ in range(10):
            client.say(b"y" * 1000)
        assert await client.status() == 400
        client.close()


class _Endless(LocalView):
    """Describes itself at length."""

    def not_ready(self) -> dict[str, list[str]]:
        return {"orders": ["x" * 50_000_000]}


async def test_a_client_that_does_not_read_its_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "IDLE_S", 0.2)
    cut = asyncio.Event()
    lost = listener.Visit.connection_lost

    def note(self: listener.Visit, exc: BaseException | None) -> None:
        lost(self, exc)
        cut.set()

    monkeypatch.setattr(listener.Visit, "connection_lost", note)
    async with listening(_Endless([], LagMeter())) as number:
        with socket.create_connection(("127.0.0.1", number)) as client:
            client.sendall(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            await asyncio.wait_for(cut.wait(), 20)


async def test_the_connection_that_has_waited_longest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "most_connections", lambda: 8)
    async with listening() as number:
        idle = [await Client.to(number, PART) for _ in range(40)]
        probe = await Client.to(number, HEAD + b"\r\n")
        assert await probe.status() == 200
        assert all([await client.is_cut() for client in idle[:32]])
        # The youngest are still there.
        idle[-1].say(b"x\r\n\r\n")
        assert await idle[-1].status() == 200
        for client in (*idle, probe):
            client.close()


class _Slow(LocalView):
    """Refreshes when it is told to."""

    def __init__(self) -> None:
        super().__init__([], LagMeter())
        self.refreshing = 0
        self.go_on = asyncio.Event()

    async def refresh(self) -> None:
        self.refreshing += 1
        await self.go_on.wait()


async def test_those_that_are_at_work_are_not_cut_and_the_next_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "most_connections", lambda: 8)
    view = _Slow()
    async with listening(view) as number:
        at_work = [await Client.to(number, b"GET /api/pipelines HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") for _ in range(8)]
        # The history of the page is one more.
        await eventually(lambda: view.refreshing == 9, what="all are at work")
        late = await Client.to(number, HEAD + b"\r\n")
        view.go_on.set()
        assert [await client.status() for client in at_work] == [200] * 8
        assert await late.status() == 200
        for client in (*at_work, late):
            client.close()


async def test_requests_that_come_faster_than_they_are_answered_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    visits: list[listener.Visit] = []
    made = listener.Visit.connection_made

    def note(self: listener.Visit, transport: asyncio.BaseTransport) -> None:
        made(self, transport)
        visits.append(self)

    def is_reading() -> bool:
        transport = visits[0].transport
        assert isinstance(transport, asyncio.Transport)
        return transport.is_reading()

    monkeypatch.setattr(listener.Visit, "connection_made", note)
    view = _Slow()
    async with listening(view) as number:
        client = await Client.to(number, b"GET /api/pipelines HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 20_000)
        await eventually(lambda: view.refreshing == 1, what="the first one is at work")
        await eventually(lambda: not is_reading(), what="the others wait")
        view.go_on.set()
        assert {await client.status() for _ in range(500)} == {200}
        client.close()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors as Linux shows them")
async def test_without_descriptors_it_tries_again_after_a_while_and_does_not_spin(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener, "_RETRY_S", 0.1)
    async with listening() as number:
        usual = resource.getrlimit(resource.RLIMIT_NOFILE)
        client = socket.socket()
        client.setblocking(False)
        used = max(int(each.name) for each in Path("/proc/self/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(used, client.fileno()) + 1, usual[1]))
        spare: list[socket.socket] = []
        try:
            while len(spare) < 1000:
                try:
                    spare.append(socket.socket())
                except OSError:
                    break
            with caplog.at_level("WARNING", "broadway_py.daemon"):
                await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", number))
                await eventually(lambda: len(caplog.records) == 1, what="it says that it has none")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, usual)
            for each in spare:
                each.close()
        assert "the HTTP port cannot accept a connection" in str(caplog.records[0].msg)
        await asyncio.get_running_loop().sock_sendall(client, HEAD + b"\r\n")
        answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 100), 20)
        client.close()
    assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(("limit", "most"), [(resource.RLIM_INFINITY, 100), (65536, 100), (128, 32), (16, 8)])
def test_brokers_keep_three_quarters_of_the_descriptors(limit: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (limit, limit))
    assert listener.most_connections() == most


async def test_a_name_of_several_addresses_is_served_on_all_of_them_with_one_port() -> None:
    sockets = await listener.bind("localhost", 0)
    try:
        assert len({each.getsockname()[1] for each in sockets}) == 1
    finally:
        for each in sockets:
            each.close()


async def test_others_run_between_requests_that_come_without_waiting_for_the_answers() -> None:
    turn = 0
    turns: list[int] = []

    class Noting(LocalView):
        def not_alive(self) -> list[str]:
            turns.append(turn)
            return []

    async def other() -> None:
        nonlocal turn
        while True:
            await asyncio.sleep(0)
            turn += 1

    async with listening(Noting([], LagMeter())) as number:
        others = asyncio.create_task(other())
        client = await Client.to(number, (HEAD + b"\r\n") * 50)
        assert [await client.status() for _ in range(50)] == [200] * 50
        client.close()
        others.cancel()
    assert len(set(turns)) == len(turns) == 50
