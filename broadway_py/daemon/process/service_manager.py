"""Tells systemd how the daemon is, by the datagrams of its notify protocol.

Without ``$NOTIFY_SOCKET`` nothing is told. See ``sd_notify(3)`` and ``sd_watchdog_enabled(3)``.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Final

from broadway_py.error_text import clipped
from broadway_py.log import logger
from broadway_py.pipeline.stats import PipelineStats

__all__ = ["ServiceManager", "service_manager", "status_of"]

log = logger("broadway_py.daemon")

#: Seconds between two looks at the status, if the watchdog does not need shorter ones.
_EVERY_S: Final = 5.0
#: The most characters of a status: `systemctl status` shows it in one line.
_LONGEST: Final = 300


class ServiceManager:
    """The service manager that has started this process, if it listens.

    An error of its socket is logged once and ends nothing: the daemon works without a service manager. The last change
    that could not be told is told with the next look at the status.

    Args:
        environ: the variables of the environment. Those of the protocol are removed, so that no child process tells
            the service manager anything in the name of this one.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        named = environ.pop("NOTIFY_SOCKET", "")
        microseconds = environ.pop("WATCHDOG_USEC", "")
        # The watchdog may be meant for another process, which has passed its variables on to this one.
        meant = environ.pop("WATCHDOG_PID", "") in ("", str(os.getpid()))
        self._address = f"\0{named[1:]}" if named.startswith("@") else named
        self._has_watchdog = bool(named) and meant and microseconds.isdecimal() and int(microseconds) > 0
        self._every_s = min(_EVERY_S, int(microseconds) / 2e6) if self._has_watchdog else _EVERY_S
        self._socket: socket.socket | None = None
        self._is_ready = False
        self._is_stopping = False
        self._untold = ""
        self._look_soon: Callable[[], None] = _do_nothing
        self._last_status = ""
        self._has_failed = False
        #: What is appended to the status; "": nothing. It must hold no secret: every user of the machine can read it.
        self.remark = ""
        if named:
            try:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            except OSError as failed:
                self._note_failure(failed)
            else:
                # A service manager that does not read must not block the event loop.
                self._socket.setblocking(False)

    def ready(self) -> None:
        """Tells that the start is complete. Later calls do nothing."""
        if not self._is_ready and not self._is_stopping:
            self._is_ready = True
            self._tell_change("READY=1")

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Tells that a reload runs while the block runs, and that it has ended, whatever its result.

        Nothing is told before :meth:`ready` and after :meth:`stopping`.
        """
        if self._is_ready and not self._is_stopping:
            # The time must be later than the signal: older reloads are not taken for the answer.
            self._tell_change(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            yield
        finally:
            if self._is_ready and not self._is_stopping:
                self._tell_change("READY=1")

    def stopping(self) -> None:
        """Tells that the drain has begun. Later calls do nothing."""
        if not self._is_stopping:
            self._is_stopping = True
            self._tell_change("STOPPING=1")

    @contextmanager
    def watchdog(self, status: Callable[[], str], is_alive: Callable[[], bool] = lambda: True) -> Iterator[None]:
        """Tells the status, and that the process is alive, from the running event loop while the block runs.

        A loop that is blocked tells nothing. The service manager then restarts the process.

        Args:
            status: returns what ``systemctl status`` shows.
            is_alive: returns False if the process is to be restarted although its loop runs.
        """
        if self._socket is None:
            yield
            return
        loop = asyncio.get_running_loop()
        timer: asyncio.Handle

        def look() -> None:
            nonlocal timer
            # First of all, so that an error below does not end the looks.
            timer = loop.call_later(self._every_s, look)
            self._look(status(), is_alive=is_alive())

        def look_soon() -> None:
            nonlocal timer
            timer.cancel()
            timer = loop.call_soon(look)

        timer = loop.call_soon(look)
        self._look_soon = look_soon
        try:
            yield
        finally:
            timer.cancel()
            self._look_soon = _do_nothing

    def close(self) -> None:
        """Closes the socket. Nothing is told any more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _look(self, status: str, *, is_alive: bool) -> None:
        text = clipped("; ".join(filter(None, (" ".join(part.split()) for part in (status, self.remark)))), _LONGEST)
        lines = [self._untold] if self._untold else []
        if text != self._last_status:
            lines.append(f"STATUS={text}")
        if self._has_watchdog and is_alive:
            lines.append("WATCHDOG=1")
        if lines and self._tell("\n".join(lines)):
            self._untold = ""
            self._last_status = text

    def _tell_change(self, lines: str) -> None:
        self._untold = "" if self._tell(lines) else lines
        # The status of before the change may be wrong now.
        self._look_soon()

    def _tell(self, lines: str) -> bool:
        if self._socket is None:
            return True
        try:
            self._socket.sendto(lines.encode(errors="replace"), self._address)
        except OSError as failed:
            self._note_failure(failed)
            return False
        return True

    def _note_failure(self, failed: OSError) -> None:
        if not self._has_failed:
            self._has_failed = True
            log.warning(
                "the service manager cannot be told how the daemon is; the daemon runs without it",
                variable="NOTIFY_SOCKET",
                reason=failed.strerror or str(failed),
            )


def _do_nothing() -> None:
    """Looks at no status: nothing runs."""


class _State:
    #: That of this process, once somebody has asked for it.
    manager: ServiceManager | None = None


def service_manager() -> ServiceManager:
    """Returns the service manager of this process. The first call takes its variables out of the environment."""
    if _State.manager is None:
        _State.manager = ServiceManager(os.environ)
    return _State.manager


def status_of(stats: Sequence[PipelineStats]) -> str:
    """Returns in one line how many pipelines are connected, and why the first one that is not ready is not."""
    connected = sum(all(one.ended or one.connected == one.copies for one in pipeline.producers) for pipeline in stats)
    text = f"{len(stats)} pipeline{'s' if len(stats) > 1 else ''}, {connected} connected"
    troubles = [f"{pipeline.name}: {pipeline.trouble}" for pipeline in stats if pipeline.trouble is not None]
    more = f" (and {len(troubles) - 1} more)" if len(troubles) > 1 else ""
    return f"{text}; {troubles[0]}{more}" if troubles else text
