"""A subscription as the stages at its two ends see it, and what they tell each other. Nothing here waits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

from broadway_py._core.demand import Credit, WholeLists
from broadway_py._core.subscription import CancelMode, End

__all__ = ["Edge", "Receiver", "Sender"]

T = TypeVar("T")


class Receiver(Protocol[T]):
    """What a producer tells the consumer at the other end of an edge."""

    def arrived(self, edge: Edge[T], events: Sequence[T]) -> None:
        """Takes *events* from the producer of *edge*."""

    def flush(self) -> None:
        """Notes that a producer has no more events for now."""

    def ended(self, edge: Edge[T], end: End | None) -> None:
        """Notes that *edge* has ended. *end* says why; it is None between the stages of a pipeline."""


class Sender(Protocol[T]):
    """What a consumer tells the producer at the other end of an edge."""

    def ask(self, edge: Edge[T], count: int) -> None:
        """Notes that the consumer of *edge* wants *count* more events."""

    def unsubscribe(self, edge: Edge[T], end: End | None = None) -> None:
        """Ends *edge*. *end* says why; it is None between the stages of a pipeline."""


class Edge(Generic[T]):
    """The subscription of one consumer to one producer.

    Both ends are called through small protocols, so that one of them may be in another process.
    """

    __slots__ = ("active", "cancel_mode", "credit", "end", "inlet", "outlet", "owner")

    def __init__(
        self,
        outlet: Sender[T],
        inlet: Receiver[T],
        credit: Credit[T] | WholeLists[T],
        cancel_mode: CancelMode = "permanent",
    ) -> None:
        self.outlet: Sender[T] = outlet
        self.inlet: Receiver[T] = inlet
        self.credit = credit
        self.cancel_mode: CancelMode = cancel_mode
        #: Why the subscription has ended; None while it has not.
        self.end: End | None = None
        #: The subscription that users see; None between the stages of a pipeline.
        self.owner: Any = None
        #: False while the consumer is suspended, and once it has unsubscribed.
        self.active = True

    def ask(self, count: int) -> None:
        """Asks the producer for *count* more events. It does nothing while the subscription is not active."""
        if self.active:
            self.outlet.ask(self, count)
