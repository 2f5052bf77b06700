"""What a pipeline reads: its producers, or those partitions of them that this process owns."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from broadway_py._core.ownership import owned_partitions, share_of
from broadway_py.errors import OptionsError
from broadway_py.producer_description import ProducerDescription

__all__ = ["Sources", "is_parted"]


class Sources:
    """The producers of a pipeline. If they have partitions, each partition that this process owns is one of them.

    A partition has a reader, a watermark, windows and a file of its own, and a key lies in one of them.

    Args:
        producers: the descriptions of the producers by name, as the user gave them.
        own: the option ``own``.

    Raises:
        OptionsError: the partitions of the producers do not fit together, or *own* does not fit them.
    """

    def __init__(self, producers: Mapping[str, ProducerDescription], own: str | None) -> None:
        #: The producers by name, also those that are parted.
        self.whole: Mapping[str, ProducerDescription] = dict(producers)
        self._own = own
        #: Into how many partitions each producer is parted; None: they are not.
        self.partitions = _common_number(producers)
        #: The partitions that this process owns; none if the producers are not parted.
        self.owned: tuple[int, ...] = ()
        #: The descriptions of what runs, by name.
        self.producers: dict[str, ProducerDescription] = dict(producers)
        #: The partition that each of :attr:`producers` reads. Empty if they are not parted.
        self.partition_of: dict[str, int] = {}
        #: True if other workers of this daemon own some of the partitions.
        self.are_shared = False
        # What all workers of this daemon own together.
        self._of_daemon: tuple[int, ...] = ()
        if self.partitions is not None:
            self._of_daemon = owned_partitions(own, self.partitions, _host())
            self._take(self._of_daemon)
        elif own is not None:
            raise OptionsError(
                ("own",),
                f"{own!r} names partitions, but the sources have none; set partitions on the source, or leave own out",
            )
        #: What all workers of this daemon read together, by name. :meth:`take_share` does not change it.
        self.producers_of_daemon: Mapping[str, ProducerDescription] = self.producers

    def take_share(self, index: int, workers: int) -> None:
        """Keep only what the worker *index* of *workers* owns. Call it once, before the start.

        Raises:
            OptionsError: there are more workers than partitions.
        """
        if self.partitions is None or workers == 1:
            return
        self.are_shared = True
        try:
            self._take(share_of(self._of_daemon, index, workers))
        except OptionsError as refused:
            raise refused.under(*(("producer", "partitions") if self._own is None else ("own",))) from None

    def shares(self, workers: int) -> list[tuple[int, ...]]:
        """Returns which partitions each of *workers* of this daemon owns; nothing if the producers are not parted."""
        return [share_of(self._of_daemon, index, workers) for index in range(workers)] if self._of_daemon else []

    def names_of(self, partition: int | None) -> list[str]:
        """Returns the names of the producers that read *partition*; of all of them if they are not parted."""
        return [name for name in self.producers if self.partition_of.get(name) == partition]

    def _take(self, owned: tuple[int, ...]) -> None:
        self.owned = owned
        self.producers, self.partition_of = {}, {}
        for description in self.whole.values():
            for index in owned:
                try:
                    part = description.partition(index)
                except OptionsError as refused:
                    raise refused.under("producer") from None
                if part.called in self.producers:
                    raise OptionsError(
                        ("producer",),
                        f"two producers are called {part.called!r}, one of them as a partition; give each a name= of "
                        "its own",
                    )
                self.producers[part.called] = part
                self.partition_of[part.called] = index


def is_parted(producer: object) -> bool:
    """Returns whether *producer*, which a user gave, is parted, so that each of its keys lies in one partition."""
    return isinstance(producer, ProducerDescription) and producer.partitions is not None


def _common_number(producers: Mapping[str, ProducerDescription]) -> int | None:
    """Returns how many partitions each of *producers* has; None: they have none."""
    numbers = {name: producer.partitions for name, producer in producers.items()}
    if len(set(numbers.values())) > 1:
        text = ", ".join(f"{'none' if number is None else number} for {name!r}" for name, number in numbers.items())
        raise OptionsError(
            ("producer", "partitions"),
            f"expected the same number for each source, because partition 0 of all sources belongs to one owner, got "
            f"{text}",
        )
    return next(iter(numbers.values()), None)


def _host() -> str:
    return os.environ.get("HOSTNAME") or socket.gethostname()
