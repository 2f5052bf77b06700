"""Runs one reload at a time. Those that are asked for while one runs are one further reload."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import nullcontext
from typing import Any, Final

from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.daemon.process.service_manager import service_manager
from broadway_py.daemon.reload.outcome import OUTCOMES, STOPPING, Reloaded, ReloadOutcome, ReloadStatus
from broadway_py.foreign import foreign_errors
from broadway_py.log import ALL, logger

__all__ = ["ReloadTurns"]

log = logger("broadway_py.daemon")

#: What `systemctl status` shows after a reload: for systemd, every reload succeeds.
_REMARKS: Final[Mapping[ReloadOutcome, str]] = {
    "done": "",
    "refused": "the last reload was refused, and the log says why",
    "failed": "the last reload has failed in part, and the log says why",
}
_BROKEN: Final = Reloaded(failed=("the reload ended with an error, which is in the log",))


class ReloadTurns:
    """The reloads of one process. All methods are called in its event loop.

    Args:
        clock: tells when a reload ended.
        is_worker: this process is a worker. Its supervisor logs the reload, and tells the service manager.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK, *, is_worker: bool = False) -> None:
        self._clock = clock
        self._is_worker = is_worker
        self._reload: Callable[[], Awaitable[Reloaded]] | None = None
        self._spawn: Callable[[Coroutine[Any, Any, None]], object] | None = None
        # The result of the reload that was asked for and has not begun.
        self._next: asyncio.Future[Reloaded] | None = None
        self._is_running = False
        self._is_over = False
        self._counts: dict[ReloadOutcome, int] = dict.fromkeys(OUTCOMES, 0)
        self._last: Reloaded | None = None
        self._last_at: float | None = None

    @property
    def status(self) -> ReloadStatus:
        """What is known of the reloads so far."""
        return ReloadStatus(self._is_running, dict(self._counts), self._last, self._last_at)

    def begin(
        self, reload: Callable[[], Awaitable[Reloaded]], spawn: Callable[[Coroutine[Any, Any, None]], object]
    ) -> None:
        """From now on, reloads are carried out. One that was asked for before begins now.

        Args:
            reload: carries out one reload.
            spawn: runs a coroutine as a task.
        """
        self._reload, self._spawn = reload, spawn
        self._go_on()

    def end(self) -> None:
        """From now on, nothing is reloaded. A reload that runs goes on: it sees for itself that the process stops."""
        self._is_over = True
        if self._next is not None:
            self._next.set_result(STOPPING)
            self._next = None

    def ask(self) -> asyncio.Future[Reloaded]:
        """Asks for a reload. Returns the future of its result, which others may have, too."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        asked = self._next
        if self._is_over:
            self.end()
        else:
            self._go_on()
        return asked

    def _go_on(self) -> None:
        if self._next is not None and self._spawn is not None and not self._is_running:
            self._is_running = True
            self._spawn(self._run())

    async def _run(self) -> None:
        try:
            while (asked := self._next) is not None:
                self._next = None
                result = _BROKEN
                try:
                    result = await self._once()
                finally:
                    if not asked.done():
                        asked.set_result(result)
        finally:
            self._is_running = False

    async def _once(self) -> Reloaded:
        assert self._reload is not None  # noqa: S101  # it has begun
        result = _BROKEN
        if not self._is_worker:
            log.info("reloading")
        with nullcontext() if self._is_worker else service_manager().reloading():
            try:
                result = await self._reload()
            except foreign_errors():
                log.exception("the reload ended with an error")
            service_manager().remark = _REMARKS[result.outcome]
        self._counts[result.outcome] += 1
        self._last, self._last_at = result, self._clock.wall()
        if not self._is_worker:
            _tell(result)
        return result


def _tell(result: Reloaded) -> None:
    for sentence in result.refused:
        log.error("nothing was reloaded", reason=sentence, **{ALL: True})
    for sentence in result.failed:
        log.error("not everything was reloaded", reason=sentence, **{ALL: True})
    for sentence in result.notes:
        log.warning(sentence, **{ALL: True})
    if result.outcome != "refused":
        log.info(
            "reloaded",
            outcome=result.outcome,
            changed=result.changed,
            new=result.new,
            gone=result.gone,
            unchanged=len(result.unchanged),
            others=result.others,
        )
