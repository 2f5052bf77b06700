"""Keeps the worker processes of a daemon running: starts, restarts, changes and drains them under one deadline."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Final

from broadway_py._core.backoff import Backoff
from broadway_py._core.exits import exit_text
from broadway_py.daemon.process.main_thread import ExitCode
from broadway_py.daemon.process.service_manager import service_manager
from broadway_py.daemon.reload.resolved import Resolved
from broadway_py.daemon.reload.turns import ReloadTurns
from broadway_py.daemon.workers.messages import Act, Assignment, Command
from broadway_py.daemon.workers.poison_verdicts import PoisonVerdicts
from broadway_py.daemon.workers.worker_handle import WorkerHandle
from broadway_py.errors import OptionsError
from broadway_py.log import logger
from broadway_py.stage import first_completed

__all__ = ["KILL_AFTER", "Fleet"]

log = logger("broadway_py.daemon")

#: Seconds after the deadline at which workers that still run are killed.
KILL_AFTER: Final = 1.4

# Seconds of silence of a worker at which /livez fails, and that a worker may take to import and build its pipelines
# before /livez fails.
_SILENT: Final = 10.0
_STARTING: Final = 60.0
# Seconds that a worker may take to apply settings, besides its drains, and until a fresh one is connected.
_APPLIED: Final = 60.0
_TRIAL: Final = 10.0


class Fleet(ABC):
    """The worker processes, by their numbers.

    Args:
        settings: what they run.
    """

    def __init__(self, settings: Resolved) -> None:
        # How many workers there are, and the settings of each.
        self._count = settings.settings.workers
        self._settings_of = dict.fromkeys(range(self._count), settings)
        self._handles: dict[int, WorkerHandle] = {}
        # When each worker that does not run now was last heard of.
        self._last_words: dict[int, float] = {}
        # Why workers that should run do not run.
        self._absent: dict[int, str] = {}
        # Workers whose sources have ended and that will not run again.
        self._ended: set[int] = set()
        self._restarts: Counter[int] = Counter()
        # Workers that drain for a reload, and those that it has started and that have not run yet.
        self._leaving: set[int] = set()
        self._untried: set[int] = set()
        #: Set once everything must end.
        self.stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self._numbers = count(1)
        self._code: int = ExitCode.CLEAN
        self._wrong: OptionsError | None = None
        self._reloads = ReloadTurns()
        self._verdicts = PoisonVerdicts(self._count)
        self._tasks: asyncio.TaskGroup | None = None
        # What keeps each worker alive: one for each.
        self._keepers: dict[int, asyncio.Task[None]] = {}

    @property
    @abstractmethod
    def shutdown_timeout(self) -> float:
        """The longest timeout of the pipelines."""

    @abstractmethod
    def _assignment(self, index: int) -> Assignment:
        """Returns what the worker *index* is to do."""

    @abstractmethod
    def _keep_numbers(self, handle: WorkerHandle, *, restarts: bool) -> None:
        """Keeps what a worker has counted that has ended."""

    def stop(self) -> None:
        """Drains all workers at once. Kills those that are left after the deadline."""
        if self.stopping.is_set():
            return
        self.stopping.set()
        service_manager().stopping()
        self._reloads.end()
        self._ask_all("stop")
        for handle in self._handles.values():
            if handle.report is None:
                handle.terminate()
        self._kill_in(self.shutdown_timeout + KILL_AFTER)

    def give_up(self) -> None:
        """Tells all workers to do their last steps at once."""
        self.stop()
        self._ask_all("now")
        self._kill_in(KILL_AFTER)

    def abandon(self) -> None:
        """Kills the workers, because no supervisor will be left to command them."""
        for handle in list(self._handles.values()):
            handle.kill()

    # --- keeping workers alive

    def _spawn(self, index: int) -> None:
        assert self._tasks is not None  # noqa: S101  # they run
        keeper = self._keepers.get(index)
        # The one of a worker that was taken away may still wait for its next start.
        if keeper is None or keeper.done():
            self._keepers[index] = self._tasks.create_task(self._keep(index), name=f"worker {index}")

    async def _keep(self, index: int) -> None:
        deaths = Backoff(first_s=1.0, most_s=30.0, healthy_s=60.0)
        refusals = Backoff(first_s=1.0, most_s=15.0)
        while not self.stopping.is_set() and index in self._settings_of:
            try:
                handle = self._handles[index] = WorkerHandle(
                    self._assignment(index), self._note_change, self._verdicts.descriptor
                )
            except (OSError, MemoryError) as failed:
                # Most likely there are no free descriptors, memory or processes. There may be some later.
                delay = refusals.failed()
                self._note_refusal(index, failed, delay)
                await self._sleep(delay)
                continue
            refusals = Backoff(first_s=1.0, most_s=15.0)
            self._absent.pop(index, None)
            log.info("worker started", index=index, pid=handle.pid)
            code = await handle.exited()
            del self._handles[index]
            self._last_words[index] = handle.heard_at
            ended = handle.final is not None and handle.final.ended and code == ExitCode.CLEAN
            self._keep_numbers(handle, restarts=not ended)
            if index in self._leaving and not self.stopping.is_set():
                self._leaving.discard(index)
                self._verdicts.left(index)
                log.info("worker ended for a reload", index=index, exit=exit_text(code))
                continue
            if _has_run(handle):
                self._untried.discard(index)
            if index in self._untried and not self.stopping.is_set():
                await self._wait_after_failed_start(index, handle, code, deaths)
                continue
            if handle.refused is not None:
                self._wrong = self._wrong or OptionsError((), handle.refused)
                self.stop()
                return
            if ended:
                self._ended.add(index)
                return
            if handle.final is not None and not handle.final.started and not self.stopping.is_set():
                # The process ends as it does with one worker. The program that started the daemon sees the exit code
                # and starts it again.
                log.error("a worker could not start its pipelines; stopping the others", index=index)
                self._code = ExitCode.CRASH
                self.stop()
                return
            if self.stopping.is_set():
                self._note_exit(handle, code)
                return
            suspects = self._verdicts.died(index, code, handle.peak_kib)
            delay = deaths.failed(asyncio.get_running_loop().time() - handle.started_at)
            self._absent[index] = f"it has died ({exit_text(code)}) and is started again"
            log.error(
                "worker died; starting it again",
                index=index,
                exit=exit_text(code),
                suspects=suspects,
                seconds=round(delay, 3),
            )
            await self._sleep(delay)
            self._restarts[index] += not self.stopping.is_set()

    async def _wait_after_failed_start(self, index: int, handle: WorkerHandle, code: int, deaths: Backoff) -> None:
        """Notes that a fresh worker does not run. The others do, and would not if the whole daemon started anew."""
        self._verdicts.died(index, code, handle.peak_kib)
        delay = deaths.failed(asyncio.get_running_loop().time() - handle.started_at)
        why = handle.refused or ("its pipelines cannot start" if handle.final is not None else exit_text(code))
        self._absent[index] = f"it cannot start since a reload ({why}) and is started again"
        log.error(
            "a worker cannot start since a reload; trying again", index=index, reason=why, seconds=round(delay, 3)
        )
        await self._sleep(delay)

    async def _sleep(self, seconds: float) -> None:
        """Waits for *seconds*, or until the stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stopping.wait()

    def _note_refusal(self, index: int, failed: OSError | MemoryError, delay: float) -> None:
        reason = "out of memory" if isinstance(failed, MemoryError) else failed.strerror or str(failed)
        self._absent[index] = f"it cannot be started for now: {reason}"
        log.error("a worker cannot be started; trying again", index=index, reason=reason, seconds=round(delay, 3))

    def _note_exit(self, handle: WorkerHandle, code: int) -> None:
        if code == ExitCode.CLEAN:
            return
        log.error("worker did not end cleanly", index=handle.index, exit=exit_text(code))
        late = code == ExitCode.LATE or handle.was_killed
        self._code = ExitCode.LATE if late or self._code == ExitCode.LATE else ExitCode.CRASH

    def _ask_all(self, act: Act) -> None:
        for handle in self._handles.values():
            handle.ask(act)

    def _kill_in(self, seconds: float) -> None:
        def kill() -> None:
            self.abandon()
            for index, handle in self._handles.items():
                log.error("worker did not end in time; killing it", index=index, pid=handle.pid)

        asyncio.get_running_loop().call_later(seconds, kill)

    def _note_change(self) -> None:
        self._verdicts.forget_cleared()
        if all(index in self._ended or self._has_started(index) for index in range(self._count)):
            service_manager().ready()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _has_started(self, index: int) -> bool:
        handle = self._handles.get(index)
        return handle is not None and _has_run(handle)

    async def _until(self, is_done: Callable[[WorkerHandle], bool], seconds: float) -> None:
        """Waits until *is_done* is true for every running worker, but at most *seconds*."""
        handles = list(self._handles.values())
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not all(is_done(handle) for handle in handles):
                    await self._changed.wait()

    def _silence(self, handle: WorkerHandle) -> float:
        return asyncio.get_running_loop().time() - handle.heard_at

    def _is_silent(self, handle: WorkerHandle) -> bool:
        return self._silence(handle) > (_SILENT if handle.report is not None else _STARTING)

    # --- for reloads

    async def bring(self, index: int, settings: Resolved) -> tuple[str, ...]:
        """Has a worker apply *settings* in place. Returns why it cannot, in sentences."""
        self._settings_of[index] = settings
        handle = self._handles.get(index)
        if handle is None:
            if index in self._ended:
                return await self._begin(index)
            return ()  # it starts with them
        number = next(self._numbers)
        handle.control(Command("reload", number, settings=settings))
        seconds = 2 * self.shutdown_timeout + _APPLIED
        await self._until(
            lambda one: one is not handle or one.applied(number) is not None or one.has_ended or self._is_silent(one),
            seconds,
        )
        result = handle.applied(number)
        if result is not None:
            return tuple(f"worker {index}: {one}" for one in (*result.refused, *result.failed))
        if handle.has_ended:
            return () if self.stopping.is_set() else (f"worker {index}: it has died meanwhile",)
        return (f"worker {index}: it has not applied its settings; it will do so once it answers",)

    async def renew(self, index: int, settings: Resolved) -> tuple[str, ...]:
        """Replaces a worker by a fresh process with *settings*. Returns why that does not run, in sentences."""
        self._settings_of[index] = settings
        self._untried.add(index)
        handle = self._handles.get(index)
        if handle is None:
            return await self._begin(index) if index in self._ended else ()
        await self._drain(handle)
        return await self._until_up(index, handle)

    async def resize(self, workers: int, settings: Resolved) -> tuple[str, ...]:
        """Starts workers, or drains those that are too many. Returns why some do not run, in sentences."""
        failed: tuple[str, ...] = ()
        before, self._count = self._count, workers
        for index in range(workers, before):
            del self._settings_of[index]
            if index in self._handles:
                await self._drain(self._handles[index])
            self._ended.discard(index)
            self._absent.pop(index, None)
            self._last_words.pop(index, None)
        for index in range(before, workers):
            if self.stopping.is_set():
                break
            self._settings_of[index] = settings
            failed += await self._begin(index)
        return failed

    async def _begin(self, index: int) -> tuple[str, ...]:
        self._ended.discard(index)
        self._untried.add(index)
        self._spawn(index)
        return await self._until_up(index, None)

    async def _drain(self, handle: WorkerHandle) -> None:
        """Has one worker drain, while the others run on. Kills it if it is left after the deadline."""
        self._leaving.add(handle.index)
        handle.ask("stop")
        if handle.report is None:
            handle.terminate()
        try:
            async with asyncio.timeout(self.shutdown_timeout + KILL_AFTER):
                await handle.exited()
        except TimeoutError:
            log.error(  # noqa: TRY400  # the place says nothing
                "worker did not end in time; killing it", index=handle.index, pid=handle.pid
            )
            handle.kill()
            await handle.exited()

    async def _until_up(self, index: int, before: WorkerHandle | None) -> tuple[str, ...]:
        """Waits until a fresh worker runs and is ready, or does not become so. Returns why it does not run."""

        def is_settled() -> bool:
            handle = self._handles.get(index)
            if self.stopping.is_set() or index in self._ended or (index in self._absent and handle is None):
                return True
            if handle is None or handle is before or handle.report is None or not _has_run(handle):
                return False
            is_ready = all(one.trouble is None for one in handle.report.pipelines.values())
            # A source that is away does not hold up the others.
            return is_ready or asyncio.get_running_loop().time() - handle.started_at > _TRIAL

        with suppress(TimeoutError):
            async with asyncio.timeout(_STARTING):
                while not is_settled():
                    await self._next_change()
        handle = self._handles.get(index)
        if handle is not None and handle is not before and _has_run(handle):
            self._untried.discard(index)
            return ()
        if self.stopping.is_set() or index in self._ended:
            return ()
        return (f"worker {index}: {self._absent.get(index, f'it has not started within {_STARTING:.0f} s')}",)

    async def _next_change(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await first_completed(self._changed.wait(), self.stopping.wait())


def _has_run(handle: WorkerHandle) -> bool:
    """Returns whether the pipelines of a worker have started."""
    report, final = handle.report, handle.final
    if final is not None and not final.started:
        return False
    return report is not None and all(one.state not in ("new", "starting") for one in report.pipelines.values())
