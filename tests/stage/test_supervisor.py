"""A task for each event: places, restarts, and how the children end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broadway_py.errors import OptionsError, StageDown
from broadway_py.stage import ConsumerSupervisor, from_iterable, subscribe
from broadway_py.testing import FakeClock
from tests.stage.support import Counter, Forwarder, run_until_idle, soon
from tests.support.conformance import conforms


class Children:
    """Starts children that wait until they are let go, and notes what becomes of each."""

    def __init__(self) -> None:
        self.running: dict[Any, asyncio.Future[None]] = {}
        self.started: list[Any] = []
        self.ended: list[tuple[Any, str]] = []

    async def start(self, event: Any) -> None:
        self.started.append(event)
        self.running[event] = asyncio.get_running_loop().create_future()
        how = "returned"
        try:
            await self.running[event]
        except asyncio.CancelledError:
            how = "cancelled"
            raise
        except ValueError:
            how = "raised"
            raise
        finally:
            del self.running[event]
            self.ended.append((event, how))

    def end(self, event: Any, error: Exception | None = None) -> None:
        if error is None:
            self.running[event].set_result(None)
        else:
            self.running[event].set_exception(error)


@conforms("G-205", "G-206")
async def test_each_event_has_a_child_that_outlives_its_producer() -> None:
    children = Children()
    async with ConsumerSupervisor(children.start) as supervisor:
        async with from_iterable([1, 2, 3]) as source:
            await subscribe(supervisor, to=source, cancel="temporary")
            await soon(source.wait())
            await run_until_idle()
        assert children.started == [1, 2, 3]
        assert supervisor.count_children() == len(supervisor.children) == 3
        children.end(2)
        await run_until_idle()
        assert supervisor.count_children() == 2

    assert children.ended == [(2, "returned"), (1, "cancelled"), (3, "cancelled")]


@conforms("G-210")
async def test_children_outlive_a_producer_that_dies() -> None:
    class Dying(Counter):
        def handle_info(self, info: Any) -> None:
            raise ValueError(info)

    children = Children()
    async with Dying(most=2) as source, ConsumerSupervisor(children.start) as supervisor:
        await subscribe(supervisor, to=source, cancel="temporary")
        await run_until_idle()
        await source.info("")
        await run_until_idle()

        assert supervisor.count_children() == 2
        children.end(0)
        await run_until_idle()
        assert supervisor.count_children() == 1


@conforms("G-211", "G-212")
@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({"max_demand": 10}, [10, 1, 1, 1]),
        ({"max_demand": 10, "min_demand": 7}, [10, 3]),
        ({"max_demand": 3, "min_demand": 0}, [3, 3]),
    ],
)
async def test_more_is_asked_for_when_min_demand_or_fewer_run(options: dict[str, Any], asked: list[int]) -> None:
    children = Children()
    async with Counter() as source, ConsumerSupervisor(children.start) as supervisor:
        await subscribe(supervisor, to=source, **options)
        await run_until_idle()
        for event in range(3):
            children.end(event)
            await run_until_idle()

        assert source.asked == asked
        assert supervisor.count_children() == options["max_demand"]


async def test_a_manual_subscription_of_a_supervisor_asks_for_nothing_by_itself() -> None:
    children = Children()
    async with Counter() as source, ConsumerSupervisor(children.start) as supervisor:
        subscription = await subscribe(supervisor, to=source, mode="manual", max_demand=1)
        subscription.ask(3)
        await run_until_idle()
        children.end(0)
        await run_until_idle()

        assert (children.started, source.asked) == ([0, 1, 2], [3])


async def test_what_has_not_come_is_not_asked_for_twice() -> None:
    children = Children()
    async with Forwarder() as source, ConsumerSupervisor(children.start) as supervisor:
        await subscribe(supervisor, to=source, max_demand=3, min_demand=0)
        source.emit([1, 2])
        await run_until_idle()
        children.end(1)
        await run_until_idle()

        assert source.asked == [3]


@conforms("G-207", "G-208")
async def test_a_child_that_cannot_start_gives_its_place_back() -> None:
    started: list[int] = []

    def start(event: int) -> Any:
        started.append(event)
        if event % 3 == 0:
            raise ValueError("no")
        return None if event % 3 == 1 else wait()

    async def wait() -> None:
        await asyncio.Event().wait()

    async with Counter() as source, ConsumerSupervisor(start) as supervisor:
        await subscribe(supervisor, to=source, max_demand=1, min_demand=0)
        await run_until_idle()
        assert (started, supervisor.count_children()) == ([0, 1, 2], 1)

        assert await soon(supervisor.terminate_child(supervisor.children[0]))
        await run_until_idle()
        assert (started, supervisor.count_children()) == ([0, 1, 2, 3, 4, 5], 1)


@conforms("G-181", "G-196", "G-197")
async def test_children_may_be_started_and_terminated_by_hand() -> None:
    children = Children()
    async with Forwarder() as source, ConsumerSupervisor(children.start) as supervisor:
        await subscribe(supervisor, to=source, max_demand=1)
        child = supervisor.start_child("extra")
        await run_until_idle()
        assert (supervisor.count_children(), children.started) == (1, ["extra"])

        assert await soon(supervisor.terminate_child(child)) is True
        assert await soon(supervisor.terminate_child(child)) is False
        await run_until_idle()
        assert (children.ended, supervisor.count_children(), source.asked) == ([("extra", "cancelled")], 0, [1])

    with pytest.raises(StageDown) as down:
        supervisor.start_child("late")
    assert str(down.value) == "ConsumerSupervisor has ended"


@conforms("G-182")
@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), asyncio.CancelledError()])
async def test_a_child_that_cannot_start_by_hand_harms_nobody(error: BaseException) -> None:
    def start(event: int) -> Any:
        raise error

    async with ConsumerSupervisor(start) as supervisor:
        child = supervisor.start_child(1)
        await run_until_idle()

        assert child.done()
        assert (supervisor.count_children(), repr(supervisor)) == (0, "<ConsumerSupervisor running>")


@conforms("G-192", "G-194")
async def test_a_child_that_raises_while_it_is_cancelled_is_waited_for() -> None:
    log: list[str] = []

    async def start(event: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            log.append("ended")
            raise ValueError("oops")

    async with ConsumerSupervisor(start) as supervisor:
        supervisor.start_child(1)
        await run_until_idle()

    assert log == ["ended"]
    await supervisor.wait()


@conforms("G-183", "G-184")
@pytest.mark.parametrize(
    ("restart", "error", "starts"),
    [
        ("temporary", ValueError(), 1),
        ("temporary", None, 1),
        ("transient", None, 1),
        ("transient", ValueError(), 2),
    ],
)
async def test_only_a_transient_child_that_has_raised_is_started_again(
    restart: Any, error: Exception | None, starts: int
) -> None:
    children = Children()
    async with ConsumerSupervisor(children.start, restart=restart) as supervisor:
        supervisor.start_child("a")
        await run_until_idle()
        children.end("a", error)
        await run_until_idle()

        assert children.started == ["a"] * starts
        assert supervisor.count_children() == starts - 1


@conforms("G-185", "G-209")
async def test_a_child_that_is_started_again_keeps_its_place() -> None:
    children = Children()
    async with Counter() as source, ConsumerSupervisor(children.start, restart="transient") as supervisor:
        await subscribe(supervisor, to=source, max_demand=1, min_demand=0)
        await run_until_idle()
        children.end(0, ValueError())
        await run_until_idle()
        assert (children.started, source.asked) == ([0, 0], [1])

        children.end(0)
        await run_until_idle()
        assert (children.started, source.asked) == ([0, 0, 1], [1, 1])


@conforms("G-186", "G-187", "G-189")
async def test_a_supervisor_dies_when_its_children_are_started_again_too_often() -> None:
    children, clock = Children(), FakeClock()
    async with ConsumerSupervisor(
        children.start, restart="transient", max_restarts=2, max_seconds=5, clock=clock
    ) as supervisor:
        supervisor.start_child("a")
        supervisor.start_child("b")
        await run_until_idle()
        for name in ("a", "b"):
            children.end(name, ValueError())
            await run_until_idle()
        await clock.advance(6)
        children.end("a", ValueError())
        await run_until_idle()
        assert repr(supervisor) == "<ConsumerSupervisor running>"

        children.end("a", ValueError())
        await run_until_idle()
        children.end("b", ValueError("the last"))
        with pytest.raises(StageDown) as down:
            await soon(supervisor.wait())

    assert str(down.value) == (
        "ConsumerSupervisor: its children were started again more often than max_restarts allows"
    )
    assert str(down.value.__cause__) == "the last"
    assert children.ended[-1] == ("a", "cancelled")


@conforms("G-191", "G-193")
async def test_all_children_are_cancelled_at_the_same_time_and_waited_for() -> None:
    log: list[str] = []

    async def start(event: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.append(f"asked {event}")
            await asyncio.sleep(0)
            log.append(f"ended {event}")

    async with ConsumerSupervisor(start) as supervisor:
        supervisor.start_child(1)
        supervisor.start_child(2)
        await run_until_idle()

    assert log == ["asked 1", "asked 2", "ended 1", "ended 2"]


@conforms("G-190", "G-195")
@pytest.mark.parametrize(("shutdown", "waits_s"), [("kill", 0.0), (1.0, 1.0)])
async def test_children_that_ignore_their_cancellation_are_left_behind(
    shutdown: Any, waits_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    clock, may_end = FakeClock(), asyncio.Event()

    async def start(event: int) -> None:
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                continue

    supervisor = ConsumerSupervisor(start, shutdown=shutdown, clock=clock)
    await supervisor.__aenter__()
    child = supervisor.start_child(1)
    await run_until_idle()
    leaving = asyncio.create_task(supervisor.__aexit__(None, None, None))
    await run_until_idle()
    assert not leaving.done()
    await clock.advance(waits_s)
    await soon(leaving)

    assert "children ignore their cancellation and are left behind" in caplog.text
    may_end.set()
    await soon(child)


@conforms("G-198")
async def test_a_child_between_two_starts_can_be_terminated() -> None:
    starts = 0
    has_started_again = asyncio.Event()

    async def start(event: int) -> None:
        nonlocal starts
        starts += 1
        if starts > 2:
            has_started_again.set()
        await asyncio.sleep(0)
        raise ValueError

    async with ConsumerSupervisor(start, restart="transient", max_restarts=10**6) as supervisor:
        child = supervisor.start_child(1)
        await soon(has_started_again.wait())
        assert await soon(supervisor.terminate_child(child))

        assert supervisor.count_children() == 0


class Spoiler:
    """Starts a child that waits, and that raises when it is cancelled. The next child ends at once."""

    def __init__(self) -> None:
        self.started: list[int] = []

    async def start(self, event: int) -> None:
        self.started.append(event)
        if len(self.started) > 1:
            return
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            raise ValueError from None


async def test_a_terminated_child_that_raises_is_not_started_again() -> None:
    spoiler = Spoiler()
    async with ConsumerSupervisor(spoiler.start, restart="transient") as supervisor:
        child = supervisor.start_child(1)
        await run_until_idle()

        assert await soon(supervisor.terminate_child(child)) is True
        await run_until_idle()
        assert (spoiler.started, supervisor.count_children()) == ([1], 0)


async def test_no_child_is_started_again_while_its_supervisor_dies() -> None:
    spoiler = Spoiler()
    async with Counter(most=1) as counter, ConsumerSupervisor(spoiler.start, restart="transient") as supervisor:
        subscription = await subscribe(supervisor, to=counter)
        await run_until_idle()
        subscription.cancel("no longer needed")
        await run_until_idle()

        assert (spoiler.started, supervisor.count_children()) == ([0], 0)
        assert repr(supervisor) == "<ConsumerSupervisor ended>"


async def test_a_supervisor_that_ends_starts_no_more_children() -> None:
    refused: list[str] = []

    async def start(event: int) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            if event == 1:
                with pytest.raises(StageDown) as down:
                    supervisor.start_child(2)
                refused.append(str(down.value))
            raise

    async with ConsumerSupervisor(start) as supervisor:
        supervisor.start_child(1)
        await run_until_idle()

    assert refused == ["ConsumerSupervisor is ending, so it starts no more children"]
    assert supervisor.count_children() == 0


@conforms("G-199", "G-203", "G-204")
async def test_a_supervisor_lives_on_without_a_producer_that_had_ended_if_that_is_temporary() -> None:
    async with Forwarder() as source:
        pass
    children = Children()
    async with ConsumerSupervisor(children.start) as supervisor, Counter(most=1) as counter:
        await subscribe(supervisor, to=source, cancel="temporary")
        subscription = await subscribe(supervisor, to=counter)
        await run_until_idle()

        assert (subscription.cancellation, children.started) == (None, [0])


@conforms("G-201", "G-202")
async def test_a_supervisor_dies_of_a_producer_that_had_ended() -> None:
    async with Forwarder() as source:
        pass
    async with ConsumerSupervisor(Children().start) as supervisor:
        await subscribe(supervisor, to=source)
        with pytest.raises(StageDown) as down:
            await soon(supervisor.wait())

    assert str(down.value) == "ConsumerSupervisor: the producer Forwarder had ended before the subscription"


async def test_children_keep_their_places_when_their_supervisor_subscribes_again() -> None:
    children = Children()
    async with Counter() as source, ConsumerSupervisor(children.start) as supervisor:
        subscription = await subscribe(supervisor, to=source, max_demand=2)
        await run_until_idle()
        # The second time, its task has not heard of the first.
        subscription = await subscription.resubscribe()
        await subscription.resubscribe(max_demand=3)
        await run_until_idle()
        assert (children.started, source.asked) == ([0, 1, 2], [2, 1])

        children.end(0)
        await run_until_idle()
        assert (children.started, source.asked) == ([0, 1, 2, 3], [2, 1, 1])


async def test_children_without_a_subscription_take_places_of_the_next_one() -> None:
    children = Children()
    async with Counter(10) as second, Counter(20) as third, ConsumerSupervisor(children.start) as supervisor:
        async with from_iterable([0, 1]) as first:
            await subscribe(supervisor, to=first, max_demand=3, cancel="temporary")
            await soon(first.wait())
            await run_until_idle()
        await subscribe(supervisor, to=second, max_demand=2)
        # The children belong to the second subscription now.
        await subscribe(supervisor, to=third, max_demand=1)
        await run_until_idle()
        assert children.started == [0, 1, 20]

        children.end(1)
        await run_until_idle()
        assert children.started == [0, 1, 20, 10]


async def test_events_that_wait_for_their_children_take_places_of_the_next_subscription() -> None:
    children = Children()
    async with Forwarder() as source, ConsumerSupervisor(children.start) as supervisor:
        subscription = await subscribe(supervisor, to=source, max_demand=2)
        await run_until_idle()
        source.emit([1, 2])
        await subscription.resubscribe()
        await run_until_idle()
        assert (children.started, source.asked) == ([1, 2], [2])

        children.end(2)
        await run_until_idle()
        assert source.asked == [2, 1]


async def test_a_supervisor_stays_in_line_when_more_comes_than_was_asked_for() -> None:
    children = Children()
    async with Forwarder() as source, ConsumerSupervisor(children.start) as supervisor:
        await subscribe(supervisor, to=source, max_demand=2)
        source.emit([1, 2, 3])
        await run_until_idle()
        assert children.started == [1, 2]
        children.end(1)
        await run_until_idle()

        assert children.started == [1, 2, 3]


@conforms("G-170", "G-171")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"restart": "permanent"},
            "restart: expected 'temporary' or 'transient', got 'permanent'",
        ),
        ({"max_restarts": -1}, "max_restarts: expected greater than or equal to 0, got -1"),
        ({"max_seconds": 0}, "max_seconds: expected greater than 0, got 0"),
        ({"shutdown": -1}, "shutdown: expected greater than or equal to 0, got -1"),
        ({"start": 3}, "start: expected a coroutine function, got an int"),
        (
            {"max_restart": 1},
            (
                "max_restart: unknown setting; known here: max_restarts, max_seconds, restart, shutdown; "
                "did you mean 'max_restarts'?"
            ),
        ),
    ],
)
def test_a_wrong_option_of_a_supervisor_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(OptionsError) as refused:
        ConsumerSupervisor(**{"start": Children().start, **options})

    assert str(refused.value) == sentence
