"""The interface through which messages come in: the base class for the author of a producer, and what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from broadway_py._core.failure_authority import FailureAuthority
from broadway_py.clock import Clock
from broadway_py.errors import ProducerError
from broadway_py.hand_over import HandOver
from broadway_py.message import Message
from broadway_py.request_counts import RequestCounts

__all__ = ["Deliveries", "FailurePlan", "Producer", "ProducerContext", "SourceMessages"]


class Deliveries(list[Message[Any]]):
    """A list that a producer may return from ``handle_demand`` if it knows how many messages were redelivered.

    The pipeline then does not read the metadata of each message. For a producer that decodes on demand, this can save
    much time.
    """

    __slots__ = ("redelivered",)

    def __init__(self) -> None:
        super().__init__()
        #: How many of the messages were delivered before.
        self.redelivered = 0


class SourceMessages(NamedTuple):
    """How many messages a source holds at one moment. None: it is not known. See :meth:`Producer.source_messages`."""

    #: Those that wait and may be handed out now.
    ready: int | None = None
    #: Those that wait for the end of a delay.
    delayed: int | None = None
    #: Those among the dead letters of the source.
    dead: int | None = None
    #: Why a number is not known, in one sentence without credentials. None: the source has no such number.
    trouble: str | None = None


class FailurePlan(NamedTuple):
    """What a pipeline does with failed messages, as far as its sources need to know."""

    #: The actions that a failed message may meet: retry, dead_letter, drop, reject, stop.
    actions: frozenset[str]
    #: Where dead letters go, as the source names it. None: where the source keeps them by default.
    dead_letter: str | None
    #: Who decides about the failed messages of this source.
    authority: FailureAuthority
    #: The shortest and the longest delay before another attempt, in seconds. None: there is no other attempt.
    delays: tuple[float, float] | None = None

    def for_settings(self, *, on_failure_is_given: bool) -> FailurePlan:
        """Returns the plan for a copy of the source whose settings give ``on_failure=``, or do not."""
        return self._replace(authority=self.authority._replace(on_failure_is_given=on_failure_is_given))


@dataclass(slots=True, kw_only=True, eq=False)
class ProducerContext:
    """What a pipeline tells one running producer, and what the producer may ask of it.

    The pipeline makes a new context for each copy and binds it before ``open``.
    """

    #: The name of the pipeline.
    pipeline: str
    #: The producer's name, as in metrics, logs and ``message.producer``.
    producer: str
    #: The position among the copies that run side by side, from 0.
    index: int
    #: How many messages of this copy the processors and batchers can hold. A prefetch should cover them. It changes
    #: before :meth:`Producer.resize` is called.
    capacity: int
    #: The only source of time. Tests replace it.
    clock: Clock
    #: What the pipeline does with failed messages. None: it leaves them to the acknowledger's ``ack``.
    failure: FailurePlan | None
    #: Counts the requests, if the source charges for them. The metrics show the counts.
    requests: RequestCounts
    #: The names of the headers that tell the trace of a message, if the pipeline makes traces. A source that hands out
    #: only the headers that it is asked for must ask for these, too.
    trace_fields: frozenset[str] = frozenset()
    #: What :meth:`lost` tells the pipeline.
    on_lost: Callable[[ProducerError], None]
    #: Set when the pipeline stops. Then return soon from ``handle_demand`` and start nothing new. The call is not
    #: cancelled before the deadline of the stop.
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    #: Holds what :meth:`Producer.push` hands over until the pipeline picks it up. Use the methods of the producer.
    hand_over: HandOver = field(default_factory=HandOver)

    def lost(self, error: ProducerError) -> None:
        """Reports that the source is lost. Call it at any time, also while there is no demand.

        The pipeline closes this copy and opens a new one with back-off. A ``handle_demand`` of your own that is waiting
        must end by itself, by raising *error*. After ``close`` the call has no effect.
        """
        self.hand_over.fail(error)
        self.on_lost(error)

    def begin_draining(self) -> None:
        """Sets :attr:`draining` and lets waiting ``push`` calls through. For pipelines and test kits."""
        self.draining.set()
        self.hand_over.drain()

    def end_draining(self) -> list[Message[Any]]:
        """Takes no more messages. Returns those handed over and not picked up. For pipelines and test kits."""
        return self.hand_over.close()


class Producer:
    """Brings the messages of one connection to a source. Subclass it to connect another source.

    There are two ways to write a producer:

    * *asked*: implement :meth:`handle_demand`;
    * *fetching by itself*: do not implement ``handle_demand``. Start a task in ``open`` that awaits
      :meth:`wait_for_demand` and hands messages over with :meth:`push`.

    An instance may be given to ``producer=``. It does not run itself: the pipeline works on shallow copies of it,
    :attr:`concurrency` side by side and a new one after each loss. So make in ``__init__`` what all copies share, and
    the run state in ``open``. If a producer has more to say before it runs, such as its own back-off, write a
    :class:`~broadway_py.producer_description.ProducerDescription` that creates it.

    The pipeline calls :meth:`open` first, then :meth:`handle_demand` again and again, one call at a time, and
    :meth:`close` at the end. ``pause``, ``resume``, ``resume_for``, ``resize`` and ``prepare_for_draining`` may come
    while a ``handle_demand`` is waiting. An error that is no ``ProducerError`` is a defect of the producer: the source
    crashes and is restarted, at most ``max_restarts`` times.
    """

    # What an instance that is given to producer= says about its copies. A description says it instead, if there is one.

    #: The producer's name in metrics, logs and ``message.producer``. None: the name of its class.
    name: str | None = None
    #: How many copies the pipeline opens.
    concurrency: int = 1
    #: True: this producer itself may deliver a message again. After a first ``None``, the pipeline then calls
    #: ``handle_demand`` a second time, and open batches leave in between. The source has ended when ``None`` comes
    #: again.
    redelivers: bool = False
    #: True: only one copy or process at a time holds messages of a given key. An ``ordered`` pipeline may have several
    #: workers only if this is True.
    keeps_keys_apart: bool = False
    #: True: the messages of the source outlive the process, and those that were not acked are delivered again. A
    #: pipeline with aggregators then needs a file for its state.
    outlives_process: bool = False

    def returns_within(self, *, process_died: bool) -> float:
        """Returns the seconds after which the source has delivered again what a lost copy held; 0: at once.

        So long the watermark of an aggregator stands still after a loss.

        Args:
            process_died: True: the process of the copy has ended. False: the connection was lost.
        """
        return 0.0

    #: True: the source marks each message that it may have delivered before, and the acknowledger tells the marks
    #: (:meth:`~broadway_py.acknowledger.Acknowledger.is_repeat`). An aggregator, which adds each message once, then
    #: looks only these up. False: it looks up every message, and keeps the identities of 2 million in memory.
    marks_repeats: bool = False

    #: What the pipeline tells this copy. It is there from before ``open``; an instance given to ``producer=`` has none.
    #: A producer that has an attribute of this name already keeps its own, and does not see this one.
    context: ProducerContext
    #: Set when the pipeline stops (see :attr:`ProducerContext.draining`). It is there from before ``open``.
    draining: asyncio.Event

    # The context also of a producer that has a context of its own.
    _bound_context: ProducerContext

    def bind(self, context: ProducerContext) -> None:
        """Sets :attr:`context` and :attr:`draining`. For pipelines and test kits, once, before :meth:`open`.

        Raises:
            RuntimeError: the producer has a context already.
        """
        if "_bound_context" in vars(self):
            raise RuntimeError(f"{self!r} is in use already: create() must return a new producer each time")
        self._bound_context = context
        self.draining = context.draining
        if "context" not in vars(self) and not hasattr(type(self), "context"):
            self.context = context

    async def open(self) -> None:
        """Connects to the source. It is called once, before anything else. It may wait; a stop cancels it.

        Raises:
            ProducerError: the source is not available. The pipeline calls ``close`` and tries again with back-off, on a
                new copy.
        """

    async def handle_demand(self, demand: int) -> Sequence[Message[Any]] | None:
        """Returns at most *demand* messages (``demand >= 1``). It may wait for the first one.

        ``[]`` means that there is nothing yet. The pipeline then calls again at once, so wait inside the call instead
        of returning ``[]`` many times. ``None`` means that the source has ended. The next call comes only after the
        last one has returned.

        Raises:
            ProducerError: the source is lost. ``close``, and ``open`` of a new copy, follow with back-off.
        """
        return await self._bound_context.hand_over.take(demand)

    @property
    def demand(self) -> int:
        """The number of messages that :meth:`push` takes now without waiting."""
        return self._bound_context.hand_over.demand

    async def wait_for_demand(self) -> int:
        """Waits until the pipeline wants messages. Returns how many."""
        return await self._bound_context.hand_over.wait_for_demand()

    async def push(self, messages: Sequence[Message[Any]]) -> None:
        """Hands *messages* over, in order. It waits while the pipeline is full and never drops a message.

        The messages belong to the pipeline from the moment of the call. They go in even if the wait is cancelled, so
        do not hand them over again.

        Raises:
            ProducerError: the pipeline takes no more messages; the call came after the end of draining.
        """
        await self._bound_context.hand_over.put(messages)

    @property
    def obstacle(self) -> str | None:
        """Why a connected producer does not work at present, in one sentence without credentials; None if it works.

        The pipeline shows it when it is not ready. It may be read at any time.
        """
        return None

    async def source_messages(self) -> SourceMessages | None:
        """Returns how many messages the source holds now, for all its readers together; None: it cannot tell.

        The live page and the metrics show it. It is called every 10 s at most, one call at a time, and of one copy only
        if there are several. It may come at any time between the end of ``open`` and ``close``, also while a
        ``handle_demand`` waits. It may wait; after 5 s it is cancelled. A partition tells only of itself, so that the
        numbers of all partitions can be added up.

        Raises:
            ProducerError: none of the numbers can be known at present. The text says why.
        """
        return None

    async def pause(self) -> None:
        """Stops fetching and gives back what was not handed over. ``handle_demand`` may go on waiting.

        It may wait. It is called when the pipeline pauses or its breaker opens, also right after ``open``, and may be
        called twice.

        Raises:
            ProducerError: the source is lost.
        """

    async def resume(self) -> None:
        """Starts fetching again, after :meth:`pause`. It may wait. Raises as ``pause`` does."""

    async def resume_for(self, most: int) -> None:
        """Fetches again until ``pause`` or ``resume``, but takes at most *most* messages from the source at a time.

        An open breaker lets single messages through this way. If the source hands out more, they are given back; this
        counts as an attempt if the source counts deliveries. By default it calls ``resume``, which is right for a
        producer that fetches no more than was asked for. It may wait. Raises as ``pause`` does.
        """
        await self.resume()

    def resize(self, capacity: int) -> None:
        """Tells that the pipeline can now hold *capacity* messages of this copy, so that the prefetch may change.

        It must return at once, and must not raise.
        """

    async def prepare_for_draining(self) -> None:
        """Stops fetching, because the pipeline stops, and gives back what was not handed over.

        It is called at most once, after ``draining`` was set. It may wait; it also ends a ``handle_demand`` that waits
        for something else than ``draining``. Once this has returned, :meth:`push` must not be called any more. An error
        is logged, and the stop goes on.
        """

    async def close(self) -> None:
        """Releases everything. It is called once, after the last message was settled, also if ``open`` has failed.

        It may wait: a lost copy has 5 seconds before the next copy is opened, the last copy has the rest of the time
        that the stop may take. An error is logged for developers and has no other effect.
        """

    def __repr__(self) -> str:
        # The constructor's arguments are not shown, because a URL may hold a password.
        return f"<{type(self).__name__} name={self.name!r}>"
