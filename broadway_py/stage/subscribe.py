"""Subscriptions: how a consumer and a producer are connected."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

from broadway_py._core.subscription import Cancellation, CancelMode, End
from broadway_py.errors import OptionsError, StageDown
from broadway_py.foreign import article, foreign_errors, is_a, shown
from broadway_py.stage.consuming import ConsumingStage
from broadway_py.stage.edge import Edge
from broadway_py.stage.emitting import EmittingStage, StageOutlet
from broadway_py.stage.settings import Mode, SubscriptionOptions

__all__ = ["Subscription", "subscribe"]

T = TypeVar("T")


class Subscription(Generic[T]):
    """The subscription of one consumer to one producer. :func:`subscribe` makes it.

    Attributes:
        consumer: the stage that takes the events.
        producer: the stage that emits them.
        options: the options of the subscription.
    """

    def __init__(
        self, consumer: ConsumingStage[T], producer: EmittingStage[T], options: SubscriptionOptions, edge: Edge[T]
    ) -> None:
        self.consumer = consumer
        self.producer = producer
        self.options = options
        self._edge = edge

    def __repr__(self) -> str:
        state = "active" if self._edge.end is None else "ended"
        return f"<Subscription of {self.consumer.name} to {self.producer.name}, {state}>"

    @property
    def cancellation(self) -> Cancellation | None:
        """Why the subscription has ended; None while it has not."""
        return None if self._edge.end is None else self._edge.end.cancellation

    def ask(self, count: int) -> None:
        """Asks the producer for *count* more events; 0 asks for none.

        After the end of the subscription, it does nothing.

        Raises:
            OptionsError: *count* is no number of events, or the subscription asks by itself.
        """
        if not is_a(count, int) or is_a(count, bool) or count < 0:
            raise OptionsError(("ask",), f"expected a number of events, at least 0, got {shown(count)}")
        if self.options.mode != "manual":
            raise OptionsError(("ask",), "expected a subscription with mode='manual'; this one asks by itself")
        if count and self._edge.end is None:
            self._edge.ask(count)

    def cancel(self, reason: object = None) -> None:
        """Ends the subscription. Both stages are told *reason*, and the consumer does what its cancel mode says.

        What has arrived at the consumer is still handled, before it learns of the end.

        Args:
            reason: None for a quiet end, otherwise an error or anything else.
        """
        self._end(End(Cancellation("cancel", reason)))

    def _end(self, end: End) -> None:
        if self._edge.end is None:
            self.producer.outlet.unsubscribe(self._edge, end)

    async def resubscribe(self, reason: object = None, **options: Any) -> Subscription[T]:
        """Ends this subscription and makes another one between the same stages, with *options* changed.

        The consumer lives on, whatever its cancel mode says.

        Raises:
            OptionsError: an option is wrong or unknown. This subscription has not ended then.
            StageDown: the consumer has ended.
        """
        chosen = self.options.changed(**options)
        if (chosen.partition, chosen.selector) != (self.options.partition, self.options.selector):
            self.producer.outlet.check_options(chosen.partition, chosen.selector)
        self._end(End(Cancellation("cancel", reason), spares=True))
        return connect(self.consumer, self.producer, chosen)


async def subscribe(
    consumer: ConsumingStage[T],
    to: EmittingStage[T],
    *,
    max_demand: int = 1000,
    min_demand: int | None = None,
    cancel: CancelMode = "permanent",
    mode: Mode = "automatic",
    partition: Any = None,
    selector: Any = None,
    **unknown: Any,
) -> Subscription[T]:
    """Subscribes *consumer* to the producer *to*. Both are told in their own tasks, before the first events come.

    The same two stages may have several subscriptions, unless the producer has a BroadcastDispatcher.

    Args:
        consumer: a ConsumerStage, ProducerConsumerStage or ConsumerSupervisor.
        to: a ProducerStage or ProducerConsumerStage. If it has ended, the consumer dies of that, unless *cancel* is
            ``"temporary"``.
        max_demand: the most events that the consumer has asked for and not handled.
        min_demand: it asks again when so many or fewer are outstanding. None: half of *max_demand*.
        cancel: what the end of the subscription means for the consumer. ``"permanent"``: it ends too. ``"transient"``:
            it ends too, unless the end was quiet. ``"temporary"``: it lives on.
        mode: ``"automatic"``: the consumer asks by itself. ``"manual"``: only :meth:`Subscription.ask` does.
        partition: the partition, where the producer has a PartitionDispatcher.
        selector: event -> whether the consumer gets it, where the producer has a BroadcastDispatcher.
        unknown: refused.

    Raises:
        OptionsError: an option is wrong or unknown, or one of the stages is none.
        StageDown: the consumer has ended.
    """
    options = SubscriptionOptions(
        max_demand=max_demand,
        min_demand=min_demand,
        cancel=cancel,
        mode=mode,
        partition=partition,
        selector=selector,
        **unknown,
    )
    return connect(consumer, to, options)


def _guarded(selector: Callable[[T], object], outlet: StageOutlet[T], edge: Edge[T]) -> Callable[[T], object]:
    """Returns *selector*, made safe for the producer: if it raises, only its own subscription ends, with that error."""

    def guarded(event: T) -> object:
        try:
            return selector(event)
        except foreign_errors(cancellations=True) as error:
            outlet.fail(edge, error)
            return False

    return guarded


def connect(consumer: ConsumingStage[T], producer: EmittingStage[T], options: SubscriptionOptions) -> Subscription[T]:
    """Connects the two stages; see :func:`subscribe`."""
    if not isinstance(consumer, ConsumingStage):
        raise OptionsError(("consumer",), f"expected a stage that takes events, got {article(consumer)}")
    if not isinstance(producer, EmittingStage):
        raise OptionsError(("to",), f"expected a stage that emits events, got {article(producer)}")
    if consumer._has_ended:
        raise StageDown(f"{consumer.name} has ended, so it cannot subscribe") from consumer._error
    credit = consumer._credit(options)
    edge: Edge[T] = Edge(producer.outlet, consumer.inlet, credit, options.cancel)
    edge.owner = subscription = Subscription(consumer, producer, options, edge)
    if producer._has_ended:
        edge.active = False
        edge.end = End(Cancellation("down", producer._error), never_began=True)
        consumer.inlet.ended(edge, edge.end)
        return subscription
    producer.outlet.check(edge, options.partition, options.selector)
    consumer.inlet.edges.add(edge)
    consumer.inlet.mark(partial(consumer._tell_subscribed, "producer", subscription))
    producer._todo.append(partial(producer._tell_subscribed, "consumer", subscription))
    producer._wake.set()
    selector = None if options.selector is None else _guarded(options.selector, producer.outlet, edge)
    producer.outlet.connect(edge, options.partition, selector)
    if options.mode == "automatic" and (count := consumer._first_demand(edge, options)):
        producer.outlet.ask(edge, count)
    return subscription
