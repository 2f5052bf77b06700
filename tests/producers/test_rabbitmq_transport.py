"""The stream whose deliveries go past the client library, and how it is opened."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiormq.exceptions import AMQPConnectionError
from pamqp import commands
from yarl import URL

from broadway_py.producers.rabbitmq.connection.transport import CuttingReader, Transport
from broadway_py.producers.rabbitmq.wire.delivery_parser import Delivery, Ended
from tests.producers.amqp_bytes import HEARTBEAT, OPENED, TUNED, delivery, method

ONE = b"".join(delivery(1))


class Heard:
    """A receiver that notes what it hears, in order."""

    def __init__(self) -> None:
        self.news: list[object] = []

    def came(self, deliveries: list[Delivery]) -> None:
        self.news.append([found[0] for found in deliveries])

    def ended(self, why: Ended) -> None:
        self.news.append(why)

    def cut_off(self, problem: str | None) -> None:
        self.news.append(("cut off", problem))


class Clock:
    """In place of the event loop's time."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock()


async def opened(clock: Clock | None = None) -> tuple[CuttingReader, Heard]:
    loop = asyncio.get_running_loop()
    reader, heard = CuttingReader(loop), Heard()
    if clock is not None:
        reader._time = clock
    reader.feed_data(TUNED + OPENED)
    assert await reader.readexactly(len(TUNED + OPENED)) == TUNED + OPENED
    reader.sink(1, heard).add("ours")
    return reader, heard


async def what_the_library_got(reader: CuttingReader) -> bytes:
    reader.feed_eof()
    return await reader.read()


async def test_each_read_is_one_list_and_the_library_gets_the_rest() -> None:
    reader, heard = await opened()
    qos = method(commands.Basic.QosOk())
    reader.feed_data(b"".join(delivery(1)) + qos + b"".join(delivery(2)))
    reader.feed_data(b"".join(delivery(3)))
    assert heard.news == [[1, 2], [3]]
    assert await what_the_library_got(reader) == qos


async def test_while_only_deliveries_come_the_library_gets_one_heartbeat_a_second(clock: Clock) -> None:
    reader, _ = await opened(clock)
    for moment in (100.0, 100.5, 101.0, 101.5, 101.9, 102.0):
        clock.now = moment
        reader.feed_data(ONE)
    assert await what_the_library_got(reader) == HEARTBEAT * 2


async def test_part_of_a_large_body_is_a_sign_of_life_too(clock: Clock) -> None:
    reader, _ = await opened(clock)
    clock.now = 102.0
    reader.feed_data(ONE[:-3])
    assert await what_the_library_got(reader) == HEARTBEAT


async def test_without_bytes_there_is_no_heartbeat_of_ours(clock: Clock) -> None:
    reader, _ = await opened(clock)
    reader.feed_data(ONE)
    clock.now = 1000.0
    await asyncio.sleep(0)
    assert await what_the_library_got(reader) == b""


async def test_a_heartbeat_of_ours_never_stands_in_the_middle_of_a_frame(clock: Clock) -> None:
    reader, _ = await opened(clock)
    qos = method(commands.Basic.QosOk())
    clock.now = 102.0
    reader.feed_data(qos[:5])
    reader.feed_data(qos[5:])
    assert await what_the_library_got(reader) == HEARTBEAT + qos


async def test_the_end_of_a_channel_is_told_in_the_same_step_as_its_bytes() -> None:
    reader, heard = await opened()
    close = method(commands.Channel.Close(404, "NOT_FOUND - no queue", 0, 0))
    reader.feed_data(ONE + close)
    assert heard.news == [[1], Ended("channel", "NOT_FOUND - no queue")]
    assert await what_the_library_got(reader) == close


async def test_without_one_of_its_consumers_a_receiver_hears_on() -> None:
    reader, heard = await opened()
    reader.feed_data(method(commands.Basic.Cancel("ours")))
    reader.feed_eof()
    assert heard.news == [Ended("consumer", "ours"), ("cut off", None)]


async def test_what_is_no_amqp_ends_the_stream_and_nothing_is_kept_after_it() -> None:
    reader, heard = await opened()
    reader.feed_data(b"\x01\x00\x01\x7f\xff\xff\xff")
    reader.feed_data(ONE * 1000)
    assert heard.news == [("cut off", "a frame of 2147483647 bytes came, but at most 4088 were agreed")]
    with pytest.raises(ConnectionError) as broken:
        await reader.readexactly(1)
    assert str(broken.value) == (
        "the broker sent something that is not AMQP: a frame of 2147483647 bytes came, but at most 4088 were agreed"
    )


async def test_a_lost_connection_is_told_once() -> None:
    reader, heard = await opened()
    reader.set_exception(ConnectionResetError())
    reader.feed_eof()
    assert heard.news == [("cut off", None)]


# --- opening --------------------------------------------------------------------------------------------------------


class Listener:
    """Takes connections, notes what comes, and hangs up."""

    def __init__(self) -> None:
        self.came = b""
        self.port = 0
        self.done = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came += await reader.read(1000)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        self.done.set()


@asynccontextmanager
async def listening() -> AsyncIterator[Listener]:
    listener = Listener()
    server = await asyncio.start_server(listener.serve, "127.0.0.1", 0)
    async with server:
        listener.port = server.sockets[0].getsockname()[1]
        yield listener


class Provider:
    """As the library gives one to its factories."""

    def __init__(self, context: Any) -> None:
        self._context = context

    async def get_context(self) -> Any:
        return self._context


@pytest.mark.parametrize("cutting", [True, False])
async def test_no_clear_byte_leaves_on_amqps(*, cutting: bool) -> None:
    async with listening() as listener:
        url = URL(f"amqps://user:secret@127.0.0.1:{listener.port}/")
        with pytest.raises(AMQPConnectionError):
            await Transport(15, cutting=cutting).create(
                url, ssl_context_provider=Provider(ssl.create_default_context())
            )
        await listener.done.wait()
        # The first record of a TLS handshake.
        assert listener.came[:2] == b"\x16\x03"
        assert b"AMQP" not in listener.came


@pytest.mark.parametrize(
    ("scheme", "error", "sentence"),
    [
        ("amqps", TypeError, "expected an SSLContext for amqps, got NoneType"),
        ("https", ValueError, "expected amqp or amqps, got 'https'"),
    ],
)
async def test_nothing_is_opened_when_it_is_not_clear_how(scheme: str, error: type[Exception], sentence: str) -> None:
    async with listening() as listener:
        with pytest.raises(error) as refused:
            await Transport(15, cutting=True).create(
                URL(f"{scheme}://127.0.0.1:{listener.port}/"), ssl_context_provider=Provider(None)
            )
        assert str(refused.value) == sentence
        assert not listener.came


@contextmanager
def swallowing(port: int) -> Iterator[str]:
    """An address at which connection attempts get no answer: a listener whose queue is full."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.2", port))
        listener.listen(0)
        for _ in range(4):
            one = sockets.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(("127.0.0.2", port))
        yield "127.0.0.2"


@pytest.mark.parametrize("cutting", [True, False])
async def test_an_address_of_the_host_that_swallows_packets_does_not_hide_the_next(
    monkeypatch: pytest.MonkeyPatch, *, cutting: bool
) -> None:
    async with listening() as listener:
        with swallowing(listener.port) as deaf:

            async def two(*_: object, **__: object) -> list[Any]:
                return [
                    (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, listener.port)) for host in (deaf, "127.0.0.1")
                ]

            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", two)
            _, writer = await Transport(15, cutting=cutting).create(URL(f"amqp://two.example:{listener.port}/"))
            assert writer.get_extra_info("peername") == ("127.0.0.1", listener.port)
            writer.close()
            await writer.wait_closed()
            await listener.done.wait()


async def test_a_forked_child_lets_go_of_the_connection_and_says_nothing_on_it() -> None:
    heard: list[bytes] = []
    said = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            heard.append(data)
            said.set()
        heard.append(b"")
        said.set()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    factory = Transport(15, cutting=True)
    port = server.sockets[0].getsockname()[1]
    _, writer = await factory.create(URL(f"amqp://127.0.0.1:{port}/"))
    descriptor = writer.get_extra_info("socket").fileno()
    with warnings.catch_warnings():
        # Python warns of forks beside threads: that is what is tried.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        gone = os.fstat(descriptor).st_rdev == Path(os.devnull).stat().st_rdev
        writer.write(b"from the child")
        writer.close()
        os._exit(0 if gone else 1)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    writer.write(b"from us")
    await asyncio.wait_for(said.wait(), 30)
    assert heard == [b"from us"]
    said.clear()
    factory.let_go()
    writer.close()
    await asyncio.wait_for(said.wait(), 30)
    assert heard == [b"from us", b""]
    server.close()
    await server.wait_closed()
