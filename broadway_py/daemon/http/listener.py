"""Limits how many connections the HTTP port has, and how long each may take.

Anybody who reaches the port may open connections and send nothing. Each connection holds one of the process's
descriptors, which the connections to brokers need. So there is a limit, and a connection that waits for a request is
closed after some seconds. When the limit is reached, the connection that has waited longest is closed for the next one,
so that health checks get through.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from aiohttp import web

from broadway_py import forks
from broadway_py.log import logger

__all__ = ["Port", "Visit", "bind", "most_connections"]

log = logger("broadway_py.daemon")

#: Seconds from connecting to the end of the first request's headers.
HEAD_S: Final = 10.0
#: Seconds for the body of a request whose handler reads it.
BODY_S: Final = 10.0
#: Seconds from the end of the headers, or of the body, to the answer.
ANSWER_S: Final = 30.0
#: Seconds from there to the end of the next request's headers. The client must also have read the answer by then.
IDLE_S: Final = 30.0

# The sizes of a request, in bytes and in number. A connection holds at most half a MiB of headers.
_LINE_BYTES: Final = 8190
_HEADER_BYTES: Final = 8190
_HEADERS: Final = 64

# The most connections that are accepted in one turn of the event loop.
_AT_ONCE: Final = 16
_BACKLOG: Final = 128
# Seconds until the next try when no descriptor was free for a connection, and seconds between two log lines about that.
_RETRY_S: Final = 1.0
_QUIET_S: Final = 60.0
_MOST: Final = 100
_LEAST: Final = 8
_NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def most_connections() -> int:
    """Returns how many connections the port may hold: a quarter of the process's descriptor limit, from 8 to 100."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if limit == resource.RLIM_INFINITY else max(_LEAST, min(_MOST, limit // 4))


async def bind(host: str, port: int) -> list[socket.socket]:
    """Returns listening sockets for every address that *host* has here, all with the same port.

    Raises:
        OSError: one of the addresses cannot be used. An address that this machine does not have is skipped if another
            one works.
    """
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    with contextlib.ExitStack() as undo:
        sockets: list[socket.socket] = []
        missing: OSError | None = None
        for family, kind, protocol, _, address in dict.fromkeys(found):
            taken = sockets[0].getsockname()[1] if sockets else port
            try:
                listening = undo.enter_context(socket.socket(family, kind, protocol))
                listening.setblocking(False)
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listening.bind((address[0], taken, *address[2:]))
                listening.listen(_BACKLOG)
            except OSError as failed:
                if failed.errno not in _NOT_HERE:
                    raise
                missing = failed
            else:
                sockets.append(listening)
        if not sockets:
            raise missing or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        undo.pop_all()
    return sockets


class Visit(web.RequestHandler):
    """One connection. It either waits for a request's headers or body, or works on an answer.

    It is closed when that takes too long. While it waits, it may be closed to make room for another one.

    Args:
        port: the port, which is told when an answer is ready and when the connection is lost.
        server: its handlers answer the requests.
        headers: headers of the answers that :meth:`handle_error` makes.
    """

    def __init__(self, port: Port, server: web.Server, headers: Mapping[str, str]) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # None turns the access log off
            keepalive_timeout=IDLE_S,
            max_line_size=_LINE_BYTES,
            max_field_size=_HEADER_BYTES,
            max_headers=_HEADERS,
            # Small compressed bodies could become large ones.
            auto_decompress=False,
        )
        self._port = port
        self._headers = headers
        self._timer: asyncio.TimerHandle | None = None
        #: True while a handler works on a request that has come as far as it needs it.
        self.is_handling = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Starts the time limit when the client has connected."""
        super().connection_made(transport)
        self._cut_in(HEAD_S)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tells the port that the connection is closed."""
        if self._timer is not None:
            self._timer.cancel()
        self._port.left(self)
        super().connection_lost(exc)

    def begin(self) -> None:
        """Starts the time limit for the answer, when the headers or the body of a request have come."""
        self.is_handling = True
        self._cut_in(ANSWER_S)

    @contextlib.contextmanager
    def waiting_for_body(self) -> Iterator[None]:
        """Lets the client take its time to send the body, but not longer than it may, and not if room is needed."""
        self.is_handling = False
        self._port.waits_again(self)
        self._cut_in(BODY_S)
        yield
        self.begin()

    def end(self) -> None:
        """Starts the time limit for the next request, when the answer is ready to be sent."""
        self.is_handling = False
        self._port.waits_again(self)
        self._cut_in(IDLE_S)

    def cut(self) -> None:
        """Closes the connection now, even if the client has not read everything."""
        if self.transport is not None:
            self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Returns the answer to a request that failed before or outside of a handler.

        Such a request is not valid HTTP or is too long, or our own code raised an error, which is logged.
        """
        if isinstance(exc, ConnectionError):
            raise exc  # the client is gone, and nobody is left to be answered
        if status >= 500:  # the server's own faults
            log.error("an HTTP request could not be answered", exc_info=exc)
        answer = web.json_response({"error": _in_words(status, message)}, status=status, headers=self._headers)
        answer.force_close()
        return answer

    def _cut_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.cut)


def _in_words(status: int, message: str | None) -> str:
    if status >= 500:  # the server's own faults
        return "the daemon could not answer this; its log says why"
    # Only the first line is used: the rest quotes the request.
    reason = (message or "this one cannot be read").strip().partition("\n")[0].rstrip(":")
    return f"expected a request in HTTP/1.1: {reason[:200]}"


class Port:
    """Accepts connections. All methods are called in the event loop.

    Args:
        sockets: listening sockets, which :meth:`close` closes.
        make: makes a :class:`Visit` for each connection.
        most: the most connections at one time.
    """

    def __init__(self, sockets: list[socket.socket], make: Callable[[Port], Visit], most: int) -> None:
        self._sockets = sockets
        self._make = make
        self._most = most
        self._loop = asyncio.get_running_loop()
        # The visits whose descriptor is not closed yet. The one that has waited longest for a request comes first.
        self._visits: dict[Visit, None] = {}
        # Connections that are accepted but have no visit yet.
        self._arriving: set[asyncio.Task[None]] = set()
        self._is_open = False
        self._retry: asyncio.TimerHandle | None = None
        self._said_at = -_QUIET_S
        self._forget = forks.when_forked(self._be_forked)

    def open(self) -> None:
        """Starts accepting connections."""
        if not self._is_open:
            self._is_open = True
            for each in self._sockets:
                self._loop.add_reader(each.fileno(), self._accept, each)

    async def close(self) -> None:
        """Stops accepting connections. Open connections stay open."""
        self._pause()
        self._forget()
        if self._retry is not None:
            self._retry.cancel()
        for task in list(self._arriving):
            task.cancel()
        for each in self._sockets:
            each.close()
        self._sockets = []
        if self._arriving:
            await asyncio.wait(self._arriving)

    def waits_again(self, visit: Visit) -> None:
        """Notes that *visit* waits for its next request."""
        if visit in self._visits:
            del self._visits[visit]
            self._visits[visit] = None

    def left(self, visit: Visit) -> None:
        """Removes *visit*, whose connection is closed."""
        self._visits.pop(visit, None)
        # Its descriptor is closed after this has returned.
        self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._retry is None and self._sockets and len(self._visits) + len(self._arriving) < self._most:
            self.open()

    def _pause(self) -> None:
        if self._is_open:
            self._is_open = False
            for each in self._sockets:
                self._loop.remove_reader(each.fileno())

    def _accept(self, listening: socket.socket) -> None:
        for taken in range(_AT_ONCE):
            if len(self._visits) + len(self._arriving) >= self._most:
                if taken:
                    return  # the next turn finds out whether there is one more
                self._say("the HTTP port has reached its limit of connections; it closes the one that is idle longest")
                self._pause()  # until one has left
                if not self._make_room():
                    self._retry_soon()
                return
            try:
                connection, _address = listening.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError as failed:
                self._say("the HTTP port cannot accept a connection", reason=failed.strerror)
                self._make_room()
                self._pause()
                self._retry_soon()
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._arrive(connection), name="http connection")
            self._arriving.add(task)
            task.add_done_callback(self._arrived)

    async def _arrive(self, connection: socket.socket) -> None:
        visit = self._make(self)
        try:
            await self._loop.connect_accepted_socket(lambda: visit, connection)
        except BaseException as failed:
            connection.close()
            if not isinstance(failed, OSError):
                raise
            return
        if visit.transport is not None:  # it may be gone already
            self._visits[visit] = None

    def _arrived(self, task: asyncio.Task[None]) -> None:
        self._arriving.discard(task)
        if not task.cancelled() and (failed := task.exception()) is not None:
            log.error("a connection to the HTTP port could not be accepted", exc_info=failed)
        self._go_on()

    def _retry_soon(self) -> None:
        if self._retry is None:
            self._retry = self._loop.call_later(_RETRY_S, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        if self._sockets:
            self.open()

    def _make_room(self) -> bool:
        """Closes the connection that has waited longest for its client. Returns False if none waits."""
        oldest = next((visit for visit in self._visits if not visit.is_handling), None)
        if oldest is None:
            return False
        oldest.cut()
        return True

    def _say(self, event: str, **details: Any) -> None:
        if self._loop.time() - self._said_at >= _QUIET_S:
            self._said_at = self._loop.time()
            log.warning(event, connections=len(self._visits), most=self._most, **details)

    def _be_forked(self) -> None:
        # A process that a handler forks must not hold the port after this process has ended.
        transports = [visit.transport for visit in self._visits if visit.transport is not None]
        sockets = [*self._sockets, *(each.get_extra_info("socket") for each in transports)]
        forks.part_with(each.fileno() for each in sockets)
