"""Sources and sinks of users, as ``broadway check --connect`` meets them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

from broadway_py import Message, Pipeline
from broadway_py.errors import ProducerError, SourceRefused
from broadway_py.examination import Finding
from broadway_py.producer import FailurePlan, Producer
from broadway_py.producer_description import ProducerDescription


class _Source(ProducerDescription):
    def create(self) -> Producer:
        raise NotImplementedError


class Silent(_Source):
    """Has no ``examine``."""


class Feed(_Source):
    """Finds one thing of each level. It must be told the pipeline and what it does with failed messages."""

    async def examine(
        self, pipeline: str, plan: FailurePlan | None, *, timeout: float
    ) -> AsyncGenerator[Finding, None]:
        assert plan is not None
        yield Finding("right", f"{pipeline}: {', '.join(sorted(plan.actions))}; {timeout:g} s")
        yield Finding("note", "it is slow at amqp://user:secret@mq.example/")
        yield Finding("wrong", "there is no such feed; correct url", ("url",))
        yield Finding("away", "it does not answer")


class Failing(_Source):
    """Raises *error*, after a finding."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def examine(
        self, pipeline: str, plan: FailurePlan | None, *, timeout: float
    ) -> AsyncGenerator[Finding, None]:
        yield Finding("right", "it has a name")
        raise self._error


class Hanging(_Source):
    """Never finds anything, and says when it was ended."""

    ended = False

    async def examine(
        self, pipeline: str, plan: FailurePlan | None, *, timeout: float
    ) -> AsyncGenerator[Finding, None]:
        try:
            await asyncio.Event().wait()
        finally:
            Hanging.ended = True
        yield Finding("right", "never")


class Blocking(_Source):
    """Waits in a thread that cannot be cancelled, as a look-up of a host name does."""

    async def examine(
        self, pipeline: str, plan: FailurePlan | None, *, timeout: float
    ) -> AsyncGenerator[Finding, None]:
        looking_up = asyncio.to_thread(time.sleep, 3600)
        try:
            async with asyncio.timeout(timeout):
                await looking_up
        except TimeoutError:
            yield Finding("away", "the host name was not looked up in time")


class _Reads(Pipeline[Any]):
    async def handle_message(self, message: Message[Any]) -> None:
        pass


class ReadsSilent(_Reads):
    producer = Silent()


class ReadsFeed(_Reads):
    producer = Feed()


class ReadsRefused(_Reads):
    producer = Failing(SourceRefused("it refuses us"))


class ReadsAway(_Reads):
    producer = Failing(ProducerError("it is away"))


class ReadsBroken(_Reads):
    producer = Failing(KeyError("a secret"))


class ReadsHanging(_Reads):
    producer = Hanging()


class ReadsBlocking(_Reads):
    producer = Blocking()
