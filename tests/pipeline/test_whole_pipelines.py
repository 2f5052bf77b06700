"""Whole pipelines with random callbacks, acknowledgers, sources and interruptions: each delivery ends in one outcome.

Counted twice: in the pipeline's own books, at every step, and from outside, by the acknowledgers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Coroutine, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broadway_py import (
    Batcher,
    BatchInfo,
    Breaker,
    BroadwayError,
    FailurePolicy,
    Message,
    Pipeline,
    PipelineCrashed,
    Processors,
    ProducerError,
    RateLimit,
    SettleError,
    Unavailable,
    ack_immediately,
)
from broadway_py.testing import FakeClock
from tests.pipeline.support import (
    Breaking,
    Call,
    ManualProducer,
    Recorder,
    ReturningRecorder,
    check_books,
    in_flight,
    outcomes,
    received,
)

Messages = list[Message[Any]]

#: How many stories are told; more, in a soak.
EXAMPLES = int(os.environ.get("WHOLE_PIPELINES", "200"))

#: Real seconds after which a story is stuck.
STUCK = 20.0

HANDLERS = [
    *(["none"] * 4), "same", "other", "number", "raise", "fail", "stray cancel", "own cancel", "sleep", "hang",
    "ack now", "ack now, then raise", "no batch", "unknown batcher", "key", "flush", "second batcher",
    "spawn", "spawn two", "spawn, then raise", "away",
]  # fmt: skip
BATCHES = [
    *(["none"] * 3), "all", "forget", "double", "foreign", "number", "raise", "stray cancel", "own cancel", "fail one",
    "sleep", "hang", "ack now, then raise", "stubborn", "away",
]  # fmt: skip
PREPARES = [*(["none"] * 5), "forget", "double", "raise", "fail one", "stray cancel", "number"]
FAILED = [*(["none"] * 3), "raise", "rescue", "stray cancel", "ack now", "sleep"]
ACKS = [*(["ok"] * 6), "slow", "raise", "cancel", "part", "hang"]
ACTIONS = [
    *(["put"] * 5),
    *(["advance"] * 6),
    "pause",
    "resume",
    "lose",
    "lose silently",
    "crash source",
    "push",
    "submit",
    "crash processors",
    "crash batch processors",
    "resize",
    "resize",
]
#: What becomes of failed messages; the first two are the most common.
POLICIES: dict[str, FailurePolicy | None] = {
    "default": FailurePolicy(),
    "quick": FailurePolicy(attempts=3, backoff=(0.3, 1.0), breaker=Breaker(over=4)),
    "none": None,
    "stop": FailurePolicy(attempts=1, final="stop", breaker=None),
    "drop": FailurePolicy(attempts=2, final="drop", breaker=None),
}  # fmt: skip


@dataclass
class Script:
    """What each part does, call by call; after its end, what it does first."""

    steps: list[str]
    at: int = 0

    def next(self) -> str:
        """The next step."""
        step = self.steps[self.at % len(self.steps)]
        self.at += 1
        return step


@dataclass
class Plan:
    """One story."""

    handlers: list[str]
    batches: list[str]
    prepares: list[str]
    failed: list[str]
    acks: list[str]
    actions: list[tuple[str, int]]
    returns: bool
    refs: int
    concurrency: int
    max_demand: int
    batchers: list[tuple[int, int]]
    partitioned: bool
    #: Only where it is partitioned.
    ordered: bool
    policy: str
    #: The acknowledgers can deliver again, and keep dead letters.
    retries: bool
    timed: bool
    limited: bool
    ends: bool
    stop: str


def scripts(choices: list[str]) -> st.SearchStrategy[list[str]]:
    """Some of *choices*, in some order."""
    return st.lists(st.sampled_from(choices), min_size=1, max_size=8)


plans = st.builds(
    Plan,
    handlers=st.lists(st.sampled_from(HANDLERS), min_size=1, max_size=12),
    batches=scripts(BATCHES),
    prepares=scripts(PREPARES),
    failed=scripts(FAILED),
    acks=scripts(ACKS),
    actions=st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 7)), max_size=12),
    returns=st.booleans(),
    refs=st.integers(1, 3),
    concurrency=st.integers(1, 3),
    max_demand=st.integers(1, 6),
    batchers=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 2)), max_size=2),
    partitioned=st.booleans(),
    ordered=st.booleans(),
    policy=st.sampled_from(list(POLICIES)),
    retries=st.booleans(),
    timed=st.booleans(),
    limited=st.booleans(),
    ends=st.booleans(),
    stop=st.sampled_from(["stop", "short stop", "request_stop", "give_up", "cancel"]),
)


@dataclass
class Outside:
    """What the acknowledgers of one story saw through to its end."""

    acked: int = 0
    rejected: int = 0
    returned: int = 0
    retried: int = 0
    dead_lettered: int = 0
    begun: Counter[int] = field(default_factory=Counter)
    kept: list[Message[Any]] = field(default_factory=list)


class Teller(Pipeline[Any]):
    """Does what the plan says."""

    script: dict[str, Script]
    outside: Outside
    handled: Counter[int]

    async def prepare_messages(self, messages: Messages) -> Any:
        match self.script["prepare"].next():
            case "forget":
                return messages[1:]
            case "double":
                return [*messages, messages[0]]
            case "fail one":
                messages[-1].fail("prepared")
            case "number":
                return 17
            case step:
                await self.misbehave(step)
        return None

    async def handle_message(self, message: Message[Any]) -> Any:
        self.handled[id(message)] += 1
        assert message.ok
        match self.script["handle"].next():
            case "same":
                return message
            case "other":
                return Message("another")
            case "number":
                return 17
            case "fail":
                message.fail("handled")
            case "no batch":
                message.batcher = None
            case "unknown batcher":
                message.batcher = "nowhere"
            case "second batcher":
                message.batcher = "b1"
            case "key":
                message.batch_key = message.data % 2
            case "flush":
                message.batch_mode = "flush"
            case step:
                await self.settle_early(message, step)
        return None

    async def settle_early(self, message: Message[Any], step: str) -> None:
        """Settle a message in its handler, or let children stand for it."""
        match step:
            case "spawn":
                message.spawn(message.data)
            case "spawn two":
                message.spawn(message.data)
                message.spawn(message.data, batcher="b1")
            case "spawn, then raise":
                message.spawn(message.data)
                raise ValueError("after it had spawned")
            case "ack now":
                await ack_immediately(message)
            case "ack now, then raise":
                await ack_immediately(message)
                raise ValueError("after it was settled")
            case _:
                await self.misbehave(step)

    async def handle_batch(self, messages: Messages, info: BatchInfo) -> Any:
        assert len(messages) == info.size
        match self.script["batch"].next():
            case "all":
                return list(reversed(messages))
            case "forget":
                return messages[1:]
            case "double":
                return [*messages, messages[0]]
            case "foreign":
                return [*messages, Message("foreign")]
            case "number":
                return 17
            case "fail one":
                messages[0].fail("batched")
            case "ack now, then raise":
                await ack_immediately(messages)
                raise ValueError("after it was settled")
            case step:
                await self.misbehave(step)
        return None

    async def handle_failed(self, messages: Messages) -> None:
        assert all(not message.ok for message in messages)
        match self.script["failed"].next():
            case "rescue":
                for message in messages:
                    message.status = None
            case "ack now":
                await ack_immediately(messages)
            case step:
                await self.misbehave(step)

    async def misbehave(self, step: str) -> None:
        """What every callback may do."""
        match step:
            case "raise":
                raise ValueError("a callback raised")
            case "away":
                raise Unavailable("the sink")
            case "stray cancel":
                raise asyncio.CancelledError
            case "own cancel":
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await self.clock.sleep(1.0)
            case "sleep":
                await self.clock.sleep(0.7)
            case "hang":
                await self.clock.sleep(1e9)
            case "stubborn":
                try:
                    await self.clock.sleep(1e9)
                except asyncio.CancelledError:
                    await self.clock.sleep(0.3)


class CheckedRecorder(Recorder):
    """Settles as the plan says, and counts what it saw through."""

    def __init__(self, outside: Outside, script: Script, clock: FakeClock) -> None:
        super().__init__()
        self.outside = outside
        self.script = script
        self.clock = clock
        self.drops = False

    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        # What a policy drops is failed, and acknowledged.
        assert all(message.ok for message in successful) or self.drops
        assert all(not message.ok for message in failed)
        left = await self.act(Call(ref, list(successful), list(failed)))
        self.outside.acked += len(successful) - len([m for m in successful if m in left])
        self.outside.rejected += len(failed) - len([m for m in failed if m in left])
        if left:
            raise SettleError("a part", unsettled=left)

    async def act(self, call: Call) -> Messages:
        """What could not be settled of *call*; may raise, too."""
        messages = [*call.successful, *call.failed]
        self.outside.kept.extend(messages)
        self.outside.begun.update(id(message) for message in messages)
        match self.script.next():
            case "slow":
                await self.clock.sleep(0.4)
            case "raise":
                raise ConnectionError("gone")
            case "cancel":
                raise asyncio.CancelledError
            case "part":
                return messages[1:]
            case "hang":
                await self.clock.sleep(1e9)
        return []


class ReturningCheckedRecorder(CheckedRecorder, ReturningRecorder):
    """Takes messages back, too."""

    async def release(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        left = await self.act(Call(ref, list(messages), []))
        self.outside.returned += len(messages) - len(left)
        if left:
            raise SettleError("a part", unsettled=left)


class Retrying(CheckedRecorder):
    """Delivers again later, and keeps dead letters, as far as anybody here can see."""

    async def retry(self, ref: Hashable, messages_and_delays: Sequence[tuple[Message[Any], float]]) -> None:
        assert all(delay_s >= 0.0 for _, delay_s in messages_and_delays)
        messages = [message for message, _ in messages_and_delays]
        left = await self.act(Call(ref, [], messages))
        self.outside.retried += len(messages) - len(left)
        if left:
            raise SettleError("a part", unsettled=left)

    async def dead_letter(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        left = await self.act(Call(ref, [], list(messages)))
        self.outside.dead_lettered += len(messages) - len(left)
        if left:
            raise SettleError("a part", unsettled=left)


class ReturningRetrying(Retrying, ReturningCheckedRecorder):
    """Does all that an acknowledger can do."""


RECORDERS = {
    (False, False): CheckedRecorder,
    (True, False): ReturningCheckedRecorder,
    (False, True): Retrying,
    (True, True): ReturningRetrying,
}


def build(plan: Plan, outside: Outside, clock: FakeClock, producer: ManualProducer) -> Teller:
    """The pipeline of *plan*."""
    pipeline = Teller(
        producer=producer,
        processors=Processors(
            concurrency=plan.concurrency, max_demand=plan.max_demand, timeout=0.5 if plan.timed else None
        ),
        batchers={
            "default" if number == 0 else f"b{number}": Batcher(
                batch_size=size, concurrency=width, batch_timeout=0.5, timeout=0.6 if plan.timed else None
            )
            for number, (size, width) in enumerate(plan.batchers)
        },
        partition_by=(lambda message: message.data % 3) if plan.partitioned else None,
        ordered=plan.ordered and plan.partitioned,
        failure=POLICIES[plan.policy],
        rate_limit=RateLimit(allowed_messages=3, interval=0.6) if plan.limited else None,
        max_restarts=3,
    )
    pipeline.clock = clock
    pipeline.outside = outside
    pipeline.handled = Counter()
    pipeline.script = {
        "handle": Script(plan.handlers),
        "batch": Script(plan.batches),
        "prepare": Script(plan.prepares),
        "failed": Script(plan.failed),
    }
    return pipeline


class Story:
    """A pipeline that runs by its *plan*, and everything that is done to it meanwhile."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.clock = FakeClock()
        self.outside = Outside()
        kind = RECORDERS[plan.returns, plan.retries]
        self.recorder = kind(self.outside, Script(plan.acks), self.clock)
        self.recorder.drops = plan.policy == "drop"
        self.producer = ManualProducer()
        self.pipeline = build(plan, self.outside, self.clock, self.producer)
        self.made = 0
        self.pushed = 0
        #: Calls of the pipeline's own methods that may have to wait.
        self.calls: set[asyncio.Task[Any]] = set()

    def make(self, count: int) -> Messages:
        """As many new messages."""
        self.made += count
        numbers = range(self.made - count, self.made)
        return [self.recorder.message(number, ref=number % self.plan.refs) for number in numbers]

    async def act(self, action: str, number: int) -> None:
        """One thing that is done from outside."""
        feed, pipeline = self.producer.feed, self.pipeline
        match action:
            case "put":
                feed.put(*self.make(number))
            case "advance":
                await self.clock.advance(number * 0.3)
            case "pause":
                self.call(pipeline.pause())
            case "resume":
                self.call(pipeline.resume())
            case "push":
                self.pushed += number
                self.call(pipeline.push_messages(self.make(number)))
            case "submit":
                self.call(pipeline.submit_batch([1] * number))
            case "resize":
                # Refused where keys have owners, and by a pipeline that stops.
                with contextlib.suppress(BroadwayError):
                    pipeline.set_concurrency(processors=1 + number % 4)
            case _:
                self.harm(action)

    def call(self, method: Coroutine[Any, Any, Any]) -> None:
        """Do not wait for *method* here: it may need time to pass."""
        self.calls.add(asyncio.ensure_future(method))

    def harm(self, action: str) -> None:
        """Break something."""
        feed, meters = self.producer.feed, self.pipeline._meters
        match action:
            case "lose":
                feed.fail(ProducerError("away"))
            case "lose silently" if feed.copies:
                feed.copies[-1].context.lost(ProducerError("away in silence"))
            case "crash source":
                feed.fail(ZeroDivisionError("a bug"))
            case "crash processors":
                meters["processors"].failed = Breaking()
            case "crash batch processors":
                for layer, meter in meters.items():
                    if layer.startswith("batch_processors"):
                        meter.failed = Breaking()

    async def tell(self) -> None:
        """Run the plan, and look at the books at every step."""
        await self.pipeline.start()
        for action, number in self.plan.actions:
            if not self.pipeline.is_running:
                break
            await self.act(action, number)
            check_books(self.pipeline)
        if self.plan.ends:
            self.producer.feed.end()
            await self.clock.advance(5.0)
        await bring_to_an_end(self.pipeline, self.plan.stop, self.clock)
        await self.clock.advance(1.0)
        self.look_back()

    def look_back(self) -> None:
        """Everything has an outcome, and nothing has two."""
        pipeline, outside = self.pipeline, self.outside
        for task in self.calls:
            assert task.done(), f"{task.get_coro()} waits for ever"
            assert isinstance(task.exception(), BroadwayError | None)
        check_books(pipeline)
        assert in_flight(pipeline) == 0
        assert [times for times in outside.begun.values() if times > 1] == []
        if not pipeline.ordered:
            assert [times for times in pipeline.handled.values() if times > 1] == []
        books = {producer.name: producer for producer in pipeline.stats().producers}
        assert books["manual"].received == self.made - self.pushed - len(self.producer.feed.items)
        # Submitted messages answer to their callers, whom nobody counts here.
        if not any(action == "submit" for action, _ in self.plan.actions):
            total = Counter(outcomes(pipeline))
            dropped = total["dropped"]
            assert total["acked"] + dropped == outside.acked
            assert total["rejected"] == outside.rejected
            assert total["retried"] == outside.retried
            assert total["dead_lettered"] == outside.dead_lettered
            assert total["returned"] == outside.returned
            assert received(pipeline) - len(outside.begun) <= total["unknown"]


async def bring_to_an_end(pipeline: Teller, how: str, clock: FakeClock) -> None:
    """Stop *pipeline*, and let all the time pass that it may take."""
    ending: list[asyncio.Task[Any]] = []
    match how:
        case "stop":
            ending.append(asyncio.ensure_future(pipeline.stop()))
        case "short stop":
            ending.append(asyncio.ensure_future(pipeline.stop(timeout=0.5)))
        case "request_stop":
            pipeline.request_stop()
        case "give_up":
            pipeline.request_stop()
            await clock.advance(0.2)
            pipeline.give_up()
        case "cancel" if pipeline._life_cycle._root is not None:
            pipeline._life_cycle._root.cancel()
    ending.append(asyncio.ensure_future(pipeline.stop()))
    for _ in range(40):
        if all(task.done() for task in ending):
            break
        await clock.advance(1.0)
        check_books(pipeline)
    assert all(task.done() for task in ending), "the pipeline did not end by its deadline"
    for task in ending:
        if not task.cancelled():
            assert isinstance(task.exception(), PipelineCrashed | None)


@given(plan=plans)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_happens_each_delivery_ends_in_exactly_one_outcome(plan: Plan) -> None:
    async def story() -> None:
        async with asyncio.timeout(STUCK):
            await Story(plan).tell()

    asyncio.run(story())
