"""The partitions of a source: the names of their queues, and the settings that do not fit them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from broadway_py.conflict import Conflict
from broadway_py.producer_description import one_reader_each
from broadway_py.producers.rabbitmq.settings.arguments import LONGEST_EXCHANGE
from broadway_py.producers.rabbitmq.settings.queue_options import ConsumeOptions, DeclareOptions

__all__ = ["MOST_PARTITIONS", "SINGLE_ACTIVE", "conflicts_of_partitions", "queues_of"]

#: The argument of a queue that makes the broker hand messages to one of its consumers only, until that one is gone.
SINGLE_ACTIVE: Final = "x-single-active-consumer"
#: The most partitions of a source.
MOST_PARTITIONS: Final = 256


def queues_of(source: str, partitions: int) -> tuple[str, ...]:
    """Returns the names of the queues of all *partitions*, in their order."""
    return tuple(f"{source}.{number}" for number in range(partitions))


def conflicts_of_partitions(
    queue: str | tuple[str, ...],
    *,
    concurrency: int,
    merges: bool,
    declare: DeclareOptions | None,
    bindings: int,
    consume: ConsumeOptions,
) -> Iterator[Conflict]:
    """Yields the settings of a source with partitions that do not fit them.

    Args:
        queue: the name of the source.
        concurrency: of the producer.
        merges: True: there are ``merge_options``.
        declare: how the queues are declared. None: they are not.
        bindings: how many there are.
        consume: how the queues are consumed.
    """

    def conflict(setting: str, problem: str, *, below: str | None = None) -> Conflict:
        path = (setting,) if below is None else (setting, *below.split(" "))
        return Conflict(path, problem, frozenset({"partitions", setting}))

    if not isinstance(queue, str) or not queue or queue.startswith("amq."):
        yield conflict(
            "queue",
            "expected the name of one queue with partitions, which begins the names of their queues; give each source "
            "a producer of its own",
        )
    elif len(queue) > LONGEST_EXCHANGE:
        yield conflict(
            "queue",
            f"expected {LONGEST_EXCHANGE} characters at most with partitions, because an exchange has this name, but "
            f"these are {len(queue)}",
        )
    if concurrency != 1:
        yield conflict("concurrency", one_reader_each(concurrency))
    if merges:
        yield conflict("merge_options", "all partitions have the same settings; leave merge_options out")
    if bindings:
        yield conflict(
            "bindings",
            "a binding to the queue of each partition would put each message into all of them; leave bindings out, and "
            f"bind the exchange {queue!r} to yours at the broker",
        )
    if consume.exclusive:
        yield conflict(
            "consume_options",
            "the broker hands the messages of a partition to one consumer anyway, and the next one must be able to "
            "stand by; leave exclusive out",
            below="exclusive",
        )
    if declare is None:
        return
    for name, wanted in (("durable", True), ("auto_delete", False), ("exclusive", False)):
        if getattr(declare, name) is not wanted:
            yield conflict(
                "declare_options",
                f"expected {str(wanted).lower()} with partitions, because keys move to other queues when one is "
                "deleted; leave it out",
                below=name,
            )
    if declare.arguments.get(SINGLE_ACTIVE, True) is not True:
        yield conflict(
            "declare_options",
            "expected true with partitions, because each of them has one reader at a time; leave it out",
            below=f"arguments {SINGLE_ACTIVE}",
        )
