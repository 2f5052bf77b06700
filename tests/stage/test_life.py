"""The life of a stage: setup, teardown, options, deaths, and what its methods may return."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broadway_py.errors import OptionsError, StageDown
from broadway_py.stage import ConsumerStage, DemandDispatcher, ProducerConsumerStage, ProducerStage, subscribe
from tests.stage.support import Counter, Doubler, Forwarder, Recorder, run_until_idle, soon
from tests.support.conformance import conforms


class Staged(Forwarder):
    def __init__(self, fails: str = "") -> None:
        super().__init__()
        self.fails, self.log = fails, [""]

    def step(self, name: str) -> None:
        self.log.append(name)
        if name == self.fails:
            raise ValueError(name)

    async def setup(self) -> None:
        await asyncio.sleep(0)
        self.step("setup")

    async def teardown(self) -> None:
        await asyncio.sleep(0)
        self.step("teardown")

    def handle_info(self, info: Any) -> None:
        self.step(info)


@conforms("G-067", "G-080")
async def test_setup_runs_before_everything_and_teardown_after_it() -> None:
    async with Staged() as stage:
        assert stage.log == ["", "setup"]
        await stage.info("hello")
        await run_until_idle()
        assert repr(stage) == "<Staged running>"

    assert stage.log == ["", "setup", "hello", "teardown"]
    assert repr(stage) == "<Staged ended>"
    await stage.wait()


async def test_a_stage_whose_setup_raises_does_not_start_and_is_torn_down() -> None:
    stage = Staged("setup")

    with pytest.raises(ValueError, match="setup"):
        async with stage:
            pytest.fail("it has started")

    assert stage.log == ["", "setup", "teardown"]


async def test_stages_may_be_connected_before_they_start_and_a_death_right_after_the_start_is_for_wait() -> None:
    counter, recorder, orphan = Counter(most=3), Recorder(), Recorder()
    await subscribe(recorder, to=counter)
    async with Forwarder() as ended:
        pass
    await subscribe(orphan, to=ended)

    async with counter, recorder, orphan:
        with pytest.raises(StageDown):
            await soon(orphan.wait())
        await run_until_idle()

        assert recorder.events == [0, 1, 2]


@conforms("G-069")
@pytest.mark.parametrize("kind", [Recorder, Doubler])
async def test_a_consumer_whose_setup_raises_does_not_start(kind: Any) -> None:
    class Unfit(kind):  # type: ignore[misc]  # one of two
        async def setup(self) -> None:
            raise ValueError("unfit")

    with pytest.raises(ValueError, match="unfit"):
        async with Unfit():
            pytest.fail("it has started")


async def test_a_stage_that_raises_is_torn_down_and_wait_raises_its_error(caplog: pytest.LogCaptureFixture) -> None:
    async with Staged("hello") as stage:
        await stage.info("hello")
        for _ in range(2):
            with pytest.raises(ValueError, match="hello"):
                await soon(stage.wait())

    assert stage.log == ["", "setup", "hello", "teardown"]
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("a stage died stage=Staged exception=ValueError at='test_life.py:")
    assert said.endswith("step'")


async def test_a_stage_whose_teardown_raises_has_died_of_it() -> None:
    async with Staged("teardown") as stage:
        pass

    with pytest.raises(ValueError, match="teardown"):
        await stage.wait()


async def test_a_stage_can_be_stopped_and_stops_its_consumers_quietly() -> None:
    async with Staged() as stage, Recorder() as recorder:
        await subscribe(recorder, to=stage)
        stage.stop()
        await soon(stage.wait())
        await soon(recorder.wait())

        assert stage.log == ["", "setup", "teardown"]


async def test_a_stage_may_have_a_name_of_its_own() -> None:
    class Named(Forwarder):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    async with Named("one") as named:
        assert repr(named) == "<one running>"
        assert "one" in {task.get_name() for task in asyncio.all_tasks()}


async def test_a_stage_runs_once() -> None:
    async with Staged() as stage:
        pass

    with pytest.raises(RuntimeError) as refused:
        async with stage:
            pass
    assert str(refused.value) == "Staged has started before, and a stage runs once: make another one"


async def test_a_stage_that_has_not_started_cannot_be_waited_for() -> None:
    with pytest.raises(RuntimeError) as refused:
        await Staged().wait()

    assert str(refused.value) == "Staged has not started: use it in an `async with` block"


async def test_a_stage_cannot_wait_for_itself() -> None:
    class Impatient(Forwarder):
        async def handle_info(self, info: Any) -> None:  # type: ignore[override]  # async here
            await self.wait()

    async with Impatient() as stage:
        await stage.info("")
        with pytest.raises(RuntimeError) as refused:
            await soon(stage.wait())

    assert str(refused.value) == ("Impatient.wait() was awaited in a method of this stage, which would wait for itself")


async def test_a_stage_that_has_ended_takes_nothing_more() -> None:
    async with Staged() as stage:
        pass

    for call in (lambda: stage.emit([1]), lambda: stage.info("")):
        with pytest.raises(StageDown) as down:
            await call()  # type: ignore[misc]  # the first raises before there is anything to await
        assert str(down.value) == "Staged has ended"


async def test_an_info_that_nobody_handles_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class Plain(ConsumerStage[int]):
        pass

    async with Plain() as stage:
        await stage.info("secret")
        await run_until_idle()

    assert [record.getMessage() for record in caplog.records] == [
        "a stage has no handle_info, so an info was ignored stage=Plain"
    ]


async def test_leaving_the_block_cancels_a_method_that_waits() -> None:
    class Waiting(Staged):
        async def handle_info(self, info: Any) -> None:  # type: ignore[override]  # async here
            self.step("begun")
            await asyncio.Event().wait()

    async with Waiting() as stage:
        await stage.info("")
        await run_until_idle()

    assert stage.log == ["", "setup", "begun", "teardown"]


async def test_a_cancelled_block_waits_for_the_end_of_its_stage() -> None:
    stage = Staged()

    async def block() -> None:
        async with stage:
            await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await run_until_idle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(task)

    assert stage.log == ["", "setup", "teardown"]


async def test_a_block_that_is_cancelled_during_setup_leaves_nothing_behind() -> None:
    class Slow(Staged):
        async def setup(self) -> None:
            self.step("setup")
            await asyncio.Event().wait()

    stage = Slow()
    task = asyncio.create_task(stage.__aenter__())
    await run_until_idle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(task)

    assert stage.log == ["", "setup", "teardown"]
    assert {each.get_name() for each in asyncio.all_tasks()} & {"Slow"} == set()


async def test_a_method_that_was_cancelled_from_inside_ends_its_stage_with_a_sentence() -> None:
    class Cancelling(Forwarder):
        async def handle_info(self, info: Any) -> None:  # type: ignore[override]  # async here
            raise asyncio.CancelledError

    async with Cancelling() as stage:
        await stage.info("")
        with pytest.raises(StageDown) as down:
            await soon(stage.wait())

    assert str(down.value) == "Cancelling: a method was cancelled, but not by the stage"


@pytest.mark.parametrize("from_inside", [True, False])
async def test_a_stage_whose_task_is_cancelled_by_others_dies_with_a_sentence(
    from_inside: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Cancelling(Staged):
        def handle_info(self, info: Any) -> None:
            info.cancel()

    async with Cancelling() as stage, Recorder() as recorder:
        await subscribe(recorder, to=stage)
        await run_until_idle()
        assert stage._task is not None
        if from_inside:
            await stage.info(stage._task)
        else:
            stage._task.cancel()
        with pytest.raises(StageDown) as down:
            await soon(stage.wait())
        with pytest.raises(StageDown) as below:
            await soon(recorder.wait())

    assert str(down.value) == "Cancelling: its task was cancelled, but not by the stage"
    assert str(below.value) == "Recorder: the producer Cancelling died of StageDown"
    assert [record.getMessage().partition(" exception=")[0] for record in caplog.records][:1] == [
        "a stage died stage=Cancelling"
    ]
    assert stage.log[-1] == "teardown"


# --- what methods return --------------------------------------------------------------------------------------------


@conforms("G-081")
@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        ([1, 2], "Made.handle_events returned 2 events; a consumer has nobody to give them to"),
        ("ab", "Made.handle_events returned a str; expected nothing, or a list of events"),
        (7, "Made.handle_events returned an int; expected nothing, or a list of events"),
    ],
)
async def test_a_consumer_that_returns_events_dies(returned: Any, sentence: str) -> None:
    class Made(ConsumerStage[int]):
        def handle_events(self, events: list[int]) -> Any:
            return returned

    async with Counter() as counter, Made() as consumer:
        await subscribe(consumer, to=counter)
        with pytest.raises(TypeError) as died:
            await soon(consumer.wait())

    assert str(died.value) == sentence


@pytest.mark.parametrize("returned", ["ab", 7, {1}, {"a": 1}, iter([1])])
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_producer_that_returns_something_else_than_a_list_dies(returned: Any, is_async: bool) -> None:
    class Plain(ProducerStage[int]):
        def handle_demand(self, demand: int) -> Any:
            return returned

    class Async(ProducerStage[int]):
        async def handle_demand(self, demand: int) -> Any:
            return returned

    async with Async() if is_async else Plain() as source, Recorder() as recorder:
        await subscribe(recorder, to=source, cancel="temporary")
        with pytest.raises(TypeError) as died:
            await soon(source.wait())

    article = {"ab": "a str", 7: "an int"}.get(returned if isinstance(returned, str | int) else "")
    kind = article or f"a {type(returned).__name__}"
    assert str(died.value) == f"{source.name}.handle_demand returned {kind}; expected a list of events"


@pytest.mark.parametrize("returned", [None, 7])
async def test_a_stage_in_the_middle_that_returns_something_else_than_a_list_dies(returned: Any) -> None:
    class Made(ProducerConsumerStage[int, int]):
        async def handle_events(self, events: list[int]) -> Any:
            return returned

    async with Counter() as counter, Made() as middle, Recorder() as recorder:
        await subscribe(middle, to=counter)
        await subscribe(recorder, to=middle, cancel="temporary")
        with pytest.raises(TypeError) as died:
            await soon(middle.wait())

    kind = "a NoneType" if returned is None else "an int"
    assert str(died.value) == f"Made.handle_events returned {kind}; expected a list of events"


async def test_only_a_list_can_be_emitted_and_the_callers_list_is_its_own() -> None:
    async with Forwarder() as source, Recorder() as recorder:
        await subscribe(recorder, to=source)
        with pytest.raises(TypeError) as refused:
            source.emit("ab")
        assert str(refused.value) == "Forwarder.emit was given a str; expected a list of events"
        events = [1, 2]
        source.emit(events)
        events.clear()
        source.emit((3,))
        source.emit([])
        await run_until_idle()

        assert recorder.batches == [[1, 2], [3]]


async def test_every_method_of_a_producer_may_return_events() -> None:
    class Chatty(Forwarder):
        def handle_subscribe(self, other: str, subscription: Any) -> Any:
            return ["subscribed"]

        def handle_info(self, info: Any) -> Any:
            return [info]

    async with Chatty() as source, Recorder() as recorder:
        await subscribe(recorder, to=source)
        await source.info("info")
        await run_until_idle()

        assert recorder.events == ["subscribed", "info"]


@conforms("G-060", "G-071", "G-085")
@pytest.mark.parametrize("kind", [Forwarder, Recorder, Doubler])
async def test_a_subscribe_method_that_returns_nonsense_kills_its_stage(kind: Any) -> None:
    class Wrong(kind):  # type: ignore[misc]  # one of three
        def handle_subscribe(self, other: str, subscription: Any) -> Any:
            return "manual"

    async with Wrong() as wrong, Doubler() as other:
        if kind is Recorder:
            await subscribe(wrong, to=other)
        else:
            await subscribe(other, to=wrong, cancel="temporary")
        with pytest.raises(TypeError, match="handle_subscribe returned a str; expected"):
            await soon(wrong.wait())


@conforms("G-089")
async def test_a_stage_without_its_method_dies_with_a_sentence() -> None:
    class Bare(ConsumerStage[int]):
        pass

    class Empty(ProducerStage[int]):
        pass

    async with Empty() as empty, Recorder() as recorder:
        await subscribe(recorder, to=empty, cancel="temporary")
        with pytest.raises(NotImplementedError, match="Empty has no handle_demand"):
            await soon(empty.wait())
    async with Counter() as counter, Bare() as bare:
        await subscribe(bare, to=counter)
        with pytest.raises(NotImplementedError, match="Bare has no handle_events"):
            await soon(bare.wait())


# --- options --------------------------------------------------------------------------------------------------------


@conforms("G-058", "G-083")
@pytest.mark.parametrize("kind", [Forwarder, Doubler])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"buffer_size": -1}, "buffer_size: expected greater than or equal to 0, got -1"),
        ({"buffer_keep": "frist"}, "buffer_keep: expected 'first' or 'last', got 'frist'; did you mean 'first'?"),
        (
            {"dispatcher": 0},
            "dispatcher: expected a DemandDispatcher, BroadcastDispatcher or PartitionDispatcher, got an int",
        ),
    ],
)
def test_a_wrong_option_of_a_stage_is_refused(kind: Any, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(OptionsError) as refused:
        kind(**options)

    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("kind", "name", "sentence"),
    [
        (
            Forwarder,
            "demnd",
            (
                "demnd: unknown setting; known here: buffer_keep, buffer_size, clock, demand, dispatcher, on_discard; "
                "did you mean 'demand'?"
            ),
        ),
        (
            Doubler,
            "buffer_sise",
            (
                "buffer_sise: unknown setting; known here: buffer_keep, buffer_size, clock, dispatcher, on_discard; "
                "did you mean 'buffer_size'?"
            ),
        ),
        (ConsumerStage, "clok", "clok: unknown setting; known here: clock; did you mean 'clock'?"),
    ],
)
def test_an_unknown_option_of_a_stage_is_refused(kind: Any, name: str, sentence: str) -> None:
    with pytest.raises(OptionsError) as refused:
        kind(**{name: 1})

    assert str(refused.value) == sentence


def test_a_wrong_mode_of_demand_is_refused() -> None:
    sentence = "demand: expected 'forward' or 'accumulate', got 'acumulate'; did you mean 'accumulate'?"

    with pytest.raises(OptionsError) as refused:
        Forwarder(demand="acumulate")
    assert str(refused.value) == sentence
    source = Forwarder()
    with pytest.raises(OptionsError) as refused:
        source.demand = "acumulate"  # type: ignore[assignment]  # wrong on purpose
    assert str(refused.value) == sentence
    assert source.demand == "forward"


def test_options_may_be_class_attributes_and_arguments_come_first() -> None:
    class Small(Forwarder):
        buffer_size = 3
        buffer_keep = "first"

    assert (Small().buffer_size, Small().buffer_keep) == (3, "first")
    assert Small(buffer_size=None).buffer_size is None
    assert (Forwarder().buffer_size, Doubler().buffer_size) == (10_000, None)


async def test_two_stages_of_a_class_share_no_dispatcher() -> None:
    class Shared(Forwarder):
        dispatcher = DemandDispatcher()

    async with Shared() as one, Shared() as other, Recorder() as recorder:
        await subscribe(recorder, to=one)
        other.emit([1])
        await run_until_idle()

        assert recorder.events == []
        assert (repr(one), repr(recorder), repr(Doubler())) == (
            "<Shared running>",
            "<Recorder running>",
            "<Doubler new>",
        )
