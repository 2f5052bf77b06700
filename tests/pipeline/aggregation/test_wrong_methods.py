"""Methods of aggregators that return or raise what they must not. Each says in one sentence what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from broadway_py import PipelineCrashed
from broadway_py.producers import MemoryProducer
from tests.pipeline.aggregation.support import ObeyingStore, Order, Shop, Sums, use
from tests.pipeline.support import ManualProducer, Recorder, clock_of, finish, logged, outcomes, running, soon


@pytest.fixture(name="store")
def _store(monkeypatch: pytest.MonkeyPatch) -> ObeyingStore:
    store = ObeyingStore()
    use(monkeypatch, store)
    return store


def sums(**methods: Any) -> Sums:
    made: Sums = type("Own", (Sums,), methods)()
    return made


@pytest.mark.parametrize(
    ("methods", "reason"),
    [
        (
            {"add": lambda *_: None},
            "add() returned a NoneType, which does not fit the type of the accumulators; return that type",
        ),
        (
            {"key": lambda *_: None},
            "key() returned a NoneType, which does not fit the type of the keys; return that type",
        ),
        (
            {"add": lambda *_: True},
            "add() returned a bool, which does not fit the type of the accumulators; return that type",
        ),
        (
            {"identity": lambda *_: 5},
            (
                "sums: identity() returned an int; expected text or bytes, the same for each delivery of the message, "
                "or None for a message without an identity"
            ),
        ),
    ],
)
async def test_what_does_not_fit_fails_the_message_and_says_what_is_wrong(
    methods: dict[str, Any], reason: str, store: ObeyingStore, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop(producer=MemoryProducer([Order("de", 1)]), aggregators={"sums": sums(**methods)}, failure=None)
    assert await finish(shop) == {"rejected": 1}
    (line,) = (line for line in logged(caplog) if line["event"] == "a message failed")
    assert line["reason"] == reason


def _raise(*_: object) -> Any:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("initial", "sentence"),
    [
        (
            lambda *_: "zero",
            "aggregators.sums.initial: expected a value of type int that can be stored, got a str",
        ),
        (
            _raise,
            (
                "aggregators.sums.initial: expected an accumulator, but it raised ZeroDivisionError at "
                "test_wrong_methods.py:"
            ),
        ),
    ],
)
async def test_initial_is_tried_before_the_source_is_opened(
    initial: Callable[..., Any], sentence: str, store: ObeyingStore
) -> None:
    source = ManualProducer(Order("de", 1))
    shop = Shop(producer=source, aggregators={"sums": sums(initial=initial)})
    clock_of(shop)
    await soon(shop.start())
    with pytest.raises(PipelineCrashed) as crash:
        await soon(shop.wait())
    assert str(crash.value).startswith(f"pipeline 'Shop': {sentence}")
    assert source.feed.journal == []


async def test_initial_may_need_what_setup_has_made(store: ObeyingStore) -> None:
    async def setup(self: Any) -> None:
        self.first = 5

    made = sums(setup=setup, initial=lambda self: self.first)
    shop = Shop(producer=MemoryProducer([Order("de", 1)]), aggregators={"sums": made})
    assert await finish(shop) == {"acked": 1}
    own: Any = shop.aggregators["sums"]
    assert own.values == [("de", 6)]


@pytest.mark.parametrize(
    ("upgrade", "sentence"),
    [
        (
            lambda *_: "2",
            (
                "upgrade() of aggregator 'sums' returned for a value of version 1 what cannot be stored: expected a "
                "value of type int; correct it; the state is as it was"
            ),
        ),
        (
            lambda *_: None,
            (
                "upgrade() of aggregator 'sums' returned for a value of version 1 what cannot be stored: expected a "
                "value of type int; correct it; the state is as it was"
            ),
        ),
        (
            _raise,
            (
                "upgrade() of aggregator 'sums' raised ZeroDivisionError for a value of version 1: correct it; the "
                "state is as it was"
            ),
        ),
    ],
)
async def test_an_upgrade_that_does_not_work_ends_the_pipeline_before_the_source_is_opened(
    upgrade: Callable[..., Any], sentence: str, store: ObeyingStore
) -> None:
    recorder = Recorder()
    shop = Shop(producer=ManualProducer(*recorder.messages([Order("de", 1)])), aggregators={"sums": Sums()})
    async with running(shop) as clock:
        await clock.advance(1)
    assert outcomes(shop) == {"acked": 1}
    source = ManualProducer(*recorder.messages([Order("de", 1)]))
    shop = Shop(producer=source, aggregators={"sums": sums(version=2, upgrade=upgrade)})
    clock_of(shop)
    await soon(shop.start())
    with pytest.raises(PipelineCrashed) as crash:
        await soon(shop.wait())
    assert str(crash.value).startswith(f"pipeline 'Shop': {sentence}")
    assert source.feed.journal == []
