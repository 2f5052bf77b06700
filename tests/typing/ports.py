"""The ports as their authors write them, fully annotated; each ``type: ignore`` is a mistake that must be refused."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, assert_type

from broadway_py import (
    Acknowledgement,
    Acknowledger,
    Batcher,
    BatchFailed,
    CallerAcknowledger,
    Failed,
    Message,
    OptionsError,
    Processors,
    ProducerError,
    RateLimit,
    SettleError,
    telemetry,
)
from broadway_py.acknowledger import Configures, Releases
from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.message import BatchMode, BatchTrigger, Cause, Outcome
from broadway_py.producer_description import AnyProducer, described
from broadway_py.producers import Producer, ProducerContext, ProducerDescription
from broadway_py.testing import FakeClock

# --- messages -------------------------------------------------------------------------------------------------------


def read(message: Message[bytes]) -> None:
    assert_type(message.data, bytes)
    assert_type(message.size, int)
    assert_type(message.metadata, dict[str, Any])
    assert_type(message.attempt, int | None)
    assert_type(message.batcher, str | None)
    assert_type(message.batch_mode, BatchMode)
    assert_type(message.producer, str | None)
    assert_type(message.acknowledgement, Acknowledgement)
    assert_type(message.id, str | None)
    assert_type(message.ok, bool)


def write(message: Message[int]) -> None:
    message.data = "1"  # type: ignore[assignment]  # another type of data is another Message
    message.batch_mode = "now"  # type: ignore[assignment]  # bulk or flush
    message.settled = True  # type: ignore[misc]  # only the pipeline settles
    message.note = "x"  # type: ignore[attr-defined]  # a message is slotted
    message.status = Failed("failed", "no stock")
    message.status = Failed("broken")  # type: ignore[arg-type]  # causes are a closed set
    message.fail("no stock")
    message.fail(ValueError("no stock"))  # type: ignore[arg-type]  # a reason is text
    message.configure_ack(on_failure="reject", delay=3)


def infer() -> None:
    assert_type(Message(b"a"), Message[bytes])
    assert_type(Message({"a": 1}, {"message_id": "1"}).data, dict[str, int])


CLOSED_SETS: tuple[Cause, Outcome, BatchTrigger] = ("not_returned", "dead_lettered", "bytes")

# --- acknowledgers --------------------------------------------------------------------------------------------------


class Till(Acknowledger):
    """Offers all there is."""

    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        raise SettleError("the till is shut", unsettled=failed)

    def configure(self, ref: Hashable, data: Any, options: Mapping[str, Any]) -> Any:
        return {**data, **options}

    async def release(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        raise NotImplementedError


class Silent(Acknowledger):
    """Forgets the one method that is needed."""


def settle() -> None:
    offers: tuple[Configures, Releases] = (Till(), Till())
    offers = (CallerAcknowledger(1), CallerAcknowledger(1))  # type: ignore[assignment]  # it has no release
    assert_type(offers[0], Configures)
    Silent()  # type: ignore[abstract]  # ack is missing


# --- producers ------------------------------------------------------------------------------------------------------


class Asked(Producer):
    async def handle_demand(self, demand: int) -> Sequence[Message[str]] | None:
        return None if self.draining.is_set() else [Message("a")][:demand]


class ByItself(Producer):
    async def open(self) -> None:
        self.fetching = asyncio.create_task(self.fetch())

    async def fetch(self) -> None:
        while not self.draining.is_set():
            wanted = await self.wait_for_demand()
            assert_type(wanted, int)
            await self.push([Message(place) for place in range(wanted)])
            await self.push([1, 2])  # type: ignore[list-item]  # only messages travel
        self.context.lost(ProducerError("closed"))
        self.context.lost(OSError("closed"))  # type: ignore[arg-type]  # say it as a ProducerError


class Unasked(Producer):
    async def handle_demand(self) -> Sequence[Message[str]]:  # type: ignore[override]  # it must take the demand
        return []


class Feed(ProducerDescription):
    concurrency = 2

    def create(self) -> Asked:
        return Asked()

    def succeed(self, former: Feed) -> None:
        raise NotImplementedError


class Empty(ProducerDescription):
    """Forgets the one method that is needed."""


def describe() -> None:
    sources: list[AnyProducer] = [Feed(), ByItself()]
    assert_type(described(sources[0]).create(), Producer)
    Empty()  # type: ignore[abstract]  # create is missing
    Feed().open()  # type: ignore[attr-defined]  # a description does not run


def run(producer: ByItself, context: ProducerContext) -> None:
    producer.bind(context)
    assert_type(producer.context.clock, Clock)
    assert_type(context.end_draining(), list[Message[Any]])


# --- options, errors, telemetry, clocks -----------------------------------------------------------------------------


def choose() -> None:
    assert_type(Processors(concurrency=3).refill_at, int)
    assert_type(Batcher(batch_timeout=0.5).demand, int)
    assert_type(RateLimit(allowed_messages=3, interval=1.0).divided(0, 2), RateLimit)


def fail(wrong: OptionsError, failed: BatchFailed) -> None:
    assert_type(wrong.path, tuple[str, ...])
    assert_type(wrong.under("pipelines", "orders"), OptionsError)
    assert_type(failed.failed, list[Any])


def watch(event: str, measurements: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    raise NotImplementedError


def listen() -> None:
    telemetry.attach("watch", ["broadway.processor.start"], watch)
    telemetry.attach("watch", "broadway.processor.stop", lambda event, *_: print(event))
    telemetry.attach("watch", "broadway.processor.stop", lambda: None)  # type: ignore[misc,arg-type]  # it takes three things


async def wait() -> None:
    clocks: list[Clock] = [SYSTEM_CLOCK, FakeClock(monotonic=1.0)]
    async with clocks[0].timeout(None):
        await clocks[1].sleep(1.0)
