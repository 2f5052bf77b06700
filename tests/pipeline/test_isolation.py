"""Probation in a worker: the journal names what is at work, suspects run alone, the convicted run no more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from broadway_py import Batcher, BatchInfo, FailurePolicy, Message, Pipeline, Processors
from broadway_py._core.identity import identity_of
from broadway_py.pipeline.poison.isolation import PATIENCE_S, Isolation
from broadway_py.pipeline.poison.journal import CLEARED, CONVICTED, REPEATED, SUSPECTED, Journal
from broadway_py.producers import MemoryProducer
from broadway_py.testing import FakeClock
from tests.pipeline.support import ManualProducer, Quiet, Recorder, ReturningRecorder, clock_of, finish, running, soon

ONE = Processors(concurrency=1, max_demand=10, min_demand=0)
FOUR = Processors(concurrency=4, max_demand=1, min_demand=0)


@pytest.fixture
def journal() -> Iterator[Journal]:
    journal = Journal.create(2)
    yield journal
    journal.close()


class Watched(Quiet):
    """Notes for each call of a callback what it was given, what the journal says then, and whether it is alone."""

    processors = ONE
    name = "watched"

    def __init__(self, journal: Journal, **options: Any) -> None:
        super().__init__(**options)
        self.journal = journal
        self.calls: list[tuple[str, list[Any], list[Any], bool]] = []
        self.gates: dict[Any, asyncio.Event] = {}
        self._isolation = Isolation(journal, 0)
        self.clock = FakeClock()

    def note(self, callback: str, *messages: Message[Any]) -> None:
        trace = self.journal.region(0).read()
        assert not trace.has_unnamed
        named = [data for data in KNOWN if self.identity(data) in trace.at_work]
        self.calls.append((callback, [message.data for message in messages], named, trace.is_alone))

    def identity(self, data: Any) -> bytes:
        return identity_of_data(data, self.name)

    async def handle_message(self, message: Message[Any]) -> None:
        self.note("handle_message", message)
        if message.data in self.gates:
            await self.gates[message.data].wait()

    def given(self, callback: str = "handle_message") -> list[Any]:
        """What *callback* was called with, call by call."""
        return [data if len(data) > 1 else data[0] for name, data, _, _ in self.calls if name == callback]

    def alone(self) -> list[Any]:
        """What ran alone."""
        return [data for _, given, _, alone in self.calls if alone for data in given]

    def put(self, data: Any, state: int) -> None:
        """The supervisor says this of the message."""
        self.journal.put(self.identity(data), state, 2, -6)

    def known(self, data: Any) -> int:
        """What the table says of the message."""
        return self.journal.entries()[self.identity(data)].state


KNOWN = [f"m{number}" for number in range(40)]


def identity_of_data(data: Any, pipeline: str) -> bytes:
    message = Message(data)

    class Entry:
        producer = "manual"

    message._ledger_entry = Entry()
    identity = identity_of(message, pipeline)
    assert identity is not None
    return identity


def source(count: int, recorder: Recorder | None = None) -> ManualProducer:
    recorder = recorder or Recorder()
    producer = ManualProducer(*recorder.messages(KNOWN[:count]))
    producer.feed.end()
    return producer


# --- the journal


async def test_the_journal_names_the_message_that_is_handled_and_not_its_neighbours(journal: Journal) -> None:
    pipeline = Watched(journal, producer=source(3))

    await finish(pipeline)

    assert pipeline.calls == [("handle_message", [data], [data], False) for data in KNOWN[:3]]
    assert journal.region(0).read().at_work == frozenset()


async def test_it_names_one_message_for_each_processor_that_is_busy(journal: Journal) -> None:
    pipeline = Watched(journal, producer=source(4), processors=FOUR)
    gate = asyncio.Event()
    pipeline.gates = dict.fromkeys(KNOWN[:4], gate)

    await soon(pipeline.start())
    await clock_of(pipeline).advance(0.0)
    assert journal.region(0).read().at_work == {pipeline.identity(data) for data in KNOWN[:4]}
    gate.set()
    await soon(pipeline.wait())

    assert journal.region(0).read().at_work == frozenset()


async def test_it_names_what_a_thread_is_at(journal: Journal) -> None:
    class InThread(Watched):
        def handle_message(self, message: Message[Any]) -> None:  # type: ignore[override]  # plain on purpose
            self.note("handle_message", message)

    pipeline = InThread(journal, producer=source(3))

    await finish(pipeline)

    assert pipeline.calls == [("handle_message", [data], [data], False) for data in KNOWN[:3]]
    assert journal.region(0).read().at_work == frozenset()


async def test_it_names_the_whole_list_that_a_callback_is_given(journal: Journal) -> None:
    class Lists(Watched):
        batchers = {"default": Batcher(batch_size=2)}  # noqa: RUF012  # an option

        async def prepare_messages(self, messages: Sequence[Message[Any]]) -> None:
            self.note("prepare_messages", *messages)

        async def handle_message(self, message: Message[Any]) -> None:
            if message.data == "m0":
                message.fail("no")

        async def handle_batch(self, messages: Sequence[Message[Any]], info: BatchInfo) -> None:
            self.note("handle_batch", *messages)

        async def handle_failed(self, messages: Sequence[Message[Any]]) -> None:
            self.note("handle_failed", *messages)

    pipeline = Lists(journal, producer=source(3), failure=None)

    await finish(pipeline)

    assert sorted(pipeline.calls) == [
        ("handle_batch", ["m1", "m2"], ["m1", "m2"], False),
        ("handle_failed", ["m0"], ["m0"], False),
        ("prepare_messages", ["m0", "m1", "m2"], ["m0", "m1", "m2"], False),
    ]
    assert journal.region(0).read().at_work == frozenset()


async def test_it_names_what_the_schema_looks_at(journal: Journal) -> None:
    seen: list[frozenset[bytes]] = []

    class Checked:
        @classmethod
        def __get_pydantic_core_schema__(cls, *_: Any) -> Any:
            return {"type": "function-plain", "function": {"type": "no-info", "function": cls.look}}

        @staticmethod
        def look(data: Any) -> Any:
            seen.append(journal.region(0).read().at_work)
            return data

    producer = ManualProducer(*[Message(data.encode()) for data in ('"m0"', '"m1"')])
    producer.feed.end()
    pipeline = Watched(journal, producer=producer, schema=Checked)

    await finish(pipeline)

    assert [len(each) for each in seen] == [2, 2]


async def test_it_names_the_parent_of_what_was_spawned(journal: Journal) -> None:
    class Spawning(Watched):
        batchers = {"default": Batcher(batch_size=2)}  # noqa: RUF012  # an option

        async def handle_message(self, message: Message[Any]) -> None:
            for number in range(2):
                message.spawn({"of": message.data, "number": number})

        async def handle_batch(self, messages: Sequence[Message[Any]], info: BatchInfo) -> None:
            self.note("handle_batch", *messages)

    pipeline = Spawning(journal, producer=source(1))

    await finish(pipeline)

    (call,) = pipeline.calls
    assert call[2] == ["m0"]


# --- suspects


async def test_a_suspect_is_handled_alone_after_its_neighbours(journal: Journal) -> None:
    recorder = Recorder()
    pipeline = Watched(journal, producer=source(3, recorder))
    pipeline.put("m1", SUSPECTED)

    await finish(pipeline)

    assert pipeline.given() == ["m0", "m2", "m1"]
    assert pipeline.alone() == ["m1"]
    assert pipeline.known("m1") == CLEARED
    assert sorted(recorder.successful) == KNOWN[:3]
    recorder.check_once()


async def test_several_suspects_are_handled_one_by_one(journal: Journal) -> None:
    pipeline = Watched(journal, producer=source(4))
    for data in ("m0", "m2", "m3"):
        pipeline.put(data, SUSPECTED)

    await finish(pipeline)

    assert pipeline.given() == ["m1", "m0", "m2", "m3"]
    assert pipeline.alone() == ["m0", "m2", "m3"]


async def test_it_waits_until_nothing_else_is_at_work_and_nothing_begins_meanwhile(journal: Journal) -> None:
    pipeline = Watched(journal, producer=source(6), processors=FOUR)
    pipeline.gates = {data: asyncio.Event() for data in KNOWN[:6]}
    pipeline.put("m2", SUSPECTED)

    async with running(pipeline) as clock:
        await clock.advance(0.0)
        assert sorted(pipeline.given()) == ["m0", "m1"], "what came behind the suspect waits as well"
        pipeline.gates["m0"].set()
        await clock.advance(0.0)
        assert "m2" not in pipeline.given()
        pipeline.gates["m1"].set()
        await clock.advance(0.0)
        assert pipeline.calls[-1] == ("handle_message", ["m2"], ["m2"], True)
        assert len(pipeline.calls) == 3
        pipeline.gates["m2"].set()
        await clock.advance(0.0)
        assert sorted(pipeline.given()) == KNOWN[:6]
        assert pipeline.alone() == ["m2"]
        for gate in pipeline.gates.values():
            gate.set()


async def test_nothing_of_another_pipeline_of_the_process_is_at_work_either(journal: Journal) -> None:
    other, pipeline = Watched(journal, name="other", producer=source(2)), Watched(journal, producer=source(1))
    pipeline._isolation = other._isolation
    other.gates = {data: asyncio.Event() for data in KNOWN}
    pipeline.put("m0", SUSPECTED)

    async with running(other), running(pipeline) as clock:
        await clock.advance(0.0)
        assert (other.given(), pipeline.given()) == (["m0"], [])
        other.gates["m0"].set()
        other.gates["m1"].set()
        await clock.advance(0.0)
        assert pipeline.alone() == ["m0"]
        assert other.alone() == []


class Batches(Watched):
    batchers = {"default": Batcher(batch_size=4, batch_timeout=1.0)}  # noqa: RUF012  # an option

    def __init__(self, journal: Journal, **options: Any) -> None:
        super().__init__(journal, **options)
        self.sizes: list[int] = []
        self.states: list[int] = []

    async def handle_message(self, message: Message[Any]) -> None:
        pass

    async def handle_batch(self, messages: Sequence[Message[Any]], info: BatchInfo) -> None:
        self.note("handle_batch", *messages)
        self.sizes.append(info.size)
        if self.journal.entries():
            self.states.append(self.known("m1"))


async def test_a_suspect_is_a_batch_of_its_own_and_cleared_when_that_is_done(journal: Journal) -> None:
    pipeline = Batches(journal, producer=source(4))
    pipeline.put("m1", SUSPECTED)

    await finish(pipeline)

    assert [(sorted(given), alone) for _, given, _, alone in pipeline.calls] == [
        (["m0", "m2", "m3"], False),
        (["m1"], True),
    ]
    assert pipeline.sizes == [3, 1]
    assert pipeline.states == [SUSPECTED, SUSPECTED], "handle_message alone does not clear it"
    assert pipeline.known("m1") == CLEARED


async def test_a_suspect_that_spawns_is_cleared_after_its_last_child(journal: Journal) -> None:
    class Spawning(Batches):
        batchers = {"default": Batcher(batch_size=1)}  # noqa: RUF012  # an option

        async def handle_message(self, message: Message[Any]) -> None:
            if message.data == "m1":
                for number in range(2):
                    message.spawn(f"child {number}")

    pipeline = Spawning(journal, producer=source(2))
    pipeline.put("m1", SUSPECTED)

    await finish(pipeline)

    assert sorted(pipeline.alone()) == ["child 0", "child 1"]
    assert pipeline.states == [SUSPECTED] * 3
    assert pipeline.known("m1") == CLEARED


async def test_one_that_fails_alone_is_cleared_too(journal: Journal) -> None:
    class Failing(Watched):
        async def handle_message(self, message: Message[Any]) -> None:
            await super().handle_message(message)
            raise ValueError

    pipeline = Failing(journal, producer=source(2), failure=None)
    pipeline.put("m1", SUSPECTED)

    assert await finish(pipeline) == {"rejected": 2}

    assert pipeline.alone() == ["m1"]
    assert pipeline.known("m1") == CLEARED


async def test_one_that_another_worker_has_cleared_runs_beside_others(journal: Journal) -> None:
    pipeline = Watched(journal, producer=source(3))
    pipeline.put("m1", SUSPECTED)
    journal.clear(0)

    await finish(pipeline)

    assert pipeline.given() == KNOWN[:3]
    assert pipeline.alone() == []


@pytest.mark.parametrize("sign", ["redelivered", "attempt"])
async def test_one_that_comes_again_before_the_supervisor_has_seen_the_death_runs_alone(
    journal: Journal, sign: str
) -> None:
    recorder = Recorder()
    again, first = recorder.message("m0"), recorder.message("m1")
    if sign == "redelivered":
        again.metadata["redelivered"] = True
    else:
        again.attempt = 2
    producer = ManualProducer(again, first)
    producer.feed.end()
    pipeline = Watched(journal, producer=producer)
    journal.region(1).page().set([pipeline.identity("m0"), pipeline.identity("m1")])

    await finish(pipeline)

    assert pipeline.given() == ["m1", "m0"]
    assert pipeline.alone() == ["m0"], "what never came before cannot have been at work"


async def test_one_that_comes_again_while_the_supervisor_looks_runs_alone(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    again = recorder.message("m0", redelivered=True)
    producer = ManualProducer(again, recorder.message("m1"))
    producer.feed.end()
    pipeline = Watched(journal, producer=producer)
    journal.region(1).page().set([pipeline.identity("m0")])
    look = journal.is_at_work_elsewhere

    def supervisor_is_quicker(identity: bytes, index: int) -> bool:
        pipeline.put("m0", SUSPECTED)
        journal.region(1).reset()
        return look(identity, index)

    monkeypatch.setattr(journal, "is_at_work_elsewhere", supervisor_is_quicker)

    await finish(pipeline)

    assert pipeline.alone() == ["m0"]


# --- patience


async def test_a_suspect_that_waits_too_long_runs_in_company(journal: Journal) -> None:
    pipeline = Watched(journal, producer=source(4), processors=FOUR)
    pipeline.gates = {"m0": asyncio.Event()}
    pipeline.put("m1", SUSPECTED)

    async with running(pipeline) as clock:
        await clock.advance(PATIENCE_S - 1)
        assert pipeline.given() == ["m0"]
        await clock.advance(1)
        assert sorted(pipeline.given()) == KNOWN[:4]
        assert pipeline.alone() == []
        pipeline.gates["m0"].set()


async def test_a_suspect_that_takes_too_long_gets_company(journal: Journal) -> None:
    pipeline = Watched(journal, producer=source(3), processors=FOUR)
    pipeline.gates = {"m0": asyncio.Event()}
    pipeline.put("m0", SUSPECTED)

    async with running(pipeline) as clock:
        await clock.advance(PATIENCE_S - 1)
        assert pipeline.given() == ["m0"]
        assert journal.region(0).read().is_alone
        await clock.advance(1)
        assert sorted(pipeline.given()) == KNOWN[:3]
        assert not journal.region(0).read().is_alone
        pipeline.gates["m0"].set()

    assert pipeline.known("m0") == CLEARED


# --- the convicted


async def test_a_convicted_message_is_not_handled_and_fails_with_a_sentence(journal: Journal) -> None:
    class Told(Watched):
        async def handle_failed(self, messages: Sequence[Message[Any]]) -> None:
            self.note("handle_failed", *messages)

    recorder = Recorder()
    pipeline = Told(journal, producer=source(3, recorder), failure=None)
    pipeline.put("m1", CONVICTED)

    assert await finish(pipeline) == {"acked": 2, "rejected": 1}

    assert pipeline.given() == ["m0", "m2"]
    assert pipeline.given("handle_failed") == ["m1"]
    status = recorder.statuses["m1"]
    assert status.cause == "worker_died"
    assert status.reason == (
        "2 worker processes died while they handled this message. The last one (killed by SIGABRT) handled nothing "
        "else. The message is not handled again: correct what ends the process, restart the daemon, then replay the "
        "message"
    )
    assert pipeline.known("m1") == CONVICTED


async def test_one_that_is_convicted_while_it_waits_for_its_batch_is_in_none(journal: Journal) -> None:
    class Late(Batches):
        async def handle_message(self, message: Message[Any]) -> None:
            if message.data == "m3":
                self.put("m1", CONVICTED)

    recorder = Recorder()
    pipeline = Late(journal, producer=source(4, recorder), failure=None)

    assert await finish(pipeline) == {"acked": 3, "rejected": 1}

    assert pipeline.given("handle_batch") == [["m0", "m2", "m3"]]
    assert recorder.statuses["m1"].cause == "worker_died"


async def test_the_failure_policy_does_not_try_it_again(journal: Journal) -> None:
    producer = MemoryProducer(KNOWN[:3], name="manual")
    pipeline = Watched(journal, producer=producer, failure=FailurePolicy(attempts=5))
    pipeline.put("m1", CONVICTED)

    assert await finish(pipeline) == {"acked": 2, "dead_lettered": 1}


async def test_one_that_has_ended_a_worker_in_handle_failed_is_told_to_nobody(journal: Journal) -> None:
    class Told(Watched):
        async def handle_failed(self, messages: Sequence[Message[Any]]) -> None:
            self.note("handle_failed", *messages)

    recorder = Recorder()
    pipeline = Told(journal, producer=source(2, recorder), failure=None)
    pipeline.put("m1", REPEATED)

    assert await finish(pipeline) == {"acked": 1, "rejected": 1}

    assert pipeline.given() == ["m0"]
    assert pipeline.given("handle_failed") == []
    assert recorder.failed == ["m1"]


# --- the end


async def test_a_suspect_that_waits_for_its_turn_goes_back_when_the_drain_begins(journal: Journal) -> None:
    recorder = ReturningRecorder()
    pipeline = Watched(journal, producer=source(4, recorder), processors=FOUR)
    pipeline.gates = {"m0": asyncio.Event()}
    pipeline.put("m1", SUSPECTED)

    await soon(pipeline.start())
    clock = clock_of(pipeline)
    await clock.advance(0.0)
    stopping = asyncio.ensure_future(pipeline.stop())
    await clock.advance(0.0)
    assert sorted(recorder.returned) == ["m1", "m2", "m3"]
    pipeline.gates["m0"].set()
    await soon(stopping)

    assert recorder.successful == ["m0"]
    assert pipeline.known("m1") == SUSPECTED


async def test_what_waits_for_its_turn_goes_back_when_the_drain_is_cut_short(journal: Journal) -> None:
    recorder = ReturningRecorder()
    pipeline = Batches(
        journal, producer=source(4, recorder), batchers={"default": Batcher(batch_size=2, concurrency=2)}
    )
    pipeline.put("m1", SUSPECTED)
    # Somebody of another pipeline, who never leaves.
    isolation = pipeline._isolation
    assert isolation is not None

    await soon(pipeline.start())
    clock = clock_of(pipeline)
    assert isolation.turns.enter(clock.monotonic())
    await clock.advance(0.0)
    pipeline.give_up()
    await clock.advance(30.0)
    await soon(pipeline.wait())

    recorder.check_once()
    assert sorted([*recorder.successful, *recorder.returned]) == KNOWN[:4]
    assert "m1" in recorder.returned


async def test_a_pipeline_outside_of_a_daemon_keeps_no_journal() -> None:
    class Plain(Pipeline[Any]):
        producer = MemoryProducer(range(3))

        async def handle_message(self, message: Message[Any]) -> None:
            pass

    pipeline = Plain()
    assert await finish(pipeline) == {"acked": 3}
    assert pipeline._isolation is None
