"""``deduplicate_by``: a message whose id was handled is acked and not handled again."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from broadway_py import (
    Batcher,
    BatchInfo,
    FailurePolicy,
    Message,
    MessageFailed,
    Pipeline,
    Processors,
    RateLimit,
    State,
    ack_immediately,
)
from broadway_py.producers import MemoryProducer
from broadway_py.state import inspection
from tests.pipeline.aggregation.support import ObeyingStore, use
from tests.pipeline.deduplication.support import PLAIN, Once, figures, sent
from tests.pipeline.support import (
    ManualProducer,
    Recorder,
    ReturningRecorder,
    check_books,
    clock_of,
    finish,
    in_flight,
    outcomes,
    running,
    soon,
    telemetry_events,
)


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch) -> ObeyingStore:
    made = ObeyingStore()
    use(monkeypatch, made)
    return made


def ids_in(store: ObeyingStore) -> int:
    """How many ids were stored."""
    return sum(len(commit.identities) // 16 for commit in store.commits)


# --- known, at work, waiting


async def test_a_message_whose_id_was_handled_is_acked_and_not_handled() -> None:
    recorder = Recorder()
    producer = ManualProducer(*sent(recorder, ("a", 1), ("b", 2)))
    pipeline = Once(producer=producer)
    with telemetry_events("broadway.deduplication.repeats") as seen:
        async with running(pipeline) as clock:
            await recorder.until(2)
            producer.feed.put(*sent(recorder, ("a", 1), ("c", 3)))
            await recorder.until(4)
            await clock.advance(0.0)
            assert figures(pipeline).duplicates == 1
            assert figures(pipeline).ids == 3

    assert pipeline.handled == [1, 2, 3]
    assert sorted(recorder.successful) == [1, 1, 2, 3]
    assert outcomes(pipeline) == {"acked": 4}
    recorder.check_once()
    ((event, measured, metadata),) = seen
    assert event == "broadway.deduplication.repeats"
    assert set(measured) == {"system_time", "monotonic_time"}
    assert set(metadata) == {"pipeline", "context", "producer", "index", "messages"}
    assert [message.data for message in metadata["messages"]] == [1]


async def test_messages_of_one_id_in_one_list_are_handled_once() -> None:
    recorder = Recorder()
    pipeline = Once(producer=ManualProducer(*sent(recorder, ("a", 1), ("a", 1), ("b", 2), ("a", 1))))
    async with running(pipeline):
        await recorder.until(4)

    assert pipeline.handled == [1, 2]
    assert outcomes(pipeline) == {"acked": 4}
    recorder.check_once()


async def test_a_delivery_waits_for_the_one_at_work_and_is_acked_after_it() -> None:
    recorder = Recorder()
    producer = ManualProducer(*sent(recorder, ("a", 1)))
    pipeline = Once(producer=producer)
    pipeline.shut(1)
    async with running(pipeline) as clock:
        await soon(pipeline.inside.wait())
        producer.feed.put(*sent(recorder, ("a", 1)))
        await clock.advance(10.0)
        assert recorder.count == 0
        assert in_flight(pipeline) == 2
        assert figures(pipeline).waiting == 1
        pipeline.gates[1].set()
        await recorder.until(2)
        assert figures(pipeline).waiting == 0

    assert pipeline.handled == [1]
    assert [len(call.successful) for call in recorder.calls] == [1, 1]
    recorder.check_once()


async def test_a_delivery_that_waits_is_handled_if_the_one_at_work_fails() -> None:
    recorder = Recorder()
    pipeline = Once(producer=ManualProducer(*sent(recorder, ("a", 1), ("a", 1), ("a", 1))))
    pipeline.faults[1] = [ValueError()]
    async with running(pipeline):
        await recorder.until(3)

    assert pipeline.handled == [1, 1]
    assert outcomes(pipeline) == {"acked": 2, "rejected": 1}
    recorder.check_once()


async def test_the_id_of_a_failed_message_is_not_known() -> None:
    recorder = Recorder()
    producer = ManualProducer(*sent(recorder, ("a", 1)))
    pipeline = Once(producer=producer)
    pipeline.faults[1] = [ValueError(), ValueError()]
    async with running(pipeline):
        await recorder.until(1)
        producer.feed.put(*sent(recorder, ("a", 1)))
        await recorder.until(2)
        producer.feed.put(*sent(recorder, ("a", 1)))
        await recorder.until(3)

    assert pipeline.handled == [1, 1, 1]
    assert outcomes(pipeline) == {"acked": 1, "rejected": 2}


async def test_copies_of_a_producer_know_each_others_messages() -> None:
    recorder = Recorder()
    producer = ManualProducer(concurrency=2)
    pipeline = Once(producer=producer, processors=Processors(concurrency=2, max_demand=10))
    pipeline.shut(1)
    async with running(pipeline) as clock:
        await producer.feed.until("demand", 2)
        producer.feed.put(*sent(recorder, ("a", 1)))
        await soon(pipeline.inside.wait())
        # The copy that is still inside of the producer gets it.
        producer.feed.put(*sent(recorder, ("a", 1)))
        await clock.advance(1.0)
        assert figures(pipeline).waiting == 1
        pipeline.gates[1].set()
        await recorder.until(2)

    assert pipeline.handled == [1]


async def test_a_message_that_nobody_acks_counts_too() -> None:
    pipeline = Once(producer=MemoryProducer([Message(n, {"message_id": str(n % 2)}) for n in (0, 1, 0, 1)]))

    assert await finish(pipeline) == {"acked": 4}

    assert pipeline.handled == [0, 1]


async def test_a_message_that_timed_out_in_its_thread_is_handled_again() -> None:
    leave = threading.Event()
    calls: list[Any] = []
    loop = asyncio.get_running_loop()

    class Slow(Once):
        def handle_message(self, message: Message[Any]) -> None:  # type: ignore[override]  # a plain function
            calls.append(message.data)
            if len(calls) == 1:
                loop.call_soon_threadsafe(self.inside.set)
                leave.wait()

    recorder = Recorder()
    pipeline = Slow(
        producer=ManualProducer(*sent(recorder, ("a", 1), ("a", 1))), processors=Processors(concurrency=2, timeout=5.0)
    )
    try:
        async with running(pipeline) as clock:
            await soon(pipeline.inside.wait())
            await clock.advance(5.0)
            await recorder.until(2)
    finally:
        leave.set()

    assert outcomes(pipeline) == {"acked": 1, "rejected": 1}
    assert calls == [1, 1]


# --- when the id is stored


async def test_the_id_is_stored_after_the_handler_and_before_the_ack(store: ObeyingStore) -> None:
    stored: list[int] = []

    async def look(_: object) -> None:
        stored.append(ids_in(store))

    recorder = Recorder(look)
    pipeline = Once(producer=ManualProducer(*sent(recorder, ("a", 1))))
    pipeline.shut(1)
    async with running(pipeline) as clock:
        await soon(pipeline.inside.wait())
        await clock.advance(1.0)
        assert ids_in(store) == 0
        pipeline.gates[1].set()
        await recorder.until(1)

    assert stored == [1]


async def test_the_id_of_a_message_in_a_batch_is_stored_after_handle_batch(store: ObeyingStore) -> None:
    stored: list[int] = []

    class Batched(Once):
        async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            stored.append(ids_in(store))
            if len(stored) == 1:
                messages[0].fail("not yet")

    recorder = Recorder()
    producer = ManualProducer(*sent(recorder, ("a", 1), ("b", 2)))
    pipeline = Batched(producer=producer, batchers={"default": Batcher(batch_size=2)})
    async with running(pipeline) as clock:
        await recorder.until(2)
        assert ids_in(store) == 1
        producer.feed.put(*sent(recorder, ("a", 1), ("b", 2)))
        await recorder.until(3)
        await clock.advance(1.0)
        await recorder.until(4)

    assert stored == [0, 1]
    assert pipeline.handled == [1, 2, 1]
    assert outcomes(pipeline) == {"acked": 3, "rejected": 1}


async def test_ids_of_one_round_share_a_commit(store: ObeyingStore) -> None:
    recorder, other = Recorder(), Recorder()
    messages = [*sent(recorder, ("a", 1), ("b", 2)), *sent(other, ("c", 3))]
    pipeline = Once(producer=ManualProducer(*messages))
    async with running(pipeline):
        await recorder.until(2)
        await other.until(1)

    assert [len(commit.identities) // 16 for commit in store.commits] == [3]


async def test_ack_immediately_stores_the_id_before(store: ObeyingStore) -> None:
    stored: list[int] = []

    async def look(_: object) -> None:
        stored.append(ids_in(store))

    class Early(Once):
        async def handle_message(self, message: Message[Any]) -> None:
            await ack_immediately(message)
            await super().handle_message(message)

    recorder = Recorder(look)
    producer = ManualProducer(*sent(recorder, ("a", 1)))
    pipeline = Early(producer=producer)
    pipeline.shut(1)
    async with running(pipeline):
        await recorder.until(1)
        producer.feed.put(*sent(recorder, ("a", 1)))
        # The handler has said that the message is done, so the other delivery does not wait for the rest of it.
        await recorder.until(2)
        pipeline.gates[1].set()

    assert stored == [1, 1]
    assert pipeline.handled == [1]


async def test_the_id_of_a_parent_is_stored_when_its_children_are_done(store: ObeyingStore) -> None:
    stored: list[tuple[int, list[Any]]] = []

    class Spawning(Once):
        async def handle_message(self, message: Message[Any]) -> None:
            self.handled.append(message.data)
            for number in (1, 2):
                message.spawn(f"{message.data}{number}")

        async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            stored.append((ids_in(store), [message.data for message in messages]))

    recorder = Recorder()
    producer = ManualProducer(*sent(recorder, ("a", "p"), ("a", "p")))
    pipeline = Spawning(producer=producer, batchers={"default": Batcher(batch_size=1)})
    async with running(pipeline):
        await recorder.until(2)

    assert pipeline.handled == ["p"]
    assert stored == [(0, ["p1"]), (0, ["p2"])]
    assert ids_in(store) == 1
    assert outcomes(pipeline) == {"acked": 2}


# --- what names a message


async def test_messages_without_an_id_are_always_handled_and_counted() -> None:
    recorder = Recorder()
    pipeline = Once(producer=ManualProducer(*sent(recorder, (None, 1), (None, 1))))
    async with running(pipeline):
        await recorder.until(2)
        assert figures(pipeline).without_identity == 2

    assert pipeline.handled == [1, 1]


async def test_an_id_alone_does_not_name_a_message_if_its_payload_differs() -> None:
    recorder = Recorder()
    pipeline = Once(producer=ManualProducer(*sent(recorder, ("1", b"one"), ("1", b"two"), ("1", b"one"))))
    async with running(pipeline):
        await recorder.until(3)

    assert pipeline.handled == [b"one", b"two"]


async def test_a_function_may_name_messages() -> None:
    recorder = Recorder()
    pipeline = Once(
        producer=ManualProducer(*sent(recorder, ("1", b"one"), ("1", b"two"), (None, b"three"), (None, b"three"))),
        deduplicate_by=lambda message: message.id,
    )
    async with running(pipeline):
        await recorder.until(4)
        assert figures(pipeline).without_identity == 2

    assert pipeline.handled == [b"one", b"three", b"three"]


async def test_a_method_may_name_messages() -> None:
    class Named(Once):
        def deduplicate_by(self, message: Message[Any]) -> str:
            return f"{self.name}{message.data[0]}"

    recorder = Recorder()
    pipeline = Named(producer=ManualProducer(*sent(recorder, (None, (1, "first")), (None, (1, "again")))))
    async with running(pipeline):
        await recorder.until(2)

    assert pipeline.handled == [(1, "first")]


NO_NAME = (
    "expected text that is the same for each delivery of the message, or None for a message without an id; write "
    "deduplicate_by as a plain function"
)


async def wrong(_: Message[Any]) -> str:
    return "a"


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda _: 7, f"TypeError: deduplicate_by returned an int; {NO_NAME}"),
        (lambda message: wrong(message), f"TypeError: deduplicate_by returned a coroutine; {NO_NAME}"),  # noqa: PLW0108  # its look does not say that it is async
        (lambda message: message.data["order"], "TypeError: 'int' object is not subscriptable"),
    ],
)
async def test_a_message_that_cannot_be_named_fails(function: Any, sentence: str) -> None:
    recorder = Recorder()
    pipeline = Once(producer=ManualProducer(*sent(recorder, ("a", 1))), deduplicate_by=function)
    async with running(pipeline):
        await recorder.until(1)
        assert figures(pipeline).without_identity == 0

    status = recorder.statuses[1]
    assert (status.cause, status.reason) == ("raised", sentence)
    assert pipeline.handled == []


async def test_what_is_submitted_is_always_handled(store: ObeyingStore) -> None:
    pipeline = Once(producer=ManualProducer())
    async with running(pipeline):
        for _ in range(2):
            await soon(pipeline.submit(1, {"message_id": "a"}))
        pipeline.faults[2] = [ValueError()]
        with pytest.raises(MessageFailed):
            await soon(pipeline.submit(2, {"message_id": "a"}))

    assert pipeline.handled == [1, 1, 2]
    assert ids_in(store) == 0


# --- over a restart


async def test_a_redelivery_after_a_restart_is_recognised(store: ObeyingStore) -> None:
    async def lost(_: object) -> None:
        raise ConnectionError

    before = Recorder(lost)
    first = Once(producer=ManualProducer(*sent(before, ("a", 1), ("b", 2))))
    async with running(first):
        await before.until(2)
    assert outcomes(first) == {"unknown": 2}

    after = Recorder()
    second = Once(producer=ManualProducer(*sent(after, ("b", 2), ("a", 1), ("c", 3))))
    async with running(second):
        await after.until(3)

    assert (first.handled, second.handled) == ([1, 2], [3])
    assert outcomes(second) == {"acked": 3}


async def test_ids_are_in_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    path = str(tmp_path / "ids.db")
    for handled in ([1, 2], []):
        recorder = Recorder()
        pipeline = Once(producer=ManualProducer(*sent(recorder, ("a", 1), ("b", 2))), state=path)
        async with running(pipeline):
            await recorder.until(2)
            assert figures(pipeline).state_bytes > 32
        assert pipeline.handled == handled

    (summary,) = await asyncio.to_thread(inspection.summaries, path)
    assert (summary.name, summary.window, summary.identities) == ("deduplicate_by", "ids of handled messages", 2)
    assert await asyncio.to_thread(inspection.verify, path) == []


async def test_ids_live_for_dedup_seconds_of_connected_time() -> None:
    recorder = Recorder()
    producer = ManualProducer(*sent(recorder, ("a", 1)))
    pipeline = Once(producer=producer, state=State("var/never-written.db", dedup=60.0))
    async with running(pipeline) as clock:
        await recorder.until(1)
        await soon(pipeline.pause())
        await clock.advance(1000.0)
        await soon(pipeline.resume())
        await clock.advance(59.0)
        # Ids are forgotten when others are stored.
        producer.feed.put(*sent(recorder, ("b", 2)))
        await recorder.until(2)
        producer.feed.put(*sent(recorder, ("a", 1)))
        await recorder.until(3)
        assert pipeline.handled == [1, 2]
        await clock.advance(60.0)
        producer.feed.put(*sent(recorder, ("c", 3)))
        await recorder.until(4)
        producer.feed.put(*sent(recorder, ("a", 1)))
        await recorder.until(5)

    assert pipeline.handled == [1, 2, 3, 1]


async def test_state_in_memory_is_enough_for_a_source_that_ends_with_the_process() -> None:
    pipeline = Once(producer=MemoryProducer([Message(n, {"message_id": "a"}) for n in range(3)]), state="memory")

    assert await finish(pipeline) == {"acked": 3}
    assert pipeline.handled == [0]
    assert figures(pipeline).state_bytes == 0


# --- beside other options


async def test_repeats_pass_no_rate_limit() -> None:
    recorder = Recorder()
    producer = ManualProducer(*sent(recorder, ("a", 1)))
    pipeline = Once(producer=producer, rate_limit=RateLimit(allowed_messages=2, interval=60.0))
    async with running(pipeline):
        await recorder.until(1)
        producer.feed.put(*sent(recorder, *[("a", 1)] * 5, ("b", 2)))
        await recorder.until(7)

    assert pipeline.handled == [1, 2]


async def test_a_delivery_that_waited_and_is_handled_counts_for_the_rate_limit() -> None:
    """The source is inside of its producer meanwhile, and stays there."""
    recorder = Recorder()
    producer = ManualProducer(*sent(recorder, ("a", 1)))
    pipeline = Once(producer=producer, rate_limit=RateLimit(allowed_messages=1, interval=60.0))
    pipeline.shut(1)
    pipeline.faults[1] = [ValueError()]
    async with running(pipeline) as clock:
        await soon(pipeline.inside.wait())
        producer.feed.put(*sent(recorder, ("a", 1)))
        await producer.feed.until("demand", 3)
        pipeline.gates[1].set()
        await recorder.until(1)
        await clock.advance(59.0)
        assert pipeline.handled == [1]
        await clock.advance(1.0)
        await recorder.until(2)

    assert pipeline.handled == [1, 1]


async def test_what_waits_takes_demand() -> None:
    recorder = Recorder()
    producer = ManualProducer(*sent(recorder, ("a", 1)))
    pipeline = Once(producer=producer, processors=Processors(concurrency=1, max_demand=4, min_demand=0))
    pipeline.shut(1)
    async with running(pipeline) as clock:
        await soon(pipeline.inside.wait())
        producer.feed.put(*sent(recorder, *[("a", 1)] * 9))
        await clock.advance(0.0)
        assert figures(pipeline).waiting == 3
        assert in_flight(pipeline) == 4
        pipeline.gates[1].set()
        await recorder.until(10)

    assert pipeline.handled == [1]


async def test_a_paused_pipeline_gives_back_what_waits() -> None:
    recorder = ReturningRecorder()
    producer = ManualProducer(*sent(recorder, ("a", 1), ("a", 1)))
    pipeline = Once(producer=producer)
    pipeline.shut(1)
    async with running(pipeline) as clock:
        await soon(pipeline.inside.wait())
        await soon(pipeline.pause())
        await clock.advance(5.0)
        assert outcomes(pipeline) == {"returned": 1}
        assert figures(pipeline).waiting == 0
        pipeline.gates[1].set()

    assert outcomes(pipeline) == {"acked": 1, "returned": 1}
    recorder.check_once()


async def test_a_stop_gives_back_what_waits() -> None:
    recorder = ReturningRecorder()
    pipeline = Once(producer=ManualProducer(*sent(recorder, ("a", 1), ("a", 1))))
    pipeline.shut(1)
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    await soon(pipeline.inside.wait())
    pipeline.request_stop()
    await clock.advance(0.0)
    pipeline.gates[1].set()
    await soon(pipeline.wait())

    check_books(pipeline)
    assert outcomes(pipeline) == {"acked": 1, "returned": 1}


async def test_a_stop_acks_what_waits_and_cannot_be_given_back() -> None:
    recorder = Recorder()
    pipeline = Once(producer=ManualProducer(*sent(recorder, ("a", 1), ("a", 1))))
    pipeline.shut(1)
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    await soon(pipeline.inside.wait())
    pipeline.request_stop()
    await clock.advance(0.0)
    pipeline.gates[1].set()
    await soon(pipeline.wait())

    check_books(pipeline)
    assert outcomes(pipeline) == {"acked": 2}
    assert pipeline.handled == [1]


async def test_a_stop_that_cuts_off_what_is_at_work_settles_what_waits() -> None:
    recorder = Recorder()
    pipeline = Once(producer=ManualProducer(*sent(recorder, ("a", 1), ("a", 1))), shutdown_timeout=5.0)
    pipeline.shut(1)
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    await soon(pipeline.inside.wait())
    pipeline.request_stop()
    await clock.advance(10.0)
    await soon(pipeline.wait())

    check_books(pipeline)
    assert in_flight(pipeline) == 0
    assert {message.status.cause for call in recorder.calls for message in call.failed if message.status} == {"stopped"}
    recorder.check_once()


async def test_a_source_that_ends_does_not_wait_for_the_time_of_a_batch() -> None:
    recorder = Recorder()
    producer = ManualProducer(*sent(recorder, ("a", 1), ("a", 1)))
    producer.feed.end()
    pipeline = Once(producer=producer, batchers={"default": Batcher(batch_size=100, batch_timeout=3600.0)})

    assert await finish(pipeline) == {"acked": 2}
    assert pipeline.handled == [1]


async def test_what_waits_in_all_places_does_not_wait_for_the_time_of_a_batch() -> None:
    """Nothing else can come in, so nothing fills the batch."""
    recorder = Recorder()
    pipeline = Once(
        producer=ManualProducer(*sent(recorder, *[("a", 1)] * 9, ("b", 2))),
        processors=Processors(concurrency=1, max_demand=4, min_demand=0),
        batchers={"default": Batcher(batch_size=100, batch_timeout=3600.0)},
    )
    async with running(pipeline):
        await recorder.until(9)

    assert pipeline.handled == [1, 2]


@pytest.mark.parametrize("fails", [False, True])
async def test_an_ordered_pipeline_keeps_the_order_of_a_key(fails: bool) -> None:
    """What comes behind a delivery that waits is of the same key, so it waits, too."""
    recorder = Recorder()
    producer = ManualProducer(*sent(recorder, ("a", "k1")))
    pipeline = Once(
        producer=producer,
        processors=Processors(concurrency=2, max_demand=10),
        ordered=True,
        partition_by=lambda message: "kx".index(message.data[0]),
        failure=FailurePolicy(attempts=2, backoff=(1.0, 1.0), final="reject", breaker=None),
    )
    pipeline.shut("k1")
    pipeline.faults["k1"] = [ValueError(), ValueError()] if fails else []
    async with running(pipeline) as clock:
        await soon(pipeline.inside.wait())
        producer.feed.put(*sent(recorder, ("a", "k1"), ("b", "k2"), ("c", "x1")))
        await recorder.until(1)
        assert pipeline.handled == ["k1", "x1"]
        pipeline.gates["k1"].set()
        await clock.advance(1.0)
        await recorder.until(4)

    assert pipeline.handled == (["k1", "x1", "k1", "k1", "k2"] if fails else ["k1", "x1", "k2"])


async def test_a_message_that_is_tried_again_in_its_place_is_at_work_all_the_time() -> None:
    recorder = Recorder()
    producer = ManualProducer(*sent(recorder, ("a", "k1")))
    pipeline = Once(
        producer=producer,
        ordered=True,
        partition_by=lambda message: message.data[0],
        failure=FailurePolicy(attempts=3, backoff=(60.0, 60.0), final="reject", breaker=None),
    )
    pipeline.faults["k1"] = [ValueError()]
    async with running(pipeline) as clock:
        await soon(pipeline.inside.wait())
        producer.feed.put(*sent(recorder, ("a", "k1")))
        await clock.advance(1.0)
        assert figures(pipeline).waiting == 1
        await clock.advance(60.0)
        await recorder.until(2)

    assert pipeline.handled == ["k1", "k1"]
    assert outcomes(pipeline) == {"acked": 2}


async def test_repeats_are_no_successes_for_the_breaker() -> None:
    recorder = Recorder()
    producer = ManualProducer(*sent(recorder, ("a", 0)))
    pipeline = Once(producer=producer, failure=FailurePolicy(final="reject"))
    async with running(pipeline):
        await recorder.until(1)
        breaker = pipeline._life_cycle.run.services.router.breaker  # type: ignore[union-attr]  # it runs
        noted: list[int] = []
        breaker.all_is_well = lambda count: not noted.append(count)  # type: ignore[union-attr, method-assign, func-returns-value]  # only looks
        producer.feed.put(*sent(recorder, ("a", 0), ("b", 1)))
        await recorder.until(3)

    assert noted == [1]


async def test_without_the_option_nothing_is_stored_and_every_delivery_is_handled(store: ObeyingStore) -> None:
    recorder = Recorder()
    pipeline = Once(producer=ManualProducer(*sent(recorder, ("a", 1), ("a", 1))), deduplicate_by=None)
    async with running(pipeline):
        await recorder.until(2)
        assert pipeline.stats().deduplication == ()

    assert pipeline.handled == [1, 1]
    assert store.steps == []


async def test_it_can_be_called_off_in_a_subclass() -> None:
    class Plain(Once):
        deduplicate_by = None

    assert isinstance(Plain(producer=ManualProducer()), Pipeline)
    assert Plain.failure is PLAIN
