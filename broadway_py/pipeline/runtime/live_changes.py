"""Changes a running pipeline: its rate limit, the number of its processors, pause and resume."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta

from broadway_py.errors import OptionsError
from broadway_py.options import INHERIT, Batcher, Processors, RateLimit, load
from broadway_py.pipeline.runtime.build import batcher_names, resize, share_capacity
from broadway_py.pipeline.runtime.dispatchers import KeyOf, to_batchers
from broadway_py.pipeline.runtime.run import PipelineRun
from broadway_py.pipeline.stages.processor import Processor
from broadway_py.pipeline.stages.services import Meter

__all__ = ["changed_limit", "resize_pool", "resized", "set_paused"]


def changed_limit(limit: RateLimit, *, allowed_messages: int | None, interval: float | timedelta | None) -> RateLimit:
    """Returns *limit* with the given values that are not None."""
    changes = {"allowed_messages": allowed_messages, "interval": interval}
    return RateLimit(**{**limit.model_dump(), **{key: value for key, value in changes.items() if value is not None}})


def resized(processors: Processors, concurrency: int, partition_by: KeyOf | None) -> Processors:
    """Returns *processors* with another concurrency.

    Raises:
        OptionsError: the number is not positive, or the processors are partitioned; then the processor of a key must
            not change.
    """
    given = {name: getattr(processors, name) for name in processors.model_fields_set}
    options = load(Processors, {**given, "concurrency": concurrency}, ("processors",))
    key_of = partition_by if options.partition_by is INHERIT else options.partition_by
    if key_of is not None:
        raise OptionsError(
            ("processors", "concurrency"),
            "cannot change while the pipeline runs, because partition_by gives each key to one processor by their "
            "number; stop the pipeline and start it with the new one",
        )
    return options


def resize_pool(run: PipelineRun, options: Processors, batchers: Mapping[str, Batcher], meter: Meter) -> None:
    """Start new processors, or retire the last ones, until there are as many as *options* say."""
    # An aggregator has a stage for each partition.
    aggregators = list(dict.fromkeys(stage.key for stage in run.stages.aggregators))
    names = batcher_names([*batchers, *aggregators])
    partition_of = run.stages.partition_of
    fresh = resize(
        run.stages,
        lambda index: Processor(
            run.services,
            index,
            meter,
            names,
            options.timeout,
            dispatcher=to_batchers(batchers, aggregators, partition_of),
            aggregators=aggregators,
            partition_of=partition_of,
        ),
        options,
    )
    if run.have_stages_begun:
        for processor in fresh:
            run.tasks.start(processor)
    share_capacity(run.stages, options, batchers)


async def set_paused(run: PipelineRun, *, paused: bool) -> None:
    """Stop reading the sources and give back the messages that were not started; or read the sources again."""
    gate = run.gate
    gate.paused = paused
    async with asyncio.TaskGroup() as group:
        for source in run.stages.sources:
            group.create_task(source.live.set_paused(paused=gate.closed))
    run.stages.submissions.wake.set()
    if paused:
        await run.services.settler.give_back_aside(run.stages.take_unstarted())
