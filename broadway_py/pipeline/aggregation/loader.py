"""Reads what one aggregator has stored: its windows, identities and results."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from broadway_py._core.aggregation.aggregation import Aggregation
from broadway_py._core.aggregation.identities import Identities
from broadway_py._core.aggregation.pending import DueResult
from broadway_py.log import logger
from broadway_py.pipeline.aggregation.records import Records
from broadway_py.state.store import CloseWish, Loaded, StateStore

__all__ = ["Loader"]

log = logger("broadway_py.pipeline")


class Loader:
    """Reads what one aggregator has stored, in parts, so that others can run between them.

    Args:
        pipeline: the pipeline's name, for the log.
        aggregator: the aggregator's name.
        store: where it is stored.
        records: reads what is stored.
    """

    def __init__(self, pipeline: str, aggregator: str, store: StateStore, records: Records) -> None:
        self._aggregator = aggregator
        self._store = store
        self._records = records
        self._log = log.bind(pipeline=pipeline, aggregator=aggregator)
        #: How many of the stored windows were read so far, and how many there are.
        self.loaded = self.to_load = 0

    async def memory(self) -> tuple[dict[str, Any] | None, Loaded]:
        """Returns what the last checkpoint has stored besides the windows, None if there was none, and its facts."""
        loaded = await self._store.load(self._aggregator)
        self.loaded, self.to_load = 0, loaded.entries
        return (None if loaded.memory is None else json.loads(loaded.memory)), loaded

    async def windows(self, aggregation: Aggregation, close_wish: CloseWish | None, now: float) -> None:
        """Take up the stored windows, and close those that an operator wants closed.

        Args:
            aggregation: it was given the memory before.
            close_wish: what operators wanted to be closed when the pipeline started.
            now: the clock of the windows.
        """
        async for rows in self._store.buckets(self._aggregator):
            for row in rows:
                part = self._records.read_part(row.bucket, row.blob, row.version)
                aggregation.reopen(part)
                self.loaded += len(part.entries)
            await asyncio.sleep(0)
        for _ in aggregation.restored():
            await asyncio.sleep(0)
        if close_wish is not None:
            aggregation.close(close_wish.before, now)
            self._log.info("windows were closed because an operator asked for it", results=aggregation.due)

    async def identities(self, identities: Identities) -> None:
        """Let *identities* know those that are stored, if it keeps them in memory."""
        if not identities.in_memory:
            return
        async for stored in self._store.identities(self._aggregator):
            for each in stored:
                identities.load(each.number, each.identities)
            await asyncio.sleep(0)

    async def results(self) -> list[DueResult]:
        """Returns the results that were not handed out."""
        results: list[DueResult] = []
        async for stored in self._store.results(self._aggregator):
            results += [
                DueResult(one.sequence, self._records.id_of(one.result), one.result, one.version) for one in stored
            ]
        return results
