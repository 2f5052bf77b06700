"""The interface through which messages come in, and the base class for the author of a producer."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, Self

from broadway_py._core.failure_authority import FailureAuthority
from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.errors import OptionsError, ProducerError
from broadway_py.message import Message
from broadway_py.request_counts import RequestCounts

__all__ = ["Delays", "Deliveries", "FailurePlan", "Producer"]


class Delays(Protocol):
    """Decides how long to wait between two tries."""

    def failed(self, lasted_s: float = 0.0, at_least_s: float = 0.0) -> float:
        """Returns the seconds to wait before the next try; ``math.inf`` means never.

        Args:
            lasted_s: how many seconds the last success lasted (0: there was none).
            at_least_s: the shortest wait, in seconds.
        """


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


class FailurePlan(NamedTuple):
    """What a pipeline does with failed messages, as far as its sources need to know."""

    #: The actions that a failed message may meet: retry, dead_letter, drop, reject, stop.
    actions: frozenset[str]
    #: Where dead letters go, as the source names it. None: where the source keeps them by default.
    dead_letter: str | None
    #: Who decides about the failed messages of this source.
    authority: FailureAuthority

    def for_settings(self, *, on_failure_is_given: bool) -> FailurePlan:
        """Returns the plan for a copy of the source whose settings give ``on_failure=``, or do not."""
        return self._replace(authority=self.authority._replace(on_failure_is_given=on_failure_is_given))


class _HandOver:
    """Takes messages from a producer that fetches by itself, and gives them to the pipeline.

    It holds at most as many messages as were asked for. A ``put`` whose messages do not fit waits; the first one to
    wait is served first.
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
        """Lets every waiting ``put`` through, whatever the demand."""
        self._draining = True
        self._move()

    def close(self) -> list[Message[Any]]:
        """Refuses later messages. Returns those that were handed over and not picked up."""
        self._closed = True
        self.drain()
        taken, self.ready = self.ready, []
        return taken


class Producer:
    """A source of messages. Subclass it, and give an instance to ``producer=``.

    The instance is a *description*: it does not run. The pipeline works on copies of it: :attr:`concurrency` copies,
    and a new one after each loss. On a copy it calls :meth:`open`, then :meth:`handle_demand` again and again, one call
    at a time, and :meth:`close` at the end, also when ``open`` has failed half-way. So make the run state in ``open``,
    and make what all copies share in ``__init__``.

    There are two ways to write a producer:

    * *asked*: implement :meth:`handle_demand`;
    * *fetching by itself*: do not implement ``handle_demand``. Start a task in ``open`` that awaits
      :meth:`wait_for_demand` and hands messages over with :meth:`push`.
    """

    #: The producer's name in metrics, logs and ``message.producer``. None: the pipeline gives it one.
    name: str | None = None
    #: How many copies the pipeline opens.
    concurrency: int = 1
    #: The position among the copies, from 0. The pipeline sets it before ``open``.
    index: int = 0
    #: How many messages the processors and batchers can hold. A prefetch should cover them. Set before ``open``.
    capacity: int = 0
    #: True: this producer itself may deliver a message again. After a first ``None``, the pipeline then calls
    #: ``handle_demand`` a second time, and open batches leave in between. The source has ended when ``None`` comes
    #: again.
    redelivers: bool = False
    #: True: only one copy or process at a time holds messages of a given key. An ``ordered`` pipeline may have several
    #: workers only if this is True.
    keeps_keys_apart: bool = False
    #: The clock to use. The pipeline sets it before ``open``.
    clock: Clock = SYSTEM_CLOCK
    #: The name of the pipeline. Set before ``open``.
    pipeline: str = ""
    #: Set when the pipeline stops. Then return soon from ``handle_demand`` and start nothing new. The call is not
    #: cancelled before the deadline. The pipeline makes the event before ``open``.
    draining: asyncio.Event

    #: What the pipeline does with failed messages. None: it leaves them to the acknowledger's ``ack``. Set before
    #: ``open``.
    failure: FailurePlan | None = None
    #: Counts the requests, if the source charges for them. The metrics show the counts. Set before ``open``.
    requests: RequestCounts
    #: True: the settings of this source say what happens to a failed message (``on_failure=``).
    on_failure_is_given: bool = False

    _handover: _HandOver
    _report_lost: Callable[[ProducerError], None]

    def for_order(self) -> Self:
        """Returns the description that an ``ordered`` pipeline uses instead of this one.

        It is called once, when the pipeline is built. A source that can refuse other readers returns a description that
        does so. By default it returns this description.
        """
        return self

    async def open(self) -> None:
        """Connects to the source. It is called once per copy, before anything else.

        Raises:
            ProducerError: the source is not available. The pipeline tries again with back-off, on a new copy.
        """

    async def handle_demand(self, demand: int) -> Sequence[Message[Any]] | None:
        """Returns at most *demand* messages (``demand >= 1``). It may wait for the first one.

        ``[]`` means that there is nothing yet. The pipeline then calls again at once, so wait inside the call instead
        of returning ``[]`` many times. ``None`` means that the source has ended. The next call comes only after the
        last one has returned.

        Raises:
            ProducerError: the source is lost. ``close``, and ``open`` of a new copy, follow with back-off.
        """
        return await self._handover.take(demand)

    @property
    def demand(self) -> int:
        """The number of messages that :meth:`push` takes now without waiting."""
        return self._handover.demand

    async def wait_for_demand(self) -> int:
        """Waits until the pipeline wants messages. Returns how many."""
        return await self._handover.wait_for_demand()

    async def push(self, messages: Sequence[Message[Any]]) -> None:
        """Hands *messages* over, in order. It waits while the pipeline is full and never drops a message.

        The messages belong to the pipeline from the moment of the call. They go in even if the wait is cancelled, so
        do not hand them over again.
        """
        await self._handover.put(messages)

    def lost(self, error: ProducerError) -> None:
        """Reports that the source is lost. Call it at any time, also while there is no demand.

        The pipeline closes this copy and opens a new one with back-off. A ``handle_demand`` that is waiting must end by
        itself, by raising *error*.
        """
        self._report_lost(error)

    @property
    def obstacle(self) -> str | None:
        """Why a connected copy does not work at present, in one sentence without credentials; None if it works.

        The pipeline shows it when it is not ready. It may be read on a running copy at any time.
        """
        return None

    async def pause(self) -> None:
        """Stops fetching and gives back what was not handed over. ``handle_demand`` may go on waiting."""

    async def resume(self) -> None:
        """Starts fetching again."""

    async def resume_for(self, most: int) -> None:
        """Fetches again until ``pause`` or ``resume``, but takes at most *most* messages from the source at a time.

        An open breaker lets single messages through this way. If the source hands out more, they are given back; this
        counts as an attempt if the source counts deliveries. By default it calls ``resume``, which is right for a
        producer that fetches no more than was asked for.
        """
        await self.resume()

    def resize(self, capacity: int) -> None:
        """Tells a running copy that the pipeline can now hold *capacity* messages, so that it may adjust its prefetch.

        It must return at once.
        """
        self.capacity = capacity

    def backoff(self) -> Delays | None:
        """Returns the delays between two connects, a new object for each copy's index. None: the pipeline's own."""
        return None

    def most_in_flight(self, capacity: int) -> int | None:
        """Returns how many unsettled messages the source lets one copy hold (a prefetch); None: no limit.

        It is called on the description, before anything is opened. The pipeline logs a warning if its batches can never
        fill.

        Args:
            capacity: as :attr:`capacity`, for each copy.
        """
        return None

    async def prepare_for_draining(self) -> None:
        """Stops fetching, because the pipeline stops, and gives back what was not handed over.

        ``draining`` is already set. Once this has returned, :meth:`push` must not be called any more.
        """

    async def close(self) -> None:
        """Releases everything. It is called once per copy, after its last message was settled. It must not raise.

        A lost copy has 5 seconds for it before the next copy is opened. The last copy has the rest of the time that the
        stop may take.
        """

    async def end_lost_copies(self) -> None:
        """Ends what lost copies still do, such as settling the messages that they had handed over. It must not raise.

        It is called on the description at the end of a stop, whether or not a copy was open: once for each of the
        copies that ran side by side, at the same time. It has the rest of the time that the stop may take.
        """

    def check_failure(self, plan: FailurePlan | None) -> None:
        """Checks that *plan* can be carried out. It is called when a pipeline is built with this description.

        Raises:
            OptionsError: it cannot. The path begins with ``failure`` or with a setting of this producer.
        """
        if plan is not None and plan.dead_letter is not None:
            raise OptionsError(
                ("failure", "dead_letter"),
                f"{type(self).__name__} has a place of its own for dead letters; leave dead_letter out",
            )

    def copy(self, *, index: int, capacity: int, pipeline: str, lost: Callable[[ProducerError], None]) -> Self:
        """Returns a copy for the pipeline to run. For pipelines and test kits, not for authors of producers."""
        made = copy.copy(self)
        made.index = index
        made.capacity = capacity
        made.pipeline = pipeline
        made.requests = RequestCounts()
        made.draining = asyncio.Event()
        made._handover = _HandOver()
        made._report_lost = lost
        return made

    def begin_draining(self) -> None:
        """Sets :attr:`draining` and lets waiting ``push`` calls through. For pipelines and test kits."""
        self.draining.set()
        self._handover.drain()

    def end_draining(self) -> list[Message[Any]]:
        """Takes no more messages. Returns those handed over and not picked up. For pipelines and test kits."""
        return self._handover.close()

    def __repr__(self) -> str:
        # The constructor's arguments are not shown, because a URL may hold a password.
        return f"<{type(self).__name__} name={self.name!r}>"
