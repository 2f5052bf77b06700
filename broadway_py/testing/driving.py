"""Drives one running producer through its port, as a pipeline does. For tests of producers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from broadway_py._core.settlement import can_give_back
from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.errors import ProducerError
from broadway_py.message import Message
from broadway_py.producer import FailurePlan, Producer, ProducerContext
from broadway_py.producer_description import AnyProducer, ProducerDescription, described
from broadway_py.request_counts import RequestCounts

__all__ = [
    "DEADLINE_S",
    "ask",
    "bodies",
    "context_of",
    "copy_of",
    "data",
    "give_back",
    "marks",
    "opened",
    "refusal",
    "settle",
    "take",
    "until_equal",
]

#: Seconds after which something that should have come never will.
DEADLINE_S: Final = 15.0
#: Seconds between two looks at something that nobody announces, such as the counts of a broker.
_PAUSE_S: Final = 0.02


def context_of(
    description: ProducerDescription,
    *,
    index: int = 0,
    capacity: int = 50,
    pipeline: str = "ours",
    lost: Callable[[ProducerError], None] = lambda _: None,
    clock: Clock = SYSTEM_CLOCK,
    failure: FailurePlan | None = None,
) -> ProducerContext:
    """Returns what a pipeline tells a copy of *description*."""
    return ProducerContext(
        pipeline=pipeline,
        producer=description.called,
        index=index,
        capacity=capacity,
        clock=clock,
        failure=failure,
        requests=RequestCounts(),
        on_lost=lost,
    )


def copy_of(producer: AnyProducer, **known: Any) -> Any:
    """Returns a copy of *producer* that is bound and not yet opened. It is Any, for tests that look inside.

    Args:
        producer: what a user gives.
        known: as for :func:`context_of`.
    """
    description = described(producer).renewed()
    copy = description.create()
    copy.bind(context_of(description, **known))
    return copy


@asynccontextmanager
async def opened(
    producer: AnyProducer,
    *,
    capacity: int = 50,
    index: int = 0,
    losses: list[ProducerError] | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> AsyncIterator[Producer]:
    """A running copy of *producer*. At the end it is drained and closed, as a stopping pipeline does it."""
    lost = [] if losses is None else losses
    copy = copy_of(producer, index=index, capacity=capacity, pipeline="contract", lost=lost.append, clock=clock)
    try:
        async with asyncio.timeout(DEADLINE_S):
            await copy.open()
        yield copy
        copy.context.begin_draining()
        async with asyncio.timeout(DEADLINE_S):
            await copy.prepare_for_draining()
        late = copy.context.end_draining()
        await give_back([message for message in late if can_give_back(message)])
    finally:
        async with asyncio.timeout(DEADLINE_S):
            await copy.close()


async def refusal(producer: AnyProducer) -> ProducerError:
    """Returns why *producer* does not open. The error is raised once, and not reported as a loss besides."""
    losses: list[ProducerError] = []
    copy = copy_of(producer, capacity=50, pipeline="contract", lost=losses.append)
    refused: ProducerError | None = None
    try:
        await copy.open()
    except ProducerError as error:
        refused = error
    await copy.close()
    if refused is None or losses:
        raise AssertionError(f"expected one ProducerError of open(), got {refused!r} and the losses {losses}")
    return refused


async def take(copy: Producer, count: int, within_s: float = DEADLINE_S) -> list[Message[Any]]:
    """Asks until *count* messages have come."""
    taken: list[Message[Any]] = []
    async with asyncio.timeout(within_s):
        while len(taken) < count:
            more = await copy.handle_demand(count - len(taken))
            if more is None:
                raise AssertionError(f"the source ended after {len(taken)} of {count} messages")
            taken.extend(more)
    return taken


async def ask(copy: Producer, demand: int) -> asyncio.Task[Sequence[Message[Any]] | None]:
    """Returns a ``handle_demand`` that is under way.

    Its error is for whoever awaits the task. Where nobody does, because the test looks at what else the error did, it
    is taken here: asyncio would log it when it next collects garbage, in the middle of any other test. Python 3.11
    cannot do that while pytest reads the source of a failure, and the whole run ends with a SystemError.
    """
    under_way = asyncio.Event()

    async def waiting() -> Sequence[Message[Any]] | None:
        under_way.set()
        return await copy.handle_demand(demand)

    task = asyncio.create_task(waiting())
    task.add_done_callback(_take_error)
    await under_way.wait()
    return task


def _take_error(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


async def settle(successful: Sequence[Message[Any]] = (), failed: Sequence[Message[Any]] = ()) -> None:
    """Settles as the pipeline does: one call per acknowledger and ref."""
    groups: dict[tuple[Any, Hashable], tuple[list[Message[Any]], list[Message[Any]]]] = {}
    for position, messages in enumerate((successful, failed)):
        for message in messages:
            acknowledger, ref, _ = message.acknowledgement
            groups.setdefault((acknowledger, ref), ([], []))[position].append(message)
    for (acknowledger, ref), (good, bad) in groups.items():
        if acknowledger is not None:
            await acknowledger.ack(ref, good, bad)


async def give_back(messages: Sequence[Message[Any]]) -> None:
    """Releases *messages*, as a stopping pipeline does with what it never started."""
    for message in messages:
        acknowledger, ref, _ = message.acknowledgement
        if not can_give_back(message):
            raise AssertionError(f"{type(acknowledger).__name__} has no release(): it cannot give a message back")
        await acknowledger.release(ref, [message])


def marks(messages: Sequence[Message[Any]]) -> dict[Any, bool]:
    """Returns which of *messages*, by payload, their source marks as handed out before.

    An acknowledger that has no ``is_repeat`` knows nothing, so each of its messages may be a repeat.
    """
    found = {}
    for message in messages:
        acknowledger, _, detail = message.acknowledgement
        is_repeat = getattr(acknowledger, "is_repeat", None)
        found[message.data] = True if is_repeat is None else is_repeat(detail)
    return found


def bodies(count: int, start: int = 0) -> list[bytes]:
    """Returns payloads that tell their place."""
    return [b"message %05d" % number for number in range(start, start + count)]


def data(messages: Sequence[Message[Any]]) -> list[Any]:
    """Returns the payloads of *messages*."""
    return [message.data for message in messages]


async def until_equal(look: Callable[[], Awaitable[object]], expected: object, what: str) -> None:
    """Looks again and again until *look* returns *expected*. *what* begins the sentence about another value."""
    last: object = None
    try:
        async with asyncio.timeout(DEADLINE_S):
            while (last := await look()) != expected:  # noqa: ASYNC110  # no event says when a broker's counts change
                await asyncio.sleep(_PAUSE_S)
    except TimeoutError:
        raise AssertionError(f"{what} {last}, not {expected}") from None
