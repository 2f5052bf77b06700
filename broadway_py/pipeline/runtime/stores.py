"""The stores of a pipeline's state: one for each partition, or one for all. Aggregators and ids share them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from broadway_py.aggregator import State
from broadway_py.pipeline.sources import Sources
from broadway_py.state.memory import MemoryStore
from broadway_py.state.partitions import StatePartition, file_of, new_beside_others, prepare
from broadway_py.state.sqlite import SQLiteStore
from broadway_py.state.store import StateStore

__all__ = ["Stores"]


class Stores:
    """The stores of one pipeline, not open.

    Args:
        state: where the state is kept.
        sources: what the pipeline reads.
    """

    def __init__(self, state: State, sources: Sources) -> None:
        self.state = state
        self._sources = sources
        #: By the partition; None: the sources have none.
        self.by_partition: dict[int | None, StateStore] = {
            partition: self._store(partition) for partition in sources.owned or (None,)
        }

    @property
    def prepare(self) -> Callable[[], str | None] | None:
        """What is to be done before the stores are opened, in a thread. It may return a doubt. None: nothing."""
        partitions = self._sources.partitions
        return None if partitions is None or self.state.is_memory else partial(self._prepare, partitions)

    def _prepare(self, partitions: int) -> str | None:
        """Make the directory of the state. Returns a doubt that is logged; None: there is none."""
        sources, directory = self._sources, self.state.path
        prepare(directory, partitions)
        # Other workers may just have made theirs. The daemon looks before it starts them.
        return None if sources.are_shared else new_beside_others(directory, sources.owned)

    def _store(self, partition: int | None) -> StateStore:
        if self.state.is_memory:
            return MemoryStore()
        path, count = self.state.path, self._sources.partitions
        if partition is None or count is None:
            return SQLiteStore(path)
        return SQLiteStore(file_of(path, partition), StatePartition(partition, count))
