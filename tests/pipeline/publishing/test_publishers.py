"""Publishers in a running pipeline: what their errors do to a message, from setup to teardown, and in a drain."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broadway_py import (
    Batcher,
    BatchInfo,
    DefinitionError,
    FailurePolicy,
    MemoryPublisher,
    Message,
    OptionsError,
    Pipeline,
    PipelineCrashed,
    PipelineNotRunning,
    Processors,
    PublishError,
    QueuePublisher,
)
from broadway_py.producers import MemoryProducer, QueueProducer
from broadway_py.publisher import Sink
from broadway_py.queue import Queue
from broadway_py.testing import settle
from tests.pipeline.process_pipelines import PublishesInProcess
from tests.pipeline.publishing.support import Box, Relay, away
from tests.pipeline.support import (
    ManualProducer,
    Quiet,
    Recorder,
    ReturningRecorder,
    clock_of,
    events_logged,
    finish,
    outcomes,
    running,
    soon,
)


async def test_a_message_is_acked_only_after_what_its_handler_published_is_confirmed() -> None:
    box, recorder = Box(confirms=False), Recorder()
    producer = ManualProducer(recorder.message(b"1", message_id="m1"))
    async with running(Relay(producer=producer, publishers={"out": box})):
        await settle()
        assert box.state.came == [[b"1"]]
        assert recorder.count == 0

        box.state.confirm_all()
        await recorder.until(1)
        assert recorder.successful == [b"1"]
    assert box.state.messages[0].message_id == "m1"


async def test_a_batch_publishes_too() -> None:
    class Batches(Relay):
        batchers = {"default": Batcher(batch_size=3)}  # noqa: RUF012  # an option

        async def handle_message(self, message: Message[Any]) -> None:
            """Nothing is to be done."""

        async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            await self.publishers["out"].publish_many(messages, key=lambda message: str(message.data))

    out = MemoryPublisher()
    assert await finish(Batches(producer=MemoryProducer([1, 2, 3]), publishers={"out": out})) == {"acked": 3}
    assert [(message.data, message.key) for message in out.messages] == [(b"1", "1"), (b"2", "2"), (b"3", "3")]


async def test_a_place_that_is_away_opens_the_breaker_and_costs_no_attempt() -> None:
    box, recorder = Box(confirms=False), ReturningRecorder()
    producer = ManualProducer(recorder.message(b"1"))
    policy = FailurePolicy(attempts=1)
    async with running(Relay(producer=producer, publishers={"out": box}, failure=policy)) as clock:
        await clock.advance(30.0)
        assert recorder.returned == [b"1"]
        assert recorder.failed == []


async def test_a_place_that_is_away_costs_no_attempt_in_a_task_group_either() -> None:
    class Several(Relay):
        async def handle_message(self, message: Message[Any]) -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.publishers["out"].publish("a"))
                group.create_task(self.publishers["out"].publish("b"))

    recorder = ReturningRecorder()
    producer = ManualProducer(recorder.message(b"1"))
    several = Several(producer=producer, publishers={"out": Box(confirms=False)}, failure=FailurePolicy(attempts=1))
    async with running(several) as clock:
        await clock.advance(30.0)
        assert recorder.returned == [b"1"]
        assert recorder.failed == []


async def test_a_message_that_the_place_never_takes_fails_by_itself() -> None:
    box, recorder = Box(confirms=False), ReturningRecorder()
    pipeline = Relay(producer=ManualProducer(recorder.message(b"1")), publishers={"out": box})
    async with running(pipeline):
        await settle()
        box.state.lists[0].refuse(0, "queue 'out' takes no such message")
        box.state.notify()
        await recorder.until(1)
        assert not pipeline.stats().breaker_open
        status = recorder.statuses[b"1"]
        assert str(status.exception) == (
            "publisher 'out': the message was not confirmed: queue 'out' takes no such message"
        )


async def test_setup_and_teardown_publish() -> None:
    class Greeting(Relay):
        async def setup(self) -> None:
            await self.publishers["out"].publish("hello")

        async def teardown(self) -> None:
            await self.publishers["out"].publish("bye")

    out = MemoryPublisher()
    await finish(Greeting(producer=MemoryProducer([b"1"]), publishers={"out": out}))
    assert [message.data for message in out.messages] == [b"hello", b"1", b"bye"]


async def test_a_setup_that_fails_closes_the_publishers() -> None:
    class Broken(Relay):
        async def setup(self) -> None:
            raise ValueError("no")

    box = Box()
    with pytest.raises(ValueError, match="no"):
        await Broken(publishers={"out": box}).start()
    await settle()
    assert box.state.steps == ["close"]


async def test_what_a_task_of_the_user_publishes_is_confirmed_before_the_sources_close() -> None:
    box, producer = Box(confirms=False), ManualProducer()
    pipeline = Quiet(producer=producer, publishers={"out": box})
    clock_of(pipeline)
    await soon(pipeline.start())
    publishing = asyncio.ensure_future(pipeline.publishers["out"].publish(b"1"))
    await settle()
    stopping = asyncio.ensure_future(pipeline.stop())
    await settle()
    assert "close" not in producer.feed.journal
    assert not stopping.done()

    box.state.confirm_all()
    await soon(stopping)
    await soon(publishing)
    assert producer.feed.journal[-1] == "close"
    assert box.state.steps == ["open", "close"]


async def test_a_drain_that_is_over_gives_up_what_is_not_confirmed() -> None:
    box, recorder = Box(confirms=False), ReturningRecorder()
    pipeline = Relay(producer=ManualProducer(recorder.message(b"1")), publishers={"out": box})
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    await settle()
    outside = asyncio.ensure_future(pipeline.publishers["out"].publish(b"2", timeout=3_600.0))
    await settle()
    stopping = asyncio.ensure_future(pipeline.stop(10.0))
    await clock.advance(10.0)

    report = await soon(stopping)
    assert not report.in_time
    assert recorder.returned == [b"1"]
    with pytest.raises(PublishError) as error:
        await soon(outside)
    assert str(error.value) == "publisher 'out': the message was not confirmed: the publisher is closed"


async def test_in_teardown_a_call_has_the_time_that_is_left_of_the_stop() -> None:
    class Late(Quiet):
        error: PublishError | None = None

        async def teardown(self) -> None:
            with pytest.raises(PublishError) as error:
                await self.publishers["out"].publish("bye")
            self.error = error.value

    pipeline = Late(publishers={"out": Box(confirms=False)})
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    stopping = asyncio.ensure_future(pipeline.stop(4.0))
    await clock.advance(4.0)
    await soon(stopping)
    assert str(pipeline.error) == "publisher 'out': the message was not confirmed: no confirmation within 4 s"


async def test_a_handler_that_is_cancelled_withdraws_what_it_publishes() -> None:
    box, recorder = Box(confirms=False), Recorder()
    processors = Processors(concurrency=1, timeout=5.0)
    pipeline = Relay(producer=ManualProducer(recorder.message(b"1")), publishers={"out": box}, processors=processors)
    async with running(pipeline) as clock:
        await clock.advance(5.0)
        await recorder.until(1)
        assert recorder.statuses[b"1"].cause == "timeout"
        (figures,) = pipeline.stats().publishers
        assert (figures.waiting, figures.in_flight) == (0, 0)
        assert figures.published == {"confirmed": 0, "refused": 0, "unconfirmed": 1}


async def test_a_plain_handler_fails_with_the_sentence_that_says_what_to_do() -> None:
    class Plain(Quiet):
        def handle_message(self, message: Message[Any]) -> Any:
            return self.publishers["out"].publish(message)

    recorder = Recorder()
    pipeline = Plain(producer=ManualProducer(recorder.message(b"1")), publishers={"out": Box()})
    async with running(pipeline):
        await recorder.until(1)
    error = recorder.statuses[b"1"].exception
    assert isinstance(error, DefinitionError)
    assert str(error).endswith("write the callback as `async def`, and await the call")


async def test_a_worker_process_has_no_publishers() -> None:
    recorder = Recorder()
    pipeline = PublishesInProcess(producer=ManualProducer(recorder.message(b"1")), publishers={"out": Box()})
    async with running(pipeline):
        await recorder.until(1)
    assert str(recorder.statuses[b"1"].exception) == (
        "publishers['out'] was used in a worker process (executor='process'); publishers work in the process of the "
        "pipeline only: publish in an `async def` callback, such as handle_batch, or leave the executor out"
    )


# --- what is there


def test_an_unknown_publisher_is_refused_with_the_known_ones() -> None:
    publishers = Relay(publishers={"out": Box(), "audit": Box()}).publishers
    with pytest.raises(KeyError) as unknown:
        publishers["audits"]
    assert str(unknown.value) == (
        "publishers['audits']: unknown publisher; this pipeline has out, audit; did you mean 'audit'?"
    )
    assert isinstance(unknown.value, DefinitionError)
    with pytest.raises(KeyError, match=r"^publishers\['x'\]: unknown publisher; this pipeline has no publishers$"):
        Relay().publishers["x"]
    assert publishers.get("audits") is None
    assert (list(publishers), len(publishers), "out" in publishers) == (["out", "audit"], 2, True)
    assert repr(publishers) == "<Publishers out, audit>"


async def test_before_the_start_nothing_can_be_published() -> None:
    sentence = (
        "publish(): a publisher works only while a pipeline runs that has it in its option publishers; call "
        "self.publishers['out'].publish(…) in a callback"
    )
    for sink in (MemoryPublisher(), Relay(publishers={"out": Box()}).publishers["out"]):
        with pytest.raises(PipelineNotRunning) as refused:
            await sink.publish(b"1")
        assert str(refused.value) == sentence


async def test_one_description_serves_two_pipelines() -> None:
    class Shared(Relay):
        publishers = {"out": MemoryPublisher()}  # noqa: RUF012  # an option

    one, other = Shared(producer=MemoryProducer([b"1"])), Shared(name="other", producer=MemoryProducer([b"2"]))
    async with running(one), running(other):
        await soon(asyncio.gather(one.wait(), other.wait()))
        shared: Sink = Shared.publishers["out"]
        assert isinstance(shared, MemoryPublisher)
        assert {message.data for message in shared.messages} == {b"1", b"2"}
        with pytest.raises(PipelineNotRunning):
            await shared.publish(b"3")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (Box(), "publishers: expected a dict of name -> publisher, got a Box"),
        ({"": Box()}, "publishers: expected names as text, got ''"),
        (
            {"out": "queue"},
            "publishers.out: expected a publisher, such as QueuePublisher('var/out.db', 'results'), got a str",
        ),
        (
            {"out": MemoryPublisher},
            (
                "publishers.out: expected a publisher, such as QueuePublisher('var/out.db', 'results'), got the class "
                "MemoryPublisher: make an object of it"
            ),
        ),
    ],
)
def test_a_wrong_option_is_refused(given: Any, sentence: str) -> None:
    with pytest.raises(OptionsError) as refused:
        Relay(publishers=given)
    assert str(refused.value) == sentence


def test_a_misspelt_option_is_refused_with_the_right_one() -> None:
    with pytest.raises(OptionsError, match="did you mean 'publishers'"):
        Relay(publisher={})
    with pytest.raises(DefinitionError, match="did you mean 'publishers'"):
        type("Misspelt", (Relay,), {"publisher": {}})


async def test_with_fail_fast_the_first_connect_must_succeed(caplog: pytest.LogCaptureFixture) -> None:
    box = Box()
    box.state.opening = [away()]
    pipeline = Quiet(publishers={"out": box}, fail_fast=True)
    clock_of(pipeline)
    await soon(pipeline.start())
    with pytest.raises(PipelineCrashed) as crashed:
        await soon(pipeline.wait())
    assert str(crashed.value) == (
        "pipeline 'Quiet': publisher 'out' could not connect at the start: the broker is away"
    )
    assert events_logged(caplog) == ["a publisher could not be opened"]
    assert box.state.steps == ["close"]


async def test_without_it_the_pipeline_runs_and_says_what_is_wrong() -> None:
    box, recorder = Box(), Recorder()
    box.state.opening = [away()] * 2
    producer = ManualProducer()
    pipeline = Quiet(producer=producer, publishers={"out": box})
    async with running(pipeline) as clock:
        await settle()
        stats = pipeline.stats()
        assert stats.trouble == "degraded: publisher 'out': the broker is away"
        assert replace(stats, breaker_open=True, breaker_opened_by="PublishUnavailable in processors").trouble == (
            "degraded: too many messages failed (PublishUnavailable in processors); fetching has stopped until a probe "
            "succeeds; publisher 'out': the broker is away"
        )
        (figures,) = stats.publishers
        assert (figures.name, figures.connected, figures.copies) == ("out", 0, 1)
        producer.feed.put(recorder.message(b"1"))
        await recorder.until(1)
        await clock.advance(10.0)
        assert pipeline.stats().trouble is None
        assert pipeline.stats().publishers[0].connected == 1


def test_the_topology_names_them() -> None:
    assert Quiet(publishers={"out": Box()}).topology()["publishers"] == [
        {"publisher": "out", "name": "Quiet.publisher:out"}
    ]
    assert "publishers" not in Quiet().topology()


async def test_from_one_queue_to_the_next(tmp_path: Path) -> None:
    """The recipe: consume, publish, ack."""
    path = tmp_path / "shop.db"
    async with Queue(path, "orders") as orders:
        await orders.put_many([b"%d" % number for number in range(100)])
    recorder: list[Any] = []

    class Billing(Pipeline[bytes]):
        publishers = {"out": QueuePublisher(path, "invoices")}  # noqa: RUF012  # an option

        async def handle_message(self, message: Message[bytes]) -> None:
            await self.publishers["out"].publish(message, key="k")
            recorder.append(message.id)
            if len(recorder) == 100:
                self.request_stop()

    pipeline = Billing(producer=QueueProducer(path, "orders"))
    await pipeline.start()
    await soon(pipeline.wait())
    async with Queue(path, "orders") as orders, Queue(path, "invoices") as invoices:
        assert await orders.size() == 0
        assert await invoices.size() == 100
    assert outcomes(pipeline) == {"acked": 100}


async def test_messages_of_two_queues_that_have_the_same_number_all_arrive(tmp_path: Path) -> None:
    """Each queue numbers its messages from 1. A place that stores an id once must not take one for the other."""

    class Collect(Pipeline[bytes]):
        publishers = {"out": QueuePublisher(tmp_path / "out.db", "out")}  # noqa: RUF012  # an option

        async def handle_message(self, message: Message[bytes]) -> None:
            await self.publishers["out"].publish(message)
            await self.publishers["out"].publish(message)
            self.request_stop()

    for shop in ("a", "b"):
        async with Queue(tmp_path / f"{shop}.db", "orders") as orders:
            await orders.put(shop.encode())
        pipeline = Collect(producer=QueueProducer(tmp_path / f"{shop}.db", "orders"))
        await pipeline.start()
        await soon(pipeline.wait())
        assert outcomes(pipeline) == {"acked": 1}
    async with Queue(tmp_path / "out.db", "out") as out:
        assert await out.size() == 2
