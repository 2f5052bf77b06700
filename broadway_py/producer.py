"""The port through which messages come in: what the author of a producer writes."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, Self

from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.errors import OptionsError, ProducerError
from broadway_py.message import Message

__all__ = ["Delays", "Deliveries", "FailurePlan", "Producer"]


class Delays(Protocol):
    """How long to wait between two tries."""

    def failed(self, lasted_s: float = 0.0, at_least_s: float = 0.0) -> float:
        """Seconds to wait after a success that lasted *lasted_s* (0: there was none); ``math.inf``: try no more."""


class Deliveries(list[Message[Any]]):
    """What a producer may return from ``handle_demand`` when it knows how many were redelivered.

    The pipeline then does not look into the metadata of each, which may cost a producer much that decodes on demand.
    """

    __slots__ = ("redelivered",)

    def __init__(self) -> None:
        super().__init__()
        #: How many of them were delivered before.
        self.redelivered = 0


class FailurePlan(NamedTuple):
    """What a pipeline does with failed messages, as far as its sources have to know it."""

    #: What may become of one: retry, dead_letter, drop, reject, stop.
    actions: frozenset[str]
    #: Where dead letters go, in the words of the source. None: where the source keeps them by itself.
    dead_letter: str | None
    #: The user has chosen it; else it is the default, which gives way to what a source was told.
    is_given: bool


class _HandOver:
    """Where a self-fetching producer leaves messages and the pipeline picks them up.

    Holds at most what was asked for; what does not fit waits with its ``put``, first come, first served.
    """

    def __init__(self) -> None:
        self.ready: list[Message[Any]] = []
        self.demand = 0
        self._putting: deque[tuple[list[Message[Any]], asyncio.Future[None]]] = deque()
        self._asked = asyncio.Event()
        self._filled = asyncio.Event()
        self._draining = False
        self._closed = False

    def _move(self) -> None:
        while self._putting and (self.demand > 0 or self._draining):
            rest, done = self._putting[0]
            room = len(rest) if self._draining else self.demand
            self.ready.extend(rest[:room])
            self.demand = max(0, self.demand - len(rest[:room]))
            del rest[:room]
            if not rest:
                self._putting.popleft()
                if not done.done():
                    done.set_result(None)
        if self.demand > 0:
            self._asked.set()
        else:
            self._asked.clear()
        if self.ready or self._draining:
            self._filled.set()

    async def put(self, messages: Sequence[Message[Any]]) -> None:
        if self._closed:
            raise ProducerError("the pipeline has stopped taking messages; hand nothing over after draining")
        if not messages:
            return
        done = asyncio.get_running_loop().create_future()
        self._putting.append((list(messages), done))
        self._move()
        await done

    async def wait_for_demand(self) -> int:
        while self.demand <= 0:
            await self._asked.wait()
        return self.demand

    async def take(self, demand: int) -> list[Message[Any]]:
        self.demand = max(0, demand - len(self.ready))
        self._move()
        await self._filled.wait()
        taken, self.ready = self.ready[:demand], self.ready[demand:]
        self.demand = 0
        self._asked.clear()
        if not self.ready and not self._draining:
            self._filled.clear()
        return taken

    def drain(self) -> None:
        """Whoever waits to hand over is let through, whatever the demand."""
        self._draining = True
        self._move()

    def close(self) -> list[Message[Any]]:
        """Refuse what comes later; what was handed over and not picked up."""
        self._closed = True
        self.drain()
        taken, self.ready = self.ready, []
        return taken


class Producer:
    """A source of messages. Subclass it, and give ``producer=`` an instance: a *description*, nothing runs yet.

    The pipeline works on copies (:attr:`concurrency` of them, and a fresh one after each loss). On a copy it calls
    :meth:`open`, then :meth:`handle_demand` again and again, one call at a time, and :meth:`close` at the end, also
    when ``open`` failed half-way. So run state is made in ``open``; what all copies share is made in ``__init__``.

    Two ways to write one:

    * *asked*: implement :meth:`handle_demand`;
    * *fetching by itself*: leave ``handle_demand`` alone, start a task in ``open`` which awaits
      :meth:`wait_for_demand` and hands over with :meth:`push`.
    """

    #: The producer's name in metrics, logs and ``message.producer``. None: the pipeline gives it one.
    name: str | None = None
    #: How many copies the pipeline opens.
    concurrency: int = 1
    #: Position among the copies, from 0. Set by the pipeline before ``open``.
    index: int = 0
    #: How many messages processors and batchers can hold: what a prefetch should cover. Set before ``open``.
    capacity: int = 0
    #: True: a message may be delivered again by this producer itself. ``None`` from ``handle_demand`` is then asked for
    #: a second time, and open batches leave in between; the source has ended when ``None`` comes again.
    redelivers: bool = False
    #: True: whatever copies and processes read the source, each key is in the hands of one of them at a time. Only
    #: then may an ``ordered`` pipeline have several workers.
    keeps_keys_apart: bool = False
    #: Where time comes from. Set by the pipeline before ``open``.
    clock: Clock = SYSTEM_CLOCK
    #: Name of the pipeline. Set before ``open``.
    pipeline: str = ""
    #: Set when the pipeline stops: return soon from ``handle_demand``, start nothing new. It is not cancelled
    #: before the deadline. Made by the pipeline before ``open``.
    draining: asyncio.Event

    #: What the pipeline does with failed messages. None: nothing, the acknowledger's ``ack`` does. Set before ``open``.
    failure: FailurePlan | None = None
    #: The settings of this source say what is to become of a failed message.
    says_what_failing_means: bool = False

    _handover: _HandOver
    _report_lost: Callable[[ProducerError], None]

    def for_order(self) -> Self:
        """The description that an ``ordered`` pipeline uses instead of this one; called once, when it is built.

        A source that can refuse other readers returns one that does; by default this one is returned.
        """
        return self

    async def open(self) -> None:
        """Connect. Called once per copy, before anything else.

        Raises:
            ProducerError: the source is away; tried again with back-off, on a fresh copy.
        """

    async def handle_demand(self, demand: int) -> Sequence[Message[Any]] | None:
        """Return at most *demand* messages (``demand >= 1``); may wait for the first one.

        ``[]`` means nothing yet: it is called again at once, so wait inside rather than return it in a loop.
        ``None`` means the source has ended. Called again only after the last call returned.

        Raises:
            ProducerError: the source is gone; ``close`` and a fresh copy's ``open`` follow, with back-off.
        """
        return await self._handover.take(demand)

    @property
    def demand(self) -> int:
        """How many messages :meth:`push` takes right now without waiting."""
        return self._handover.demand

    async def wait_for_demand(self) -> int:
        """Wait until the pipeline wants messages; how many."""
        return await self._handover.wait_for_demand()

    async def push(self, messages: Sequence[Message[Any]]) -> None:
        """Hand *messages* over, in order; waits while the pipeline is full and never drops one.

        They are the pipeline's from the moment of the call: when the wait is cancelled, they go in all the same, so
        nothing need (or may) be handed over again.
        """
        await self._handover.put(messages)

    def lost(self, error: ProducerError) -> None:
        """Say, at any time, that the source is gone, also while nobody asks for messages.

        The pipeline closes this copy and opens a fresh one with back-off. A ``handle_demand`` that is waiting
        must end by itself, by raising *error*.
        """
        self._report_lost(error)

    @property
    def obstacle(self) -> str | None:
        """Why a copy that is connected does not do its work for now, in one sentence without credentials; else None.

        Shown where the pipeline says that it is not ready. Asked on a running copy, at any time.
        """
        return None

    async def pause(self) -> None:
        """Stop fetching and give back what was not handed over. ``handle_demand`` may go on waiting."""

    async def resume(self) -> None:
        """Fetch again."""

    async def resume_for(self, most: int) -> None:
        """Fetch again, until ``pause`` or ``resume``, but have at most *most* messages out of the source at a time.

        An open breaker lets single messages through this way. What a source hands out besides is given back, which
        counts as an attempt where the source counts deliveries. By default it is ``resume``: right for whoever
        fetches no more than was asked for.
        """
        await self.resume()

    def resize(self, capacity: int) -> None:
        """The pipeline can hold *capacity* messages from now on: a prefetch that covers them may follow.

        Called on a running copy; returns at once.
        """
        self.capacity = capacity

    def backoff(self) -> Delays | None:
        """The waits between two connects, made afresh for each copy's place. None: the pipeline's own."""
        return None

    def most_in_flight(self, capacity: int) -> int | None:
        """How many unsettled messages the source lets one copy hold at most (a prefetch); None: it sets no limit.

        Asked of the description, before anything is opened. The pipeline warns when its batches can never fill.

        Args:
            capacity: as :attr:`capacity`, for each copy.
        """
        return None

    async def prepare_for_draining(self) -> None:
        """The pipeline stops: stop fetching, give back what was not handed over. ``draining`` is set already.

        Nothing may be handed over with :meth:`push` once this has returned.
        """

    async def close(self) -> None:
        """Release everything. Called once per copy, after its last message was settled; must not raise.

        A copy that was lost has 5 seconds until the next one is opened, the last copy what is left of the stop's time.
        """

    async def end_lost_copies(self) -> None:
        """End what lost copies have left going on, such as settling what they had handed over; must not raise.

        Called on the description at the end of a stop, whether or not a copy was open then: once for each of the
        copies that ran side by side, at the same time. It has what is left of the stop's time.
        """

    def check_failure(self, plan: FailurePlan | None) -> None:
        """Look, when a pipeline is built with this description, whether *plan* can be carried out.

        Raises:
            OptionsError: it cannot; the path begins with ``failure`` or with a setting of this producer.
        """
        if plan is not None and plan.dead_letter is not None:
            raise OptionsError(
                ("failure", "dead_letter"),
                f"{type(self).__name__} has a place of its own for dead letters; leave dead_letter out",
            )

    def copy(self, *, index: int, capacity: int, pipeline: str, lost: Callable[[ProducerError], None]) -> Self:
        """A copy for the pipeline to run; for pipelines and test kits, not for authors of producers."""
        made = copy.copy(self)
        made.index = index
        made.capacity = capacity
        made.pipeline = pipeline
        made.draining = asyncio.Event()
        made._handover = _HandOver()
        made._report_lost = lost
        return made

    def begin_draining(self) -> None:
        """Set :attr:`draining` and let waiting ``push`` calls through; for pipelines and test kits."""
        self.draining.set()
        self._handover.drain()

    def end_draining(self) -> list[Message[Any]]:
        """Take no more; what was handed over and not yet picked up. For pipelines and test kits."""
        return self._handover.close()

    def __repr__(self) -> str:
        # Never the constructor's arguments: a URL may hold a password.
        return f"<{type(self).__name__} name={self.name!r}>"
