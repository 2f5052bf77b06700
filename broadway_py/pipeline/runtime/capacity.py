"""Counts how many messages a pipeline can hold, and how many of them each source may have in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from broadway_py.options import Batcher, Processors

__all__ = ["Capacity"]


class Capacity:
    """How many messages a pipeline holds when every processor, batch and aggregator is full.

    Args:
        processors: the options of the processors.
        batchers: the options of the batchers.
        demands: how many messages each aggregator holds.
        partitions: how many partitions this process reads; 0 if its sources are not parted.
    """

    def __init__(
        self, processors: Processors, batchers: Mapping[str, Batcher], demands: Iterable[int], partitions: int
    ) -> None:
        gathered = sum(options.demand * (options.concurrency + 1) for options in batchers.values())
        self._shared = processors.concurrency * processors.max_demand + gathered
        # As many wait in front of an aggregator as it holds.
        self._aggregated = 2 * sum(demands)
        self._partitions = partitions

    @property
    def of_producer(self) -> int:
        """How many messages of one producer the pipeline can hold. Each partition counts as a producer.

        Partitions share processors and batchers, and each has aggregators of its own.
        """
        if not self._partitions:
            return self._shared + self._aggregated
        return _part(self._shared, self._partitions) + self._aggregated

    @property
    def most_of_partition(self) -> int | None:
        """The most messages of one producer that may be in the pipeline, if it is a partition.

        One of them may fill all shared stages, and its own aggregators. None: no partition has aggregators.
        """
        return self._shared + self._aggregated if self._partitions and self._aggregated else None

    def of_copy(self, copies: int) -> int:
        """Returns how many messages each of the *copies* of a producer may have here."""
        return _part(self.of_producer, copies)

    @property
    def of_submissions(self) -> int:
        """How many submitted messages the pipeline can hold."""
        return self._shared if self._partitions else self._shared + self._aggregated


def _part(whole: int, parts: int) -> int:
    return -(-whole // parts)
