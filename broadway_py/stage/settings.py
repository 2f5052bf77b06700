"""The options of stages and of subscriptions, checked once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from broadway_py._core.buffer import Keep
from broadway_py._core.subscription import CancelMode
from broadway_py.arguments import Arguments, checked_by, one_of, optional, whole_number
from broadway_py.conflict import Conflict
from broadway_py.durations import is_number

__all__ = ["UNSET", "BufferOptions", "DemandMode", "DemandOption", "Mode", "SubscriptionOptions", "Unset"]

#: Who asks for events: the stage by itself, or its own code by ``subscription.ask``.
Mode = Literal["automatic", "manual"]
#: Whether the demand of consumers reaches a producer at once, or is kept for later.
DemandMode = Literal["forward", "accumulate"]


class Unset:
    """The value of an argument that was not given."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset()


def _buffer_size(value: object) -> int | None:
    is_without_limit = value is None or (is_number(value) and value == math.inf)
    return None if is_without_limit else whole_number(at_least=0)(value)


@dataclass(frozen=True, init=False, eq=False, repr=False)
class SubscriptionOptions(Arguments):
    """The options of one subscription."""

    #: The most events that the consumer has asked for and not handled.
    max_demand: int = field(default=1000, metadata=checked_by(whole_number(at_least=1)))
    #: The consumer asks again when so many or fewer are outstanding. None: half of max_demand.
    min_demand: int | None = field(default=None, metadata=checked_by(optional(whole_number(at_least=0))))
    #: What the end of the subscription means for the consumer.
    cancel: CancelMode = field(default="permanent", metadata=checked_by(one_of("permanent", "transient", "temporary")))
    #: Who asks for events.
    mode: Mode = field(default="automatic", metadata=checked_by(one_of("automatic", "manual")))
    #: The partition, where the producer has a PartitionDispatcher.
    partition: Any = None
    #: Event -> whether this consumer gets it, where the producer has a BroadcastDispatcher.
    selector: Any = None

    def conflicts(self) -> Iterator[Conflict]:
        """Yields each conflict among the options."""
        if self.min_demand is not None and self.min_demand >= self.max_demand:
            yield Conflict(
                ("min_demand",),
                f"expected less than max_demand ({self.max_demand}), got {self.min_demand}: "
                "a consumer that may never ask again would stop for ever",
                frozenset({"min_demand", "max_demand"}),
            )

    @property
    def refill_at(self) -> int:
        """``min_demand``; half of ``max_demand`` if that is None."""
        return self.max_demand // 2 if self.min_demand is None else self.min_demand


@dataclass(frozen=True, init=False, eq=False, repr=False)
class BufferOptions(Arguments):
    """How many events a stage keeps that nobody has asked for."""

    #: The most events that are kept; 0 keeps none, None is no limit.
    buffer_size: int | None = field(default=None, metadata=checked_by(_buffer_size))
    #: Which events stay when there are too many: the oldest, or the newest.
    buffer_keep: Keep = field(default="last", metadata=checked_by(one_of("first", "last")))


@dataclass(frozen=True, init=False, eq=False, repr=False)
class DemandOption(Arguments):
    """The mode of a producer's demand."""

    demand: DemandMode = field(default="forward", metadata=checked_by(one_of("forward", "accumulate")))
