"""Pause and resume in quick succession, in the words that a broker hears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pamqp import commands

from broadway_py.producers.rabbitmq import RabbitMQProducer
from broadway_py.testing.driving import copy_of
from tests.producers.fake_broker import FakeBroker, Peer
from tests.support.eventually import eventually

pytestmark = pytest.mark.faults


class Ear:
    """A broker that counts its consumers, and what it hears of them after the first."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.consumers: set[str] = set()

    async def answer(self, peer: Peer, name: str, channel: int, word: Any) -> bool:
        match word:
            case commands.Basic.Qos():
                self.heard.append(f"qos {word.prefetch_count}")
            case commands.Basic.Consume():
                self.heard.append("consume")
                self.consumers.add(word.consumer_tag)
            case commands.Basic.Cancel():
                self.heard.append("cancel")
                self.consumers.discard(word.consumer_tag)
        return False


@asynccontextmanager
async def consuming(path: str = "fast", **settings: Any) -> AsyncIterator[tuple[Any, Ear]]:
    """A copy that consumes, and the broker's ear."""
    ear = Ear()
    async with FakeBroker.at_work(ear.answer) as broker:
        producer = RabbitMQProducer("work", broker.url, prefetch_count=10, delivery_path=path, **settings)
        copy: Any = copy_of(producer, capacity=10, pipeline="ours", lost=print)
        await copy.open()
        try:
            await eventually(lambda: len(ear.consumers) == 1, what="it consumes")
            ear.heard.clear()
            yield copy, ear
        finally:
            await copy.close()


async def at_rest(copy: Any) -> None:
    await eventually(lambda: not copy._session._asides, what="nothing is under way")


async def heard(ear: Ear, *words: str) -> None:
    # The last word may still be on its way.
    await eventually(lambda: len(ear.heard) >= len(words), what="the broker has heard it")
    assert ear.heard == list(words)
    ear.heard.clear()


@pytest.mark.parametrize("path", ["fast", "plain"])
async def test_a_resume_in_the_same_turn_as_the_pause_before_it_wins(path: str) -> None:
    async with consuming(path) as (copy, ear):
        await asyncio.gather(copy.pause(), copy.resume())
        await at_rest(copy)
        assert len(ear.consumers) == 1


@pytest.mark.parametrize("path", ["fast", "plain"])
async def test_a_pause_in_the_same_turn_as_the_resume_before_it_wins(path: str) -> None:
    async with consuming(path) as (copy, ear):
        await copy.pause()
        await asyncio.gather(copy.resume(), copy.pause())
        await at_rest(copy)
        assert ear.consumers == set()


async def test_of_many_in_one_turn_the_last_counts() -> None:
    async with consuming() as (copy, ear):
        await asyncio.gather(copy.pause(), copy.resume(), copy.pause(), copy.resume())
        await at_rest(copy)
        assert len(ear.consumers) == 1
        await asyncio.gather(copy.resume(), copy.pause(), copy.resume(), copy.pause())
        await at_rest(copy)
        assert ear.consumers == set()


async def test_what_drains_does_not_consume_again() -> None:
    async with consuming() as (copy, ear):
        copy.context.begin_draining()
        await asyncio.gather(copy.prepare_for_draining(), copy.resume())
        await at_rest(copy)
        await copy.resume()
        assert ear.heard == ["cancel"]


@pytest.mark.parametrize("path", ["fast", "plain"])
async def test_a_probe_consumes_with_its_own_prefetch_and_the_others_with_theirs(path: str) -> None:
    async with consuming(path) as (copy, ear):
        await copy.pause()
        await heard(ear, "cancel")
        await copy.resume_for(1)
        await heard(ear, "qos 1", "consume")
        # Both the guard of the breaker and the source say it.
        await copy.resume_for(1)
        await copy.pause()
        await heard(ear, "cancel")
        await copy.resume()
        await heard(ear, "qos 10", "consume")
        await copy.resume()
        assert ear.heard == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, ["qos 10", "consume", "cancel"]),
        ({"consume_options": {"exclusive": True}}, ["qos 10", "cancel", "consume"]),
        ({"consume_options": {"consumer_tag": "ours"}}, ["qos 10", "cancel", "consume"]),
    ],
    ids=["plain", "exclusive", "named"],
)
async def test_a_probe_that_waits_when_all_goes_on_makes_place(settings: dict[str, Any], words: list[str]) -> None:
    async with consuming(**settings) as (copy, ear):
        await copy.pause()
        await copy.resume_for(1)
        await heard(ear, "cancel", "qos 1", "consume")
        await copy.resume()
        await heard(ear, *words)
        assert len(ear.consumers) == 1


async def test_a_change_of_prefetch_during_a_probe_counts_from_its_end_on() -> None:
    async with consuming() as (copy, ear):
        await copy.pause()
        await copy.resume_for(1)
        copy._session.change_prefetch(500)
        await at_rest(copy)
        await heard(ear, "cancel", "qos 1", "consume", "qos 1")
        await copy.resume()
        await heard(ear, "qos 500", "consume", "cancel")


async def test_a_prefetch_below_what_a_probe_may_have_is_kept() -> None:
    async with consuming() as (copy, ear):
        await copy.pause()
        await copy.resume_for(100)
        await heard(ear, "cancel", "qos 10", "consume")
