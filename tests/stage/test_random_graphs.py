"""Random graphs of stages under random failures, cancellations and resubscriptions, stopped at a random moment."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest

from broadway_py.errors import StageDown
from broadway_py.stage import (
    BroadcastDispatcher,
    ConsumerSupervisor,
    DemandDispatcher,
    PartitionDispatcher,
    ProducerConsumerStage,
    Subscription,
    subscribe,
)
from tests.stage.support import Counter, Doubler, Listener, Recorder

DEADLINE = 60.0


class PlannedError(Exception):
    """What the test makes stages die of."""


class Dies(Listener):
    def handle_info(self, info: Any) -> None:
        raise PlannedError(info)


class DyingCounter(Dies, Counter):
    pass


class DyingDoubler(Dies, Doubler):
    pass


class DyingRecorder(Dies, Recorder):
    pass


class Slow(Dies, ProducerConsumerStage[Any, Any]):
    async def handle_events(self, events: list[Any]) -> list[Any]:
        await asyncio.sleep(0)
        return events


def dispatcher(chance: random.Random) -> Any:
    return chance.choice([DemandDispatcher(), BroadcastDispatcher(), PartitionDispatcher[Any, int](2)])


def made(chance: random.Random) -> tuple[list[Any], list[Any]]:
    """Some stages that emit and some that take, from source to sink."""
    size = chance.choice([0, 3, 100])
    quiet = {"buffer_size": size, "on_discard": lambda _: False}
    sources: list[Any] = [
        DyingCounter(most=chance.choice([0, 50, 10**6]), ends=chance.random() < 0.5, dispatcher=dispatcher(chance))
        for _ in range(chance.randint(1, 3))
    ]
    middles: list[Any] = [
        chance.choice([DyingDoubler, Slow])(dispatcher=dispatcher(chance), **quiet) for _ in range(chance.randint(0, 3))
    ]

    async def child(event: Any) -> None:
        await asyncio.sleep(0)
        if event == 13:
            raise PlannedError

    sinks: list[Any] = [DyingRecorder() for _ in range(chance.randint(1, 3))]
    if chance.random() < 0.5:
        sinks.append(ConsumerSupervisor(child, restart=chance.choice(["temporary", "transient"])))
    return [*sources, *middles], [*middles, *sinks]


async def connect_some(
    emitting: list[Any], taking: list[Any], chance: random.Random, subscriptions: list[Subscription[Any]]
) -> None:
    consumer = chance.choice(taking)
    # Only from left to right, so that there is no circle.
    before = emitting[: emitting.index(consumer)] if consumer in emitting else emitting
    options: dict[str, Any] = {
        "max_demand": chance.choice([1, 2, 10, 1000]),
        "cancel": chance.choice(["permanent", "transient", "temporary"]),
        "partition": chance.choice([None, 0, 1]),
    }
    # Refused, as it should be: a partition that is taken, or a stage that has ended.
    with suppress(ValueError, StageDown):
        subscriptions.append(await subscribe(consumer, to=chance.choice(before), **options))


async def do_something(
    emitting: list[Any], taking: list[Any], chance: random.Random, subscriptions: list[Subscription[Any]]
) -> None:
    stages = [*emitting, *taking]
    what = chance.random()
    if what < 0.4:
        await connect_some(emitting, taking, chance, subscriptions)
    elif what < 0.55 and subscriptions:
        chance.choice(subscriptions).cancel(chance.choice([None, "reason", PlannedError()]))
    elif what < 0.65 and subscriptions:
        old = chance.choice(subscriptions)
        with suppress(ValueError, StageDown):
            subscriptions.append(await old.resubscribe(max_demand=chance.choice([1, 5])))
    elif what < 0.7:
        chance.choice(stages).stop()
    elif what < 0.75:
        with suppress(StageDown):
            await chance.choice(stages).info("die")
    for _ in range(chance.choice([0, 1, 1, 2, 10])):
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(60))
async def test_nothing_hangs_and_nothing_is_left(seed: int) -> None:
    chance = random.Random(seed)
    tasks = asyncio.all_tasks()
    emitting, taking = made(chance)
    stages = list(dict.fromkeys([*emitting, *taking]))
    subscriptions: list[Subscription[Any]] = []

    async with asyncio.timeout(DEADLINE):
        async with AsyncExitStack() as running:
            for stage in chance.sample(stages, len(stages)):
                await running.enter_async_context(stage)
            for _ in range(chance.randint(5, 60)):
                await do_something(emitting, taking, chance, subscriptions)
        for stage in stages:
            try:
                await stage.wait()
            except (PlannedError, StageDown) as died:
                assert_reason(died)

    assert {repr(stage).split()[-1] for stage in stages} == {"ended>"}
    assert asyncio.all_tasks() == tasks
    for subscription in subscriptions:
        assert subscription.cancellation is not None
        assert not subscription.consumer.inlet.edges
        assert not subscription.producer.outlet.edges


def assert_reason(died: BaseException) -> None:
    """Every death has a reason: an error of the test, a cancellation with a reason, or a stage that had ended."""
    if isinstance(died, PlannedError):
        return
    text = str(died)
    assert any(part in text for part in ("was cancelled: ", "died of ", "had ended before", "more often than")), text


async def test_everything_of_a_finite_source_arrives_once_through_a_chain_with_slow_and_lost_consumers() -> None:
    for seed in range(20):
        chance = random.Random(seed)
        async with Counter(most=5_000, ends=True) as counter, Slow() as slow, Recorder() as last:
            await subscribe(slow, to=counter, max_demand=chance.choice([1, 3, 50]))
            got: list[int] = []
            for _ in range(5):
                async with Recorder() as passing:
                    subscription = await subscribe(passing, to=slow, max_demand=chance.choice([1, 7, 40]))
                    for _ in range(chance.randint(1, 60)):
                        await asyncio.sleep(0)
                    subscription.cancel()
                    await passing.wait()
                got += passing.events
            await subscribe(last, to=slow)
            async with asyncio.timeout(DEADLINE):
                await slow.wait()
                await last.wait()

        assert got + last.events == list(range(5_000))
