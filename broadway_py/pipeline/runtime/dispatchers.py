"""Makes the dispatchers of a pipeline: which processor, batcher and batch processor gets which messages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from functools import partial
from typing import Any

from broadway_py._core.batching import Batch
from broadway_py._core.dispatch import DemandDispatcher, Dispatcher, PartitionDispatcher
from broadway_py._core.partition import partition_in_process
from broadway_py.foreign import foreign_errors
from broadway_py.message import Message
from broadway_py.options import Batcher
from broadway_py.pipeline.contexts import CleanRoom
from broadway_py.pipeline.settlement.failures import failure_from
from broadway_py.pipeline.stages.services import Services
from broadway_py.stage import Edge

__all__ = ["KeyOf", "destination", "in_room", "partition_of", "to_batch_processors", "to_batchers", "to_processors"]

KeyOf = Callable[[Message[Any]], Any]
_MessageDispatcher = Dispatcher[Edge[Message[Any]], Message[Any]]


def to_processors(concurrency: int, key_of: KeyOf | None) -> _MessageDispatcher:
    """Returns the dispatcher of a source."""
    if key_of is None:
        return DemandDispatcher()
    return PartitionDispatcher(range(concurrency), _guarded(key_of, concurrency))


def to_batchers(
    batchers: Collection[str], aggregators: Collection[str] = (), partition_of: Mapping[str, int] | None = None
) -> _MessageDispatcher | None:
    """Returns the dispatcher of a processor; None if there are neither *batchers* nor *aggregators*.

    Args:
        batchers: the names of the batchers.
        aggregators: the names of the aggregators.
        partition_of: the partition that each producer reads; empty or None if the sources are not parted. If they are,
            there is a stage for each aggregator and partition: see :func:`destination`.
    """
    if partition_of and aggregators:
        names = [*batchers, *(destination(name, part) for name in aggregators for part in set(partition_of.values()))]
        return PartitionDispatcher(names, _to_own_partition(frozenset(aggregators), partition_of))
    if not batchers and not aggregators:
        return None
    if len(batchers) + len(aggregators) == 1:
        return DemandDispatcher()
    return PartitionDispatcher([*batchers, *aggregators], lambda message: message.batcher)


def destination(name: str, partition: int | None) -> Hashable:
    """Returns what the dispatcher of a processor calls the aggregator *name* of *partition*; None: it has none."""
    return name if partition is None else (name, partition)


def _to_own_partition(
    aggregators: Collection[str], partition_of: Mapping[str, int]
) -> Callable[[Message[Any]], Hashable]:
    def own(message: Message[Any]) -> Hashable:
        name = message.batcher
        # A spawned message has the producer of its parent.
        return (name, partition_of[message._ledger_entry.producer]) if name in aggregators else name

    return own


def to_batch_processors(concurrency: int, *, is_partitioned: bool) -> Dispatcher[Edge[Batch], Batch]:
    """Returns the dispatcher of a batcher."""
    if is_partitioned:
        return PartitionDispatcher(range(concurrency), lambda batch: batch.info.partition)
    return DemandDispatcher()


def _guarded(key_of: KeyOf, partitions: int) -> Callable[[Message[Any]], int | None]:
    """Returns the partition function. If ``partition_by`` raises, the message fails and may go to any processor."""
    partition = partition_in_process(key_of, partitions)

    def guarded(message: Message[Any]) -> int | None:
        try:
            return partition(message)
        except foreign_errors() as error:
            # An error in user code fails only this message.
            message.status = failure_from(error)
            return None

    return guarded


def in_room(services: Services, key_of: KeyOf | None) -> KeyOf | None:
    """Returns *key_of*, called in a clean context each time."""
    return None if key_of is None else partial(CleanRoom(services.base).run, key_of)


def partition_of(key_of: KeyOf | None, options: Batcher) -> Callable[[Message[Any]], int | None] | None:
    """Returns the function that maps a message to a batch processor; None if any may have it."""
    return None if key_of is None else partition_in_process(key_of, options.concurrency)
