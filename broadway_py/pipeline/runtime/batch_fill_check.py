"""Checks whether the batches of a pipeline can fill.

They cannot if the sources let the pipeline hold fewer messages than a batch takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from broadway_py.log import logger
from broadway_py.options import Batcher
from broadway_py.pipeline.runtime.capacity import Capacity
from broadway_py.producer_description import ProducerDescription

__all__ = ["never_full", "warn_of_batches_that_never_fill"]

log = logger("broadway_py.pipeline")


def never_full(batchers: Mapping[str, Batcher], most_in_flight: int) -> list[str]:
    """Returns a sentence for each of *batchers* whose batches need more than *most_in_flight* messages.

    Such a batch waits for messages that come only after others are settled, and those are settled only after the batch
    leaves. So it leaves after its time-out, not full. Batch sizes that a function decides are not checked.
    """
    sentences: list[str] = []
    for name, options in batchers.items():
        size = options.batch_size
        if not isinstance(size, int) or size <= most_in_flight:
            continue
        rate = most_in_flight / options.batch_timeout
        sentences.append(
            f"batches of {name!r} never fill: batch_size is {size}, but the sources let this pipeline hold "
            f"{most_in_flight} unsettled messages at most; batches of at most {most_in_flight} every "
            f"{options.batch_timeout:g} s = at most {rate:g} msg/s per pipeline and process; raise the source's "
            f"prefetch to {size} or more, or lower batch_size or batch_timeout"
        )
    return sentences


def warn_of_batches_that_never_fill(
    pipeline: str, producers: Sequence[ProducerDescription], batchers: Mapping[str, Batcher], capacity: Capacity
) -> None:
    """Log a warning for each batcher whose batches never fill.

    Args:
        pipeline: the pipeline's name.
        producers: all producers of the pipeline. If one has no limit, no batcher is checked.
        batchers: all batchers.
        capacity: how many messages the pipeline can hold.
    """
    total = 0
    for producer in producers:
        most = producer.most_in_flight(capacity.of_copy(producer.concurrency))
        if most is None:
            return
        total += most * producer.concurrency
    for sentence in never_full(batchers, total):
        log.warning(sentence, pipeline=pipeline)
