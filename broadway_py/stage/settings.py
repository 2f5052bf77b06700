"""The options of stages and of subscriptions, checked once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from broadway_py._core.buffer import Keep
from broadway_py._core.subscription import CancelMode
from broadway_py.errors import OptionsError, did_you_mean
from broadway_py.foreign import is_a, shown
from broadway_py.options import Conflict, Options, PositiveInt

__all__ = ["UNSET", "BufferOptions", "DemandMode", "DemandOption", "Mode", "SubscriptionOptions", "Unset", "one_of"]

#: Who asks for events: the stage by itself, or its own code by ``subscription.ask``.
Mode = Literal["automatic", "manual"]
#: Whether the demand of consumers reaches a producer at once, or is kept for later.
DemandMode = Literal["forward", "accumulate"]


class Unset:
    """The value of an argument that was not given."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset()


def one_of(*known: str) -> BeforeValidator:
    """Returns a validator for text that is one of *known*. Its sentence names the closest one."""

    def check(value: object) -> object:
        if is_a(value, str) and value in known:
            return value
        expected = ", ".join(map(repr, known[:-1])) + f" or {known[-1]!r}"
        hint = did_you_mean(value, known) if isinstance(value, str) else ""
        raise OptionsError((), f"expected {expected}, got {shown(value)}{hint}")

    return BeforeValidator(check)


def _no_limit(value: object) -> object:
    return None if value == float("inf") else value


class SubscriptionOptions(Options):
    """The options of one subscription."""

    #: The most events that the consumer has asked for and not handled.
    max_demand: PositiveInt = 1000
    #: The consumer asks again when so many or fewer are outstanding. None: half of max_demand.
    min_demand: Annotated[int, Field(ge=0, strict=True)] | None = None
    #: What the end of the subscription means for the consumer.
    cancel: Annotated[CancelMode, one_of("permanent", "transient", "temporary")] = "permanent"
    #: Who asks for events.
    mode: Annotated[Mode, one_of("automatic", "manual")] = "automatic"
    #: The partition, where the producer has a PartitionDispatcher.
    partition: Any = None
    #: Event -> whether this consumer gets it, where the producer has a BroadcastDispatcher.
    selector: Any = None

    def conflicts(self) -> Iterator[Conflict]:
        """Yields each conflict among the settings."""
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


class BufferOptions(Options):
    """How many events a stage keeps that nobody has asked for."""

    #: The most events that are kept; 0 keeps none, None is no limit.
    buffer_size: Annotated[Annotated[int, Field(ge=0, strict=True)] | None, BeforeValidator(_no_limit)] = None
    #: Which events stay when there are too many: the oldest, or the newest.
    buffer_keep: Annotated[Keep, one_of("first", "last")] = "last"


class DemandOption(Options):
    """The mode of a producer's demand."""

    demand: Annotated[DemandMode, one_of("forward", "accumulate")] = "forward"
