"""Results that go to a sink: as JSON, under an id that never changes, and again after a failure."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from broadway_py import Aggregator, Message, Pipeline, PublishError, Window
from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.log import show_error_texts
from broadway_py.producers import MemoryProducer, QueueProducer
from broadway_py.producers.queue_sink import QueueSink
from broadway_py.publisher import Outgoing, Publisher, Sink
from tests.pipeline.aggregation.support import START, ObeyingStore, Order, Shop, Sums, use, when
from tests.pipeline.support import ManualProducer, Recorder, logged, running, soon


class Published(Aggregator[str, Order, int]):
    """Adds amounts, and has no ``emit``."""

    window = Window.fixed(60, by=when, delay=0, max_ahead=None)

    def key(self, message: Message[Order]) -> str:
        return message.data.key

    def initial(self) -> int:
        return 0

    def add(self, acc: int, message: Message[Order]) -> int:
        return acc + message.data.amount


class Reader(Pipeline[bytes]):
    """Reads what was published."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.read: dict[str, Any] = {}
        self.both = asyncio.Event()

    async def handle_message(self, message: Message[bytes]) -> None:
        self.read[str(message.id)] = json.loads(message.data)
        if len(self.read) == 2:
            self.both.set()


async def test_results_are_published_to_an_embedded_queue_and_read_by_another_pipeline(tmp_path: Path) -> None:
    made = Shop(
        producer=MemoryProducer([Order("de", 1, 2), Order("de", 2, 3), Order("fr", 61)]),
        aggregators={"sums": Published(emit_to=QueueSink(tmp_path / "out.db", "sums"))},
        state=tmp_path / "state.db",
    )
    await soon(made.start())
    await soon(made.wait())
    reader = Reader(producer=QueueProducer(tmp_path / "out.db", "sums"))
    await soon(reader.start())
    await soon(reader.both.wait())
    await soon(reader.stop())
    first = f'sums/{round(START)}000000_{round(START) + 60}000000/"de"'
    assert reader.read[f"{first}#1"] == {
        "id": first,
        "firing": 1,
        "aggregator": "sums",
        "key": "de",
        "start": START,
        "end": START + 60,
        "value": 5,
        "count": 2,
        "trigger": "watermark",
        "is_last": True,
        "replaces": [],
        "partition": None,
    }


class Unwilling(Publisher):
    """Does not confirm so many messages, from the end, of the first call."""

    def __init__(self, most: int) -> None:
        self.calls: list[list[str | None]] = []
        self.timeouts: list[float] = []
        self.is_closed = False
        self._most = most

    async def open(self) -> None:
        """Nothing is to be opened."""

    async def publish(self, messages: Sequence[Outgoing], *, timeout: float) -> None:
        self.calls.append([message.message_id for message in messages])
        self.timeouts.append(timeout)
        if len(self.calls) == 1:
            raise PublishError("no room", unpublished=list(messages)[-self._most :])

    async def close(self) -> None:
        self.is_closed = True


class UnwillingSink(Sink):
    """Makes one publisher."""

    def __init__(self, most: int = 1_000) -> None:
        self.publisher = Unwilling(most)
        self.name = ""

    def create(self, name: str, clock: Clock = SYSTEM_CLOCK) -> Publisher:
        self.name = name
        return self.publisher


async def test_what_a_sink_refuses_is_published_again_under_the_same_id(monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObeyingStore()
    use(monkeypatch, store)
    sink = UnwillingSink()
    recorder = Recorder()
    source = ManualProducer(*recorder.messages([Order("de", 1), Order("de", 61)]))
    made = Shop(producer=source, aggregators={"sums": Published(emit_to=sink)})
    async with running(made) as clock:
        await clock.advance(2.0)
        assert made.stats().aggregators[0].results_pending == 0
    assert sink.name == "Shop.sums"
    assert sink.publisher.is_closed
    assert len(sink.publisher.calls) == 2
    assert sink.publisher.calls[0] == sink.publisher.calls[1]


async def test_what_a_sink_has_confirmed_is_not_published_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = ObeyingStore()
    use(monkeypatch, store)
    sink = UnwillingSink(most=1)
    recorder = Recorder()
    source = ManualProducer(*recorder.messages([Order("de", 1), Order("fr", 2), Order("jp", 3), Order("de", 61)]))
    made = Shop(producer=source, aggregators={"sums": Published(emit_to=sink, emit_timeout=10)})
    async with running(made) as clock:
        await clock.advance(2.0)
        assert made.stats().aggregators[0].results_pending == 0
    calls = sink.publisher.calls
    assert [len(call) for call in calls] == [3, 1]
    assert calls[1] == calls[0][-1:]
    # The sink's own time is over first, so that it can say what is missing.
    assert sink.publisher.timeouts == [9.0, 9.0]
    (line,) = logged(caplog)
    assert line["event"] == "results could not be handed out; they stay stored and are handed out again"
    assert (line["results"], line["exception"], line["reason"]) == (1, "PublishError", "no room")


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        (False, "not shown, it may quote the message; broadway_py.log.show_error_texts() shows it"),
        (True, "no table 'revenue'"),
    ],
    ids=["hidden", "asked for"],
)
async def test_the_text_of_what_emit_raises_is_shown_as_that_of_a_handler(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, shown: bool, reason: str
) -> None:
    use(monkeypatch, ObeyingStore())
    show_error_texts(shown)
    sums = Sums()
    sums.faults = [RuntimeError("no table 'revenue'")]
    source = ManualProducer(*Recorder().messages([Order("de", 1), Order("de", 61)]))
    made = Shop(producer=source, aggregators={"sums": sums})
    async with running(made) as clock:
        await clock.advance(2.0)
        assert made.stats().aggregators[0].results_pending == 0
    (line,) = logged(caplog)
    assert (line["exception"], line["reason"]) == ("RuntimeError", reason)


class Hanging(Publisher):
    """Its first call does not end in time."""

    def __init__(self) -> None:
        self.calls = 0

    async def open(self) -> None:
        """Nothing is to be opened."""

    async def publish(self, messages: Sequence[Outgoing], *, timeout: float) -> None:
        self.calls += 1
        if self.calls == 1:
            await asyncio.Event().wait()

    async def close(self) -> None:
        """Nothing is to be closed."""


class HangingSink(Sink):
    """Makes publishers that ignore the time they are given."""

    def create(self, name: str, clock: Clock = SYSTEM_CLOCK) -> Publisher:
        return Hanging()


@pytest.mark.parametrize(
    ("aggregator", "called"),
    [(Published, "emit_to"), (Sums, "emit_to and emit together")],
    ids=["a sink alone", "a sink and emit"],
)
async def test_a_sink_that_takes_longer_than_emit_timeout_is_told_with_the_setting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, aggregator: Any, called: str
) -> None:
    use(monkeypatch, ObeyingStore())
    source = ManualProducer(*Recorder().messages([Order("de", 1), Order("de", 61)]))
    made = Shop(producer=source, aggregators={"sums": aggregator(emit_to=HangingSink(), emit_timeout=1.5)})
    async with running(made) as clock:
        await clock.advance(4.0)
        assert made.stats().aggregators[0].results_pending == 0
    (line,) = logged(caplog)
    assert line["reason"] == (
        f"aggregators.sums.emit_timeout: {called} took longer than 1.5 s: make it faster, give it fewer results at a "
        "time (emit_batch), or raise emit_timeout"
    )
