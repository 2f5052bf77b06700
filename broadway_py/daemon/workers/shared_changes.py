"""Keeps what was changed while the workers run, and divides it among them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from broadway_py.daemon.pipelines.changes import Change, RateChange, apply
from broadway_py.options import RateLimit
from broadway_py.pipeline import Pipeline
from broadway_py.pipeline.runtime.live_changes import changed_limit

__all__ = ["SharedChanges"]


class SharedChanges:
    """The changes of all pipelines, as far as a worker that starts later must know them.

    A rate limit with the scope ``pipeline`` is divided as at the start. Everything else is the same in each worker.

    Args:
        pipelines: they were never started, and are changed as those of the workers are.
        workers: how many workers there are.
    """

    def __init__(self, pipelines: Iterable[Pipeline[Any]], workers: int) -> None:
        self._pipelines = {pipeline.name: pipeline for pipeline in pipelines}
        self._workers = workers
        #: The rate limit of all workers together.
        self._limits: dict[str, RateLimit | None] = {
            name: pipeline._whole_limit or pipeline._limit for name, pipeline in self._pipelines.items()
        }
        # By pipeline and kind of the change: what each worker gets.
        self._shares: dict[tuple[str, type[Change]], Callable[[int], Change]] = {}

    def reload(self, pipelines: Iterable[Pipeline[Any]], changed: Collection[str], workers: int) -> None:
        """Forgets the changes of the pipelines whose settings have *changed*.

        Rate limits are those of the settings again if the number of *workers* has changed.
        """
        for pipeline in pipelines:
            if pipeline.name in changed or workers != self._workers:
                self._pipelines[pipeline.name] = pipeline
                self._limits[pipeline.name] = pipeline._whole_limit or pipeline._limit
        self._shares = {
            (name, kind): share
            for (name, kind), share in self._shares.items()
            if name not in changed and (kind is not RateChange or workers == self._workers)
        }
        self._workers = workers

    def note(self, name: str, change: Change) -> Callable[[int], Change]:
        """Keeps *change* of the pipeline *name*. Returns what the worker of each index gets of it.

        Raises:
            OptionsError: the pipeline cannot be changed in this way. Nothing is kept.
        """
        apply(self._pipelines[name], change)
        if isinstance(change, RateChange):
            limit = self._limits[name]
            assert limit is not None  # noqa: S101  # else the pipeline has refused the change
            whole = changed_limit(limit, allowed_messages=change.allowed_messages, interval=change.interval)
            self._limits[name] = whole
            self._shares[name, RateChange] = lambda index: self._share(whole, index, reset=False)
            return lambda index: self._share(whole, index, reset=change.reset)
        self._shares[name, type(change)] = share = lambda _index: change
        return share

    def of(self, index: int) -> tuple[tuple[str, Change], ...]:
        """Returns the pipelines and changes with which the worker *index* starts."""
        return tuple((name, share(index)) for (name, _), share in self._shares.items())

    def _share(self, whole: RateLimit, index: int, *, reset: bool) -> RateChange:
        limit = whole.divided(index, self._workers) if whole.scope == "pipeline" else whole
        return RateChange(limit.allowed_messages, limit.interval, reset)
