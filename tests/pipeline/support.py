"""What the pipeline tests share: acknowledgers that remember, producers that obey, and the books seen from outside."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from broadway_py import Acknowledgement, Acknowledger, Message, Pipeline, Processors, telemetry
from broadway_py.events import EVENTS
from broadway_py.producers import DummyProducer, Producer
from broadway_py.testing import FakeClock

T = TypeVar("T")

#: Seconds after which something that should have come never will.
DEADLINE = 5.0

#: One processor that handles one message after the other: the order of everything is known.
ONE = Processors(concurrency=1, max_demand=10)


async def soon(awaitable: Awaitable[T]) -> T:
    """*awaitable*'s result, or a failed test after :data:`DEADLINE`."""
    async with asyncio.timeout(DEADLINE):
        return await awaitable


@dataclass(frozen=True)
class Call:
    """One call of an acknowledger."""

    ref: Hashable
    successful: list[Message[Any]]
    failed: list[Message[Any]]

    @property
    def data(self) -> tuple[list[Any], list[Any]]:
        """The payloads of both lists."""
        return [m.data for m in self.successful], [m.data for m in self.failed]


#: Called with each call before it counts as done; may raise, wait for ever, or cancel.
Fault = Callable[[Call], Awaitable[None]]


class Recorder(Acknowledger):
    """Remembers every call. Cannot take messages back.

    Args:
        fault: what happens in each call after it was noted.
    """

    def __init__(self, fault: Fault | None = None) -> None:
        self.calls: list[Call] = []
        #: Calls of ``release``, with the messages in ``successful``.
        self.releases: list[Call] = []
        self.options: list[tuple[Any, Mapping[str, Any]]] = []
        self.fault = fault
        #: How often each message was settled, by identity; the messages are kept, so identities stay unique.
        self._times: Counter[int] = Counter()
        self._waiting: list[tuple[int, asyncio.Event]] = []

    def message(self, data: Any, *, ref: Hashable = "ref", detail: Any = None, **metadata: Any) -> Message[Any]:
        """A message that this acknowledger settles."""
        return Message(data, metadata, Acknowledgement(self, ref, detail))

    def messages(self, items: Iterable[Any], *, ref: Hashable = "ref") -> list[Message[Any]]:
        """One message for each of *items*."""
        return [self.message(item, ref=ref) for item in items]

    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        call = Call(ref, list(successful), list(failed))
        self.calls.append(call)
        await self._note(call)

    def configure(self, ref: Hashable, data: Any, options: Mapping[str, Any]) -> Any:
        self.options.append((data, options))
        return {"was": data, **options}

    async def _note(self, call: Call) -> None:
        self._times.update(id(message) for message in [*call.successful, *call.failed])
        for number, event in self._waiting:
            if self.count >= number:
                event.set()
        if self.fault is not None:
            await self.fault(call)

    @property
    def count(self) -> int:
        """How many messages were settled or given back."""
        return self._times.total()

    @property
    def successful(self) -> list[Any]:
        """Payloads settled as successful, in order."""
        return [message.data for call in self.calls for message in call.successful]

    @property
    def failed(self) -> list[Any]:
        """Payloads settled as failed, in order."""
        return [message.data for call in self.calls for message in call.failed]

    @property
    def returned(self) -> list[Any]:
        """Payloads given back without a decision, in order."""
        return [message.data for call in self.releases for message in call.successful]

    @property
    def statuses(self) -> dict[Any, Any]:
        """Payload -> status, of what was settled as failed."""
        return {message.data: message.status for call in self.calls for message in call.failed}

    async def until(self, number: int) -> None:
        """Wait until *number* messages were settled or given back."""
        if self.count >= number:
            return
        event = asyncio.Event()
        self._waiting.append((number, event))
        try:
            await soon(event.wait())
        except TimeoutError:
            raise AssertionError(f"{self.count} messages were settled, not {number}") from None

    def check_once(self) -> None:
        """No message was settled twice."""
        assert not [times for times in self._times.values() if times != 1], "a message was settled more than once"


class ReturningRecorder(Recorder):
    """Takes messages back without a decision."""

    async def release(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        call = Call(ref, list(messages), [])
        self.releases.append(call)
        await self._note(call)


class Feed:
    """The other end of a :class:`ManualProducer`: what it has, and what is done to it. Shared by all its copies."""

    def __init__(self) -> None:
        self.items: deque[Any] = deque()
        self.ended = False
        #: Whether what is no Message becomes one.
        self.wraps = True
        #: Raised by the next ``handle_demand``, once.
        self.failure: BaseException | None = None
        #: For each ``open`` to come: an error to raise, or something to await; used up front to back.
        self.opening: deque[BaseException | Callable[[], Awaitable[object]]] = deque()
        #: What was called, in order.
        self.journal: list[str] = []
        self.demands: list[int] = []
        #: Every copy that was opened, in order.
        self.copies: list[ManualProducer] = []
        self._changed: set[asyncio.Event] = set()
        self._journal_waits: list[tuple[str, int, asyncio.Event]] = []

    def put(self, *items: Any) -> None:
        """Have *items*."""
        self.items.extend(items)
        self.notify()

    def end(self) -> None:
        """Have no more, ever."""
        self.ended = True
        self.notify()

    def fail(self, error: BaseException) -> None:
        """Raise *error* from the ``handle_demand`` that waits, or from the next one."""
        self.failure = error
        self.notify()

    def notify(self) -> None:
        """Let waiting calls look again."""
        for event in self._changed:
            event.set()

    async def changed(self) -> None:
        """Wait for :meth:`notify`."""
        event = asyncio.Event()
        self._changed.add(event)
        try:
            await event.wait()
        finally:
            self._changed.discard(event)

    def note(self, what: str) -> None:
        """Write *what* into the journal."""
        self.journal.append(what)
        for wanted, times, event in self._journal_waits:
            if self.journal.count(wanted) >= times:
                event.set()

    async def until(self, what: str, times: int = 1) -> None:
        """Wait until *what* stands in the journal *times* over."""
        if self.journal.count(what) < times:
            event = asyncio.Event()
            self._journal_waits.append((what, times, event))
            await soon(event.wait())


class ManualProducer(Producer):
    """Hands over what its :class:`Feed` has; waits inside ``handle_demand`` like a broker's client."""

    def __init__(self, *items: Any, name: str = "manual", concurrency: int = 1) -> None:
        self.name = name
        self.concurrency = concurrency
        self.feed = Feed()
        self.feed.items.extend(items)

    async def open(self) -> None:
        self.feed.copies.append(self)
        self.feed.note("open")
        if self.feed.opening:
            step = self.feed.opening.popleft()
            if isinstance(step, BaseException):
                raise step
            await step()
        self.feed.note("opened")

    async def handle_demand(self, demand: int) -> Sequence[Message[Any]] | None:
        feed = self.feed
        feed.demands.append(demand)
        feed.note("demand")
        while True:
            if feed.failure is not None:
                failure, feed.failure = feed.failure, None
                raise failure
            if feed.items:
                return [self._made(feed.items.popleft()) for _ in range(min(demand, len(feed.items)))]
            if feed.ended:
                return None
            if self.draining.is_set():
                return []
            await feed.changed()

    def _made(self, item: Any) -> Message[Any]:
        return Message(item) if self.feed.wraps and not isinstance(item, Message) else item

    async def pause(self) -> None:
        self.feed.note("pause")

    async def resume(self) -> None:
        self.feed.note("resume")

    async def prepare_for_draining(self) -> None:
        self.feed.note("drain")
        self.feed.notify()

    async def close(self) -> None:
        self.feed.note("close")


class Breaking(Counter[Any]):
    """Figures of failures that cannot be written, the first *times*: crashes the stage that counts with them."""

    def __init__(self, times: int = 1) -> None:
        super().__init__()
        self._left = times

    def __setitem__(self, key: Any, value: int) -> None:
        # The supervisor, which counts what a crash cost, must not crash too.
        if self._left and key != "crashed":
            self._left -= 1
            raise OSError("the figures are broken")
        super().__setitem__(key, value)


#: Every pipeline that got a clock from :func:`clock_of`.
_clocked: weakref.WeakSet[Pipeline[Any]] = weakref.WeakSet()


def clock_of(pipeline: Pipeline[Any]) -> FakeClock:
    """The fake clock of *pipeline*; it gets one if it has none."""
    if not isinstance(pipeline.clock, FakeClock):
        pipeline.clock = FakeClock()
    _clocked.add(pipeline)
    return pipeline.clock


async def end_all() -> None:
    """Let all the time in the world pass for pipelines that still run: a test that failed must not hang the others."""
    for pipeline in list(_clocked):
        clock = clock_of(pipeline)
        for _ in range(3):
            if pipeline.is_running:
                pipeline.give_up()
                await clock.advance(100.0)
    _clocked.clear()


@asynccontextmanager
async def running(pipeline: Pipeline[Any]) -> AsyncIterator[FakeClock]:
    """Run *pipeline* on a fake clock, which is given; at the end it must drain without any time passing."""
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    yield clock
    await soon(pipeline.stop())
    check_books(pipeline)
    assert in_flight(pipeline) == 0


async def finish(pipeline: Pipeline[Any]) -> dict[str, int]:
    """Run *pipeline*, whose sources end, to its end; its outcomes."""
    clock_of(pipeline)
    await soon(pipeline.start())
    await soon(pipeline.wait())
    check_books(pipeline)
    assert in_flight(pipeline) == 0
    return outcomes(pipeline)


def check_books(pipeline: Pipeline[Any]) -> None:
    """``received == sum(outcomes) + in_flight``, for each producer, now."""
    for producer in pipeline.stats().producers:
        assert producer.received == sum(producer.outcomes.values()) + producer.in_flight
        assert producer.in_flight >= 0
        assert all(count >= 0 for count in producer.outcomes.values())


def outcomes(pipeline: Pipeline[Any]) -> dict[str, int]:
    """How many deliveries of all producers ended in each outcome; those that none ended in are left out."""
    total: Counter[str] = Counter()
    for producer in pipeline.stats().producers:
        total.update(producer.outcomes)
    return dict(+total)


def received(pipeline: Pipeline[Any]) -> int:
    """How many messages came in."""
    return sum(producer.received for producer in pipeline.stats().producers)


def in_flight(pipeline: Pipeline[Any]) -> int:
    """How many messages have no outcome."""
    return sum(producer.in_flight for producer in pipeline.stats().producers)


def logged(caplog: pytest.LogCaptureFixture, *, least: int = logging.WARNING) -> list[dict[str, Any]]:
    """The fields of each line of the library at level *least* or above, without time and level."""
    return [
        {key: value for key, value in record.msg.items() if key not in {"timestamp", "level"}}
        for record in caplog.records
        if isinstance(record.msg, dict) and record.levelno >= least
    ]


def events_logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The sentences of the library's warnings and errors."""
    return [line["event"] for line in logged(caplog)]


@contextmanager
def telemetry_events(*events: str) -> Iterator[list[tuple[str, dict[str, Any], dict[str, Any]]]]:
    """What telemetry tells about *events* (default: all) inside the block: name, measurements, metadata."""
    seen: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
    telemetry.attach("a test", events or EVENTS, lambda *told: seen.append((told[0], dict(told[1]), dict(told[2]))))
    try:
        yield seen
    finally:
        telemetry.detach("a test")


class Quiet(Pipeline[Any]):
    """Does nothing with its messages: all succeed."""

    producer = DummyProducer()
    processors = ONE

    async def handle_message(self, message: Message[Any]) -> None:
        pass
