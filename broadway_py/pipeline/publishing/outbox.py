"""Publishes for the handlers of one pipeline to one place: their messages travel together, within bounds."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from typing import Any, Final

from broadway_py import telemetry
from broadway_py._core.backoff import Backoff
from broadway_py._core.histogram import SECONDS_BOUNDS, Histogram
from broadway_py._core.outgoing_lists import OutgoingLists
from broadway_py.clock import Clock
from broadway_py.durations import timeout_of
from broadway_py.error_text import name_of
from broadway_py.errors import OptionsError, ProducerError
from broadway_py.foreign import foreign_errors
from broadway_py.log import logger
from broadway_py.pipeline.publishing.calls import Entry, OutgoingList, PublishCall, refuse_other_loops
from broadway_py.pipeline.publishing.encoding import Encoding, Unfit
from broadway_py.pipeline.stats import PublishOutcome
from broadway_py.publisher import Given, Publisher, Sink
from broadway_py.stage import Wake
from broadway_py.telemetry import Span
from broadway_py.tracing import Sending, Tracer

__all__ = ["Outbox"]

log = logger("broadway_py.pipeline")

#: How much may be on its way. A caller of more waits.
_MOST: Final = 2_000
_MOST_BYTES: Final = 16 * 1024 * 1024
_MOST_IN_LIST: Final = 500
_MOST_BYTES_IN_LIST: Final = 1024 * 1024
_MOST_LISTS: Final = 16
#: The bytes that a message costs besides its payload and headers. Empty ones are not free.
_OVERHEAD: Final = 256
#: Seconds between two tries to connect while nobody publishes.
_FIRST_WAIT_S: Final = 1.0
_MOST_WAIT_S: Final = 30.0
#: Real seconds that a list gets to end after the close.
_END_S: Final = 1.0


class Outbox:
    """Publishes what handlers give, under one name of the option ``publishers``.

    Args:
        pipeline: the name of the pipeline.
        name: the name of the publisher.
        sink: the place.
        clock: the clock of the pipeline.
        context: the ``context`` of the pipeline, for telemetry.
    """

    def __init__(self, pipeline: str, name: str, sink: Sink, *, clock: Clock, context: object) -> None:
        self.name = name
        #: How many messages ended in each outcome, and how long the calls took.
        self.outcomes: Counter[PublishOutcome] = Counter()
        self.duration = Histogram(SECONDS_BOUNDS)
        self._pipeline = pipeline
        self._context = context
        self._clock = clock
        self._lists: OutgoingLists[Entry] = OutgoingLists(
            most=_MOST,
            most_bytes=_MOST_BYTES,
            most_in_list=_MOST_IN_LIST,
            most_bytes_in_list=_MOST_BYTES_IN_LIST,
            most_lists=_MOST_LISTS,
        )
        self._trace_place = sink.trace_place
        self._tracer: Tracer | None = None
        self._publisher: Publisher = sink.create(f"{pipeline}.{name}", clock)
        self._loop = asyncio.get_running_loop()
        # Lists and the connection belong to no message, and must not run in the context of the first one.
        self._base = copy_context()
        self._is_open = self._is_closed = False
        self._last_time: float | None = None
        self._is_sending = False
        self._sending: set[asyncio.Task[None]] = set()
        # Who waits for room; and the one of them who may go on, and has not put anything yet.
        self._for_room: deque[asyncio.Future[None]] = deque()
        self._has_turn: asyncio.Future[None] | None = None
        self._for_idle: list[asyncio.Future[None]] = []
        self._trouble_came = Wake()
        self._keeping: asyncio.Task[None] | None = None
        self._log = log.bind(pipeline=pipeline, publisher=name)

    def trace_by(self, tracer: Tracer) -> None:
        """Make a span of each call from now on, and let messages carry the trace on."""
        self._tracer = tracer

    # --- connection

    @property
    def trouble(self) -> str | None:
        """Returns why the place cannot be used, in one sentence without credentials; None if it can."""
        return self._publisher.trouble

    @property
    def is_up(self) -> bool:
        """Returns whether the place was reached, and the last try succeeded."""
        return self._is_open and not self._is_closed and self.trouble is None

    async def open(self) -> None:
        """Connect, and check that the place exists.

        Raises:
            ProducerError: the place is not available, or refuses us.
        """
        try:
            await self._publisher.open()
        except ProducerError as away:
            self._publisher.trouble = str(away)
            raise
        self._publisher.trouble = None
        self._is_open = True

    def begin(self) -> None:
        """Begin to connect, and connect again after each trouble, also while nobody publishes."""
        self._keeping = self._loop.create_task(
            self._keep(), name=f"{self._pipeline}.publisher:{self.name}", context=self._base.copy()
        )

    async def _keep(self) -> None:
        while True:
            backoff = Backoff(_FIRST_WAIT_S, _MOST_WAIT_S)
            logged: str | None = None
            while not self.is_up:
                if self.trouble is not None:
                    await self._clock.sleep(backoff.failed())
                try:
                    if not self.is_up:  # it is, if a handler has published meanwhile
                        await self.open()
                except ProducerError as away:
                    if str(away) != logged:
                        logged = str(away)
                        self._log.warning("a publisher is not connected; it tries again", reason=logged)
                except foreign_errors() as error:
                    self._publisher.trouble = f"opening it raised {name_of(error)}"
                    self._log.error("a publisher could not be opened", exception=name_of(error))
            await self._trouble_came.wait()

    # --- publishing

    def publish(
        self,
        call: str,
        items: Sequence[Any],
        *,
        key: Given,
        message_id: Given,
        headers: Mapping[str, str] | None,
        content_type: str | None,
        timeout: float | timedelta,
    ) -> Coroutine[Any, Any, None]:
        """Publish *items*. What can be refused at once is refused here, before anything is awaited.

        Raises:
            DefinitionError: this is not the event loop of the pipeline.
            OptionsError, TypeError: an option has a wrong value.
        """
        called = f"publishers[{self.name!r}].{call}"
        refuse_other_loops(self._loop, called)
        seconds = timeout_of(timeout, f"{called}(timeout=…)")
        if seconds is None:
            raise OptionsError((), f"{called}(timeout=…): expected seconds; a call without a limit might wait for ever")
        encoding = Encoding(
            key=key, message_id=message_id, headers=headers, content_type=content_type, pipeline=self._pipeline
        )
        return self._publish(items, encoding, seconds)

    async def _publish(self, items: Sequence[Any], encoding: Encoding, timeout_s: float) -> None:
        began = self._clock.monotonic()
        if self._last_time is not None:
            timeout_s = min(timeout_s, self._last_time - began)
        timeout_s = max(0.0, timeout_s)
        call = PublishCall(items, began + timeout_s, self._loop)
        span = self._span(len(items))
        if self._tracer is not None:
            call.sending = self._tracer.send(self._trace_place, len(items))
        try:
            await self._confirmed(call, encoding, timeout_s)
        except BaseException as error:
            self._note(call, began)
            _end(span, call.sending, error)
            raise
        self._note(call, began)
        failed = call.error(self.name, self._reason(timeout_s))
        _end(span, call.sending, failed)
        if failed is not None:
            raise failed

    async def _confirmed(self, call: PublishCall, encoding: Encoding, timeout_s: float) -> None:
        """Wait until each item of *call* has an outcome, or its time is over."""
        limit = self._clock.timeout(timeout_s)
        try:
            async with limit:
                for position, item in enumerate(call.items):
                    # Those who wait come first. Who is at work goes on until there is no room.
                    if not self._lists.has_room or (position == 0 and self._others_wait):
                        await self._room()
                    if call.is_hopeless or self._is_closed:
                        break
                    self._put(call, position, item, encoding)
                await call.settled()
        except TimeoutError:
            if not limit.expired():
                raise
        finally:
            for entry in [*call.open.values()]:
                self._withdraw(entry)

    def _put(self, call: PublishCall, position: int, item: Any, encoding: Encoding) -> None:
        try:
            message = encoding.outgoing(item)
        except Unfit as unfit:
            call.refuse(position, str(unfit))
            return
        if call.sending is not None:
            message = call.sending.carry(message, item)
        headers = message.all_headers
        size = _OVERHEAD + len(message.data) + sum(len(name) + len(value) for name, value in headers.items())
        entry = Entry(call, position, message, size)
        call.open[position] = entry
        self._lists.put(entry, size)
        self._send_soon()

    def _span(self, count: int) -> Span | None:
        if not telemetry.active():
            return None
        return Span(
            "broadway.publisher.publish",
            {"publisher": self.name, "messages": count},
            clock=self._clock,
            pipeline=self._pipeline,
            context=self._context,
            index=0,
        )

    def _note(self, call: PublishCall, began: float) -> None:
        refused = len(call.refused)
        self.outcomes["confirmed"] += call.confirmed
        self.outcomes["refused"] += refused
        self.outcomes["unconfirmed"] += len(call.items) - call.confirmed - refused
        self.duration.observe(self._clock.monotonic() - began)

    def _reason(self, timeout_s: float) -> str:
        """Returns why messages are not confirmed of which no list has told why."""
        if self._is_closed:
            return "the publisher is closed"
        return self.trouble or f"no confirmation within {timeout_s:g} s"

    # --- lists

    @property
    def waiting(self) -> int:
        """Returns how many messages are not being sent yet."""
        return self._lists.waiting

    @property
    def in_flight(self) -> int:
        """Returns how many messages are being sent, and not confirmed."""
        return self._lists.held - self._lists.waiting

    @property
    def _others_wait(self) -> bool:
        return bool(self._for_room) or self._has_turn is not None

    async def _room(self) -> None:
        """Wait until there is room for more. Those who wait take turns: each puts what there is room for."""
        future = self._loop.create_future()
        self._for_room.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.cancelled():
                with suppress(ValueError):
                    self._for_room.remove(future)
            raise
        finally:
            if self._has_turn is future:
                self._has_turn = None
                # After the step in which this caller puts its messages.
                self._loop.call_soon(self._give_room)

    def _give_room(self) -> None:
        """Let the next of those go on who wait for room, if there is much."""
        if self._has_turn is not None or not (self._is_closed or self._lists.has_much_room):
            return
        while self._for_room:
            future = self._for_room.popleft()
            if not future.done():
                self._has_turn = future
                future.set_result(None)
                return

    def _send_soon(self) -> None:
        """Send what waits at the end of this turn of the event loop, with what others put in the same turn."""
        if not self._is_sending:
            self._is_sending = True
            self._loop.call_soon(self._send, context=self._base)

    def _send(self) -> None:
        self._is_sending = False
        if self._is_closed:
            return
        while entries := self._lists.take():
            unconfirmed = OutgoingList(entries, self._lists, self._freed)
            task = self._loop.create_task(self._deliver(unconfirmed), context=self._base.copy())
            unconfirmed.task = task
            self._sending.add(task)
            # Not by the task itself: one that is cancelled before its first step runs nothing.
            task.add_done_callback(partial(self._ended, unconfirmed))

    async def _deliver(self, unconfirmed: OutgoingList) -> None:
        timeout_s = max(0.0, unconfirmed.deadline - self._clock.monotonic())
        try:
            await self._publisher.deliver(unconfirmed, timeout=timeout_s)
        except foreign_errors() as error:
            # A publisher of the user.
            self._publisher.trouble = f"publishing raised {name_of(error)}"
            unconfirmed.fail(self._publisher.trouble, lasting=True)

    def _ended(self, unconfirmed: OutgoingList, task: asyncio.Task[None]) -> None:
        """Note that *unconfirmed* is sent no more, also because nobody waits for it, or the publisher is closed."""
        self._sending.discard(task)
        unconfirmed.end()
        self._is_open = self._is_open or unconfirmed.has_confirmed
        if self.trouble is not None:
            self._trouble_came.set()

    def _freed(self) -> None:
        """Go on: a list has ended, or messages are confirmed."""
        if self._lists.waiting:
            self._send_soon()
        if self._for_room:
            self._give_room()
        if not self._lists.held:
            for future in self._for_idle:
                if not future.done():
                    future.set_result(None)

    def _withdraw(self, entry: Entry) -> None:
        """Forget a message whose caller waits no longer."""
        entry.call.open.pop(entry.position, None)
        if entry.list is not None:
            entry.list.withdraw(entry)
        elif self._lists.remove(entry):
            self._freed()

    # --- end

    def end_by(self, last_time: float) -> None:
        """Let no call last beyond *last_time* of the clock, when the time of a stop is over."""
        self._last_time = last_time

    async def flush(self) -> None:
        """Wait until nothing is on its way."""
        while self._lists.held and not self._is_closed:
            future = self._loop.create_future()
            self._for_idle.append(future)
            try:
                await future
            finally:
                self._for_idle.remove(future)

    async def close(self) -> None:
        """Give up what is still on its way, and end the connection. Callers get an error. Raises nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        ending: set[asyncio.Task[Any]] = set(self._sending)
        if self._keeping is not None:
            self._keeping.cancel()
            ending.add(self._keeping)
        try:
            await self._publisher.close()
        except foreign_errors() as error:
            self._log.warning("a publisher could not be closed", exception=name_of(error))
        finally:
            if ending:
                _, slow = await asyncio.wait(ending, timeout=_END_S)
                for task in slow:
                    task.cancel()
                if slow:
                    await asyncio.wait(slow, timeout=_END_S)
            for entry in self._lists.clear():
                entry.call.fail(entry.position, None)
            self._give_room()
            self._freed()


def _end(span: Span | None, sending: Sending | None, error: BaseException | None) -> None:
    if sending is not None:
        sending.end(error)
    if span is not None and error is None:
        span.stop()
    elif span is not None and error is not None:
        span.exception(error)
