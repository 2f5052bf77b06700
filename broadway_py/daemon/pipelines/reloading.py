"""Reads the settings again, and makes the pipelines of one process as they say. Pipelines without a change run on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from broadway_py.daemon.logs import logs
from broadway_py.daemon.pipelines.loader import build_pipelines
from broadway_py.daemon.pipelines.service import Service
from broadway_py.daemon.reload.aside import aside
from broadway_py.daemon.reload.code_files import CodeFiles, changed_code
from broadway_py.daemon.reload.difference import Difference, difference, refusals
from broadway_py.daemon.reload.outcome import STOPPING, Reloaded
from broadway_py.daemon.reload.resolved import Resolved, keeping
from broadway_py.daemon.settings.settings import Settings
from broadway_py.error_text import name_of, text_of
from broadway_py.errors import OptionsError, gathered
from broadway_py.foreign import foreign_errors
from broadway_py.log import logger
from broadway_py.pipeline import Pipeline
from broadway_py.stage import first_completed

__all__ = ["Reloading", "sentences_of"]

log = logger("broadway_py.daemon")

Pipelines = dict[str, Pipeline[Any]]


class Reloading:
    """Carries out the reloads of one service.

    Args:
        now: the settings that run.
        read: reads them again, and checks what can be checked without the classes of the pipelines. It may block. It
            raises OptionsError.
        worker: the number of this worker; None: this process is no worker.
        prepare: is called with each pipeline that is built.
        code: the files of the code as they were when it was loaded.
    """

    def __init__(
        self,
        now: Resolved,
        read: Callable[[], Resolved],
        *,
        worker: int | None = None,
        prepare: Callable[[Pipeline[Any]], None] = lambda _: None,
        code: CodeFiles | None = None,
    ) -> None:
        self._now = now
        self._read = read
        self._worker = worker
        self._prepare = prepare
        self._code = code or {}

    @property
    def settings(self) -> Settings:
        """The settings that run now."""
        return self._now.settings

    async def __call__(self, service: Service) -> Reloaded:
        """Carries out one reload of *service*."""
        reading = asyncio.ensure_future(aside(self._look))
        try:
            await first_completed(reading, service.stopping.wait())
            if not reading.done():
                return STOPPING
            after, found, built, notes = reading.result()
        except OptionsError as wrong:
            return Reloaded(refused=tuple(sentences_of(wrong)))
        except foreign_errors() as failed:
            log.exception("the settings cannot be read again")
            return Reloaded(refused=(f"reading the settings again raised {name_of(failed)}",))
        finally:
            reading.cancel()
        if service.stopping.is_set():
            return STOPPING
        if found.log:
            logs.configure(after.settings.log, worker=self._worker)
        if found.workers[0] != found.workers[1]:
            _divide_limits_anew(service, found.unchanged, built)
        unstarted = await self._apply(service, found, built)
        self._now = keeping(self._now, after, unstarted)
        return Reloaded(
            unchanged=found.unchanged,
            changed=tuple(name for name in found.changed if name not in unstarted),
            new=tuple(name for name in found.new if name not in unstarted),
            gone=found.gone,
            others=("log",) if found.log else (),
            failed=tuple(unstarted.values()),
            notes=notes,
        )

    def _look(self) -> tuple[Resolved, Difference, Pipelines, tuple[str, ...]]:
        """Returns the settings as they are now, what differs, the pipelines built from them, and what to tell."""
        after = self._read()
        found = difference(self._now, after)
        wrong = [after.settings.located(one) for one in refusals(found)]
        built: Pipelines = {}
        with gathered(wrong):
            built = self._build(after)
        if wrong:
            raise OptionsError.of(wrong)
        return after, found, built, tuple(_stale_code(self._code))

    def _build(self, settings: Resolved) -> Pipelines:
        share = (self._worker or 0, settings.settings.workers)
        built = {pipeline.name: pipeline for pipeline in build_pipelines(settings.settings, share=share)}
        for pipeline in built.values():
            self._prepare(pipeline)
        return built

    async def _apply(self, service: Service, found: Difference, built: Pipelines) -> dict[str, str]:
        """Makes the pipelines of *service* as *found* says. Returns a sentence for each that could not be started."""
        roster = service.roster
        for name in set(roster.absent):
            roster.remove(name)
        roster.reloading.update(found.changed, found.new, found.gone)
        failed: dict[str, str] = {}
        try:
            async with asyncio.TaskGroup() as tasks:
                draining = {
                    name: tasks.create_task(service.drain(roster.pipelines[name]))
                    for name in (*found.changed, *found.gone)
                }
                for name in found.gone:
                    tasks.create_task(self._remove(service, name, draining[name]))
                for name in found.changed:
                    tasks.create_task(self._replace(service, built[name], draining[name], failed))
                for name in found.new:
                    tasks.create_task(self._add(service, built[name], draining.values(), failed))
        except foreign_errors():
            # Nobody knows which pipelines run. The program that started this process starts it again.
            service.crash()
            raise
        finally:
            roster.reloading.clear()
        return failed

    async def _remove(self, service: Service, name: str, drained: asyncio.Task[None]) -> None:
        await drained
        if not service.stopping.is_set():
            service.roster.remove(name)

    async def _replace(
        self, service: Service, pipeline: Pipeline[Any], drained: asyncio.Task[None], failed: dict[str, str]
    ) -> None:
        await drained
        if service.stopping.is_set():
            return
        service.roster.put(pipeline)
        why = await service.try_out(pipeline)
        if why is None:
            return
        name = pipeline.name
        failed[name] = f"pipeline {name!r} cannot start with its new settings: {why}"
        if service.stopping.is_set():
            return
        still_why = await self._start_old(service, name)
        if still_why is None:
            failed[name] += "; it runs with its old settings again"
            return
        failed[name] += f"; nor with its old ones: {still_why}"
        log.error("the pipeline cannot start with its old settings either; stopping the others", pipeline=name)
        service.could_not_start = True
        service.crash()

    async def _start_old(self, service: Service, name: str) -> str | None:
        try:
            built = await aside(lambda: self._build(self._now))
        except OptionsError as wrong:
            return "; ".join(sentences_of(wrong))
        if service.stopping.is_set():
            return None
        service.roster.put(built[name])
        return await service.try_out(built[name])

    async def _add(
        self,
        service: Service,
        pipeline: Pipeline[Any],
        drained: Iterable[asyncio.Task[None]],
        failed: dict[str, str],
    ) -> None:
        # It may have the source or the state of one that is drained, under another name.
        for task in drained:
            await task
        if service.stopping.is_set():
            return
        service.roster.put(pipeline)
        why = await service.try_out(pipeline)
        if why is not None:
            service.roster.absent[pipeline.name] = f"it cannot start: {why}"
            failed[pipeline.name] = f"pipeline {pipeline.name!r}, which is new, cannot start: {why}"


def _divide_limits_anew(service: Service, names: Iterable[str], built: Pipelines) -> None:
    """Gives each pipeline of *names* its share of the rate limit among the new number of workers."""
    for name in names:
        limit = built[name]._limit
        if limit is not None:
            service.roster.pipelines[name].update_rate_limit(
                allowed_messages=limit.allowed_messages, interval=limit.interval
            )


def sentences_of(wrong: OptionsError) -> list[str]:
    """Returns each error of *wrong* as a sentence, without credentials."""
    return [logs.mask_credentials(text_of(one)) for one in wrong.all()]


def _stale_code(code: CodeFiles) -> Iterable[str]:
    changed = changed_code(code)
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        yield (
            f"the code in {changed[0]}{more} has changed, and is not loaded again: only the workers of a daemon load "
            "code anew (workers: 2 or more); restart the process"
        )
