"""Brings new settings, and new code, to the workers: one worker after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from broadway_py.daemon.logs import logs
from broadway_py.daemon.pipelines.loader import build_pipelines
from broadway_py.daemon.pipelines.owners import owners_of
from broadway_py.daemon.pipelines.reloading import sentences_of
from broadway_py.daemon.reload.aside import aside
from broadway_py.daemon.reload.code_files import CodeFiles, changed_code
from broadway_py.daemon.reload.difference import Difference, difference, refusals
from broadway_py.daemon.reload.outcome import STOPPING, Reloaded
from broadway_py.daemon.reload.resolved import Resolved
from broadway_py.daemon.workers.checking import Checked, check_afresh
from broadway_py.error_text import name_of
from broadway_py.errors import OptionsError
from broadway_py.foreign import foreign_errors
from broadway_py.log import logger
from broadway_py.pipeline import Pipeline
from broadway_py.stage import first_completed

__all__ = ["Rollout", "Workers"]

log = logger("broadway_py.daemon")

Pipelines = Sequence[Pipeline[Any]]


class Workers(Protocol):
    """What a rollout needs of the supervisor."""

    stopping: asyncio.Event

    def expect(self, pipelines: Pipelines, changed: Sequence[str], workers: int) -> None:
        """From now on, workers may run these *pipelines*, besides those of before."""

    def settle(self, pipelines: Pipelines, workers: int) -> None:
        """From now on, there are these pipelines, and no others, and so many workers."""

    async def bring(self, index: int, settings: Resolved) -> tuple[str, ...]:
        """Has a worker apply *settings* in place. Returns why it cannot, in sentences."""

    async def renew(self, index: int, settings: Resolved) -> tuple[str, ...]:
        """Replaces a worker by a fresh process with *settings*. Returns why that does not run, in sentences."""

    async def resize(self, workers: int, settings: Resolved) -> tuple[str, ...]:
        """Starts workers, or drains those that are too many. Returns why some do not run, in sentences."""


class Rollout:
    """Carries out the reloads of a supervisor.

    Args:
        now: the settings that run.
        pipelines: built from them, and never started.
        read: reads the settings again. It may block. It raises OptionsError.
        code: the files of the code as they were when it was loaded.
    """

    def __init__(self, now: Resolved, pipelines: Pipelines, read: Callable[[], Resolved], code: CodeFiles) -> None:
        self._now = now
        self._pipelines = pipelines
        self._read = read
        self._code = code

    async def __call__(self, workers: Workers) -> Reloaded:
        """Carries out one reload."""
        looking = asyncio.ensure_future(self._look())
        try:
            await first_completed(looking, workers.stopping.wait())
            if not looking.done():
                return STOPPING
            after, found, built, checked = looking.result()
        except OptionsError as wrong:
            return Reloaded(refused=tuple(sentences_of(wrong)))
        except foreign_errors() as failed:
            log.exception("the settings cannot be read again")
            return Reloaded(refused=(f"reading the settings again raised {name_of(failed)}",))
        finally:
            looking.cancel()
        if checked is not None and checked.wrong:
            return Reloaded(refused=checked.wrong)
        if workers.stopping.is_set():
            return STOPPING
        return await self._carry_out(workers, after, found, built, checked)

    async def _look(self) -> tuple[Resolved, Difference, Pipelines, Checked | None]:
        """Returns the settings as they are now, what differs, pipelines built from them, and how new code likes them.

        Raises:
            OptionsError: something is wrong, or needs a restart.
        """
        after = await aside(self._read)
        found = difference(self._now, after)
        wrong = [after.settings.located(one) for one in refusals(found)]
        checked: Checked | None = None
        if await aside(lambda: changed_code(self._code)):
            checked = await check_afresh(after.settings)
            if checked.wrong:
                return after, found, self._pipelines, Checked((*map(str, wrong), *checked.wrong), checked.code)
        built: Pipelines = ()
        try:
            built = await aside(lambda: build_pipelines(after.settings, share=(0, after.settings.workers)))
        except OptionsError as refused:
            wrong += refused.all() if checked is None else [_needs_new_code(refused)]
        if not wrong:
            wrong += map(after.settings.located, self._moved_partitions(found, after, built))
        if wrong:
            raise OptionsError.of(wrong)
        return after, found, built, checked

    def _moved_partitions(self, found: Difference, after: Resolved, built: Pipelines) -> Iterator[OptionsError]:
        """Yields a sentence for each pipeline whose partitions would have two owners while workers change in turn."""
        before = owners_of(self._pipelines, found.workers[0])
        keys = {str(section.get("name", key)): key for key, section in after.settings.pipelines.items()}
        for name, owners in owners_of(built, found.workers[1]).items():
            if name in before and before[name] != owners:
                yield OptionsError(
                    ("pipelines", keys[name]),
                    "partitions of its sources would move to other workers, which takes effect at a restart only: "
                    "a partition has one owner at a time; put `workers`, `own` and `partitions` back to reload the "
                    "others",
                )

    async def _carry_out(
        self, workers: Workers, after: Resolved, found: Difference, built: Pipelines, checked: Checked | None
    ) -> Reloaded:
        before, (old, new) = self._now, found.workers
        if found.log:
            logs.configure(after.settings.log)
        names = (*found.changed, *found.new, *found.gone)
        workers.expect(built, names, new)
        failed: tuple[str, ...] = ()
        if new < old:
            failed = await workers.resize(new, after)
        done: list[int] = []
        for index in range(min(old, new)):
            if failed or workers.stopping.is_set():
                break
            done.append(index)
            if checked is not None:
                failed = await workers.renew(index, after)
            elif names or found.log or old != new:
                failed = await workers.bring(index, after)
        if new > old and not failed and not workers.stopping.is_set():
            failed = await workers.resize(new, after)
        if failed:
            if not workers.stopping.is_set():
                failed += await self._go_back(workers, before, old, done if checked is None else ())
            workers.settle(self._pipelines, old)
            return Reloaded(failed=failed)
        self._now, self._pipelines = after, built
        workers.settle(built, new)
        if checked is not None:
            self._code = checked.code
        others = {"log": found.log, "workers": old != new, "code": checked is not None}
        return Reloaded(
            found.unchanged, found.changed, found.new, found.gone, tuple(one for one, has in others.items() if has)
        )

    async def _go_back(self, workers: Workers, before: Resolved, count: int, changed: Sequence[int]) -> tuple[str, ...]:
        """Brings the old settings back to the workers that were *changed*. Returns what to tell, in sentences."""
        logs.configure(before.settings.log)
        failed: tuple[str, ...] = ()
        for index in changed:
            failed += await workers.bring(index, before)
        failed += await workers.resize(count, before)
        if failed or not changed:
            return failed
        return ("all workers run with their old settings again",)


def _needs_new_code(refused: OptionsError) -> OptionsError:
    first = refused.all()[0]
    return OptionsError(
        (),
        f"the code has changed, and the new settings need it in the first process, too, which loads it at a restart "
        f"only ({first}); restart the daemon",
    )
