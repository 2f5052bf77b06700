"""How subscriptions begin and end, and who dies of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

from broadway_py.errors import OptionsError, StageDown
from broadway_py.stage import BroadcastDispatcher, ConsumerStage, PartitionDispatcher, ProducerStage, subscribe
from broadway_py.stage.settings import SubscriptionOptions
from broadway_py.stage.subscribe import connect
from tests.stage.support import Counter, Doubler, Forwarder, Recorder, run_until_idle, soon
from tests.support.conformance import conforms


class Fatal(Forwarder):
    """Dies of what it is told."""

    def handle_info(self, info: Any) -> None:
        raise info


OOPS = ValueError("the user's")


# --- the beginning --------------------------------------------------------------------------------------------------


@conforms("G-043", "G-059", "G-070")
async def test_a_subscription_is_returned_and_both_stages_are_told() -> None:
    async with Forwarder() as source, Recorder() as recorder:
        subscription = await subscribe(recorder, to=source, max_demand=7)
        await run_until_idle()

        assert (source.told, source.subscriptions) == (["consumer"], [subscription])
        assert (recorder.told, recorder.subscriptions) == (["producer"], [subscription])
        assert (subscription.consumer, subscription.producer) == (recorder, source)
        assert (subscription.options.max_demand, subscription.cancellation) == (7, None)
        assert repr(subscription) == "<Subscription of Recorder to Forwarder, active>"


@conforms("G-084", "G-088")
async def test_a_stage_in_the_middle_is_told_of_both_its_sides() -> None:
    async with Forwarder() as source, Doubler() as doubler, Recorder() as recorder:
        await subscribe(doubler, to=source)
        await run_until_idle()
        await subscribe(recorder, to=doubler)
        await run_until_idle()

        assert doubler.told == ["producer", "consumer"]


class Curious(ConsumerStage[Any]):
    """Takes every form of the callbacks that is allowed."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def handle_subscribe(self, other: Any, options: Any, subscription: Any) -> None:
        self.told.append((other, options.max_demand, subscription))

    async def handle_cancel(self, cancellation: Any) -> None:
        self.told.append(cancellation)

    def handle_events(self, events: list[Any], subscription: Any) -> None:
        self.told.append((events, subscription))


class Terse(Curious):
    def handle_subscribe(self, subscription: Any) -> None:  # type: ignore[override]  # a shorter form
        self.told.append(subscription)


@pytest.mark.parametrize("kind", [Curious, Terse])
async def test_callbacks_take_as_much_as_they_like(kind: type[Curious]) -> None:
    async with Forwarder() as source, kind() as curious:
        subscription = await subscribe(curious, to=source, cancel="temporary", max_demand=5)
        source.emit([1])
        await run_until_idle()
        subscription.cancel()
        await run_until_idle()

        begun = subscription if kind is Terse else ("producer", 5, subscription)
        assert curious.told == [begun, ([1], subscription), ("cancel", None)]


@conforms("G-045", "G-053", "G-200")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_demand": 0}, "max_demand: expected greater than or equal to 1, got 0"),
        (
            {"min_demand": 2000},
            (
                "min_demand: expected less than max_demand (1000), got 2000: "
                "a consumer that may never ask again would stop for ever"
            ),
        ),
        ({"max_demand": True}, "max_demand: expected a valid integer, got True"),
        ({"min_demand": -1}, "min_demand: expected greater than or equal to 0, got -1"),
        (
            {"cancel": "permanant"},
            "cancel: expected 'permanent', 'transient' or 'temporary', got 'permanant'; did you mean 'permanent'?",
        ),
        ({"mode": "automatc"}, "mode: expected 'automatic' or 'manual', got 'automatc'; did you mean 'automatic'?"),
        ({"mode": 3}, "mode: expected 'automatic' or 'manual', got 3"),
        (
            {"max_demnd": 1},
            (
                "max_demnd: unknown setting; known here: cancel, max_demand, min_demand, mode, partition, selector; "
                "did you mean 'max_demand'?"
            ),
        ),
        ({"partition": 1}, "partition: expected none, because the producer has no PartitionDispatcher, got 1"),
        ({"selector": len}, "selector: expected none, because the producer has no BroadcastDispatcher"),
    ],
)
async def test_a_wrong_option_is_refused_and_nothing_has_begun(options: dict[str, Any], sentence: str) -> None:
    async with Forwarder() as source, Recorder() as recorder:
        with pytest.raises(OptionsError) as refused:
            await subscribe(recorder, to=source, **options)
        await run_until_idle()
        assert str(refused.value) == sentence

        subscription = await subscribe(recorder, to=source)
        with pytest.raises(OptionsError):
            await subscription.resubscribe(**options)
        await run_until_idle()
        assert subscription.cancellation is None
        assert (recorder.told, source.told) == (["producer"], ["consumer"])


@conforms("G-099", "G-101")
async def test_only_stages_can_be_connected_and_in_the_right_order() -> None:
    source, recorder = Forwarder(), Recorder()
    for consumer, to, sentence in (
        (source, source, "consumer: expected a stage that takes events, got a Forwarder"),
        (recorder, recorder, "to: expected a stage that emits events, got a Recorder"),
        (3, source, "consumer: expected a stage that takes events, got an int"),
    ):
        with pytest.raises(OptionsError) as refused:
            await subscribe(consumer, to=to)  # type: ignore[arg-type]  # wrong on purpose
        assert str(refused.value) == sentence


async def test_partitions_that_are_missing_or_taken_are_refused() -> None:
    async with Forwarder(dispatcher=PartitionDispatcher[Any, int](2)) as source, Recorder() as recorder:
        await subscribe(recorder, to=source, partition=1)
        for partition, sentence in (
            (None, "partition: expected one of 0, 1, got none"),
            (1, "partition: expected one without a consumer, but 1 has one"),
            (2, "partition: expected one of 0, 1, got 2"),
        ):
            with pytest.raises(OptionsError) as refused:
                await subscribe(recorder, to=source, partition=partition)
            assert str(refused.value) == sentence


@conforms("G-050", "G-144")
async def test_a_broadcast_refuses_the_second_subscription_of_one_consumer() -> None:
    async with Forwarder(dispatcher=BroadcastDispatcher()) as source, Recorder() as recorder:
        await subscribe(recorder, to=source)
        with pytest.raises(OptionsError) as refused:
            await subscribe(recorder, to=source)
        source.emit([1])
        await run_until_idle()

        assert str(refused.value) == (
            "to: expected a producer that this consumer has not subscribed to, because it sends all to all"
        )
        assert (recorder.events, len(source.subscriptions), len(recorder.subscriptions)) == ([1], 1, 1)


async def test_a_consumer_may_subscribe_to_a_broadcast_again_after_the_end_of_its_subscription() -> None:
    async with Forwarder(dispatcher=BroadcastDispatcher()) as source, Recorder() as recorder:
        subscription = await subscribe(recorder, to=source, cancel="temporary")
        subscription.cancel()
        await subscribe(recorder, to=source)
        source.emit([1])
        await run_until_idle()

        assert recorder.events == [1]


def test_a_subscription_takes_no_more_steps_when_a_broadcast_has_many() -> None:
    def steps(others: int) -> int:
        source = Forwarder(dispatcher=BroadcastDispatcher())
        options = SubscriptionOptions()
        for _ in range(others):
            connect(Recorder(), source, options)
        last, calls = Recorder(), list[str]()
        sys.setprofile(lambda *call: calls.append(call[1]))
        try:
            connect(last, source, options)
        finally:
            sys.setprofile(None)
        return len(calls)

    # The collection of garbage may add some.
    assert steps(1000) < steps(10) + 500


@conforms("G-044")
async def test_a_consumer_that_has_ended_cannot_subscribe() -> None:
    async with Forwarder() as source:
        async with Recorder() as recorder:
            pass
        with pytest.raises(StageDown) as down:
            await subscribe(recorder, to=source)

    assert str(down.value) == "Recorder has ended, so it cannot subscribe"


@conforms("G-046", "G-047")
@pytest.mark.parametrize("cancel", ["permanent", "transient"])
async def test_a_consumer_dies_of_a_producer_that_had_ended(cancel: Any) -> None:
    async with Forwarder() as source:
        pass
    async with Recorder() as recorder:
        subscription = await subscribe(recorder, to=source, cancel=cancel)
        with pytest.raises(StageDown) as down:
            await soon(recorder.wait())

    assert str(down.value) == "Recorder: the producer Forwarder had ended before the subscription"
    assert subscription.cancellation == ("down", None)
    assert recorder.told == []


@conforms("G-048", "G-049")
async def test_a_temporary_consumer_lives_on_without_a_producer_that_had_ended() -> None:
    async with Forwarder() as source:
        pass
    async with Recorder() as recorder, Counter(most=3) as counter:
        await subscribe(recorder, to=source, cancel="temporary")
        await subscribe(recorder, to=counter)
        await run_until_idle()

        assert (recorder.told, recorder.events) == (["producer", [0, 1, 2]], [0, 1, 2])


@conforms("G-051", "G-054")
async def test_a_consumer_may_subscribe_anew_with_other_options_and_lives_on() -> None:
    async with Counter(most=5) as source, Recorder() as recorder:
        first = await subscribe(recorder, to=source, max_demand=3, min_demand=0)
        await run_until_idle()
        second = await first.resubscribe("another demand", max_demand=1, min_demand=None)
        await run_until_idle()

        assert second is not first
        assert (first.cancellation, second.cancellation) == (("cancel", "another demand"), None)
        assert second.options.max_demand == 1
        assert recorder.events == [0, 1, 2, 3, 4]
        assert recorder.subscriptions == source.subscriptions == [first, second]


@conforms("G-052", "G-055")
async def test_a_subscription_that_has_ended_can_be_made_anew() -> None:
    async with Forwarder() as source, Recorder() as recorder:
        first = await subscribe(recorder, to=source, cancel="temporary")
        first.cancel()
        second = await first.resubscribe()
        source.emit([1])
        await run_until_idle()

        assert (recorder.events, first.cancellation, second.cancellation) == ([1], ("cancel", None), None)


@pytest.mark.parametrize("buffered", [False, True])
async def test_a_selector_that_raises_ends_its_own_subscription_and_no_other(buffered: bool) -> None:
    def raising(event: int) -> bool:
        if event == 2:
            raise OOPS
        return True

    async with Forwarder(dispatcher=BroadcastDispatcher()) as source, Recorder() as wrong, Recorder() as right:
        await subscribe(wrong, to=source, selector=raising)
        if buffered:
            source.emit([1, 2, 3])
            blocked = await subscribe(right, to=source, mode="manual")
            source.emit([2])
            blocked.ask(10)
        else:
            await subscribe(right, to=source)
            source.emit([1, 2, 3])
        with pytest.raises(StageDown) as down:
            await soon(wrong.wait())
        source.emit([4])
        await run_until_idle()

        assert down.value.__cause__ is OOPS
        assert right.events == ([2, 4] if buffered else [1, 2, 3, 4])
        assert repr(source) == "<Forwarder running>"


@pytest.mark.parametrize("then", ["wait", "return", "stop", "raise"])
async def test_a_selector_that_raises_ends_its_subscription_whatever_its_producer_does(then: str) -> None:
    class Busy(Forwarder):
        async def handle_demand(self, demand: int) -> list[int] | None:  # type: ignore[override]
            self.emit([1])
            match then:
                case "wait":
                    await asyncio.get_running_loop().create_future()
                case "stop":
                    self.stop()
                case "raise":
                    raise KeyError
            return None

    def raising(event: int) -> bool:
        raise OOPS

    async with Busy(dispatcher=BroadcastDispatcher()) as source, Recorder() as wrong:
        await subscribe(wrong, to=source, selector=raising)
        with pytest.raises(StageDown) as down:
            await soon(wrong.wait())

        assert down.value.__cause__ is OOPS


async def test_a_selector_that_raises_because_another_subscription_ends_is_told_too() -> None:
    class Stopping(Forwarder):
        def handle_info(self, info: Any) -> None:
            # The slow one stops the fourth event, which goes on when its subscription ends.
            self.emit([1, 2, 3, 4])
            self.stop()

    def raising_at(most: int) -> Callable[[int], bool]:
        def selector(event: int) -> bool:
            if event == most:
                raise OOPS
            return True

        return selector

    async with Stopping(dispatcher=BroadcastDispatcher()) as source, Recorder() as slow, Recorder() as fast:
        subscription = await subscribe(slow, to=source, mode="manual", selector=raising_at(2))
        subscription.ask(2)
        await subscribe(fast, to=source, selector=raising_at(4))
        await source.info(None)
        for recorder, events in ((slow, [1, 3]), (fast, [1, 2, 3])):
            with pytest.raises(StageDown) as down:
                await soon(recorder.wait())
            assert (recorder.events, down.value.__cause__) == (events, OOPS)


# --- manual demand --------------------------------------------------------------------------------------------------


@conforms("G-056", "G-057")
async def test_a_manual_subscription_gets_what_it_asks_for_in_one_list() -> None:
    async with Counter() as counter, Recorder() as recorder:
        subscription = await subscribe(recorder, to=counter, mode="manual")
        await run_until_idle()
        assert recorder.batches == []
        for _ in range(2):
            subscription.ask(50)
            await run_until_idle()

        assert recorder.batches == [list(range(50)), list(range(50, 100))]
        assert counter.asked == [50, 50]


@conforms("G-098", "G-100")
async def test_asking_for_nothing_or_after_the_end_does_nothing() -> None:
    async with Counter() as counter, Recorder() as recorder:
        subscription = await subscribe(recorder, to=counter, mode="manual", cancel="temporary")
        subscription.ask(0)
        subscription.cancel()
        subscription.cancel("once is enough")
        subscription.ask(5)
        await run_until_idle()

        assert (recorder.batches, counter.asked) == ([], [])
        assert subscription.cancellation == ("cancel", None)


@pytest.mark.parametrize(
    ("mode", "count", "sentence"),
    [
        ("manual", -1, "ask: expected a number of events, at least 0, got -1"),
        ("manual", "5", "ask: expected a number of events, at least 0, got '5'"),
        ("manual", True, "ask: expected a number of events, at least 0, got True"),
        ("automatic", 5, "ask: expected a subscription with mode='manual'; this one asks by itself"),
    ],
)
async def test_a_wrong_ask_is_refused(mode: Any, count: Any, sentence: str) -> None:
    async with Forwarder() as source, Recorder() as recorder:
        subscription = await subscribe(recorder, to=source, mode=mode)
        with pytest.raises(OptionsError) as refused:
            subscription.ask(count)

    assert str(refused.value) == sentence


# --- the end --------------------------------------------------------------------------------------------------------


@conforms("G-061", "G-086")
@pytest.mark.parametrize("kind", [Forwarder, Doubler])
async def test_a_producer_is_told_that_a_subscription_was_cancelled(kind: Any) -> None:
    async with kind() as source, Recorder() as recorder:
        subscription = await subscribe(recorder, to=source, cancel="temporary")
        subscription.cancel("oops")
        await run_until_idle()

        assert source.told == ["consumer", ("cancel", "oops")]


@conforms("G-062", "G-087")
@pytest.mark.parametrize("kind", [Forwarder, Doubler])
async def test_a_producer_is_told_that_a_consumer_has_died_and_lives_on(kind: Any) -> None:
    class Mortal(ConsumerStage[Any]):
        def handle_info(self, info: Any) -> None:
            raise info

    async with kind() as source, Mortal() as mortal:
        await subscribe(mortal, to=source)
        await mortal.info(OOPS)
        await run_until_idle()

        assert source.told == ["consumer", ("down", OOPS)]
        assert repr(source) == f"<{kind.__name__} running>"


async def test_a_producer_is_told_that_a_consumer_has_ended_quietly() -> None:
    async with Forwarder() as source:
        async with Recorder() as recorder:
            await subscribe(recorder, to=source)
        await run_until_idle()

        assert source.told == ["consumer", ("down", None)]


@conforms("G-072", "G-073", "G-090")
@pytest.mark.parametrize("kind", [Recorder, Doubler])
@pytest.mark.parametrize(("cancel", "reason"), [("temporary", "oops"), ("temporary", OOPS), ("transient", None)])
async def test_a_consumer_lives_on_after_a_cancellation_that_it_allows(kind: Any, cancel: Any, reason: object) -> None:
    async with Forwarder() as source, kind() as consumer:
        subscription = await subscribe(consumer, to=source, cancel=cancel)
        subscription.cancel(reason)
        await run_until_idle()

        assert consumer.told == ["producer", ("cancel", reason)]
        assert repr(consumer) == f"<{kind.__name__} running>"
        assert repr(subscription).endswith(", ended>")


@conforms("G-074", "G-075", "G-091")
@pytest.mark.parametrize("kind", [Recorder, Doubler])
@pytest.mark.parametrize("cancel", ["transient", "permanent"])
@pytest.mark.parametrize(("reason", "text"), [(OOPS, "ValueError"), ("oops", "'oops'")])
async def test_a_consumer_dies_of_a_cancellation_with_a_reason(
    kind: Any, cancel: Any, reason: object, text: str
) -> None:
    async with Forwarder() as source, kind() as consumer:
        subscription = await subscribe(consumer, to=source, cancel=cancel)
        subscription.cancel(reason)
        with pytest.raises(StageDown) as down:
            await soon(consumer.wait())

        assert str(down.value) == f"{kind.__name__}: the subscription to Forwarder was cancelled: {text}"
        assert down.value.__cause__ is (OOPS if reason is OOPS else None)
        assert consumer.told == ["producer", ("cancel", reason)]


@conforms("G-093")
@pytest.mark.parametrize("kind", [Recorder, Doubler])
async def test_a_permanent_consumer_ends_quietly_with_its_producer_and_a_transient_one_lives_on(kind: Any) -> None:
    async with kind() as permanent, kind() as transient:
        async with Forwarder() as source:
            await subscribe(permanent, to=source)
            await subscribe(transient, to=source, cancel="transient")
        await soon(permanent.wait())
        await run_until_idle()

        assert permanent.told == transient.told == ["producer", ("down", None)]
        assert (repr(permanent), repr(transient)) == (f"<{kind.__name__} ended>", f"<{kind.__name__} running>")


@conforms("G-076", "G-092")
@pytest.mark.parametrize("kind", [Recorder, Doubler])
async def test_a_temporary_consumer_lives_on_when_its_producer_dies(kind: Any) -> None:
    async with Fatal() as source, kind() as consumer:
        await subscribe(consumer, to=source, cancel="temporary")
        await source.info(OOPS)
        await run_until_idle()

        assert consumer.told == ["producer", ("down", OOPS)]
        assert repr(consumer) == f"<{kind.__name__} running>"


@conforms("G-077", "G-078", "G-094")
@pytest.mark.parametrize("kind", [Recorder, Doubler])
@pytest.mark.parametrize("cancel", ["transient", "permanent"])
async def test_a_consumer_dies_when_its_producer_dies(kind: Any, cancel: Any) -> None:
    async with Fatal() as source, kind() as consumer:
        await subscribe(consumer, to=source, cancel=cancel)
        await source.info(OOPS)
        with pytest.raises(StageDown) as down:
            await soon(consumer.wait())

        assert str(down.value) == f"{kind.__name__}: the producer Fatal died of ValueError"
        assert down.value.__cause__ is OOPS
        assert consumer.told == ["producer", ("down", OOPS)]
        with pytest.raises(ValueError, match="the user's"):
            await source.wait()


@conforms("G-095")
async def test_a_death_travels_down_a_chain_with_its_cause() -> None:
    async with Fatal() as source, Doubler() as doubler, Recorder() as recorder:
        await subscribe(doubler, to=source)
        await subscribe(recorder, to=doubler)
        await source.info(OOPS)
        with pytest.raises(StageDown) as down:
            await soon(recorder.wait())

    assert str(down.value) == "Recorder: the producer Doubler died of StageDown"
    assert down.value.__cause__ is not None
    assert down.value.__cause__.__cause__ is OOPS


async def test_what_has_arrived_is_handled_before_the_end_is_told() -> None:
    async with Forwarder() as source, Recorder() as recorder:
        subscription = await subscribe(recorder, to=source)
        source.emit([1, 2])
        subscription.cancel()
        source.emit([3])
        await soon(recorder.wait())

    assert recorder.told == ["producer", [1, 2], ("cancel", None)]


async def test_a_finite_producer_ends_a_chain_when_everything_has_passed() -> None:
    async with Counter(most=25, ends=True) as counter, Doubler() as doubler, Recorder() as recorder:
        await subscribe(recorder, to=doubler, max_demand=4)
        await subscribe(doubler, to=counter, max_demand=10)
        for stage in (counter, doubler, recorder):
            await soon(stage.wait())

    assert recorder.events == [number for number in range(25) for _ in range(2)]


async def test_a_consumer_that_waits_may_ask_for_the_end_of_its_producer() -> None:
    class Last(ProducerStage[str]):
        """The idiom of a finite producer: the last events, then an info that stops it."""

        async def handle_demand(self, demand: int) -> list[str]:
            await self.info("stop")
            return ["last"]

        def handle_info(self, info: str) -> None:
            self.stop()

    async with Last() as source, Recorder() as recorder:
        await subscribe(recorder, to=source)
        await soon(asyncio.gather(source.wait(), recorder.wait()))

    assert recorder.events == ["last"]
