"""Stores checkpoints, and tries again until each is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Literal

from broadway_py._core.backoff import Backoff
from broadway_py.clock import Clock
from broadway_py.log import logger
from broadway_py.stage import first_completed
from broadway_py.state.store import Commit, StateStore
from broadway_py.storage.errors import StorageError

__all__ = ["Committed", "Committer"]

log = logger("broadway_py.pipeline")

#: Whether a checkpoint is stored. ``unknown``: the process that starts next finds out.
Committed = Literal["stored", "not_stored", "unknown"]

_FIRST_S: Final = 0.1
_MOST_S: Final = 5.0


class Committer:
    """Stores the checkpoints of one aggregator, one after the other.

    Args:
        store: the open store.
        clock: the clock for the waits.
        changed: called when :attr:`trouble` has changed.
        pipeline: the pipeline's name, for the log.
        aggregator: the aggregator's name, for the log.
        complaint: what the log says if the store does not work.
    """

    def __init__(
        self,
        store: StateStore,
        clock: Clock,
        changed: Callable[[], object],
        *,
        pipeline: str,
        aggregator: str,
        complaint: str = "the state cannot be stored or read; nothing more is added until it can",
    ) -> None:
        self._store = store
        self._clock = clock
        self._changed = changed
        self._give_up = asyncio.Event()
        self._complaint = complaint
        self._log = log.bind(pipeline=pipeline, aggregator=aggregator)
        #: Why the last try failed; None if it did not.
        self.error: StorageError | None = None
        #: How many checkpoints were stored, and how many tries failed.
        self.stored = 0
        self.failures = 0

    @property
    def trouble(self) -> str | None:
        """Why the last try failed, in one sentence; None if it did not."""
        return None if self.error is None else str(self.error)

    def give_up(self) -> None:
        """Do not try again after the next failure: the time of the drain is over."""
        self._give_up.set()

    async def commit(self, commit: Commit) -> Committed:
        """Store *commit*. Returns when it is stored, or after :meth:`give_up`.

        The caller must never cancel this: what is being stored would have an unknown outcome.
        """
        backoff = Backoff(_FIRST_S, _MOST_S, kind="exp")
        is_unknown = False
        while True:
            try:
                if is_unknown and await self._store.last_number(commit.aggregator) == commit.number:
                    break
                is_unknown = False
                await self._store.commit(commit)
                break
            except StorageError as error:
                is_unknown = is_unknown or error.is_unknown
                self.note(error)
            if self._give_up.is_set():
                return "unknown" if is_unknown else "not_stored"
            await first_completed(self._clock.sleep(backoff.failed()), self._give_up.wait())
        self.stored += 1
        self.note_success()
        return "stored"

    def note_success(self) -> None:
        """Note that the store works."""
        if self.error is not None:
            self.error = None
            self._log.info("the state can be stored again")
            self._changed()

    def note(self, error: StorageError) -> None:
        """Note that the store does not work."""
        self.failures += 1
        if self.error is None:
            self._log.error(self._complaint, reason=str(error))
        self.error = error
        self._changed()
