"""Builds what recognises messages that were handled before, for a pipeline with ``deduplicate_by``."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any

from broadway_py._core.aggregation.progress import Progress
from broadway_py._core.deduplication.read_time import ReadTime
from broadway_py._core.deduplication.register import Register
from broadway_py.foreign import foreign_errors
from broadway_py.message import Message
from broadway_py.pipeline.contexts import CleanRoom
from broadway_py.pipeline.deduplication.deduplication import Deduplication
from broadway_py.pipeline.deduplication.handled_ids import HandledIds
from broadway_py.pipeline.deduplication.naming import Naming
from broadway_py.pipeline.runtime.stores import Stores
from broadway_py.pipeline.sources import Sources
from broadway_py.pipeline.stages.services import Services

__all__ = ["build_deduplication"]


def build_deduplication(
    services: Services,
    stores: Stores,
    sources: Sources,
    function: Callable[[Message[Any]], object] | None,
    *,
    key_of: Callable[[Message[Any]], Any] | None,
    progresses: Mapping[str, Progress] | None,
) -> Deduplication:
    """Returns the ids of handled messages, and gives them to the settlement. They are loaded with the state.

    Args:
        services: the services of the pipeline.
        stores: where the ids are stored.
        sources: what the pipeline reads.
        function: names a message; None: its id does.
        key_of: returns the key of a message, if the pipeline is ordered; else None.
        progresses: what each producer has delivered, by its name, if there are aggregators; else None.
    """
    timed: Mapping[str, Progress | ReadTime] = progresses or {
        name: ReadTime(description.concurrency) for name, description in sources.producers.items()
    }
    parts = {
        partition: HandledIds(
            services.name,
            store,
            services.clock,
            naming=Naming(function, CleanRoom(services.base)),
            register=Register(
                keep_s=stores.state.dedup, key_of=None if key_of is None else partial(_key_or_none, key_of)
            ),
            timed=[timed[name] for name in sources.names_of(partition)],
            is_durable=not stores.state.is_memory,
            partition=partition,
        )
        for partition, store in stores.by_partition.items()
    }
    made = Deduplication(parts, sources.partition_of, {name: one.readers for name, one in timed.items()})
    services.deduplication = made
    services.settler.ids = made
    return made


def _key_or_none(key_of: Callable[[Message[Any]], Any], message: Message[Any]) -> Hashable:
    """Returns the key of *message*; None if it has none that can be compared. Then ``partition_by`` fails it later."""
    try:
        key: Hashable = key_of(message)
        hash(key)
    except foreign_errors():
        return None
    return key
